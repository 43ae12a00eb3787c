mod failure;
mod groups;
mod leaving;
mod reload;
mod slow_start;
mod suspicion;

use std::time::Duration;

use dataplane::{Mac, Protocol, SchedulerKind, Sender, Timeouts};

use super::*;
use crate::desired::{
    self, Backend, Dataplane, FastPath, Interface, Poll, TaggedFrames, XdpMode, ZeroCopy,
};
use crate::resolution::CONFIRM;
use crate::vrrp;
use reach::LINK_PATIENCE;

const ETH0: PortId = PortId(0);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const RS1: Mac = Mac([2, 0, 0, 0, 1, 1]);
const RS2: Mac = Mac([2, 0, 0, 0, 1, 2]);
const T0: Tick = Tick::from_nanos(1_000_000_000_000);

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

pub(crate) fn service(name: &str, vip: u8, backends: &[u8]) -> desired::Service {
    desired::Service {
        name: name.into(),
        vrrp: None,
        vip: ip(vip),
        protocol: Protocol::Tcp,
        first_port: 80,
        last_port: 80,
        closed_ports: desired::ClosedPorts::Reject,
        scheduler: SchedulerKind::Maglev,
        hash: None,
        persistence: None,
        backends: backends
            .iter()
            .map(|last| Backend {
                name: format!("rs{last}"),
                address: ip(*last),
                weight: 1,
                check: crate::health::CheckOverride::default(),
                drain: None,
            })
            .collect(),
        health: Vec::new(),
        failure: desired::FailurePolicy::default(),
    }
}

pub(crate) fn desired(services: Vec<desired::Service>) -> Desired {
    Desired {
        node_name: None,
        interfaces: vec![Interface {
            name: "eth0".into(),
            mode: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            queues: None,
            tagged_frames: TaggedFrames::Keep,
        }],
        dataplane: Dataplane {
            cpus: None,
            poll: Poll::Adaptive,
            fast_path: FastPath::Auto,
            flow_capacity: 1024,
            persistence_capacity: 1024,
            pending_capacity: 1024,
            frames: 4096,
            timeouts: Timeouts::default(),
        },
        metrics_listen: None,
        control_socket: "/run/x.sock".into(),
        vrrp: vec![],
        services,
    }
}

/// A controller with a link, a network and all commands so far thrown away.
fn linked(services: Vec<desired::Service>) -> Controller {
    let mut controller = Controller::new(desired(services), T0);
    controller.handle(routes(&controller), T0);
    controller.handle(Event::Link(ETH0, Some(link(7, true))), T0);
    commands(&mut controller);
    controller
}

/// Every backend is reached by `eth0`.
fn routes(controller: &Controller) -> Event {
    let addresses = controller.addresses();
    Event::Routes(addresses.into_iter().map(|address| (address, Some(ETH0))).collect())
}

fn link(ifindex: u32, up: bool) -> Link {
    Link { ifindex, mac: OWN, up, mtu: 1500 }
}

fn commands(controller: &mut Controller) -> Vec<Command> {
    std::iter::from_fn(|| controller.poll_command()).collect()
}

fn tell(controller: &mut Controller, event: Event) -> Vec<Command> {
    let reloaded = matches!(event, Event::Desired(_));
    controller.handle(event, T0);
    if reloaded {
        controller.handle(routes(controller), T0);
    }
    commands(controller)
}

fn published(commands: &[Command]) -> Arc<Snapshot> {
    commands
        .iter()
        .find_map(|command| {
            if let Command::Publish(snapshot) = command { Some(Arc::clone(snapshot)) } else { None }
        })
        .expect("nothing was published")
}

fn acknowledge_all(controller: &mut Controller) {
    let (generation, _) = controller.generations();
    tell(controller, Event::Acknowledged(generation));
}

fn is_backend_report(command: &Command) -> bool {
    matches!(command, Command::Report(Report::Backend(_)))
}

fn reload(services: Vec<desired::Service>) -> Event {
    Event::Desired(Box::new(desired(services)))
}

fn resolved(address: u8, mac: Mac) -> Event {
    Event::Neighbour(ip(address), Neighbour::Resolved(mac))
}

fn usable(controller: &Controller, service: usize, backend: usize) -> Result<Mac, Unusable> {
    let status = controller.services().nth(service).unwrap();
    status.backends[backend].usable.clone().map(|(_, mac)| mac)
}

#[test]
fn a_vip_is_steered_only_after_the_workers_know_it() {
    let mut controller = linked(vec![service("web", 100, &[11])]);
    let (published, _) = controller.generations();
    assert!(!controller.all_steered());
    assert!(tell(&mut controller, Event::Acknowledged(published - 1)).is_empty());
    let done = tell(&mut controller, Event::Acknowledged(published));
    assert!(
        matches!(done[..], [Command::InsertVip(vip, Owner { instance: STANDALONE, port: None })]
            if vip == ip(100).into()),
        "{done:?}"
    );
    assert!(controller.all_steered());
}

#[test]
fn a_vip_leaves_the_map_before_the_snapshot_forgets_it() {
    let mut controller = linked(vec![service("web", 100, &[11]), service("dns", 101, &[12])]);
    let (generation, _) = controller.generations();
    tell(&mut controller, Event::Acknowledged(generation));
    let done = tell(&mut controller, reload(vec![service("web", 100, &[11])]));
    let at = |wanted: fn(&Command) -> bool| done.iter().position(wanted).expect("missing");
    let removed = at(|command| matches!(command, Command::RemoveVip(_)));
    let publish = at(|command| matches!(command, Command::Publish(_)));
    assert!(removed < publish, "{done:?}");
    assert!(published(&done).vip(ip(101).into()).is_none());
}

#[test]
fn a_backend_needs_network_link_and_mac_in_that_order() {
    let mut controller = Controller::new(desired(vec![service("web", 100, &[11])]), T0);
    tell(&mut controller, Event::Routes([(ip(11), None)].into()));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::OffLink));
    tell(&mut controller, Event::Routes([(ip(11), Some(ETH0))].into()));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::LinkDown("eth0".into())));
    let asked = tell(&mut controller, Event::Link(ETH0, Some(link(7, true))));
    assert!(asked.iter().any(|c| matches!(c, Command::Watch(ETH0, a) if *a == ip(11))));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::Resolving));
    tell(&mut controller, Event::Neighbour(ip(11), Neighbour::Failed));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::Resolving), "it may be a deletion");
    controller.handle_timeout(T0 + CONFIRM);
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::NoAnswer));
    tell(&mut controller, resolved(11, OWN));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::OwnMac));
    tell(&mut controller, resolved(11, RS1));
    assert_eq!(usable(&controller, 0, 0), Ok(RS1));
    tell(&mut controller, Event::Link(ETH0, Some(link(7, false))));
    assert_eq!(usable(&controller, 0, 0), Ok(RS1), "it may be a flap");
    let lost = controller.next_deadline().unwrap();
    assert_eq!(lost, T0 + CONFIRM + LINK_PATIENCE);
    controller.handle_timeout(lost);
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::LinkDown("eth0".into())));
}

#[test]
fn a_new_mac_changes_the_hop_and_rebuilds_no_service() {
    let mut controller = linked(vec![service("web", 100, &[11, 12])]);
    tell(&mut controller, resolved(11, RS1));
    let before = published(&tell(&mut controller, resolved(12, RS2)));
    let moved = Mac([2, 0, 0, 0, 9, 9]);
    let after = published(&tell(&mut controller, resolved(12, moved)));
    assert!(Arc::ptr_eq(&before.services()[0], &after.services()[0]));
    let slot = controller.services().next().unwrap().backends[1].slot.unwrap();
    assert_eq!(after.next_hop(slot).macs[..6], moved.0);
    assert_eq!(after.next_hop(slot).macs[6..], OWN.0);
    assert_eq!(after.guard.sender(moved), Sender::Backend);
    assert_eq!(after.guard.sender(RS2), Sender::Client, "the old MAC may be a client's now");
}

#[test]
fn the_same_neighbour_again_publishes_nothing() {
    let mut controller = linked(vec![service("web", 100, &[11])]);
    tell(&mut controller, resolved(11, RS1));
    assert!(tell(&mut controller, resolved(11, RS1)).is_empty());
}

#[test]
fn unusable_and_weightless_backends_take_no_new_sources() {
    let mut web = service("web", 100, &[11, 12, 13]);
    web.backends[2].weight = 0;
    let mut controller = linked(vec![web]);
    tell(&mut controller, resolved(11, RS1));
    let snapshot = published(&tell(&mut controller, resolved(13, RS2)));
    let backends = &controller.services().next().unwrap().backends;
    let next_hop = |at: usize| *snapshot.next_hop(backends[at].slot.unwrap());
    assert!(next_hop(0).usable && next_hop(0).eligible);
    assert!(!next_hop(1).usable && !next_hop(1).eligible);
    assert!(next_hop(2).usable && !next_hop(2).eligible);
    for hash in 0..1000 {
        let chosen = snapshot.services()[0].scheduler.stable(hash);
        assert_eq!(chosen, backends[0].slot);
    }
}

#[test]
fn changes_of_usability_are_reported_once_with_since_when() {
    let mut controller = linked(vec![service("web", 100, &[11])]);
    let later = T0 + Duration::from_secs(5);
    controller.handle(resolved(11, RS1), later);
    let reports = |done: Vec<Command>| done.iter().filter(|c| is_backend_report(c)).count();
    assert_eq!(reports(commands(&mut controller)), 1);
    assert_eq!(controller.services().next().unwrap().backends[0].since, later);
    assert_eq!(reports(tell(&mut controller, resolved(11, RS2))), 0, "only the MAC changed");
    assert_eq!(controller.services().next().unwrap().backends[0].since, later);
}

#[test]
fn a_slot_is_not_reused_while_a_template_names_it() {
    let mut controller = linked(vec![service("web", 100, &[11])]);
    let old = controller.services().next().unwrap().backends[0].slot.unwrap();
    let without = desired(vec![service("web", 100, &[])]);
    tell(&mut controller, Event::Desired(Box::new(without)));
    let (generation, _) = controller.generations();
    tell(&mut controller, Event::Acknowledged(generation));
    controller.reclaim_slots(|slot| slot == old);
    tell(&mut controller, reload(vec![service("web", 100, &[12])]));
    let new = controller.services().next().unwrap().backends[0].slot.unwrap();
    assert_ne!(new, old);
    // First the drained backend goes; when the workers know that, its slot is free.
    for _ in 0..2 {
        acknowledge_all(&mut controller);
        controller.reclaim_slots(|_| false);
        commands(&mut controller);
    }
    tell(&mut controller, reload(vec![service("web", 100, &[12, 13])]));
    let reused = controller.services().next().unwrap().backends[1].slot.unwrap();
    assert_eq!(reused, old);
}

#[test]
fn two_nodes_whose_files_differ_in_names_and_order_choose_alike() {
    let mut here = linked(vec![service("web", 100, &[11, 12])]);
    let mut renamed = service("other", 100, &[12, 11]);
    renamed.backends[0].name = "zwei".into();
    let mut there = linked(vec![renamed]);
    for controller in [&mut here, &mut there] {
        tell(controller, resolved(11, RS1));
    }
    let a = published(&tell(&mut here, resolved(12, RS2)));
    let b = published(&tell(&mut there, resolved(12, RS2)));
    for hash in (0..10_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let to = |snapshot: &Snapshot| {
            snapshot.next_hop(snapshot.services()[0].scheduler.stable(hash).unwrap()).macs
        };
        assert_eq!(to(&a), to(&b));
    }
}

fn instance(name: &str) -> desired::Vrrp {
    desired::Vrrp {
        name: name.into(),
        interface: "eth0".into(),
        vrid: vrrp::Vrid::MIN,
        version: vrrp::Version::V3,
        priority: 100,
        advert_interval: Duration::from_secs(1),
        preempt: true,
        preempt_delay: Duration::ZERO,
        down_adverts: 3,
        checksum: vrrp::ChecksumMode::Auto,
        handover: vrrp::Handover::Lease,
        unicast: false,
        source: None,
        auth_pass: None,
        peers: vec![],
        group: None,
        control_timeout: Duration::from_secs(60),
        announce: vrrp::AnnounceTimes::default(),
        track: vec![],
        notify: None,
    }
}

/// `web` belongs to an instance, `dns` to none.
fn with_instance(name: &str) -> Desired {
    let mut web = service("web", 100, &[11]);
    web.vrrp = Some(name.into());
    let dns = service("dns", 101, &[11]);
    Desired { vrrp: vec![instance(name)], ..desired(vec![web, dns]) }
}

#[test]
fn vip_service_and_hop_name_their_instance_and_its_interface() {
    let mut controller = linked(vec![]);
    tell(&mut controller, Event::Desired(Box::new(with_instance("VI_1"))));
    let snapshot = published(&tell(&mut controller, resolved(11, RS1)));
    let slot = controller.instance_slot("VI_1").unwrap();
    assert_ne!(slot, STANDALONE);
    let vip = |last| snapshot.vip(ip(last).into()).copied().unwrap();
    assert_eq!((vip(100).instance, vip(100).port), (slot, Some(ETH0)));
    assert_eq!((vip(101).instance, vip(101).port), (STANDALONE, None));
    for (service, expected) in controller.services().zip([slot, STANDALONE]) {
        let next_hop = snapshot.next_hop(service.backends[0].slot.unwrap());
        assert_eq!(next_hop.instance, expected, "{}", service.name);
    }
    let instances: Vec<_> = snapshot.services().iter().map(|service| service.instance).collect();
    assert_eq!(instances, [slot, STANDALONE]);
}

#[test]
fn the_vip_of_an_instance_follows_its_interface() {
    let mut controller = linked(vec![]);
    tell(&mut controller, Event::Desired(Box::new(with_instance("VI_1"))));
    let acknowledge = |controller: &mut Controller| {
        let (generation, _) = controller.generations();
        let done = tell(controller, Event::Acknowledged(generation));
        let inserted = done.into_iter().filter_map(|command| match command {
            Command::InsertVip(vip, owner) => Some((vip, owner.port)),
            Command::Publish(_)
            | Command::RemoveVip(_)
            | Command::Watch(..)
            | Command::Unwatch(..)
            | Command::Report(_) => None,
        });
        inserted.collect::<Vec<_>>()
    };
    let (web, dns): (Addr, Addr) = (ip(100).into(), ip(101).into());
    assert_eq!(acknowledge(&mut controller), [(web, Some((ETH0, 7))), (dns, None)]);
    let gone = tell(&mut controller, Event::Link(ETH0, None));
    assert!(gone.iter().any(|c| matches!(c, Command::RemoveVip(vip) if *vip == web)), "{gone:?}");
    assert_eq!(acknowledge(&mut controller), []);
    tell(&mut controller, Event::Link(ETH0, Some(link(8, true))));
    assert_eq!(acknowledge(&mut controller), [(web, Some((ETH0, 8)))]);
    tell(&mut controller, Event::Link(ETH0, Some(link(9, true))));
    assert_eq!(acknowledge(&mut controller), [(web, Some((ETH0, 9)))], "another device");
}

#[test]
fn a_service_that_moves_to_an_instance_is_built_anew_and_slots_are_not_shared() {
    let mut controller = linked(vec![]);
    tell(&mut controller, Event::Desired(Box::new(with_instance("VI_1"))));
    let first = controller.instance_slot("VI_1").unwrap();
    let snapshot =
        published(&tell(&mut controller, Event::Desired(Box::new(with_instance("VI_2")))));
    let second = controller.instance_slot("VI_2").unwrap();
    assert!(second != first && second != STANDALONE, "the old one is not acknowledged away yet");
    assert_eq!(snapshot.services()[0].instance, second);
    assert_eq!(controller.instance_slot("VI_1"), None);
}

/// What happens to the own link and to the kernel's neighbour table while services run.
#[test]
fn flaps_and_flushes_change_nothing_that_the_packet_path_reads() {
    let mut controller = linked(vec![service("web", 100, &[11, 12])]);
    tell(&mut controller, resolved(11, RS1));
    let before = published(&tell(&mut controller, resolved(12, RS2)));
    let neighbours = [Neighbour::Failed, Neighbour::Missing, Neighbour::Asking(None)];
    let mut now = T0;
    for round in 0..60 {
        now = now + Duration::from_secs(2);
        let mut done = Vec::new();
        let mut hear = |controller: &mut Controller, event, now| {
            controller.handle(event, now);
            done.extend(commands(controller));
        };
        hear(&mut controller, Event::Link(ETH0, Some(link(7, false))), now);
        hear(&mut controller, Event::Routes([(ip(11), None), (ip(12), None)].into()), now);
        for neighbour in neighbours {
            hear(&mut controller, Event::Neighbour(ip(11), neighbour), now);
        }
        now = now + Duration::from_millis(100);
        hear(&mut controller, Event::Link(ETH0, Some(link(7, true))), now);
        let again = routes(&controller);
        hear(&mut controller, again, now);
        for neighbour in neighbours {
            hear(&mut controller, Event::Neighbour(ip(12), neighbour), now);
        }
        controller.handle_timeout(now + CONFIRM);
        hear(&mut controller, resolved(11, RS1), now);
        hear(&mut controller, resolved(12, RS2), now);
        assert!(!done.iter().any(|c| matches!(c, Command::Report(_))), "round {round}: {done:?}");
        for command in &done {
            let Command::Publish(snapshot) = command else { continue };
            assert!(Arc::ptr_eq(&snapshot.services()[0], &before.services()[0]), "round {round}");
            for backend in controller.services().next().unwrap().backends {
                let slot = backend.slot.unwrap();
                assert_eq!(snapshot.next_hop(slot), before.next_hop(slot), "round {round}");
            }
        }
    }
    let transitions = |controller: &Controller| -> u64 {
        controller.services().flat_map(|s| s.backends).map(|backend| backend.transitions).sum()
    };
    assert_eq!(transitions(&controller), 2);
    // One that lasts takes all of them out, refuses no client, and brings them back at once.
    controller.handle(Event::Link(ETH0, Some(link(7, false))), now);
    controller.handle_timeout(now + 2 * LINK_PATIENCE);
    let lost = published(&commands(&mut controller));
    assert!(lost.services()[0].scheduler.members().is_empty(), "still there");
    assert!(!lost.services()[0].reject, "that is not the backends' fault");
    controller.handle(Event::Link(ETH0, Some(link(7, true))), now + 9 * LINK_PATIENCE);
    let back = published(&commands(&mut controller));
    assert_eq!(back.services()[0].scheduler.members(), before.services()[0].scheduler.members());
    assert_eq!(transitions(&controller), 2, "nor counted against them");
}

/// Neighbour discovery that had no address to ask from says nothing.
#[test]
fn a_resolution_counts_from_when_there_is_an_address() {
    let mut controller = linked(vec![service("web", 100, &[11])]);
    let address = Network { address: ip(1), prefix: 24 };
    let later = T0 + Duration::from_secs(3);
    controller.handle(Event::Networks(ETH0, vec![address]), later);
    let failed = || Event::Neighbour(ip(11), Neighbour::Failed);
    controller.handle(failed(), later + Duration::from_millis(500));
    controller.handle_timeout(later + Duration::from_millis(4_900));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::Resolving));
    controller.handle_timeout(later + Duration::from_secs(5));
    assert_eq!(usable(&controller, 0, 0), Err(Unusable::NoAnswer), "given up");
}
