//! Frames that were sent to the MAC of another host.

use etherparse::IpNumber;

use super::frames::{sent_to, tagged};
use super::kit::{Node, Outcome, backend_mac};
use super::verdicts::{case, check, dropped, web, web6};
use crate::addr::Mac;
use crate::slots::BackendSlot;
use crate::verdict::DropReason;

/// Promiscuous ports and flooding switches show a worker what was sent to others.
#[test]
fn frames_of_other_hosts_are_left_alone() {
    use DropReason::OtherHost;
    let known: fn(&mut Node) = |node| assert_eq!(node.open((0, 0), web()), 0);
    let other = |frame| sent_to(frame, Mac([2, 0xaa, 0, 0, 0, 1]));
    let group = |frame| sent_to(frame, Mac([0xff; 6]));
    let to_backend = sent_to(web().ack(), backend_mac(BackendSlot(0)));
    let no_frame_of = |what, frame| case(what, known, frame, Outcome::Dropped(OtherHost));
    let answered = |what, frame| case(what, |_| (), frame, Outcome::Answered);
    check(
        vec![
            no_frame_of("known flow", other(web().ack())),
            no_frame_of("known flow, forwarded by another balancer", to_backend),
            no_frame_of("SYN", other(web6().syn())),
            no_frame_of("SYN to all hosts", group(web().syn())),
            no_frame_of("datagram", other(web().udp())),
            no_frame_of("datagram to all hosts", group(web6().to(443).udp())),
            no_frame_of("tagged datagram", tagged(&other(web().udp()), &[0x81, 0, 0x20, 0x64])),
            no_frame_of("fragment", other(web().fragment(IpNumber::UDP))),
            no_frame_of("ICMP error", other(web().too_big(IpNumber::TCP))),
            no_frame_of("echo request", other(web().echo())),
            no_frame_of("echo request to all hosts", group(web().echo())),
            no_frame_of("ARP request that asks another host", other(web().who_has())),
            no_frame_of("solicitation of another host", other(web6().who_has())),
            dropped("half an IP header", other(web().syn())[..30].to_vec(), DropReason::Malformed),
            answered("ARP request", group(web().who_has())),
            answered("ARP request that asks us again", web().who_has()),
            answered("solicitation", group(web6().who_has())),
        ],
        4,
    );
}
