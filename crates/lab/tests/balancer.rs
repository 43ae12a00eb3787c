//! How the lab handles a balancer process, shown with stand-ins: nginx in the place of the product's
//! HTTP server, and programs that fail. Needs root.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{Lab, LabError, Pointsman, Process, ServiceText};

const SOON: Duration = Duration::from_secs(20);

/// Called as `pointsman run --config DIR/pointsman.toml`: answers as the product does.
const STAND_IN: &str = r#"#!/bin/sh
dir=$(dirname "$3")
echo "started with $1 $2"
cat > "$dir/stand-in.conf" <<EOF
daemon off; master_process off; pid $dir/stand-in.pid; error_log $dir/stand-in.log;
events {}
http {
    access_log off;
    client_body_temp_path $dir/a; proxy_temp_path $dir/b; fastcgi_temp_path $dir/c;
    uwsgi_temp_path $dir/d; scgi_temp_path $dir/e;
    server {
        listen 127.0.0.1:9477;
        location /readyz { return 200 "ready"; }
        location /metrics { return 200 'x_total{queue="1"} 5\nx_total{queue="2"} 6\n'; }
        location /broken { return 503 "no"; }
    }
}
EOF
exec nginx -e "$dir/stand-in.log" -c "$dir/stand-in.conf"
"#;

#[test]
fn a_balancer_is_started_asked_stopped_and_killed() {
    let lab = Lab::builder().backends(2).build().unwrap();
    let program = Script::new("good", STAND_IN);
    let config = ServiceText::web(&lab).persistence("50s").weights(&[3]).to_toml();
    let spawn = || Pointsman::spawn_binary(lab.balancer(0), &program.path, &config).unwrap();
    let mut balancer = spawn();
    balancer.wait_ready(SOON).unwrap();
    assert!(balancer.ready().unwrap());
    assert!(balancer.log().starts_with("started with run --config\n"), "{}", balancer.log());
    let metrics = balancer.metrics().unwrap();
    assert_eq!(metrics.sum("x_total", &[]), 11.0);
    assert_eq!(metrics.value("x_total", &[("queue", "2")]), Some(6.0));
    assert_eq!(balancer.http("/broken").unwrap(), (503, "no".to_owned()));

    let written = fs::read_to_string(balancer.config()).unwrap();
    assert!(written.contains("weight = 3") && written.contains("timeout = \"50s\""), "{written}");
    let socket = format!("[control]\nsocket = \"{}\"", balancer.socket().display());
    assert!(written.ends_with(&format!("{socket}\n")), "{written}");

    balancer.process().pause().unwrap();
    assert!(!balancer.ready().unwrap());
    assert!(balancer.process().running());
    balancer.process().resume().unwrap();
    assert!(balancer.ready().unwrap());
    let (status, took) = balancer.process().stop(SOON).unwrap();
    assert!(status.success() && took < SOON, "{status} after {took:?}");
    assert!(!balancer.process().running() && !balancer.ready().unwrap());
    assert!(balancer.process().kill().is_err(), "it is gone, nobody else is hit");

    // Its place is free at once, also after SIGKILL.
    for _ in 0..3 {
        let mut again = spawn();
        again.wait_ready(SOON).unwrap();
        again.process().kill().unwrap();
        assert!(!again.ready().unwrap());
    }
}

#[test]
fn a_balancer_that_ends_early_is_reported_with_its_words() {
    let lab = Lab::builder().clients(0).backends(1).build().unwrap();
    let program = Script::new("bad", "#!/bin/sh\necho cannot attach >&2\nexit 7\n");
    let mut balancer = Pointsman::spawn_binary(lab.balancer(0), &program.path, "").unwrap();
    match balancer.wait_ready(SOON) {
        Err(LabError::Ended { status, log, .. }) => {
            assert_eq!((status.as_str(), log.as_str()), ("exit status: 7", "cannot attach"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_does_not_exist_says_so() {
    let lab = Lab::builder().clients(0).balancers(0).backends(1).build().unwrap();
    let node = lab.backend(0);
    let log = node.dir().join("log");
    let mut process = Process::start(node.netns(), "x", &["no-such-program"], &log).unwrap();
    assert!(!process.wait(SOON).unwrap().success());
    assert!(process.log().contains("no-such-program"), "{}", process.log());
}

#[test]
fn without_a_binary_the_demo_says_where_it_was_expected() {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman-lab"))
        .arg("demo")
        .env("POINTSMAN_BIN", "/nowhere/pointsman")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no pointsman binary at /nowhere/pointsman"), "{text}");
    assert!(output.stdout.is_empty(), "before anything is built");
}

/// A program in a file of its own.
struct Script {
    path: PathBuf,
}

impl Script {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lab-script-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}
