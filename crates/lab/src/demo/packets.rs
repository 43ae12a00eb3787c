//! The first part of the demo: a request seen on both sides of the balancer.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use lab::{
    Capture, Direction, Lab, LoadClient,
    node::Role,
    pcap::{Comparison, Frame, Summary, compare, mac},
};

use super::Statement;

/// What the captures say.
pub(crate) struct Evidence {
    /// Frames towards the balancer against frames at the backend.
    pub(super) comparison: Comparison,
    /// The first frames as the balancer got them, and as the backend got them.
    pub(super) before: Vec<Summary>,
    pub(super) behind: Vec<Summary>,
    /// Addresses in the frames that the backend got.
    addresses: BTreeSet<IpAddr>,
    /// Names of the MAC addresses.
    names: Vec<([u8; 6], String)>,
    backend: String,
    client: IpAddr,
    vip: IpAddr,
}

/// Fetches a small file three times and captures it.
pub(crate) fn show(lab: &Lab) -> anyhow::Result<Evidence> {
    let file = lab.files().ensure("1b")?;
    let filter = format!("tcp and dst host {}", lab.vip());
    let port = lab.balancer(0).name();
    let dir = lab.balancer(0).dir();
    let mut before =
        Capture::start(lab.switch(), &port, Direction::Out, &filter, dir.join("before.pcap"))?;
    let mut behind = Vec::new();
    for backend in lab.nodes_of(Role::Backend) {
        let file = backend.dir().join("behind.pcap");
        let capture = Capture::start(backend.netns(), "eth0", Direction::In, &filter, file)?;
        behind.push(capture);
    }
    let load = LoadClient::new(lab.vip_port(80), &file).requests(3).verify(&file);
    let load = load.run(lab.client(0).netns())?;
    anyhow::ensure!(load.failed() == 0, "three requests for one byte:\n{load}");
    // The last FINs and ACKs are still on their way.
    let (quiet, limit) = (Duration::from_millis(200), Duration::from_secs(5));
    before.settle(quiet, limit)?;
    behind.iter_mut().try_for_each(|capture| capture.settle(quiet, limit))?;
    let before = before.finish()?;
    let mut got = Vec::new();
    for capture in behind {
        got.extend(Some(capture.finish()?).filter(|frames| !frames.is_empty()));
    }
    anyhow::ensure!(got.len() == 1, "{} backends got packets of one client", got.len());
    let got = got.concat();
    Ok(evidence(lab, &before, &got))
}

fn evidence(lab: &Lab, before: &[Frame], got: &[Frame]) -> Evidence {
    let first = |frames: &[Frame]| frames.iter().filter_map(Frame::summary).take(4).collect();
    let (first_before, first_behind): (Vec<_>, Vec<_>) = (first(before), first(got));
    let addresses = got.iter().filter_map(|frame| frame.summary()?.addresses);
    let nodes = [Role::Client, Role::Balancer, Role::Backend].into_iter();
    let nodes = nodes.flat_map(|role| lab.nodes_of(role));
    let names: Vec<_> = nodes.map(|node| (node.mac(), node.name())).collect();
    let name_of = |mac| names.iter().find(|(known, _)| *known == mac).map(|(_, name)| name.clone());
    let backend = first_behind.first().and_then(|frame| name_of(frame.destination_mac));
    Evidence {
        comparison: compare(before, got),
        addresses: addresses.flat_map(|(from, to)| [from, to]).collect(),
        before: first_before,
        behind: first_behind,
        names,
        backend: backend.unwrap_or_default(),
        client: lab.client(0).address().into(),
        vip: lab.vip().into(),
    }
}

impl Evidence {
    /// What must hold.
    pub(super) fn statements(&self) -> Vec<Statement> {
        let changes = Statement {
            met: self.unchanged(),
            text: format!(
                "{} frames on both sides of the balancer: all bytes equal but the two MAC addresses",
                self.comparison.equal
            ),
        };
        let text = "at the backend only the client's address and the VIP appear".into();
        vec![changes, Statement { met: self.only_client_and_vip(), text }]
    }

    /// Whether every frame was forwarded once, unchanged but for its MAC addresses.
    fn unchanged(&self) -> bool {
        let Comparison { equal, only_first, only_second, cut } = self.comparison;
        equal > 0 && (only_first, only_second, cut) == (0, 0, 0)
    }

    /// Whether the backend saw exactly these two addresses.
    fn only_client_and_vip(&self) -> bool {
        self.addresses == BTreeSet::from([self.client, self.vip])
    }

    /// `02:00:0a:4d:01:01 (client1)`.
    pub(super) fn mac_name(&self, address: [u8; 6]) -> String {
        let name = self.names.iter().find(|(known, _)| *known == address);
        let name = name.map_or("unknown", |(_, name)| name);
        format!("{} ({name})", mac(address))
    }

    /// Name of the backend that got the packets.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    fn line(&self, frame: &Summary) -> String {
        let macs = [frame.source_mac, frame.destination_mac].map(|mac| self.mac_name(mac));
        format!("{} > {}  {}", macs[0], macs[1], inner(frame))
    }
}

/// What is not rewritten: `10.77.1.1:40000 > 10.77.0.100:80  TCP SYN`.
pub(super) fn inner(frame: &Summary) -> String {
    let Some(((from, to), (from_port, to_port))) = frame.addresses.zip(frame.ports) else {
        return frame.kind.clone();
    };
    format!("{from}:{from_port} > {to}:{to_port}  {}", frame.kind)
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  What the balancer got from the client:")?;
        for frame in &self.before {
            writeln!(f, "    {}", self.line(frame))?;
        }
        writeln!(f, "  What the backend {} got from the balancer:", self.backend)?;
        for frame in &self.behind {
            writeln!(f, "    {}", self.line(frame))?;
        }
        let list: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        writeln!(
            f,
            "  {} frames compared, {} equal in all bytes but the MAC addresses, which change from\n  \
             client1 > lb1 to lb1 > {}. Addresses at the backend: {} (client {}, VIP {}).",
            self.comparison.equal + self.comparison.only_first,
            self.comparison.equal,
            self.backend,
            list.join(", "),
            self.client,
            self.vip,
        )?;
        writeln!(f, "  The answer goes from {} straight to the client.", self.backend)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const CLIENT: [u8; 6] = [2, 0, 10, 77, 1, 1];
    const BALANCER: [u8; 6] = [2, 0, 10, 77, 2, 1];
    const BACKEND: [u8; 6] = [2, 0, 10, 77, 3, 1];

    /// A SYN that was forwarded as it should be.
    pub(in super::super) fn evidence_of_one_frame() -> Evidence {
        let (client, vip) = (IpAddr::from([10, 77, 1, 1]), IpAddr::from([10, 77, 0, 100]));
        let frame = |source_mac, destination_mac| Summary {
            source_mac,
            destination_mac,
            addresses: Some((client, vip)),
            ports: Some((1024, 80)),
            kind: "TCP SYN".into(),
        };
        Evidence {
            comparison: Comparison { equal: 1, ..Comparison::default() },
            before: vec![frame(CLIENT, BALANCER)],
            behind: vec![frame(BALANCER, BACKEND)],
            addresses: BTreeSet::from([client, vip]),
            names: vec![(BALANCER, "lb1".into())],
            backend: "rs1".into(),
            client,
            vip,
        }
    }

    #[test]
    fn lost_changed_repeated_or_cut_frames_are_not_unchanged() {
        let good = evidence_of_one_frame();
        assert!(good.unchanged() && good.only_client_and_vip());
        let with = |comparison| Evidence { comparison, ..evidence_of_one_frame() }.unchanged();
        let equal = Comparison { equal: 5, ..Comparison::default() };
        assert!(with(equal));
        assert!(!with(Comparison::default()));
        assert!(!with(Comparison { only_first: 1, ..equal }));
        assert!(!with(Comparison { only_second: 1, ..equal }));
        assert!(!with(Comparison { cut: 1, ..equal }));
    }

    #[test]
    fn a_third_address_is_noticed() {
        let mut evidence = evidence_of_one_frame();
        evidence.addresses.insert(IpAddr::from([10, 77, 2, 1]));
        assert!(!evidence.only_client_and_vip());
    }

    #[test]
    fn lines_name_the_machines() {
        let text = evidence_of_one_frame().to_string();
        let line = "02:00:0a:4d:02:01 (lb1) > 02:00:0a:4d:03:01 (unknown)  \
                    10.77.1.1:1024 > 10.77.0.100:80  TCP SYN\n";
        assert!(text.contains(line), "{text}");
    }
}
