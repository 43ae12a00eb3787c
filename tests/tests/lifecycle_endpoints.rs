//! The doors: HTTP and the control socket, asked properly, wrongly and by a crowd.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Metrics, Pointsman, ProbeClient, ServiceText};
use serde_json::Value;
use tests::close_books;
use tests::lifecycle::{config, echo_everywhere, fetch, make_mtu_too_large, status, udp, wait_for};

#[test]
fn metrics_are_complete_from_the_start_and_well_formed() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let _web = lab.start_web()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab).persistence("50s")))?;
    let (code, text) = lb.http("/metrics")?;
    ensure!(code == 200, "{code}");
    lint(&text)?;
    let metrics = Metrics::parse(&text)?;
    let missing: Vec<&str> = FAMILIES.iter().copied().filter(|name| !metrics.has(name)).collect();
    ensure!(missing.is_empty(), "missing: {missing:?}");
    let foreign: Vec<&str> =
        metrics.names().filter(|name| !name.starts_with("pointsman_")).collect();
    ensure!(foreign.is_empty(), "without the prefix: {foreign:?}");
    for state in ["up", "suspected", "down", "held", "resolving", "checking", "draining"] {
        let labels = [("service", "tcp-80"), ("backend", "rs1"), ("state", state)];
        let value = metrics.value("pointsman_backend_state", &labels);
        ensure!(value.is_some(), "no series for {state}");
    }
    // One request, and the scrape says the same as the status document.
    fetch(&lab)?;
    sleep(Duration::from_millis(200));
    let (metrics, status) = (lb.metrics()?, status(&lb)?);
    let forwarded = metrics.sum("pointsman_packets_total", &[("result", "forwarded")]);
    ensure!(forwarded > 0.0, "nothing was counted");
    ensure!(status["services"][0]["packets"].as_f64() == Some(forwarded), "{status}");
    ensure!(metrics.sum("pointsman_persistence_entries", &[]) == 1.0, "no template");
    close_books(&lb);
    Ok(())
}

#[test]
fn health_and_readiness_are_different_questions() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(2).build()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    ensure!(lb.http("/healthz")? == (200, "ok\n".into()), "not healthy");
    ensure!(lb.http("/readyz")? == (200, "ready\n".into()), "not ready");
    ensure!(lb.http("/no-such-page")?.0 == 404, "found what does not exist");
    // Frames longer than a frame of the UMEM: the queues cannot be bound.
    make_mtu_too_large(&lab)?;
    wait_for("queues unbound", Duration::from_secs(3), || Ok(lb.http("/readyz")?.0 == 503))?;
    wait_for("the reason is told", Duration::from_secs(3), || {
        let (_, why) = lb.http("/readyz")?;
        Ok(["queue 0 is not bound: eth0 has MTU 9000", "queue 1 is not bound: eth0 has MTU 9000"]
            .iter()
            .all(|reason| why.contains(reason)))
    })?;
    ensure!(lb.http("/healthz")?.0 == 200, "a queue is not the process");
    ensure!(lb.metrics()?.sum("pointsman_queue_bound", &[]) == 0.0, "metrics say bound");
    let shown = status_command(&lab, &lb, &["--exit-code"])?;
    ensure!(shown.0 == Some(4) && shown.1.contains("NOT READY"), "{shown:?}");
    lab.balancer(0).netns().ip("link set eth0 mtu 1500\n")?;
    let took = wait_for("ready again", Duration::from_secs(5), || Ok(lb.ready()?))?;
    println!("ready {took:?} after the MTU fits again");
    Ok(())
}

#[test]
fn status_is_shown_as_a_table_and_as_json() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab).persistence("50s")))?;
    wait_for("backends up", Duration::from_secs(2), || {
        Ok(status_command(&lab, &lb, &["--exit-code"])?.0 == Some(0))
    })?;
    let (code, table) = status_command(&lab, &lb, &[])?;
    ensure!(code == Some(0), "{code:?} {table}");
    for part in ["ready", "eth0", "1/1 queues bound", "10.77.0.100", "80/tcp", "2 up 0 down"] {
        ensure!(table.contains(part), "no {part:?} in\n{table}");
    }
    let (code, backends) = status_command(&lab, &lb, &["--backends"])?;
    ensure!(code == Some(0) && backends.contains("rs1"), "{code:?} {backends}");
    ensure!(table.contains("active here do not answer programs on this node"), "{table}");
    ensure!(table.lines().all(|line| line.chars().count() <= 100), "too wide:\n{table}");
    let (code, json) = status_command(&lab, &lb, &["--json"])?;
    let json: Value = serde_json::from_str(&json)?;
    ensure!(code == Some(0) && json["services"][0]["name"] == "tcp-80", "{json}");
    ensure!(json["version"] == status(&lb)?["version"], "two versions");
    Ok(())
}

#[test]
fn a_crowd_of_silent_and_slow_clients_keeps_nobody_out() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
    sleep(Duration::from_millis(200));
    let crowd = lab.balancer(0).netns().enter(|| -> Result<Vec<TcpStream>> {
        (0..200).map(|_| Ok(TcpStream::connect(METRICS)?)).collect()
    })??;
    let (silent, slow) = crowd.split_at(100);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| drip(slow, &done));
        let scrapes = (0..20).try_for_each(|_| -> Result<()> {
            let begin = Instant::now();
            lb.metrics()?;
            ensure!(begin.elapsed() < Duration::from_secs(6), "took {:?}", begin.elapsed());
            sleep(Duration::from_millis(50));
            Ok(())
        });
        done.store(true, Relaxed);
        scrapes
    })?;
    // The silent ones are cut: at once to make room, or when their time for a request is over.
    let limit = Instant::now() + Duration::from_secs(8);
    for stream in silent {
        let left = limit.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        // Nothing, a reset, or an error page: anything but silence.
        let ended = (&mut &*stream).read(&mut [0; 512]);
        let waits = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
        ensure!(!ended.is_err_and(|error| waits(error.kind())), "a silent client was never cut");
    }
    let report = probe.finish();
    println!(
        "{} probes, {} lost, longest outage {:?}",
        report.sent,
        report.lost(),
        report.longest_outage()
    );
    ensure!(report.lost() == 0, "{report:?}");
    close_books(&lb);
    Ok(())
}

#[test]
fn the_control_socket_answers_nonsense_with_an_error() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let long = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
    let deep = [vec![b'['; 10_000], b"\n".to_vec()].concat();
    let bad: [(&[u8], &str); 9] = [
        (
            b"{\"version\":1,\"verb\":\"explode\"}\n",
            "unknown variant `explode`, expected one of `status`",
        ),
        (b"{\"version\":99,\"verb\":\"status\"}\n", "protocol version 99 is not 1"),
        (b"{\"version\":1}\n", "not a request: missing field `verb`"),
        (b"GET / HTTP/1.0\r\n\r\n", "not a request"),
        (b"\x00\xff\xfe\x80\n", "not a request"),
        (b"\n", "not a request"),
        (b"", "not a request"),
        (&long, "the request is longer than 65536 bytes"),
        (&deep, "not a request"),
    ];
    for (request, error) in bad {
        let answer = ask(&lb, request).with_context(|| format!("for {error:?}"))?;
        let told = answer["error"].as_str().unwrap_or_default();
        ensure!(told.contains(error), "{answer} instead of {error:?}");
        ensure!(answer["version"] == 1 && answer.get("ok").is_none(), "{answer}");
    }
    let answer = ask(&lb, b"{\"version\":1,\"verb\":\"status\"}\n")?;
    ensure!(answer["ok"]["ready"] == true, "{answer}");
    ensure!(lb.ready()?, "the daemon suffered");
    Ok(())
}

/// What is held open is cut to make room, and an operator is answered at once.
#[test]
fn fifteen_hundred_held_control_connections_keep_no_operator_out() -> Result<()> {
    let lab = Lab::builder().backends(1).queues(2).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    let files =
        || -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{}/fd", lb.pid()))?.count()) };
    let before = files()?;
    let probe = ProbeClient::start(lab.client(0).netns(), (lab.vip(), 53).into(), 500)?;
    let mut held = Vec::new();
    for number in 0..1500 {
        held.push(UnixStream::connect(lb.socket())?);
        if number % 300 == 299 {
            let begin = Instant::now();
            let (code, table) = status_command(&lab, &lb, &[])?;
            ensure!(code == Some(0) && table.contains("ready"), "{code:?} {table}");
            ensure!(begin.elapsed() < Duration::from_secs(2), "took {:?}", begin.elapsed());
        }
    }
    let more = files()?.saturating_sub(before);
    println!("{more} more descriptors while {} connections are held", held.len());
    ensure!(more <= 80, "{more} connections are kept");
    let report = probe.finish();
    ensure!(report.lost() == 0, "{report:?}");
    close_books(&lb);
    Ok(())
}

/// One byte of a request now and then, on each.
fn drip(streams: &[TcpStream], done: &AtomicBool) {
    for byte in
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a'))
    {
        if done.load(Relaxed) {
            return;
        }
        for stream in streams {
            // Those that were cut are no longer part of the crowd.
            let _ = (&mut &*stream).write_all(&[*byte]);
        }
        sleep(Duration::from_millis(100));
    }
}

/// Sends raw bytes and reads the one line that is answered.
fn ask(lb: &Pointsman, request: &[u8]) -> Result<Value> {
    let mut stream = UnixStream::connect(lb.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(6)))?;
    // A daemon that has read enough stops reading: then the answer is there already.
    if stream.write_all(request).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(b"\n") {
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// `pointsman status`: exit code and output.
fn status_command(lab: &Lab, lb: &Pointsman, options: &[&str]) -> Result<(Option<i32>, String)> {
    let binary = lab::pointsman_binary()?;
    let (binary, socket) = (binary.to_string_lossy(), lb.socket().display().to_string());
    let argv = [&[&*binary, "status", "--socket", &socket], options].concat();
    let output = lab.balancer(0).netns().run(&argv, Duration::from_secs(10))?;
    Ok((output.status.code(), output.stdout))
}

/// `promtool check metrics`.
fn lint(text: &str) -> Result<()> {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is part of the Debian package prometheus")?;
    tool.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    let output = tool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&said));
    Ok(())
}

const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9477);

/// Data plane, queues, persistence and backends: what dashboards and alerts build on.
const FAMILIES: [&str; 57] = [
    "pointsman_build_info",
    "pointsman_ready",
    "pointsman_packets_total",
    "pointsman_bytes_total",
    "pointsman_dropped_total",
    "pointsman_passed_total",
    "pointsman_xdp_packets_total",
    "pointsman_interface_up",
    "pointsman_interface_queues",
    "pointsman_interface_xdp_mode",
    "pointsman_queue_bound",
    "pointsman_queue_zero_copy",
    "pointsman_xsk_rx_dropped_total",
    "pointsman_xsk_rx_ring_full_total",
    "pointsman_xsk_fill_ring_empty_total",
    "pointsman_xsk_tx_ring_empty_total",
    "pointsman_xsk_tx_invalid_total",
    "pointsman_xsk_rx_invalid_total",
    "pointsman_xsk_tx_full_total",
    "pointsman_xsk_kicks_total",
    "pointsman_frames",
    "pointsman_worker_busy_ratio",
    "pointsman_worker_heartbeat_age_seconds",
    "pointsman_worker_flows",
    "pointsman_worker_packets_total",
    "pointsman_flow_exceptions_total",
    "pointsman_vip_steered",
    "pointsman_persistence_entries",
    "pointsman_persistence_entries_max",
    "pointsman_persistence_created_total",
    "pointsman_persistence_expired_total",
    "pointsman_persistence_replaced_total",
    "pointsman_persistence_stateless_fallback_total",
    "pointsman_backend_state",
    "pointsman_backend_weight",
    "pointsman_backend_sessions",
    "pointsman_backend_templates",
    "pointsman_backend_packets_total",
    "pointsman_backend_bytes_total",
    "pointsman_backend_connections_total",
    "pointsman_backend_transitions_total",
    "pointsman_backend_neighbour_resolved",
    "pointsman_backend_effective_weight",
    "pointsman_backend_handshakes_attempted_total",
    "pointsman_backend_resets_total",
    "pointsman_backend_suspicions_total",
    "pointsman_health_check_late_seconds_count",
    "pointsman_health_triggers_ignored_total",
    "pointsman_service_up",
    "pointsman_service_healthy_weight",
    "pointsman_service_total_weight",
    "pointsman_service_fallback_active",
    "pointsman_service_rejected_total",
    "pointsman_snapshot_generation",
    "pointsman_up_seconds",
    "pointsman_xsk_rx_wakeups_total",
    "pointsman_xsk_kick_enobufs_total",
];
