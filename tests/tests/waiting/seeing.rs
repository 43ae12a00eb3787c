//! Requirement: `pointsman ipvs` prints what scripts for `ipvsadm` read; `pointsman status` says how busy each
//! service is and what is not well; bytes that servers sent are known within 1 % though they do not pass the
//! balancer, and so is how long handshakes take.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, LoadClient, Pointsman, ServiceText, pointsman_binary};
use tests::lifecycle::{config, wait_for};
use tests::{assert_all_done, close_books, measured, patient};

/// A sub-command on the first balancer, after `before`: exit code, standard output, standard error.
fn command(
    lab: &Lab,
    lb: &Pointsman,
    before: &str,
    words: &str,
) -> Result<(Option<i32>, String, String)> {
    let binary = pointsman_binary()?;
    let (binary, socket) = (binary.to_string_lossy(), lb.socket().display().to_string());
    let (before, words) = (before.split_whitespace(), words.split_whitespace());
    let argv: Vec<&str> =
        before.chain([&*binary]).chain(words).chain(["--socket", &*socket]).collect();
    let output = lab.balancer(0).netns().run(&argv, Duration::from_secs(20))?;
    Ok((output.status.code(), output.stdout, output.stderr))
}

fn said(lab: &Lab, lb: &Pointsman, words: &str) -> Result<String> {
    let (code, said, errors) = command(lab, lb, "", words)?;
    ensure!(code == Some(0), "{words}: {code:?}\n{errors}");
    Ok(said)
}

#[test]
fn scripts_for_ipvsadm_find_what_they_look_for() -> Result<()> {
    let lab = Lab::builder().backends(3).queues(2).build()?;
    let _web = lab.start_web()?;
    let text = config(&ServiceText::web(&lab).scheduler("wlc").persistence("50s"));
    let lb = lab.start_pointsman(0, &text)?;
    let file = lab.files().ensure("1m")?;
    let sources = lab.client(0).sources(9);
    let load = patient(LoadClient::new(lab.vip_port(80), &file)).sources(sources).threads(9);
    let load = load.download_rate(file.length / 6).requests(9).start(lab.client(0).netns())?;
    std::thread::sleep(Duration::from_secs(3));
    let vip = format!("{}:80", lab.vip());

    let plain = said(&lab, &lb, "ipvs -Ln")?;
    let lines: Vec<Vec<&str>> =
        plain.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(plain.starts_with("IP Virtual Server version 1.2.1 (size="), "{plain}");
    ensure!(lines[3] == ["TCP", &vip, "wlc", "persistent", "50"], "{plain}");
    let rows = &lines[4..];
    ensure!(rows.len() == 3 && rows.iter().all(|row| row[2] == "Route"), "{plain}");
    let active: u32 = rows.iter().map(|row| row[4].parse::<u32>().unwrap_or(0)).sum();
    ensure!(active == 9, "{plain}");
    let persistent = said(&lab, &lb, "ipvs -Ln --persistent-conn")?;
    let templates = |line: &str| line.split_whitespace().nth(3).and_then(|n| n.parse::<u32>().ok());
    let templates: u32 = persistent.lines().skip(4).filter_map(templates).sum();
    ensure!(templates == 9, "{persistent}");
    let rate = said(&lab, &lb, "ipvs -Ln --rate")?;
    let row = rate.lines().nth(3).context("no row")?;
    let numbers: Vec<u64> =
        row.split_whitespace().skip(2).filter_map(|word| word.parse().ok()).collect();
    ensure!(numbers.len() == 5 && numbers[1] > 10 && numbers[3] > 500, "{rate}");
    let connections = said(&lab, &lb, "ipvs -Lnc")?;
    let count = |word: &str| connections.lines().filter(|line| line.contains(word)).count();
    ensure!((count(" ESTABLISHED "), count(" ASSURED ")) == (9, 9), "{connections}");
    let stats = said(&lab, &lb, &format!("ipvs -Ln -t {vip} --stats --exact"))?;
    ensure!(stats.starts_with("Prot ") && stats.contains(&format!("TCP  {vip} ")), "{stats}");
    let (code, _, errors) = command(&lab, &lb, "", "ipvs -Ln -u 192.0.2.1:53")?;
    ensure!(code == Some(1) && errors == "No such service\n", "{code:?} {errors}");

    let status = said(&lab, &lb, "status")?;
    let row = status.lines().find(|line| line.contains("80/tcp")).context("no service")?;
    ensure!(row.contains("3 up 0 down") && row.contains(" 9/"), "{status}");
    let out: f64 = row.split_whitespace().rev().nth(1).context("no OUT")?.parse()?;
    ensure!(out > 4.0, "nine clients at 175 kB/s: {row}");
    ensure!(status.lines().all(|line| line.len() <= 120), "{status}");
    let report = load.finish();
    assert_all_done(&report, &lb);
    close_books(&lb);
    Ok(())
}

#[test]
fn the_status_is_shown_again_and_again_and_ends_in_peace() -> Result<()> {
    let lab = Lab::builder().backends(2).build()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    let before = "timeout --preserve-status -s INT 3";
    let (code, shown, errors) = command(&lab, &lb, before, "status --watch 500ms")?;
    let times = shown.matches("pointsman ").count();
    ensure!(code == Some(0) && errors.is_empty(), "{code:?} {errors}");
    ensure!((3..=7).contains(&times) && !shown.contains('\x1b'), "{times} times:\n{shown}");
    let (code, shown, _) = command(&lab, &lb, before, "status --watch --json")?;
    let parsed = shown.lines().map(serde_json::from_str::<api::status::Status>);
    let parsed: Vec<_> = parsed.collect::<Result<_, _>>()?;
    ensure!(code == Some(0) && (2..=4).contains(&parsed.len()), "{}", parsed.len());
    close_books(&lb);
    Ok(())
}

/// Bytes that clients acknowledged, over the bytes of these downloads.
fn acknowledged(lab: &Lab, lb: &Pointsman, size: &str, downloads: u32) -> Result<f64> {
    let acked = || tests::status(lb).services[0].acked_bytes;
    let before = acked();
    let file = lab.files().ensure(size)?;
    let load = patient(LoadClient::new(lab.vip_port(80), &file)).threads(downloads.min(10));
    let load = load.sources(lab.client(0).sources(20)).requests(downloads.into());
    let report = load.run(lab.client(0).netns())?;
    assert_all_done(&report, lb);
    let sent = file.length * u64::from(downloads);
    wait_for("the last acknowledgments", Duration::from_secs(2), || {
        Ok(acked() - before >= sent * 99 / 100)
    })
    .with_context(|| format!("{} of {sent} bytes", acked() - before))?;
    let status = tests::settled_status(lb);
    let service = &status.services[0];
    ensure!(service.acked_bytes == service.backends.iter().map(|one| one.acked_bytes).sum::<u64>());
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = (service.acked_bytes - before) as f64 / sent as f64;
    Ok(ratio)
}

#[test]
fn bytes_that_servers_sent_are_known_within_a_hundredth() -> Result<()> {
    let lab = Lab::builder().backends(3).queues(2).build()?;
    let _web = lab.start_web()?;
    let lb = lab.start_pointsman(0, &config(&ServiceText::web(&lab)))?;
    for (size, downloads) in [("1m", 100), ("300m", 1)] {
        let ratio = acknowledged(&lab, &lb, size, downloads)?;
        let name = format!("acknowledged_of_{downloads}_downloads_of_{size}");
        measured(&name, format!("{ratio:.4}"), "of the bytes sent", "1±0.01");
        ensure!((0.99..=1.01).contains(&ratio), "{size}: {ratio}");
    }
    let status = close_books(&lb);
    let handshakes: u64 =
        status.services[0].backends.iter().flat_map(|one| &one.handshake_seconds.counts).sum();
    let metrics = lb.metrics()?;
    let acked = metrics.sum("pointsman_backend_acked_bytes_total", &[]);
    measured("handshakes_timed", handshakes, "handshakes", ">0");
    ensure!(handshakes > 0 && handshakes <= 101, "{handshakes}");
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let shown = status.services[0].acked_bytes as f64;
    ensure!(acked == shown, "{acked} and {shown}");
    Ok(())
}
