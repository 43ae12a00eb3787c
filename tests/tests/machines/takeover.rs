//! Two guests as a VRRP pair: when the Active is killed, the other serves its clients.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{Guest, Lab, ServiceText, VrrpText};
use tests::{
    guest::{Servers, forwards_again},
    lifecycle::{SMALL, wait_for},
};

use super::{
    report::{Line, Seen},
    rows::Row,
    run::{seen, timed, with_evidence},
};

/// Boots a pair of the row's machine and kills the Active.
pub(crate) fn run(row: &Row) -> Line {
    timed(row, check)
}

fn check(row: &Row) -> Result<Seen> {
    let lab = Lab::builder().balancers(0).backends(2).build()?;
    let _servers = Servers::start(&lab)?;
    let first = Guest::boot(&lab, &row.spec())?;
    let second = Guest::boot(&lab, &row.spec().number(2))?;
    first.start_pointsman(&config(&lab, 150))?;
    active(&first)?;
    second.start_pointsman(&config(&lab, 100))?;
    forwards_again(&lab).map_err(|error| with_evidence(error.context("at first"), &first))?;
    let seen = seen(&first)?;
    first.qemu().kill()?;
    let begin = Instant::now();
    active(&second)?;
    let time = begin.elapsed();
    forwards_again(&lab).map_err(|error| with_evidence(error.context("after"), &second))?;
    let note = format!("taken over after {:.1} s", time.as_secs_f32());
    Ok(Seen { got: "VRRP".into(), note, ..seen })
}

fn config(lab: &Lab, priority: u8) -> String {
    let service = |text: ServiceText| text.with("vrrp = \"VI_1\"");
    let web = service(ServiceText::web(lab));
    let services = [
        web.clone(),
        web.clone().name("upload").port(tests::guest::UPLOAD),
        web.name("datagrams").udp().port(tests::guest::DATAGRAMS),
    ];
    let services: String = services.iter().map(ServiceText::service_toml).collect();
    let vrrp = VrrpText::new("VI_1", priority, Duration::from_millis(200)).to_toml();
    format!("{SMALL}\n[[interface]]\nname = \"eth0\"\n{services}{vrrp}")
}

/// Waits until the guest is Active.
fn active(guest: &Guest) -> Result<()> {
    let limit = Duration::from_secs(10);
    let wait = wait_for("active", limit, || Ok(guest.status()?["vrrp"][0]["state"] == "active"));
    wait.map(drop).map_err(|error| with_evidence(error, guest))
}
