//! Requirement: `pointsman explain` says where a client goes and why, and the client then goes there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::explain::{Because, Explained, Outcome};
use lab::{Lab, LoadClient, Pointsman, ServiceText, pointsman_binary};
use tests::lifecycle::config;
use tests::{assert_all_done, close_books, measured, patient};

/// A sub-command on the first balancer: exit code, standard output.
fn command(lab: &Lab, lb: &Pointsman, words: &str) -> Result<(Option<i32>, String)> {
    let binary = pointsman_binary()?;
    let (binary, socket) = (binary.to_string_lossy(), lb.socket().display().to_string());
    let mut argv: Vec<&str> = [&*binary].into_iter().chain(words.split(' ')).collect();
    if !words.contains("--config") {
        argv.extend(["--socket", &*socket]);
    }
    let output = lab.balancer(0).netns().run(&argv, Duration::from_secs(20))?;
    Ok((output.status.code(), output.stdout + &output.stderr))
}

fn explain(lab: &Lab, lb: &Pointsman, source: IpAddr, more: &str) -> Result<Explained> {
    let (code, said) =
        command(lab, lb, &format!("explain {source} {}:80 --json{more}", lab.vip()))?;
    let explained: Explained = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(code == Some(i32::from(explained.outcome != Outcome::Forwarded)), "{code:?} {said}");
    Ok(explained)
}

/// One request of this source: which backend answered.
fn request(lab: &Lab, lb: &Pointsman, source: IpAddr) -> Result<String> {
    let file = lab.files().ensure("1b")?;
    let load = patient(LoadClient::new(lab.vip_port(80), &file)).sources(vec![source]);
    let report = load.run(lab.client(0).netns())?;
    assert_all_done(&report, lb);
    report.per_backend().into_keys().next().context("an answer")
}

#[test]
fn a_client_goes_where_it_was_said() -> Result<()> {
    let mut right = BTreeMap::new();
    for scheduler in ["maglev", "rr", "wlc"] {
        let lab = Lab::builder().backends(3).queues(2).build()?;
        let _web = lab.start_web()?;
        let text = config(&ServiceText::web(&lab).scheduler(scheduler).persistence("50s"));
        let lb = lab.start_pointsman(0, &text)?;
        let sources = lab.client(0).sources(12);
        let of_file = format!(" --config {}", lb.config().display());
        for source in &sources {
            let first = explain(&lab, &lb, *source, "")?;
            let again = explain(&lab, &lb, *source, "")?;
            ensure!(first.backend == again.backend, "asking changes nothing: {first:?} {again:?}");
            let chosen = matches!(first.because, Some(Because::Hash | Because::Scheduler));
            ensure!(chosen && first.template.is_none(), "{first:?}");
            if scheduler == "maglev" {
                let of_file = explain(&lab, &lb, *source, &of_file)?;
                ensure!(of_file.backend == first.backend, "{of_file:?} {first:?}");
            }
            let went = request(&lab, &lb, *source)?;
            *right.entry("new").or_insert(0) += u32::from(first.backend.as_ref() == Some(&went));
            let returning = explain(&lab, &lb, *source, "")?;
            ensure!(returning.because == Some(Because::Template), "{returning:?}");
            let went = request(&lab, &lb, *source)?;
            *right.entry("returning").or_insert(0) +=
                u32::from(returning.backend.as_ref() == Some(&went));
        }
        drained(&lab, &lb, sources[0])?;
        close_books(&lb);
    }
    measured("explained_new", right["new"], "of 36", "=36");
    measured("explained_returning", right["returning"], "of 36", "=36");
    ensure!(right["new"] == 36 && right["returning"] == 36, "{right:?}");
    Ok(())
}

/// A source whose template names a drained backend, a connection that is there, and a closed port.
fn drained(lab: &Lab, lb: &Pointsman, source: IpAddr) -> Result<()> {
    let named = explain(lab, lb, source, "")?.backend.context("a backend")?;
    let file = lab.files().ensure("1m")?;
    let load = patient(LoadClient::new(lab.vip_port(80), &file)).sources(vec![source]);
    let load = load.download_rate(file.length / 4).start(lab.client(0).netns())?;
    std::thread::sleep(Duration::from_secs(1));
    let (code, said) = command(lab, lb, &format!("drain {named}"))?;
    ensure!(code == Some(0), "{said}");
    let (_, flows) =
        command(lab, lb, &format!("flows --source {source} --state established --json"))?;
    let flow: serde_json::Value = serde_json::from_str(flows.lines().next().context("a flow")?)?;
    let client = flow["source"].as_str().context("a source")?;
    let (_, said) = command(lab, lb, &format!("explain {client} {}:80 --json", lab.vip()))?;
    let of_flow: Explained = serde_json::from_str(&said)?;
    ensure!(of_flow.because == Some(Because::Flow) && of_flow.backend.as_ref() == Some(&named));
    let anew = explain(lab, lb, source, "")?;
    ensure!(anew.backend.as_ref() != Some(&named), "{anew:?}");
    ensure!(anew.why.iter().any(|line| line.ends_with("passed over")), "{:?}", anew.why);
    ensure!(request(lab, lb, source)? == anew.backend.context("a backend")?, "elsewhere");
    assert_all_done(&load.finish(), lb);
    let (code, said) = command(lab, lb, &format!("explain {source} {}:81", lab.vip()))?;
    ensure!(code == Some(1) && said.contains("no service listens on port 81"), "{said}");
    let (code, said) = command(lab, lb, &format!("explain ten {}:81", lab.vip()))?;
    ensure!(code == Some(1) && said.contains("`ten` is neither an address"), "{said}");
    Ok(())
}
