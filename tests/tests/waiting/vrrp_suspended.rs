//! A frozen Active. Needs root.

use lab::{Capture, Direction, Process, Result};

use crate::vrrp::{Pair, Settings, ms, runs};

/// A stopped process gives the VIP up by itself: at no time do two nodes answer ARP for it, and
/// what wakes up is a Backup before it is anything else.
#[test]
fn a_frozen_active_never_answers_beside_its_successor() -> Result<()> {
    let mut pair = Pair::start(&Settings::fast())?;
    for run in 0..runs() {
        let client = pair.lab.client(0);
        let file = client.dir().join(format!("arp-{run}.pcap"));
        let replies = Capture::start(client.netns(), "eth0", Direction::In, "arp[6:2] = 2", file)?;
        let vip = pair.lab.vip();
        let log = client.dir().join("arping.log");
        let argv = ["arping", "-q", "-i", "eth0", "-W", "0.01", &vip.to_string()];
        let asking = Process::start(client.netns(), "arping", &argv, &log)?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        let before = pair.first().log().len();
        pair.first().process().pause()?;
        pair.wait(ms(5000));
        assert_eq!(pair.instance(1)["vips_active"], true);
        pair.first().process().resume()?;
        pair.wait_active(0)?;
        pair.wait(ms(300));
        drop(asking);

        let owners: Vec<[u8; 6]> = replies
            .finish()?
            .iter()
            .filter(|frame| frame.bytes.get(28..32) == Some(vip.octets().as_slice()))
            .filter_map(|frame| frame.summary().map(|summary| summary.source_mac))
            .collect();
        let moves = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(owners.len() > 100, "{} answers", owners.len());
        assert_eq!(moves, 2, "there and back, run {run}");
        let log = pair.first().log();
        let entered: Vec<&str> =
            log[before..].lines().filter_map(|line| line.split("Entering ").nth(1)).collect();
        assert!(entered[0].starts_with("BACKUP"), "{entered:?}");
    }
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}
