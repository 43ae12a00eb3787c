//! Attachments, in network namespaces without a name: each belongs to one thread of this process
//! (and its children) and goes with it.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::panic;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::{Xdp, XdpFlags};
use rustix::net::netdevice;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::UnshareFlags;

use super::frames::OUR_MAC;
use super::rig::xdp_socket;
use crate::abi::XSKS;
use crate::object;
use crate::trial::{Action, Trial};
use crate::{AttachMode, Attached, AttachedMode, Interface, Outcome, Steer, SteerError, TagPlace};

#[test]
fn attaches_in_each_mode_and_goes_when_dropped() {
    in_namespace(|| {
        let steer = steer();
        for (mode, became, shown) in [
            (AttachMode::Auto, AttachedMode::Native, "xdp"),
            (AttachMode::Native, AttachedMode::Native, "xdp"),
            (AttachMode::Generic, AttachedMode::Generic, "xdpgeneric"),
        ] {
            let attached = attach(&steer, mode).unwrap();
            assert_eq!(attached.mode(), became);
            assert_eq!(shown_by_ip(), Some(shown.to_owned()));
            drop(attached);
            assert_eq!(shown_by_ip(), None);
        }
    });
}

#[test]
fn a_hundred_cycles_leave_nothing() {
    in_namespace(|| {
        let steer = steer();
        for _ in 0..100 {
            attach(&steer, AttachMode::Native).unwrap();
        }
        assert_eq!(shown_by_ip(), None);
    });
}

#[test]
fn dropping_the_owner_detaches_what_it_attached() {
    in_namespace(|| {
        let steer = steer();
        let attached = attach(&steer, AttachMode::Native).unwrap();
        drop(steer);
        assert_eq!(shown_by_ip(), None);
        assert!(attached.counters().is_ok(), "what was counted can still be read");
    });
}

#[test]
fn frames_on_the_wire_are_counted_and_the_nodes_own_traffic_flows() {
    in_namespace(|| {
        let steer = steer();
        let attached = attach(&steer, AttachMode::Native).unwrap();
        steer
            .insert_vip(
                super::rig::mapped([192, 0, 2, 10]),
                crate::abi::Vip { instance: 0, ifindex: index_of(OURS) },
            )
            .unwrap();
        run("ip address add 192.0.2.1/24 dev ours");
        let far = FarEnd::new();
        wait_for(|| far.ping("192.0.2.1"), PATIENCE);
        assert!(attached.counters().unwrap()[Outcome::Passed] >= 2);
        assert!(!far.ping("192.0.2.10"), "a VIP without a lease answered");
        let counters = attached.counters().unwrap();
        assert!(counters[Outcome::NeighbourInactive] >= 1, "{counters:?}");
        assert_eq!(counters[Outcome::Malformed], 0, "{counters:?}");
    });
}

#[test]
fn a_second_owner_is_refused_and_told_who_was_first() {
    in_namespace(|| {
        let (first, second) = (steer(), steer());
        let attached = attach(&first, AttachMode::Native).unwrap();
        for mode in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
            let Err(SteerError::Foreign(foreign)) = attach(&second, mode) else {
                panic!("attached in {mode} mode over another program");
            };
            assert_eq!((foreign.mode, foreign.program_name.as_str()), ("native", "steer"));
            let holders = foreign.link.as_ref().map(|link| &link.holders[..]).unwrap_or_default();
            assert_eq!(holders.len(), 1, "{foreign}");
            assert_eq!(holders[0].pid, std::process::id());
            assert!(foreign.to_string().contains(&holders[0].name), "{foreign}");
        }
        assert_eq!(shown_by_ip(), Some("xdp".to_owned()));
        drop(attached);
        attach(&second, AttachMode::Native).unwrap();
    });
}

#[test]
fn a_program_without_a_link_is_named_and_left_alone() {
    in_namespace(|| {
        let steer = steer();
        let mut storage = std::mem::MaybeUninit::uninit();
        let foreign = object::load(&mut storage, |_| Ok(())).unwrap();
        let xdp = Xdp::new(foreign.progs.steer.as_fd());
        let index = i32::try_from(index_of(OURS)).unwrap();
        for (flag, mode, option) in [
            (XdpFlags::DRV_MODE, "native", "xdpdrv"),
            (XdpFlags::SKB_MODE, "generic", "xdpgeneric"),
        ] {
            xdp.attach(index, flag).unwrap();
            let error = attach(&steer, AttachMode::Auto).unwrap_err();
            let SteerError::Foreign(found) = &error else { panic!("{error}") };
            assert_eq!(found.mode, mode);
            assert_eq!(found.link, None);
            assert_eq!(found.program_id, xdp.query_id(index, XdpFlags::NONE).unwrap());
            assert!(shown_by_ip().is_some(), "it is still there");
            // The advice works as it stands.
            let text = error.to_string();
            let advice = text.rsplit('`').nth(1).unwrap();
            assert_eq!(advice, format!("ip link set dev {OURS} {option} off"));
            run(advice);
            assert_eq!(shown_by_ip(), None);
        }
    });
}

#[test]
fn a_driver_that_refuses_the_mtu_is_told_from_other_refusals() {
    in_namespace(|| {
        let steer = steer();
        run("ip link set peer mtu 9000");
        let error = attach(&steer, AttachMode::Native).unwrap_err();
        assert!(matches!(error, SteerError::MtuTooLarge { .. }), "{error}");
        assert!(error.to_string().contains("MTU of the peer"), "{error}");
        assert_eq!(attach(&steer, AttachMode::Auto).unwrap().mode(), AttachedMode::Generic);

        run("ip link add few numrxqueues 1 type veth peer name many numtxqueues 4");
        run("ethtool -L many tx 4");
        let few = Interface { name: "few", ifindex: index_of("few"), ..ours() };
        let error = steer.attach(few, AttachMode::Native).unwrap_err();
        assert!(matches!(error, SteerError::Attach { .. }), "{error}");
        assert!(error.to_string().contains("as many RX queues as its peer has TX"), "{error}");
    });
}

#[test]
fn interfaces_that_are_not_there_are_named() {
    in_namespace(|| {
        let steer = steer();
        let index = index_of(OURS);
        for (name, index) in [("nothing", index), (OURS, index + 100), (OURS, 0)] {
            let interface = Interface { name, ifindex: index, ..ours() };
            let error = steer.attach(interface, AttachMode::Auto).unwrap_err();
            assert!(matches!(error, SteerError::NoSuchInterface { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        // A device that goes takes the attachment with it; its successor can be attached to.
        let attached = attach(&steer, AttachMode::Native).unwrap();
        run("ip link delete ours");
        make_interfaces();
        let again = attach(&steer, AttachMode::Native).unwrap();
        drop(attached);
        assert_eq!(shown_by_ip(), Some("xdp".to_owned()));
        drop(again);
    });
}

#[test]
fn sockets_have_room_beyond_the_queues() {
    in_namespace(|| {
        let steer = steer();
        let attached = attach(&steer, AttachMode::Native).unwrap();
        assert_eq!(attached.queues(), XSKS);
        let (xdp, other) = (xdp_socket(), udp_socket());
        for queue in [0, 1, XSKS - 1] {
            attached.set_socket(queue, xdp.as_fd()).unwrap();
            attached.set_socket(queue, xdp.as_fd()).unwrap();
            attached.clear_socket(queue).unwrap();
            attached.clear_socket(queue).unwrap();
        }
        let beyond = attached.set_socket(XSKS, xdp.as_fd()).unwrap_err();
        assert!(matches!(beyond, SteerError::OutOfRange { what: "queue", .. }), "{beyond}");
        assert!(attached.clear_socket(XSKS).is_err());
        let wrong = attached.set_socket(0, other.as_fd()).unwrap_err();
        assert!(matches!(wrong, SteerError::Map { .. }), "{wrong}");
        drop(attached);

        let many = Interface { queues: XSKS + 1, ..ours() };
        let many = steer.attach(many, AttachMode::Native).unwrap();
        assert_eq!(many.queues(), 2 * XSKS);
    });
}

#[test]
fn two_interfaces_share_vips_but_not_sockets_and_counters() {
    in_namespace(|| {
        let steer = steer();
        let [one, other] = [(); 2].map(|()| Trial::new(&steer, OUR_MAC).unwrap());
        let vip = crate::abi::Vip { instance: 0, ifindex: 0 };
        steer.insert_vip(super::rig::mapped(super::rig::ACTIVE4), vip).unwrap();
        let frame = super::frames::frame(&super::frames::tcp4(super::rig::ACTIVE4));

        for trial in [&one, &other, &other] {
            trial.bind(false).unwrap();
            let (action, outcome) = trial.run(&frame, &mut Vec::new()).unwrap();
            assert_eq!((action, outcome), (Action::Drop, Outcome::Inactive));
        }
        assert_eq!(one.counters().unwrap()[Outcome::Inactive], 1);
        assert_eq!(other.counters().unwrap()[Outcome::Inactive], 2);
    });
}

/// In generic mode the kernel looks at the frame before the program does: both must agree.
#[test]
fn frames_to_another_hosts_mac_are_left_to_the_kernel_until_it_is_ours() {
    in_namespace(|| {
        let steer = steer();
        let vip = crate::abi::Vip { instance: 0, ifindex: 0 };
        steer.insert_vip(super::rig::mapped([192, 0, 2, 10]), vip).unwrap();
        let far = FarEnd::new();
        far.run("ip neighbour add 192.0.2.10 lladdr 02:00:00:00:00:07 dev peer");
        run("ip link set ours promisc on");
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let attached = attach(&steer, mode).unwrap();
            assert!(!far.ping("192.0.2.10"));
            let counters = attached.counters().unwrap();
            assert_eq!((counters[Outcome::OtherHost], counters[Outcome::Inactive]), (1, 0));

            attached.set_mac([2, 0, 0, 0, 0, 7]).unwrap();
            assert!(!far.ping("192.0.2.10"));
            let counters = attached.counters().unwrap();
            assert_eq!((counters[Outcome::OtherHost], counters[Outcome::Inactive]), (1, 1));
        }
    });
}

#[test]
fn nothing_stays_attached_after_kill_9() {
    if env::var_os(CHILD).is_some() {
        let steer = steer();
        let _attached = attach(&steer, AttachMode::Native).unwrap();
        thread::sleep(PATIENCE);
        panic!("nobody killed this process");
    }
    in_namespace(|| {
        let mut child = myself("nothing_stays_attached_after_kill_9", &[])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(|| shown_by_ip().is_some(), PATIENCE);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for(|| shown_by_ip().is_none(), Duration::from_millis(100));
        drop(attach(&steer(), AttachMode::Native).unwrap());
    });
}

#[test]
fn without_the_capabilities_the_error_names_them() {
    if env::var_os(CHILD).is_some() {
        let error = Steer::load().unwrap_err();
        assert!(matches!(error, SteerError::NoPermission { .. }), "{error}");
        assert!(error.to_string().contains("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"), "{error}");
        return;
    }
    for kept in ["-all", "-all,+net_admin", "-all,+bpf,+net_admin"] {
        succeeds(&mut myself("without_the_capabilities_the_error_names_them", &with_only(kept)));
    }
}

#[test]
fn three_capabilities_are_enough() {
    if env::var_os(CHILD).is_some() {
        drop(attach(&steer(), AttachMode::Native).unwrap());
        return;
    }
    in_namespace(|| {
        let kept = "-all,+bpf,+net_admin,+perfmon";
        succeeds(&mut myself("three_capabilities_are_enough", &with_only(kept)));
    });
}

fn with_only(kept: &str) -> [&str; 6] {
    ["setpriv", "--bounding-set", kept, "--inh-caps", "-all", "--"]
}

#[test]
fn a_time_namespace_is_found_out() {
    if env::var_os(CHILD).is_some() {
        let error = Steer::load().unwrap_err();
        let SteerError::Clock { difference, .. } = &error else { panic!("{error}") };
        assert!(difference.abs_diff(Duration::from_secs(3600)) < Duration::from_secs(1), "{error}");
        assert!(error.to_string().contains("time namespace"), "{error}");
        return;
    }
    let shifted = ["unshare", "--time", "--fork", "--monotonic", "3600"];
    succeeds(&mut myself("a_time_namespace_is_found_out", &shifted));
}

/// Runs `test` in a thread of its own with a network namespace of its own, in which the veth pair
/// `ours`–`peer` is up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let isolated = move || {
        #[expect(deprecated, reason = "safe for a network namespace; its successor is not")]
        rustix::thread::unshare(UnshareFlags::NEWNET).expect("these tests need root");
        make_interfaces();
        test();
    };
    if let Err(failure) = thread::spawn(isolated).join() {
        panic::resume_unwind(failure);
    }
}

fn make_interfaces() {
    let mac = OUR_MAC.map(|byte| format!("{byte:02x}")).join(":");
    run(&format!("ip link add ours address {mac} type veth peer name peer"));
    run("ip link set ours up");
    run("ip link set peer up");
}

/// What a killed process leaves is replaced, and what is left at an orderly end is nothing.
#[test]
fn the_filter_that_keeps_tags_before_linux_6_6_is_replaced_and_goes() {
    in_namespace(|| {
        let steer = steer();
        let attached = attach(&steer, AttachMode::Generic).unwrap();
        let shown = || {
            let output = run("tc filter show dev peer ingress");
            String::from_utf8(output.stdout).unwrap().matches(" handle 0x").count()
        };
        let [killed, next] = [(), ()].map(|()| steer.restore_tags(&attached).unwrap());
        std::mem::forget(killed.filter(index_of("peer")).unwrap());
        assert_eq!(shown(), 1);
        let mut hook = next.filter(index_of("peer")).unwrap();
        assert_eq!(shown(), 1, "one after the other, not both");
        assert!(hook.holds(index_of("peer")));
        run("tc filter del dev peer ingress");
        assert!(!hook.holds(index_of("peer")), "somebody took it away");
        drop(next.filter(index_of("peer")).unwrap());
        drop(hook);
        assert_eq!(shown(), 0);
    });
}

/// A program that was detached is attached again, and new devices below get one.
#[test]
fn the_program_that_keeps_tags_follows_the_devices_below() {
    in_namespace(|| {
        let steer = steer();
        let attached = attach(&steer, AttachMode::Generic).unwrap();
        let mut restorer = steer.restore_tags(&attached).unwrap();
        let peer = [(index_of("peer"), "peer".to_owned())];
        for (below, devices) in [(&peer[..], 1), (&peer, 1), (&[], 0), (&peer, 1)] {
            restorer.follow(below).unwrap();
            assert_eq!(restorer.devices().count(), devices);
        }
        assert!(restorer.devices().all(|index| index == peer[0].0));
        let mut restorer = steer.restore_tags(&attached).unwrap();
        let error = restorer.follow(&[(9_999, "gone".to_owned())]).unwrap_err();
        assert!(error.to_string().starts_with("gone: "), "{error}");
    });
}

/// `peer`, moved to a namespace of its own with the address 192.0.2.2. The namespace is held by a
/// process that sleeps.
struct FarEnd(Child);

impl FarEnd {
    fn new() -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
        let far = Self(holder);
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let namespace = format!("/proc/{}/ns/net", far.0.id());
        wait_for(|| fs::read_link(&namespace).is_ok_and(|its| its != own), PATIENCE);
        run(&format!("ip link set peer netns {}", far.0.id()));
        far.run("ip address add 192.0.2.2/24 dev peer");
        far.run("ip link set peer up");
        far
    }

    fn ping(&self, address: &str) -> bool {
        self.inside(&format!("ping -c 1 -W 1 {address}")).output().unwrap().status.success()
    }

    fn run(&self, command: &str) {
        succeeds(&mut self.inside(command));
    }

    fn inside(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--net", "--target", &self.0.id().to_string()]);
        nsenter.args(command.split_whitespace());
        nsenter
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to clean up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn steer() -> Steer {
    Steer::load().expect("these tests need root")
}

fn attach(steer: &Steer, mode: AttachMode) -> Result<Attached, SteerError> {
    steer.attach(ours(), mode)
}

fn ours() -> Interface<'static> {
    let ifindex = index_of(OURS);
    Interface { name: OURS, ifindex, mac: OUR_MAC, queues: 1, tags: TagPlace::Frame }
}

fn index_of(interface: &str) -> u32 {
    netdevice::name_to_index(udp_socket(), interface).unwrap()
}

fn udp_socket() -> std::os::fd::OwnedFd {
    socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap()
}

/// What `ip link` says of the XDP program on `ours`: `xdp`, `xdpgeneric`, or nothing.
fn shown_by_ip() -> Option<String> {
    let output = run("ip -oneline link show dev ours");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with("xdp")).map(str::to_owned)
}

fn run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    succeeds(Command::new(words.next().unwrap()).args(words))
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    output
}

/// This test once more, as a child: `wrapper` is the command line in front of it.
fn myself(test: &str, wrapper: &[&str]) -> Command {
    let exe = env::current_exe().unwrap();
    let mut words = wrapper.iter().map(|word| word.as_ref()).chain([exe.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    command.args(words).args(["--exact", &name, "--nocapture"]).env(CHILD, "1");
    command
}

/// Polls: what is waited for happens in another process or in the kernel.
fn wait_for(condition: impl Fn() -> bool, at_most: Duration) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < at_most, "not within {at_most:?}");
        thread::yield_now();
    }
}

const OURS: &str = "ours";

/// Set in the environment of a test that runs as its own child.
const CHILD: &str = "STEER_TEST_CHILD";

/// Longer than a child needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
