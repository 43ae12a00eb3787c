//! Packets per second, one connection for each source, 64-byte TCP, hairpin over one veth pair: the
//! generator and the sink in the switch's namespace at one end, the balancer at the other.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::{Lab, Pointsman, Process, ServiceText};

use super::{complain, print};
use crate::generator::Found;
use crate::rows::{Packets, Row};

/// Measures all that are wanted.
///
/// # Errors
/// When a row cannot be written.
pub(super) fn run(wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    for sources in [1_000, 100_000, 1_000_000] {
        for contestant in Contestant::ALL {
            let name = format!("packets, {} sources, {}", sources, contestant.name());
            if !wanted(&name) || !contestant.takes(sources) {
                continue;
            }
            match contestant.measure(sources) {
                Ok(row) => print(&Row::Packets(row))?,
                Err(error) => complain(&name, &error),
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    /// What generator, veth and sink cost alone.
    Reflector,
    /// With 2 to the power of so many hash buckets.
    IpVs(u8),
    Pointsman {
        fast_path: bool,
        /// The CPU of the worker; the first is the generator's.
        cpu: u8,
    },
}

impl Contestant {
    const ALL: [Self; 6] = [
        Self::Reflector,
        Self::IpVs(12),
        Self::IpVs(20),
        Self::Pointsman { fast_path: true, cpu: 0 },
        Self::Pointsman { fast_path: false, cpu: 0 },
        Self::Pointsman { fast_path: false, cpu: 1 },
    ];

    fn name(self) -> String {
        match self {
            Self::Reflector => "XDP_TX alone".into(),
            Self::IpVs(bits) => format!("ip_vs, conn_tab_bits={bits}"),
            Self::Pointsman { fast_path, .. } => {
                format!("Pointsman, fast path {}", if fast_path { "on" } else { "off" })
            }
        }
    }

    fn cpus(self) -> u8 {
        if self == (Self::Pointsman { fast_path: false, cpu: 1 }) { 2 } else { 1 }
    }

    /// A million sources in 4,096 buckets take longer than all else together.
    fn takes(self, sources: u32) -> bool {
        sources < 1_000_000 || self != Self::IpVs(12)
    }

    fn measure(self, sources: u32) -> Result<Packets> {
        let rig = Rig::new()?;
        let found = match self {
            Self::Reflector => {
                let _reflector = rig.attach("reflect")?;
                rig.generate(sources, false)?
            }
            Self::IpVs(bits) => {
                load_ip_vs(bits)?;
                rig.configure_ip_vs()?;
                rig.generate(sources, true)?
            }
            Self::Pointsman { fast_path, cpu } => {
                let _pointsman = rig.start_pointsman(fast_path, cpu)?;
                rig.generate(sources, true)?
            }
        };
        let Found { packets, syns, connections, lost } = found;
        let (balancer, cpus) = (self.name(), self.cpus());
        Ok(Packets { balancer, cpus, sources, packets, syns, connections, lost })
    }
}

/// A balancer's namespace and, in the switch's, the other end of its only cable.
struct Rig {
    lab: Lab,
    own: PathBuf,
}

impl Rig {
    fn new() -> Result<Self> {
        let lab = Lab::builder().clients(0).balancers(1).backends(2).build()?;
        let (near, far) = (mac_text(lab.balancer(0).mac()), mac_text(GENERATOR));
        let netns = lab.balancer(0).netns();
        // Not through the bridge of the lab.
        lab.switch().ip("link del lb1\n")?;
        lab.switch().ip(&format!(
            "link add {DEVICE} address {far} type veth peer name eth0 address {near} netns {}\n\
             link set {DEVICE} up\n",
            netns.name()
        ))?;
        let backend = |index: usize| {
            let backend = lab.backend(index);
            let (address, mac) = (backend.address(), mac_text(backend.mac()));
            format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent\n")
        };
        netns.ip(&format!(
            "link set eth0 up\naddr add {}/16 dev eth0\nroute add 100.64.0.0/10 dev eth0\n{}{}",
            lab.balancer(0).address(),
            backend(0),
            backend(1)
        ))?;
        Ok(Self { lab, own: std::env::current_exe()? })
    }

    /// Keeps an XDP program on the balancer's interface while the process lives.
    fn attach(&self, program: &str) -> Result<Process> {
        let log = self.lab.balancer(0).dir().join("attach.log");
        let own = self.own.display().to_string();
        let argv = [&*own, "attach", program, "eth0"];
        let mut process = Process::start(self.lab.balancer(0).netns(), program, &argv, &log)?;
        process.wait_until("attached", STEP, |process| Ok(process.log().contains("attached")))?;
        Ok(process)
    }

    fn configure_ip_vs(&self) -> Result<()> {
        let (vip, netns) = (self.lab.vip(), self.lab.balancer(0).netns());
        netns.ip(&format!("addr add {vip}/32 dev eth0\n"))?;
        // Frames that a program sends are received by a device with NAPI only.
        netns.run(&["ethtool", "-K", "eth0", "gro", "on"], STEP)?.ok()?;
        let service = format!("{vip}:80");
        let add = ["ipvsadm", "-A", "-t", &service, "-s", "wlc", "-p", "300"];
        netns.run(&add, STEP)?.ok()?;
        for index in [0, 1] {
            let server = format!("{}:80", self.lab.backend(index).address());
            netns.run(&["ipvsadm", "-a", "-t", &service, "-r", &server, "-g"], STEP)?.ok()?;
        }
        Ok(())
    }

    fn start_pointsman(&self, fast_path: bool, cpu: u8) -> Result<Pointsman> {
        let service = ServiceText::web(&self.lab).persistence("300s").to_toml();
        let on = if fast_path { "on" } else { "off" };
        let text = format!(
            "{service}\n[dataplane]\ncpus = [{cpu}]\nfast_path = \"{on}\"\nflow_capacity = 2_000_000\n\
             persistence_capacity = 2_000_000\npending_capacity = 4_194_304\n"
        );
        let mut pointsman = Pointsman::spawn(self.lab.balancer(0), &text)?;
        pointsman.wait_ready(READY)?;
        Ok(pointsman)
    }

    fn generate(&self, sources: u32, establish: bool) -> Result<Found> {
        let (own, sources) = (self.own.display().to_string(), sources.to_string());
        let (to, from) = (mac_text(self.lab.balancer(0).mac()), mac_text(GENERATOR));
        let vip = self.lab.vip().to_string();
        let mut argv = vec![
            &*own,
            "generate",
            "--device",
            DEVICE,
            "--sources",
            &sources,
            "--to",
            &to,
            "--from",
            &from,
            "--vip",
            &vip,
        ];
        if establish {
            argv.push("--establish");
        }
        let text = self.lab.switch().run(&argv, GENERATING)?.ok()?;
        serde_json::from_str(text.trim()).with_context(|| format!("read {text}"))
    }
}

/// Loads the module anew if it has another number of buckets.
fn load_ip_vs(bits: u8) -> Result<()> {
    let parameter = "/sys/module/ip_vs/parameters/conn_tab_bits";
    let loaded = fs::read_to_string(parameter).ok();
    if loaded.as_deref().map(str::trim) == Some(&bits.to_string()) {
        return Ok(());
    }
    if loaded.is_some() {
        command("modprobe", &["-r", "ip_vs_wlc"])?;
        command("modprobe", &["-r", "ip_vs"])?;
    }
    command("modprobe", &["ip_vs", &format!("conn_tab_bits={bits}")])
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The device that packets are sent by.
const DEVICE: &str = "generator";
/// The MAC address of a router that all clients are behind.
const GENERATOR: [u8; 6] = [0x02, 0x00, 0x0a, 0x4d, 0x01, 0x09];
const STEP: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(60);
const GENERATING: Duration = Duration::from_secs(400);
