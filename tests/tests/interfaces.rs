//! Requirement: frames are seen as they were on the wire, whatever the card or the kernel would
//! make of them, and never cross into another VLAN; afterwards the interface is as it was.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::node::{Role, mac_of};
use lab::pcap::Frame;
use lab::{Capture, Card, Direction, Guest, GuestSpec, Kernel, Lab, Node, Pointsman};
use tests::close_books;
use tests::guest::{self, Servers, forwards, set_offloads};
use tests::lifecycle::{config, echo_everywhere, run, udp, wait_for};
use tests::vlan::stays_tagged;

const TAGS: &str = "rx-vlan-offload";
const MERGED: &str = "generic-receive-offload";
const MAC: &str = "02:00:00:00:00:77";
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn offloads_are_off_while_the_interface_is_served_and_on_again_afterwards() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let node = lab.balancer(0);
    let before = offloads(node)?;
    ensure!(before.contains(&format!("{TAGS}: on")), "{before}");
    let mut lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    ensure!(!on(node, TAGS)?, "the card would take VLAN tags out of frames");
    ensure!(lb.metrics()?.sum("pointsman_interface_offloads_off", &[]) > 0.0);
    // Somebody switches it on again.
    run(node.netns(), &["ethtool", "-K", "eth0", "rxvlan", "on"])?;
    wait_for("switched off again", Duration::from_secs(5), || Ok(!on(node, TAGS)?))?;
    ensure!(lb.ready()?, "{}", lb.http("/readyz")?.1);
    lb.process().stop(Duration::from_secs(5))?;
    let after = offloads(node)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// Senders on this host leave the checksum to a card: no frame may reach a backend like that.
#[test]
fn checksums_that_local_senders_left_to_a_card_are_finished() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(2).build()?;
    let _servers = Servers::start(&lab)?;
    let lb = lab.start_pointsman(0, &guest::config(&lab, "mode = \"native\""))?;
    // The kernel keeps the other end of a veth with a native program from merging packets.
    forwards(&lab)?;
    ensure!(finished(&lb)? > 0.0, "{}", lb.log());
    let said = || lb.log().matches("leave checksums to a card").count();
    wait_for("the log says so", Duration::from_secs(3), || Ok(said() > 0))?;
    ensure!(said() == 1, "{}", lb.log());
    close_books(&lb);
    Ok(())
}

/// In generic mode the kernel keeps nobody from merging packets: what cannot be sent on is counted,
/// and the log says once what to do.
#[test]
fn merged_packets_are_counted_and_the_remedy_works() -> Result<()> {
    let lab = Lab::builder().backends(2).queues(2).build()?;
    let _servers = Servers::start(&lab)?;
    let lb = lab
        .start_pointsman(0, &guest::config(&lab, "mode = \"generic\"\ntagged_frames = \"none\""))?;
    set_offloads(&lab, "on")?;
    // More than one packet at once, from a socket that nobody waits for.
    let merged = lab.client(0).netns().enter(|| -> Result<TcpStream> {
        let mut stream = TcpStream::connect((lab.vip(), 81))?;
        stream.write_all(&[0; 50_000])?;
        Ok(stream)
    })??;
    wait_for("the log says so", Duration::from_secs(3), || {
        Ok(lb.log().contains("frames longer than the MTU were dropped"))
    })?;
    ensure!(lb.log().contains("tso off gso off"), "{}", lb.log());
    drop(merged);
    // What the log says: at the sender, segmentation off. Checksums may stay as they are.
    run(lab.client(0).netns(), &["ethtool", "-K", "eth0", "tso", "off", "gso", "off"])?;
    guest::forwards_again(&lab)?;
    ensure!(finished(&lb)? > 0.0, "{}", lb.log());
    ensure!(lb.log().matches("longer than the MTU").count() == 1, "{}", lb.log());
    close_books(&lb);
    Ok(())
}

/// A veth delivers the tag beside the frame; the other end has `txvlan` on, as always.
#[test]
fn frames_of_a_vlan_stay_in_it_on_a_veth() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    ensure!(!lb.log().contains("txvlan off"), "{}", lb.log());
    vlan_is_kept(&lab)?;
    close_books(&lb);
    Ok(())
}

/// In generic mode the tag beside the frame cannot be seen: refused, unless the file says that there are
/// no tagged frames. The other remedy that is named keeps them.
#[test]
fn frames_of_a_vlan_stay_in_it_on_a_veth_in_generic_mode_after_the_remedy() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let generic =
        config(&udp(&lab)).replace("name = \"eth0\"", "name = \"eth0\"\nmode = \"generic\"");
    let refusal = lab.start_pointsman(0, &generic).err().map(|error| error.to_string());
    let refusal = refusal.unwrap_or_default();
    for words in ["native VLAN", "tagged_frames = \"none\"", "native mode", "txvlan off"] {
        ensure!(refusal.contains(words), "{refusal}");
    }
    let none = generic.replace("mode =", "tagged_frames = \"none\"\nmode =");
    let lb = lab.start_pointsman(0, &none)?;
    ensure!(lb.log().contains("is needed"), "{}", lb.log());
    run(lab.switch(), &["ethtool", "-K", "lb1", "txvlan", "off"])?;
    vlan_is_kept(&lab)?;
    close_books(&lb);
    Ok(())
}

/// A device on another one: that one must not merge packets, and may take tags out of frames for others.
#[test]
fn offloads_below_a_device_on_another_one() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let node = lab.balancer(0);
    node.netns().ip(&format!(
        "addr flush dev eth0\nlink add mv0 link eth0 type macvlan\nlink set mv0 up\n\
         addr add {}/16 dev mv0\n",
        node.address()
    ))?;
    run(node.netns(), &["ethtool", "-K", "eth0", "gro", "on"])?;
    let own = || run(node.netns(), &["ethtool", "-k", "mv0"]);
    let before = [offloads(node)?, own()?];
    let text = config(&udp(&lab)).replace("name = \"eth0\"", "name = \"mv0\"");
    let mut lb = lab.start_pointsman(0, &text)?;
    ensure!(!on(node, MERGED)?, "the device below would merge packets");
    ensure!(on(node, TAGS)?, "tags below are not ours");
    run(node.netns(), &["ethtool", "-K", "eth0", "gro", "on"])?;
    wait_for("switched off again", Duration::from_secs(5), || Ok(!on(node, MERGED)?))?;
    lb.process().stop(Duration::from_secs(5))?;
    let after = [offloads(node)?, own()?];
    ensure!(after == before, "before:\n{before:?}\nafter:\n{after:?}");
    Ok(())
}

/// The kernel takes the tag out on the device below, before XDP on this one sees the frame. Where a port
/// is added while the device is served, its tags are kept as well.
#[test]
fn frames_of_a_vlan_stay_in_it_on_devices_on_others() -> Result<()> {
    let macvlan = "link add top link eth0 type macvlan mode bridge\n";
    let bridge = "link add top type bridge\nlink set eth0 master top\n";
    let later = "link add top type bridge\n";
    for (make, add) in [(macvlan, ""), (bridge, ""), (later, "link set eth0 master top\n")] {
        let lab = Lab::builder().backends(1).build()?;
        let _servers = Servers::start(&lab)?;
        let node = lab.balancer(0);
        let netns = node.netns();
        netns.ip(&format!(
            "addr flush dev eth0\n{make}link set top address {MAC}\nlink set top up\n\
             addr add {}/16 dev top\naddr add {}/64 dev top nodad\n",
            node.address(),
            node.address_v6()
        ))?;
        let hooks = || run(netns, &["tc", "filter", "show", "dev", "eth0", "ingress"]);
        let before = hooks()?;
        let mut lb = if add.is_empty() {
            lab.start_pointsman(0, &guest::config_on(&lab, "top", ""))?
        } else {
            let lb = Pointsman::spawn(node, &guest::config_on(&lab, "top", ""))?;
            wait_for("serves without a port", PATIENCE, || Ok(lb.log().contains("queue bound")))?;
            netns.ip(add)?;
            wait_for("ready", PATIENCE, || lb.ready().map_err(Into::into))?;
            lb
        };
        let hooked = hooks()?;
        let evidence = || {
            let passed =
                lb.metrics().map(|m| m.sum("pointsman_interface_tags_restored_total", &[]));
            format!("{make}{add}: {passed:?} {hooked}\n{}", lb.log())
        };
        stays_tagged(&lab, MAC).with_context(evidence)?;
        let restored = lb.metrics()?.sum("pointsman_interface_tags_restored_total", &[]);
        ensure!(restored >= 20.0, "{make}: {restored} tags were put back");
        close_books(&lb);
        lb.process().stop(Duration::from_secs(5))?;
        ensure!(hooks()? == before, "{make}: left behind: {}", hooks()?);
    }
    Ok(())
}

/// A port of a bridge gets nothing that is for the node: not ready, and named, until it is released.
#[test]
fn an_interface_that_becomes_a_port_is_named_until_it_is_released() -> Result<()> {
    let lab = Lab::builder().backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let netns = lab.balancer(0).netns();
    let lb = lab.start_pointsman(0, &config(&udp(&lab)))?;
    netns.ip("link add br0 type bridge\nlink set br0 up\nlink set eth0 master br0\n")?;
    wait_for("named", PATIENCE, || {
        let (status, body) = lb.http("/readyz")?;
        Ok(status == 503 && body.contains("a port of br0"))
    })?;
    netns.ip("link set eth0 nomaster\n")?;
    wait_for("ready again", PATIENCE, || lb.ready().map_err(Into::into))?;
    ensure!(lb.log().matches("a port of br0").count() == 1, "{}", lb.log());
    Ok(())
}

/// A card whose driver takes tags out of frames unless it is told not to.
#[test]
fn frames_of_a_vlan_stay_in_it_on_a_card() -> Result<()> {
    let lab = Lab::builder().balancers(0).backends(1).build()?;
    let _echo = echo_everywhere(&lab)?;
    let guest = Guest::boot(&lab, &GuestSpec::new(Kernel::V6_1).card(Card::E1000e))?;
    guest.start_pointsman(&config(&udp(&lab)))?;
    let off = "rx-vlan-offload: off";
    ensure!(guest.run("ethtool -k eth0")?.contains(off), "{}", guest.log()?);
    vlan_is_kept(&lab)?;
    guest.stop_pointsman()?;
    ensure!(!guest.run("ethtool -k eth0")?.contains(off), "{}", guest.log()?);
    Ok(())
}

/// Asks for the VIP's MAC in VLAN 77: every answer comes, and in VLAN 77.
fn vlan_is_kept(lab: &Lab) -> Result<()> {
    let client = lab.client(0);
    let lb = mac_of(Role::Balancer, 1).map(|byte| format!("{byte:02x}")).join(":");
    // The tag may be in the frame or beside it: a filter for ARP would miss one of them.
    let (filter, file) = (format!("ether src {lb}"), client.dir().join("vlan.pcap"));
    let mut capture = Capture::start(client.netns(), "eth0", Direction::In, &filter, file)?;
    let vip = lab.vip().to_string();
    let argv = ["arping", "-V", "77", "-c", "5", "-W", "0.1", "-i", "eth0", &vip];
    // Its own filter misses tagged answers: it fails even when all came.
    client.netns().run(&argv, Duration::from_secs(20))?;
    capture.settle(Duration::from_secs(1), Duration::from_secs(10))?;
    let frames = capture.finish()?;
    let in_vlan = |frame: &&Frame| frame.bytes[12..16] == [0x81, 0x00, 0x00, 77];
    let is_reply = |frame: &&Frame| frame.bytes[16..24] == [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
    let answers = frames.iter().filter(in_vlan).filter(is_reply).count();
    ensure!(answers == 5, "{answers} of 5 answers came in VLAN 77: {frames:?}");
    Ok(())
}

fn finished(lb: &Pointsman) -> Result<f64> {
    Ok(lb.metrics()?.sum("pointsman_checksums_finished_total", &[]))
}

/// All offloads.
fn offloads(node: &Node) -> Result<String> {
    run(node.netns(), &["ethtool", "-k", "eth0"])
}

fn on(node: &Node, name: &str) -> Result<bool> {
    Ok(offloads(node)?.lines().any(|line| line.trim().starts_with(&format!("{name}: on"))))
}
