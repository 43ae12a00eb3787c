//! Requirement: an operator sees every connection and every persistence template, by source, service,
//! backend and state, and can have templates forgotten.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{EchoResponder, Lab, LoadClient, Pointsman, ServiceText, pointsman_binary};
use serde_json::Value;
use tests::lifecycle::{SMALL, echo_everywhere, udp};
use tests::{close_books, measured, patient};

const SOURCES: u16 = 40;

/// A sub-command on the first balancer: exit code, standard output, standard error.
fn command(lab: &Lab, lb: &Pointsman, words: &str) -> Result<(Option<i32>, String, String)> {
    let binary = pointsman_binary()?;
    let (binary, socket) = (binary.to_string_lossy(), lb.socket().display().to_string());
    let words: Vec<&str> = words.split(' ').collect();
    let argv = [&[&*binary], &words[..], &["--socket", &socket]].concat();
    let output = lab.balancer(0).netns().run(&argv, Duration::from_secs(20))?;
    Ok((output.status.code(), output.stdout, output.stderr))
}

/// The entries that a command lists.
fn listed(lab: &Lab, lb: &Pointsman, words: &str) -> Result<Vec<Value>> {
    let (code, said, errors) = command(lab, lb, &format!("{words} --json"))?;
    ensure!(code == Some(0), "{words}: {code:?}\n{errors}");
    said.lines().map(|line| serde_json::from_str(line).context("JSON")).collect()
}

/// A balancer with a web service that is persistent, and one over UDP that is not; the sources of the
/// first client have connections of both.
fn scene() -> Result<(Lab, Vec<EchoResponder>, Pointsman)> {
    let lab = Lab::builder().backends(3).queues(2).build()?;
    let echo = echo_everywhere(&lab)?;
    let web = ServiceText::web(&lab).name("web").scheduler("rr").persistence("50s");
    let text = format!(
        "{SMALL}\n[[interface]]\nname = \"eth0\"\n{}{}",
        web.service_toml(),
        udp(&lab).name("dns").service_toml()
    );
    let lb = lab.start_pointsman(0, &text)?;
    Ok((lab, echo, lb))
}

/// Some datagrams of each source.
fn datagrams(lab: &Lab) -> Result<()> {
    lab.client(0).netns().enter(|| -> Result<()> {
        for source in lab.client(0).sources(SOURCES) {
            let socket = UdpSocket::bind((source, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            for number in 0..3_u8 {
                socket.send_to(&[number], (lab.vip(), 53))?;
                socket.recv(&mut [0; 8])?;
            }
        }
        Ok(())
    })?
}

#[test]
fn flows_and_templates_are_listed_filtered_and_forgotten() -> Result<()> {
    let (lab, _echo, lb) = scene()?;
    let _web = lab.start_web()?;
    let sources = lab.client(0).sources(SOURCES);
    let file = lab.files().ensure("1m")?;
    let long = patient(LoadClient::new(lab.vip_port(80), &file)).sources(sources.clone());
    let long = long.threads(SOURCES.into()).requests(SOURCES.into());
    let long = long.download_rate(file.length / 8).start(lab.client(0).netns())?;
    datagrams(&lab)?;
    std::thread::sleep(Duration::from_secs(2));

    let all = listed(&lab, &lb, "flows")?;
    let held = listed(&lab, &lb, "flows --service web --state established")?;
    let udp = listed(&lab, &lb, "flows --service dns --state udp")?;
    measured("flows_of_web", held.len(), "flows", "=40");
    measured("flows_of_dns", udp.len(), "flows", "=40");
    ensure!(held.len() == usize::from(SOURCES), "{held:?}");
    ensure!(udp.len() == usize::from(SOURCES) && all.len() >= 80, "{udp:?}");
    let books = tests::status(&lb);
    for backend in &books.services[0].backends {
        let words = format!("flows --backend web/{} --state established", backend.name);
        let count = listed(&lab, &lb, &words)?.len() as u64;
        ensure!(count == backend.active, "{words}: {count} of {}", backend.active);
    }
    let first = sources[0];
    let of_one = listed(&lab, &lb, &format!("flows --source {first} --service web"))?;
    ensure!(of_one.len() == 1, "{of_one:?}");
    ensure!(of_one[0]["source"].as_str().is_some_and(|s| s.starts_with(&format!("{first}:"))));
    ensure!(listed(&lab, &lb, "flows --limit 7")?.len() == 7, "a limit");

    let templates = listed(&lab, &lb, "persistence --service web")?;
    ensure!(templates.len() == usize::from(SOURCES), "{templates:?}");
    ensure!(templates.iter().all(|template| template["live_flows"] == 1), "{templates:?}");
    let of_one = listed(&lab, &lb, &format!("persistence --source {first}"))?;
    let flow = &listed(&lab, &lb, &format!("flows --source {first} --service web"))?[0];
    ensure!(of_one.len() == 1 && of_one[0]["backend"] == flow["backend"], "{of_one:?} {flow}");
    let (code, said, _) =
        command(&lab, &lb, &format!("flush persistence --source {first} --service web"))?;
    ensure!(code == Some(0) && said == "1 templates forgotten\n", "{said}");
    ensure!(listed(&lab, &lb, "persistence")?.len() == usize::from(SOURCES) - 1);
    let (_, said, _) = command(&lab, &lb, "flush persistence --json")?;
    ensure!(said == "{\"templates\":39}\n", "{said}");
    ensure!(listed(&lab, &lb, "persistence")?.is_empty());
    let report = long.finish();
    ensure!(report.failed() == 0 && report.total() == usize::from(SOURCES), "{report}");

    for (words, text) in [
        ("flows --service shop", "there is no service `shop`; there are: web, dns"),
        ("flows --backend rs9", "there is no backend `rs9`"),
        ("persistence --source ten", "no address and no prefix"),
    ] {
        let (code, _, errors) = command(&lab, &lb, words)?;
        ensure!(code == Some(1) && errors.contains(text), "{words}: {code:?} {errors}");
    }
    let (code, ..) = command(&lab, &lb, "flows --state open")?;
    ensure!(code == Some(2), "usage: {code:?}");
    let (code, said, _) = command(&lab, &lb, "flows --service dns")?;
    let head = "PRO EXPIRE  STATE       SOURCE                DESTINATION           BACKEND";
    ensure!(code == Some(0) && said.lines().next() == Some(head), "{said}");
    ensure!(said.lines().skip(1).all(|line| line.starts_with("UDP 0") && line.contains(" dns/")));
    close_books(&lb);
    Ok(())
}
