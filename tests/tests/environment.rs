//! Configurations and machines that are not as they should be: each is refused with a message that
//! says what, where, why and how to fix it, and nothing is left attached.
//!
//! The messages are snapshots in `snapshots/`; paths and numbers that change are replaced.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::pointsman::write_config;
use lab::process::Output;
use lab::{Lab, Node, ServiceText, pointsman_binary};
use tests::lifecycle::{attached, config, detach, make_mtu_too_large, run, wait_for};

#[test]
fn files_with_mistakes() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let check = |name, text: String| -> Result<()> {
        refused(&lab, name, &text, &[])?;
        // The same without touching the machine.
        let path = write_config(lab.balancer(0), &text)?;
        let checked = pointsman(&lab, &[], &["check", &path.to_string_lossy()])?;
        ensure!(checked.status.code() == Some(1), "check {name}: {}", checked.status);
        ensure!(stable(&lab, &checked.stderr) == told(&lab, &text)?, "run and check differ");
        Ok(())
    };
    check("syntax", good.replace("port = 80", "port = 80,"))?;
    check("unknown_key", good.replace("scheduler =", "schedular ="))?;
    check("wrong_type", good.replace("port = 80", "port = true"))?;
    check("wrong_unit", good.replace("\"50s\"", "\"50 parsecs\""))?;
    check("duplicate_names", good.replace("\"rs2\"", "\"rs1\""))?;
    check("backend_is_the_vip", good.replace("10.77.3.2", "10.77.0.100"))?;
    check(
        "two_mistakes_at_once",
        good.replace("\"maglev\"", "\"round robin\"").replace("weight = 1", "weight = -1"),
    )
}

#[test]
fn files_that_are_not_there() -> Result<()> {
    let lab = lab()?;
    let missing = pointsman(&lab, &[], &["run", "--config", "/no/such/pointsman.toml"])?;
    refusal(&lab, "missing_file", &missing)?;
    let directory = pointsman(&lab, &[], &["run", "--config", "/usr"])?;
    refusal(&lab, "directory_for_a_file", &directory)
}

#[test]
fn interfaces_that_cannot_be_used() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let with = |line: &str| good.replace("name = \"eth0\"", &format!("name = \"eth0\"\n{line}"));
    refused(&lab, "no_such_queue", &with("queues = [0, 4]"), &[])?;
    refused(&lab, "no_zero_copy", &with("zero_copy = \"on\""), &[])?;
    refused(
        &lab,
        "no_zero_copy_in_generic_mode",
        &with("mode = \"generic\"\nzero_copy = \"on\"\ntagged_frames = \"none\""),
        &[],
    )?;

    let netns = lab.balancer(0).netns();
    make_mtu_too_large(&lab)?;
    refused(&lab, "mtu_larger_than_a_frame", &good, &[])?;
    // Fits into a frame, but not into what the driver gives a native program.
    netns.ip("link set eth0 mtu 3800\n")?;
    lab.switch().ip("link set lb1 mtu 3800\n")?;
    refused(&lab, "mtu_too_large_for_native_mode", &with("mode = \"native\""), &[])
}

#[test]
fn addresses_that_do_not_fit() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let netns = lab.balancer(0).netns();
    refused(&lab, "backend_off_link", &good.replace("10.77.3.2", "192.0.2.2"), &[])?;
    refused(&lab, "backend_is_this_node", &good.replace("10.77.3.2", "10.77.2.1"), &[])?;
    netns.ip("link add eth1 type veth peer name eth1-peer\n\
              addr add 10.88.0.1/24 dev eth1\nlink set eth1 up\nlink set eth1-peer up\n")?;
    refused(&lab, "backend_on_another_interface", &good.replace("10.77.3.2", "10.88.0.2"), &[])?;
    netns.ip("addr add 10.77.0.100/32 dev lo\n")?;
    refused(&lab, "vip_owned_by_the_kernel", &good, &[])
}

#[test]
fn a_file_of_certificates_that_is_not_there() -> Result<()> {
    let lab = lab()?;
    let check = "https = { host = \"www.example.org\", ca_file = \"/nonexistent/ca.pem\" }";
    let service = ServiceText::web(&lab).health("tcp = true").health(check);
    refused(&lab, "no_file_of_certificates", &service.to_toml(), &[])?;
    // Once, where it stands, although two services name it.
    let shared = format!("\n[[check]]\nname = \"tls\"\n{check}\n");
    let of = |port: u16| ServiceText::web(&lab).port(port).with("check = \"tls\"");
    let text = shared + &of(443).to_toml() + &of(444).service_toml();
    refused(&lab, "no_file_of_certificates_of_a_shared_check", &text, &[])
}

#[test]
fn a_vrrp_peer_that_is_this_node() -> Result<()> {
    let lab = lab()?;
    let vrrp = "\n[[vrrp]]\nname = \"VI_1\"\ninterface = \"eth0\"\nvrid = 51\npriority = 150\n";
    let text = ServiceText::web(&lab).with("vrrp = \"VI_1\"").to_toml() + vrrp;
    let own_peer = format!("{text}peers = [\"10.77.2.1\", \"10.77.2.2\"]\n");
    refused(&lab, "vrrp_peer_is_this_node", &own_peer, &[])
}

#[test]
fn doors_that_are_taken() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let listen = |address: &str| format!("[metrics]\nlisten = \"{address}\"\n{good}");
    let taken = lab.balancer(0).netns().enter(|| TcpListener::bind("127.0.0.1:9477"))??;
    refused(&lab, "metrics_address_in_use", &good, &[])?;
    drop(taken);
    refused(&lab, "metrics_address_of_another_host", &listen("192.0.2.1:9477"), &[])?;

    let file = lab.balancer(0).dir().join("file");
    std::fs::write(&file, "somebody's")?;
    let socket = |path: &str| format!("[control]\nsocket = \"{path}\"\n{good}");
    refused(&lab, "control_socket_is_a_file", &socket(&file.to_string_lossy()), &[])?;
    ensure!(std::fs::read_to_string(&file)? == "somebody's", "the file was touched");
    refused(&lab, "control_socket_in_no_directory", &socket("/proc/none/pointsman.sock"), &[])?;

    let running = lab.start_pointsman(0, &good)?;
    let second = lab.balancer(0).dir().join("second.toml");
    let text = format!("[control]\nsocket = {:?}\n{}", running.socket(), listen("127.0.0.1:9478"));
    std::fs::write(&second, text)?;
    let output = pointsman(&lab, &[], &["run", "--config", &second.to_string_lossy()])?;
    message("control_socket_in_use", &lab, &output);
    ensure!(output.status.code() == Some(1) && running.socket().exists(), "{}", output.status);
    ensure!(running.ready()?, "the running daemon is disturbed");
    Ok(())
}

#[test]
fn programs_and_sockets_of_others() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let second = format!(
        "[metrics]\nlisten = \"127.0.0.1:9478\"\n[control]\nsocket = {:?}\n{good}",
        lab.balancer(0).dir().join("second.sock")
    );
    let path = lab.balancer(0).dir().join("second.toml");
    std::fs::write(&path, second)?;
    let start_second = || pointsman(&lab, &[], &["run", "--config", &path.to_string_lossy()]);

    let mut running = lab.start_pointsman(0, &good)?;
    let before = attached(lab.balancer(0))?;
    let output = start_second()?;
    message("program_of_another_pointsman", &lab, &output);
    ensure!(output.status.code() == Some(1), "{}", output.status);
    ensure!(attached(lab.balancer(0))? == before, "the first one's program was touched");
    // Only the socket of the other one is in the way. It would attach its program anew if it could.
    running.process().pause()?;
    detach(lab.balancer(0))?;
    let output = start_second()?;
    message("queue_held_by_another_socket", &lab, &output);
    ensure!(output.status.code() == Some(1), "{}", output.status);
    running.process().resume()?;
    wait_for("the first one serves", Duration::from_secs(5), || Ok(running.ready()?))?;
    drop(running);

    let netns = lab.balancer(0).netns();
    let object = foreign_program(lab.balancer(0))?;
    run(netns, &["ip", "link", "set", "dev", "eth0", "xdp", "obj", &object, "sec", "xdp"])?;
    let before = attached(lab.balancer(0))?;
    let output = start(&lab, &good, &[])?;
    message("foreign_program", &lab, &output);
    ensure!(output.status.code() == Some(1), "{}", output.status);
    ensure!(attached(lab.balancer(0))? == before, "the foreign program was touched");
    Ok(())
}

/// Tried again every second, named once, left alone; it is taken up when the other one is gone.
#[test]
fn a_program_that_takes_the_place_of_ours_is_named_once() -> Result<()> {
    let lab = lab()?;
    let mut lb = lab.start_pointsman(0, &good(&lab))?;
    let netns = lab.balancer(0).netns();
    let object = foreign_program(lab.balancer(0))?;
    let xdp = |what: &[&str]| {
        run(netns, &[&["ip", "link", "set", "dev", "eth0", "xdpdrv"], what].concat())
    };
    lb.process().pause()?;
    detach(lab.balancer(0))?;
    xdp(&["obj", &object, "sec", "xdp"])?;
    lb.process().resume()?;
    wait_for("not ready", Duration::from_secs(3), || Ok(!lb.ready()?))?;
    let why = || Ok(lb.http("/readyz")?.1.contains("another XDP program is attached"));
    wait_for("the reason", Duration::from_secs(3), why)?;
    std::thread::sleep(Duration::from_secs(3));
    for line in ["cannot use the interface", "interface appeared"] {
        let lines = lb.log().matches(line).count();
        ensure!(lines == 1, "{lines} × {line}: {}", lb.log());
    }
    xdp(&["off"])?;
    wait_for("ready again", Duration::from_secs(5), || Ok(lb.ready()?))?;
    Ok(())
}

/// Start refuses it; later it is named once, for the next start would fail.
#[test]
fn a_vip_that_the_kernel_gets_meanwhile_is_named() -> Result<()> {
    let lab = lab()?;
    let lb = lab.start_pointsman(0, &good(&lab))?;
    let address = format!("{}/32 dev lo", lab.vip());
    lab.balancer(0).netns().ip(&format!("addr add {address}\n"))?;
    let lines = || lb.log().matches("the kernel of this node owns the VIP now").count();
    wait_for("named", Duration::from_secs(2), || Ok(lines() == 1))?;
    ensure!(lb.log().contains(&format!("ip address del {address}")), "{}", lb.log());
    // Everything is read anew every five seconds.
    std::thread::sleep(Duration::from_secs(6));
    ensure!(lines() == 1, "{} lines", lines());
    lab.balancer(0).netns().ip(&format!("addr del {address}\n"))?;
    wait_for("gone", Duration::from_secs(2), || Ok(lb.log().contains("does not own the VIP")))?;
    Ok(())
}

#[test]
fn permissions_and_limits() -> Result<()> {
    let lab = lab()?;
    let good = good(&lab);
    let without = |caps| ["setpriv", "--bounding-set", caps, "--inh-caps", caps];
    refused(&lab, "no_cap_bpf", &good, &without("-bpf,-sys_admin"))?;
    refused(&lab, "no_cap_net_raw", &good, &without("-net_raw"))?;
    refused(&lab, "no_cap_net_admin", &good, &without("-net_admin"))?;
    refused(&lab, "no_capability", &good, &without("-all"))?;
    let memlock =
        [&["prlimit", "--memlock=65536:65536"], &without("-ipc_lock,-sys_resource")[..]].concat();
    refused(&lab, "memlock_too_small", &good, &memlock)?;
    refused(&lab, "no_such_cpu", &good.replace("[dataplane]", "[dataplane]\ncpus = [4095]"), &[])
}

#[test]
fn exit_codes() -> Result<()> {
    let lab = lab()?;
    let path = write_config(lab.balancer(0), &good(&lab))?;
    let path = path.to_string_lossy();
    let sound = pointsman(&lab, &[], &["check", &path])?;
    ensure!(sound.status.code() == Some(0), "{}", sound.stderr);
    ensure!(sound.stdout.ends_with("sound (1 services, 2 backends)\n"), "{}", sound.stdout);
    for usage in [&["run", "--frobnicate"][..], &["juggle"], &["check"], &[]] {
        let output = pointsman(&lab, &[], usage)?;
        ensure!(output.status.code() == Some(2), "{usage:?}: {}", output.status);
        ensure!(output.stderr.contains("Usage: pointsman"), "{}", output.stderr);
    }
    let socket = lab.balancer(0).dir().join("control.sock");
    let output = pointsman(&lab, &[], &["status", "--socket", &socket.to_string_lossy()])?;
    message("status_without_a_daemon", &lab, &output);
    ensure!(output.status.code() == Some(3), "{}", output.status);
    Ok(())
}

fn lab() -> Result<Lab> {
    Ok(Lab::builder().backends(2).build()?)
}

/// What the tests spoil.
fn good(lab: &Lab) -> String {
    config(&ServiceText::web(lab).persistence("50s"))
}

/// Starts the product with `text`, under a `wrapper` such as `setpriv …`. It must end with 1, say
/// what the snapshot says, and leave nothing behind.
fn refused(lab: &Lab, name: &str, text: &str, wrapper: &[&str]) -> Result<()> {
    refusal(lab, name, &start(lab, text, wrapper)?)
}

fn refusal(lab: &Lab, name: &str, output: &Output) -> Result<()> {
    message(name, lab, output);
    ensure!(output.status.code() == Some(1), "{name}: {}", output.status);
    ensure!(output.stdout.is_empty(), "{name}: {}", output.stdout);
    let left = attached(lab.balancer(0))?;
    ensure!(left.is_empty(), "{name}: left behind: {left}");
    let socket = lab.balancer(0).dir().join("control.sock");
    ensure!(!socket.exists(), "{name}: the control socket is left behind");
    Ok(())
}

fn message(name: &str, lab: &Lab, output: &Output) {
    insta::assert_snapshot!(name, stable(lab, &output.stderr));
}

fn told(lab: &Lab, text: &str) -> Result<String> {
    Ok(stable(lab, &start(lab, text, &[])?.stderr))
}

fn start(lab: &Lab, text: &str, wrapper: &[&str]) -> Result<Output> {
    let path = write_config(lab.balancer(0), text)?;
    pointsman(lab, wrapper, &["run", "--config", &path.to_string_lossy()])
}

/// Runs the product to its end, without its log: that tells the same with a time in front.
fn pointsman(lab: &Lab, wrapper: &[&str], arguments: &[&str]) -> Result<Output> {
    let binary = pointsman_binary()?;
    let binary = binary.to_string_lossy();
    let argv = [wrapper, &["env", "POINTSMAN_LOG=off", &*binary], arguments].concat();
    Ok(lab.balancer(0).netns().run(&argv, Duration::from_secs(20))?)
}

/// The text without what differs from run to run.
fn stable(lab: &Lab, text: &str) -> String {
    let mut text = text.replace(&*lab.balancer(0).dir().to_string_lossy(), "DIR");
    for before in ["id ", "pid ", "bpf_link ", "stayed so for "] {
        text = without_numbers(&text, before);
    }
    // As long as the path was.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for at in 1..lines.len() {
        if lines[at - 1].contains("\"DIR")
            && let Some((head, tail)) = lines[at].split_once('^')
        {
            lines[at] = format!("{head}^^^{}", tail.trim_start_matches('^'));
        }
    }
    text = lines.join("\n") + "\n";
    // Machines differ in tunnels and CPUs.
    for before in ["there are: ", "usable: "] {
        if let Some((head, tail)) = text.split_once(before) {
            let rest = tail.find([';', '\n']).map_or("", |end| &tail[end..]);
            text = format!("{head}{before}…{rest}");
        }
    }
    text
}

/// Replaces the numbers behind a word.
fn without_numbers(text: &str, before: &str) -> String {
    let mut pieces = text.split(before);
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        result.push_str(before);
        result.push_str(if rest.len() < piece.len() { "N" } else { "" });
        result.push_str(rest);
    }
    result
}

/// A program that passes everything, compiled; its path.
fn foreign_program(node: &Node) -> Result<String> {
    let source = node.dir().join("foreign.c");
    let object = node.dir().join("foreign.o").display().to_string();
    std::fs::write(
        &source,
        "__attribute__((section(\"xdp\"), used)) int somebody_elses(void *c) { return 2; }\n\
         char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n",
    )?;
    let source = source.display().to_string();
    let argv = ["clang", "-O2", "-g", "-target", "bpf", "-c", &source, "-o", &object];
    run(node.netns(), &argv).context("compile a program")?;
    Ok(object)
}
