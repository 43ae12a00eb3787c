//! What changes the priority, and who is told. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use lab::{Metrics, Result, pointsman_binary};

use crate::vrrp::{Pair, Settings, ms};

/// A file lowers the priority below the other node's, a script forbids to be Active, and each
/// change of state runs the hook.
#[test]
fn files_and_scripts_move_the_vips_and_hooks_are_told() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("pointsman-track-{}", std::process::id()));
    let path = |name: &str| dir.join(name).display().to_string();
    fs::create_dir_all(&dir).expect("a directory");
    let hook = "#!/bin/sh\necho \"$@\" >> \"${0%/*}/hooks\"\n";
    fs::write(path("notify"), hook).expect("a hook");
    fs::set_permissions(path("notify"), fs::Permissions::from_mode(0o755)).expect("executable");
    let extra = format!(
        "[[vrrp.track]]\nfile = \"{}\"\nweight = 1\n\
         [[vrrp.track]]\nscript = [\"/usr/bin/test\", \"!\", \"-e\", \"{}\"]\ninterval = \"100ms\"\n\
         [vrrp.notify]\ncommand = [\"{}\", \"first\"]\n",
        path("priority"),
        path("maintenance"),
        path("notify")
    );
    let settings = Settings { extra: String::new(), ..Settings::fast() };
    let mut pair = Pair::start(&settings)?;
    pair.settings.extra = extra;
    pair.kill_first()?;
    pair.wait_active(1)?;
    pair.restart_first()?;
    pair.wait_active(0)?;

    fs::write(path("priority"), "-60\n").expect("a number");
    pair.wait_active(1)?;
    let instance = pair.instance(0);
    assert_eq!(instance["effective_priority"], 90, "{instance:#}");
    let why = format!("90 = 150 -60 (file {} holds -60)", path("priority"));
    assert_eq!(instance["priority_why"], why.as_str());
    fs::write(path("priority"), "0\n").expect("a number");
    pair.wait_active(0)?;

    fs::write(path("maintenance"), "").expect("a file");
    pair.wait_active(1)?;
    assert_eq!(pair.instance(0)["state"], "initialize");
    fs::remove_file(path("maintenance")).expect("the file");
    pair.wait_active(0)?;

    // The first one is `startup`, or `recovered` where the first worker was bound a moment later.
    let expected = [
        "first VI_1 active preempt",
        "first VI_1 backup higher_priority",
        "first VI_1 active preempt",
        "first VI_1 initialize tracking",
        "first VI_1 backup recovered",
        "first VI_1 active preempt",
    ];
    let begin = Instant::now();
    let told = || fs::read_to_string(path("hooks")).unwrap_or_default();
    while told().lines().count() <= expected.len() && begin.elapsed() < ms(5000) {}
    let told = told();
    let (first, rest) = told.split_once('\n').expect("hooks");
    assert!(first.starts_with("first VI_1 backup "), "{first}");
    assert_eq!(rest.lines().collect::<Vec<_>>(), expected);
    fs::remove_dir_all(&dir).expect("the directory");
    Ok(())
}

#[test]
fn the_command_and_the_metrics_say_who_is_active() -> Result<()> {
    let pair = Pair::start(&Settings::fast())?;
    let balancer = pair.balancers[0].as_ref().expect("it runs");
    let (binary, socket) = (pointsman_binary()?, balancer.socket().display().to_string());
    let argv = [&*binary.to_string_lossy(), "vrrp", "--socket", &socket];
    let text = pair.lab.balancer(0).netns().run(&argv, ms(5000))?.ok()?;
    assert!(text.starts_with("VI_1  ACTIVE (MASTER) for "), "{text}");
    assert!(text.contains("VIPs active here: 10.77.0.100"), "{text}");
    assert!(text.contains("priority 150 (configured 150): 150, as configured"), "{text}");
    let silent =
        |at: usize| pair.balancers[at].as_ref().map(|lb| tests::status(lb).services[0].silent_here);
    assert_eq!([silent(0), silent(1)], [Some(true), Some(false)], "a Backup reaches the VIP");
    let argv = [argv[0], "vrrp", "resign", "VI_2", "--socket", &socket];
    let refused = pair.lab.balancer(0).netns().run(&argv, ms(5000))?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("there is no VRRP instance `VI_2`"), "{}", refused.stderr);

    let counted = |metrics: &Metrics| COUNTS.iter().all(|name| metrics.sum(name, &[]) > 3.0);
    let begin = Instant::now();
    let mut metrics = balancer.metrics()?;
    while !counted(&metrics) && begin.elapsed() < ms(5000) {
        metrics = balancer.metrics()?;
    }
    let state =
        |state| metrics.value("pointsman_vrrp_state", &[("instance", "VI_1"), ("state", state)]);
    assert_eq!((state("active"), state("backup")), (Some(1.0), Some(0.0)));
    let labels = [("instance", "VI_1"), ("reason", "checksum")];
    assert_eq!(metrics.value("pointsman_vrrp_rejected_total", &labels), Some(0.0));
    assert!(counted(&metrics), "adverts are not counted");
    Ok(())
}

const COUNTS: [&str; 2] =
    ["pointsman_vrrp_adverts_sent_total", "pointsman_vrrp_advert_late_seconds_count"];
