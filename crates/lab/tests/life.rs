//! Labs come up and go away, and leave nothing, however they end. Needs root.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lab::{Lab, LabError, Process, node::Role};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_lab_comes_up_works_and_leaves_nothing() {
    let lab = Lab::builder().clients(2).balancers(2).backends(2).queues(4).build().unwrap();
    let names: Vec<String> = lab
        .nodes_of(Role::Client)
        .chain(lab.nodes_of(Role::Balancer))
        .chain(lab.nodes_of(Role::Backend))
        .map(|node| node.netns().name().to_owned())
        .chain([lab.switch().name().to_owned()])
        .collect();
    assert_eq!(names.len(), 7);
    let ping = |from: &lab::Node, source: &str, to: &str| {
        let argv = ["ping", "-c", "1", "-W", "2", "-I", source, to];
        from.netns().run(&argv, SOON).unwrap().ok().unwrap();
    };
    ping(lab.client(0), "10.77.1.1", "10.77.3.2");
    ping(lab.client(1), "fd77::1:2", "fd77::2:1");
    // Any address of the routed range, in both families, without an ARP entry for it.
    ping(lab.client(1), "10.102.255.7", "10.77.3.1");
    ping(lab.client(1), "fd77:0:0:66::77", "fd77::3:1");
    let neighbours = ["ip", "neigh", "show", "10.102.255.7"];
    let known = lab.backend(0).netns().run(&neighbours, SOON).unwrap().ok().unwrap();
    assert_eq!(known, "");
    // No host answers ARP for the VIP: it is on the backends' lo only.
    let argv = ["ping", "-c", "1", "-W", "1", &lab.vip().to_string()];
    assert!(!lab.client(0).netns().run(&argv, SOON).unwrap().status.success());
    let long = Process::start(
        lab.backend(1).netns(),
        "sleep",
        &["sleep", "1000"],
        &lab.backend(1).dir().join("sleep.log"),
    )
    .unwrap();
    let (pid, dir) = (long.pid(), lab.backend(1).dir().to_owned());
    assert!(alive(pid));
    drop(lab);
    // It outlived its lab's value, not its lab.
    wait_until("the end of sleep", || !alive(pid));
    drop(long);
    names.iter().for_each(|name| assert!(!exists(name), "{name}"));
    assert!(!dir.exists());
}

#[test]
fn links_go_down_and_up_and_ports_can_be_isolated() {
    let lab = Lab::builder().balancers(2).backends(1).build().unwrap();
    let (first, second) = (lab.balancer(0), lab.balancer(1));
    let reach = || {
        let argv = ["ping", "-c", "1", "-W", "1", &second.address().to_string()];
        first.netns().run(&argv, SOON).unwrap().status.success()
    };
    let carrier = || {
        let argv = ["ip", "-br", "link", "show", "eth0"];
        let text = second.netns().run(&argv, SOON).unwrap().ok().unwrap();
        text.contains("LOWER_UP")
    };
    assert!(reach() && carrier());
    lab.unplug(second).unwrap();
    assert!(!carrier() && !reach());
    lab.plug(second).unwrap();
    assert!(carrier() && reach());
    [first, second].iter().for_each(|node| lab.isolate(node, true).unwrap());
    assert!(carrier() && !reach());
    [first, second].iter().for_each(|node| lab.isolate(node, false).unwrap());
    assert!(reach());
}

#[test]
fn a_command_is_ended_with_all_that_it_started() {
    let lab = Lab::builder().clients(1).balancers(0).backends(0).build().unwrap();
    let ns = lab.client(0).netns();
    let begin = Instant::now();
    let error = ns.run(&["sh", "-c", "sleep 1000 & echo $!; wait"], Duration::from_millis(200));
    assert!(matches!(error, Err(LabError::Timeout { .. })), "{error:?}");
    assert!(begin.elapsed() < SOON);
    let output = ns.run(&["sh", "-c", "sleep 1000 & echo $!; exit 3"], SOON).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let child: u32 = output.stdout.trim().parse().unwrap();
    wait_until("the end of the grandchild", || !alive(child));
    let error = ns.run(&["sh", "-c", "echo why >&2; exit 1"], SOON).unwrap().ok().unwrap_err();
    assert!(error.to_string().ends_with("why"), "{error}");
}

#[test]
fn a_lab_that_fails_half_way_leaves_nothing() {
    // In a process of its own, with an `ethtool` that fails: the switch and the first node are
    // there by then.
    let dir = std::env::temp_dir().join(format!("lab-life-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let fake = dir.join("ethtool");
    fs::write(&fake, "#!/bin/sh\necho broken on purpose >&2\nexit 1\n").unwrap();
    Command::new("chmod").arg("+x").arg(&fake).status().unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let child = command(&["up", "--no-pointsman"])
        .env("PATH", path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("broken on purpose"), "{text}");
    assert_eq!(left_by(pid), Vec::<String>::new());
}

#[test]
fn a_signal_removes_a_running_lab() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut up = up(&["up", "--no-pointsman", "--backends", "2"]);
        let pid = up.id();
        let processes = wait_for_children(pid, 2);
        send(pid, signal);
        assert_eq!(up.wait().unwrap().code(), Some(status));
        assert_eq!(left_by(pid), Vec::<String>::new());
        wait_until("the end of its processes", || !processes.iter().any(|pid| alive(*pid)));
    }
}

#[test]
fn a_signal_in_the_middle_of_building_leaves_nothing() {
    // At several moments: after 1, 5, 12 and 20 of 24 namespaces.
    for seen in [1, 5, 12, 20] {
        let mut up = up(&["up", "--no-pointsman", "--clients", "20"]);
        let pid = up.id();
        wait_until("namespaces", || left_by(pid).len() >= seen);
        send(pid, Signal::INT);
        assert_eq!(up.wait().unwrap().code(), Some(130));
        assert_eq!(left_by(pid), Vec::<String>::new());
    }
}

#[test]
fn clean_removes_what_a_killed_lab_left() {
    let mut up = up(&["up", "--no-pointsman", "--backends", "2"]);
    let pid = up.id();
    let processes = wait_for_children(pid, 2);
    send(pid, Signal::KILL);
    up.wait().unwrap();
    // Its processes go with it, without help.
    wait_until("the end of its processes", || !processes.iter().any(|pid| alive(*pid)));
    let output = command(&["clean"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(left_by(pid), Vec::<String>::new());
}

#[test]
fn clean_leaves_living_labs_alone() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let output = command(&["clean"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(exists(lab.client(0).netns().name()));
    assert!(lab.files().dir().exists());
    lab.client(0).netns().run(&["ip", "link"], SOON).unwrap().ok().unwrap();
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman-lab"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn up(args: &[&str]) -> Child {
    command(args).spawn().unwrap()
}

fn send(pid: u32, signal: Signal) {
    kill_process(raw(pid), signal).unwrap();
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Whether a process exists and is not only waiting to be reaped.
fn alive(pid: u32) -> bool {
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').unwrap().1.starts_with(" Z"));
    test_kill_process(raw(pid)).is_ok() && !zombie
}

fn exists(namespace: &str) -> bool {
    fs::exists(format!("/run/netns/{namespace}")).unwrap()
}

/// Namespaces and directories that carry the process id.
fn left_by(pid: u32) -> Vec<String> {
    let mark = format!("pmlab-{pid}-");
    let temp = std::env::temp_dir();
    let dirs = [fs::read_dir("/run/netns"), fs::read_dir(temp)];
    let entries = dirs.into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&mark)).collect()
}

/// Waits until a process has `count` nginx children, and returns these.
fn wait_for_children(pid: u32, count: usize) -> Vec<u32> {
    let mut found = Vec::new();
    wait_until("its nginx processes", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let children =
            tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
        let all: String = children.collect();
        let pids = all.split_ascii_whitespace().map(|pid| pid.parse::<u32>().unwrap());
        let nginx = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "nginx\n")
        };
        found = pids.filter(nginx).collect();
        found.len() == count
    });
    found
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
