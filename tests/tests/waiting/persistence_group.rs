//! Requirement: with `persistence.group` one client has one machine on all ports, over TCP and UDP and
//! all queues, whatever the scheduler; after a restart the shared hash still says the same of both.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{EchoResponder, Lab, LoadClient, Pointsman, ServiceText};
use tests::lifecycle::SMALL;
use tests::{assert_all_done, close_books, measured, patient};

const SOURCES: u16 = 30;
const DATAGRAMS: u16 = 53;

#[test]
fn tcp_and_udp_of_one_client_go_to_one_machine() -> Result<()> {
    for scheduler in ["rr", "wlc", "maglev"] {
        let lab = Lab::builder().backends(4).queues(4).build()?;
        let (_web, echoes) = (lab.start_web()?, echoes(&lab)?);
        let mut lb = lab.start_pointsman(0, &config(&lab, scheduler))?;
        // One that asks one port only: the services' turns are not in step.
        request(&lab, &lb, lab.client(0).sources(SOURCES + 1)[usize::from(SOURCES)])?;
        let same = compare(&lab, &lb, &echoes)?;
        measured(&format!("one_machine_{scheduler}"), same, "sources", &format!("={SOURCES}"));
        ensure!(same == SOURCES, "{scheduler}: {same}\n{}", lb.log());
        let created = close_books(&lb).persistence.created;
        ensure!(created == u64::from(SOURCES) + 1, "{created} templates");
        if scheduler == "maglev" {
            lb.process().kill()?;
            lb = lab.start_pointsman(0, &config(&lab, scheduler))?;
            // The datagram first: nothing but the hash tells where it goes.
            let same = compare_udp_first(&lab, &lb, &echoes)?;
            measured("one_machine_after_a_restart", same, "sources", &format!("={SOURCES}"));
            ensure!(same == SOURCES, "after a restart: {same}\n{}", lb.log());
        }
    }
    Ok(())
}

fn config(lab: &Lab, scheduler: &str) -> String {
    let base = ServiceText::web(lab).scheduler(scheduler).persistence("50s\"\ngroup = \"shop");
    let udp = base.clone().udp().port(DATAGRAMS);
    format!("[[interface]]\nname = \"eth0\"\n{SMALL}{}{}", base.service_toml(), udp.service_toml())
}

fn echoes(lab: &Lab) -> Result<Vec<EchoResponder>> {
    let target = (lab.vip(), DATAGRAMS).into();
    let backends = lab.nodes_of(lab::node::Role::Backend);
    backends.map(|node| Ok(EchoResponder::start(node.netns(), target)?)).collect()
}

/// Of how many sources datagrams go where their requests went.
fn compare(lab: &Lab, lb: &Pointsman, echoes: &[EchoResponder]) -> Result<u16> {
    let mut same = 0;
    for source in lab.client(0).sources(SOURCES) {
        let web = request(lab, lb, source)?;
        same += u16::from(datagram(lab, echoes, source)? == web);
    }
    Ok(same)
}

fn compare_udp_first(lab: &Lab, lb: &Pointsman, echoes: &[EchoResponder]) -> Result<u16> {
    let mut same = 0;
    for source in lab.client(0).sources(SOURCES) {
        let udp = datagram(lab, echoes, source)?;
        same += u16::from(request(lab, lb, source)? == udp);
    }
    Ok(same)
}

/// Two requests on connections of their own: which backend answered.
fn request(lab: &Lab, lb: &Pointsman, source: IpAddr) -> Result<String> {
    let file = lab.files().ensure("1b")?;
    let load = LoadClient::new(lab.vip_port(80), &file).sources(vec![source]).requests(2);
    let report = patient(load).run(lab.client(0).netns())?;
    assert_all_done(&report, lb);
    let names: Vec<String> = report.per_backend().into_keys().collect();
    ensure!(names.len() == 1, "{source} on {names:?}");
    Ok(names.concat())
}

/// Three datagrams of one flow: which backend sent them back.
fn datagram(lab: &Lab, echoes: &[EchoResponder], source: IpAddr) -> Result<String> {
    let before: Vec<u64> = echoes.iter().map(EchoResponder::answered).collect();
    lab.client(0).netns().enter(|| -> Result<()> {
        let socket = UdpSocket::bind((source, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        for number in 0..3_u8 {
            socket.send_to(&[number], (lab.vip(), DATAGRAMS))?;
            ensure!(socket.recv(&mut [0; 8])? == 1, "another datagram");
        }
        Ok(())
    })??;
    // The answer is counted a moment after it was sent.
    let answered = || -> Vec<u64> {
        echoes.iter().zip(&before).map(|(echo, before)| echo.answered() - before).collect()
    };
    tests::lifecycle::wait_for("three answers", Duration::from_secs(1), || {
        Ok(answered().iter().sum::<u64>() == 3)
    })?;
    let who = answered().iter().position(|&count| count == 3);
    ensure!(who.is_some(), "{source}: {:?}", answered());
    Ok(who.map(|at| lab.backend(at).name()).unwrap_or_default())
}
