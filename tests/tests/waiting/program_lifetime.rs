//! Checks, hooks and what they start. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Pointsman, ServiceText};
use tests::lifecycle::{config, started_by_shell, wait_for};

use crate::vrrp::{Pair, Settings};

/// A shell script in a node's directory.
fn script(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Processes with this word among their arguments, and children of a process that are not reaped.
fn count(word: &str, parent: u32) -> (usize, usize) {
    let (mut alive, mut zombies) = (0, 0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        alive += usize::from(arguments.split(|byte| *byte == 0).any(|arg| arg == word.as_bytes()));
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
        let state: Vec<&str> = fields.into_iter().flatten().take(2).collect();
        zombies += usize::from(state == ["Z", parent.to_string().as_str()]);
    }
    (alive, zombies)
}

/// Every check hangs and leaves behind: a child in a session of its own, one whose parent is gone, and
/// one that cleared its environment besides. All end with the check, time after time.
#[test]
fn nothing_escapes_the_end_of_a_check() -> Result<()> {
    const WORD: &str = "61.98761";
    let lab = Lab::builder().backends(2).build()?;
    let text = format!(
        "setsid sleep {WORD} &\n(setsid sleep {WORD} &)\n(env -i setsid sleep {WORD} &)\nsleep {WORD}"
    );
    let check = script(lab.balancer(0).dir(), "check", &text)?;
    let health = format!("script = [{:?}]\ninterval = \"200ms\"\ntimeout = \"150ms\"", check);
    let service = ServiceText::web(&lab).health(&health);
    let mut lb = Pointsman::spawn(lab.balancer(0), &config(&service))?;
    let pid = lb.pid();
    wait_for("checks run", Duration::from_secs(10), || Ok(count(WORD, pid).0 > 0))?;
    let (mut most, mut most_zombies) = (0, 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let (alive, zombies) = count(WORD, pid);
        (most, most_zombies) = (most.max(alive), most_zombies.max(zombies));
        sleep(Duration::from_millis(50));
    }
    // Two backends, four processes each, perhaps those of the check before; 25 checks were made.
    ensure!(most <= 24, "{most} processes at once");
    ensure!(most_zombies <= 24, "{most_zombies} zombies at once");
    ensure!(lb.status()["workers"][0]["heartbeat_age_seconds"].as_f64() < Some(1.0), "it stalls");
    lb.process().stop(Duration::from_secs(5))?;
    ensure!(count(WORD, pid).0 == 0, "something outlives the daemon");
    Ok(())
}

/// What a check ends well but leaves behind does not pile up either.
#[test]
fn nothing_outlives_a_check_that_passes() -> Result<()> {
    const WORD: &str = "62.98762";
    let lab = Lab::builder().backends(1).build()?;
    let check = script(lab.balancer(0).dir(), "check", &format!("setsid sleep {WORD} &\nexit 0"))?;
    let health = format!("script = [{:?}]\ninterval = \"100ms\"\ntimeout = \"90ms\"", check);
    let service = ServiceText::web(&lab).health(&health);
    let mut lb = Pointsman::spawn(lab.balancer(0), &config(&service))?;
    lb.wait_ready(Duration::from_secs(10))?;
    let begin = Instant::now();
    let mut most = 0;
    while begin.elapsed() < Duration::from_secs(6) {
        most = most.max(count(WORD, lb.pid()).0);
        sleep(Duration::from_millis(50));
    }
    // They are looked for once a second.
    ensure!(most <= 30, "{most} processes at once; 60 checks were made");
    lb.process().stop(Duration::from_secs(5))?;
    ensure!(count(WORD, 0).0 == 0, "something outlives the daemon");
    Ok(())
}

/// A program finds what it is told, and nothing of the daemon's: neither its environment, nor its
/// priority, nor its protection against the OOM killer, nor its limits.
#[test]
fn programs_inherit_nothing_of_the_daemon() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let node = lab.balancer(0);
    let (check_out, hook_out) = (node.dir().join("check.txt"), node.dir().join("hook.txt"));
    // The hook runs for the service, too, which has no backend to name.
    let facts = |out: &Path| {
        let out = out.display();
        format!(
            "[ -z \"$POINTSMAN_BACKEND\" ] || {{ env; echo oom $(cat /proc/self/oom_score_adj); echo nice $(nice); \
             chrt -p $$; echo files $(ulimit -Sn); echo words $*; }} > {out}.$$ && mv {out}.$$ {out}"
        )
    };
    let check = script(node.dir(), "check", &facts(&check_out))?;
    let hook = script(node.dir(), "hook", &facts(&hook_out))?;
    let health = format!("script = [{check:?}]\ninterval = \"1s\"\ntimeout = \"900ms\"");
    let notify = format!("\n[service.notify]\ncommand = [{hook:?}]\n");
    let text = config(&ServiceText::web(&lab).health(&health)) + &notify;
    let before = "env SECRET=1 choom -n 500 -- nice -n -5 prlimit --nofile=1000:5000";
    let binary = started_by_shell(node, before, "")?;
    let lb = Pointsman::spawn_binary(node, &binary, &text)?;
    for (out, told) in [
        (&check_out, "ADDRESS BACKEND PORT RUN SERVICE VIP"),
        (&hook_out, "ADDRESS BACKEND EVENT REASON RUN SERVICE STATE VIP"),
    ] {
        wait_for("the program was run", Duration::from_secs(10), || {
            let text = fs::read_to_string(out).unwrap_or_default();
            Ok(text.contains("POINTSMAN_BACKEND="))
        })
        .with_context(|| fs::read_to_string(out).unwrap_or_default() + &lb.log())?;
        let text = fs::read_to_string(out)?;
        let fact = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        ensure!(fact("oom ") == Some("0"), "{text}");
        ensure!(fact("nice ") == Some("0"), "{text}");
        ensure!(fact("files ") == Some("1000"), "{text}");
        ensure!(text.contains("scheduling policy: SCHED_OTHER"), "{text}");
        let names: BTreeSet<&str> =
            text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        let told: Vec<String> = told.split(' ').map(|name| format!("POINTSMAN_{name}")).collect();
        let expected: BTreeSet<&str> =
            told.iter().map(String::as_str).chain(["PATH", "LANG", "PWD"]).collect();
        let found: BTreeSet<&str> =
            names.into_iter().filter(|name| !["_", "SHLVL", "OLDPWD"].contains(name)).collect();
        ensure!(found == expected, "{found:?}\n{text}");
        ensure!(text.contains("POINTSMAN_ADDRESS=10.77.3.1\n"), "{text}");
    }
    Ok(())
}

/// The end is a change of state too: its hook runs, and the daemon waits for it, but not for ever.
#[test]
fn the_hook_of_an_instance_runs_at_a_clean_stop() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("pointsman-hook-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let out = dir.join("states.txt");
    let text = format!(
        "sleep 0.3\necho \"$@ $POINTSMAN_EVENT $POINTSMAN_INSTANCE $POINTSMAN_STATE\" >> {}\n\
         [ $2 != initialize ] || [ ! -e {} ] || sleep 100",
        out.display(),
        dir.join("hang").display()
    );
    let hook = script(&dir, "hook", &text)?;
    let extra = format!("[vrrp.notify]\ncommand = [{hook:?}]\ntimeout = \"60s\"\n");
    let mut pair = Pair::start(&Settings { extra, ..Settings::fast() })?;
    // The other balancer has the same hook.
    let ends = |states: &str| {
        let last = "VI_1 initialize shutdown vrrp VI_1 initialize";
        states.lines().filter(|line| *line == last).count()
    };
    let (exit, took) = pair.first().process().stop(Duration::from_secs(5))?;
    let states = fs::read_to_string(&out)?;
    ensure!(exit.code() == Some(0) && ends(&states) == 1, "{exit}, {took:?}: {states}");
    ensure!(took < Duration::from_secs(2), "took {took:?}");
    pair.wait_active(1)?;
    fs::write(dir.join("hang"), "")?;
    pair.restart_first()?;
    pair.wait_active(0)?;
    let (exit, took) = pair.first().process().stop(Duration::from_secs(10))?;
    let states = fs::read_to_string(&out)?;
    ensure!(exit.code() == Some(0) && ends(&states) == 2, "{exit}, {took:?}: {states}");
    ensure!((5..7).contains(&took.as_secs()), "took {took:?}");
    ensure!(pair.first().log().contains("hooks are cut off"), "{}", pair.first().log());
    fs::remove_dir_all(dir)?;
    Ok(())
}
