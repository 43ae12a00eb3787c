//! A loop or a balancer with a wire of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::{NetNs, Process, Wire};
use libbpf_rs::Link;

use super::child::{SELF, start};
use super::programs::Programs;
use super::traffic::{FAR_MAC, NEAR_MAC, PORT, Traffic, VIP, VIP6};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `XDP_TX` of every frame.
    Reflector,
    /// A loop over an AF_XDP socket.
    Bare,
    /// The balancer of this path, with `fast_path` as given; an empty setting: a version without it.
    Balancer(String, &'static str),
}

/// With its wire, ready to be measured.
#[derive(Debug)]
pub struct Contestant {
    /// For the table.
    pub name: String,
    traffic: Traffic,
    ifindex: u32,
    // Dropped first.
    process: Option<Process>,
    _links: Vec<Link>,
    _programs: Programs,
    wire: Wire,
}

/// What one run found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Packets a second that arrived.
    pub rate: f64,
    /// Share of what was sent that did not arrive.
    pub loss: f64,
}

impl Contestant {
    /// Makes the wire, starts the program and establishes the flows.
    ///
    /// # Errors
    /// The first step that fails.
    pub fn new(name: &str, subject: &Subject, traffic: Traffic) -> Result<Self> {
        let wire = Wire::new()?;
        set_addresses(&wire)?;
        let programs = Programs::load()?;
        let ifindex = index(&wire.far)?;
        let mut links = vec![wire.far.enter(|| programs.attach("sink", ifindex))??];
        let log = wire.dir().join("log");
        let process = match subject {
            Subject::Reflector => {
                let near = index(&wire.near)?;
                links.push(wire.near.enter(|| programs.attach("reflect", near))??);
                None
            }
            Subject::Bare => {
                let args = ["forward".to_owned(), format!("--ifindex={}", index(&wire.near)?)];
                let mut process = start(&wire.near, WORKER_CPU, SELF, &args, &log)?;
                sleep(STARTING);
                ensure!(process.running(), "the loop ended: {}", process.log());
                Some(process)
            }
            Subject::Balancer(binary, fast_path) => {
                Some(start_balancer(&wire, binary, fast_path, traffic, &log)?)
            }
        };
        let contestant = Self {
            name: name.to_owned(),
            traffic,
            ifindex,
            process,
            _links: links,
            _programs: programs,
            wire,
        };
        if matches!(subject, Subject::Balancer(..)) {
            contestant.establish()?;
        }
        contestant.pause()?;
        Ok(contestant)
    }

    /// One run at full speed.
    ///
    /// # Errors
    /// When a program ends.
    pub fn saturate(&self) -> Result<Found> {
        self.awake(|| self.run(self.traffic))
    }

    /// The highest of some rates below the one at saturation at which nothing is lost.
    ///
    /// # Errors
    /// When a program ends.
    pub fn without_loss(&self, saturated: f64) -> Result<f64> {
        self.awake(|| {
            for step in STEPS_BELOW {
                let found = self.run(self.traffic.at(saturated * step))?;
                if found.loss < LOSSLESS {
                    return Ok(found.rate);
                }
            }
            Ok(0.0)
        })
    }

    fn run(&self, traffic: Traffic) -> Result<Found> {
        let before = self.counters()?;
        let mut sender = self.send(traffic)?;
        sleep(WARM_UP);
        let (begin, first) = (Instant::now(), self.counters()?);
        sleep(WINDOW);
        let (took, last) = (begin.elapsed(), self.counters()?);
        ensure!(sender.running(), "the sender ended: {}", sender.log());
        sender.kill()?;
        sleep(DRAIN);
        let after = self.counters()?;
        let (sent, arrived) = (after.sent - before.sent, after.arrived - before.arrived);
        ensure!(arrived > 0, "{}: nothing arrives", self.name);
        Ok(Found {
            rate: (last.arrived - first.arrived) as f64 / took.as_secs_f64(),
            loss: 1.0 - arrived as f64 / sent as f64,
        })
    }

    fn establish(&self) -> Result<()> {
        let before = self.counters()?;
        let mut sender = self.send(self.traffic.establishing())?;
        sleep(WARM_UP + self.traffic.establishing_takes());
        sender.kill()?;
        sleep(DRAIN);
        let after = self.counters()?;
        let (sent, arrived) = (after.sent - before.sent, after.arrived - before.arrived);
        ensure!(arrived * 100 > sent * 99, "{}: {arrived} of {sent} packets arrive", self.name);
        Ok(())
    }

    fn send(&self, traffic: Traffic) -> Result<Process> {
        let mut args = vec!["send".to_owned(), format!("--ifindex={}", self.ifindex)];
        args.extend(traffic.options());
        start(&self.wire.far, SENDER_CPU, SELF, &args, &self.wire.dir().join("sender"))
    }

    /// Lets it run while `body` does.
    fn awake<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(process) = &self.process {
            process.resume()?;
            sleep(WARM_UP);
        }
        let result = body();
        self.pause()?;
        result
    }

    fn pause(&self) -> Result<()> {
        Ok(self.process.as_ref().map_or(Ok(()), Process::pause)?)
    }

    fn counters(&self) -> Result<Counters> {
        let text = self.wire.far.run(&["ethtool", "-S", "eth0"], STEP)?.ok()?;
        Counters::read(&text).with_context(|| format!("counters of a veth: {text}"))
    }
}

/// Of the far end.
#[derive(Clone, Copy, Debug)]
struct Counters {
    /// Also what found no room at the other end.
    sent: u64,
    arrived: u64,
}

impl Counters {
    fn read(text: &str) -> Option<Self> {
        let of = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
            line.trim_start_matches(':').trim().parse().ok()
        };
        let sent = of("tx_queue_0_xdp_xmit:")? + of("tx_queue_0_xdp_xmit_errors:")?;
        Some(Self { sent, arrived: of("rx_queue_0_xdp_drops:")? })
    }
}

fn set_addresses(wire: &Wire) -> Result<()> {
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    wire.near.ip(&format!("link set eth0 address {}\n", mac(NEAR_MAC)))?;
    wire.far.ip(&format!("link set eth0 address {}\n", mac(FAR_MAC)))?;
    wire.near.ip("addr add 10.99.0.1/16 dev eth0\naddr add fd99::1/64 dev eth0 nodad\n")?;
    let add = |number| {
        format!(
            "addr add 10.99.1.{number}/16 dev eth0\naddr add fd99::1:{number}/64 dev eth0 nodad\n"
        )
    };
    Ok(wire.far.ip(&(1..=BACKENDS).map(add).collect::<String>())?)
}

fn index(ns: &NetNs) -> Result<u32> {
    let text = ns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev_mcast"))??;
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(1) == Some(&"eth0")).context("no eth0")?;
    Ok(line[0].parse()?)
}

fn start_balancer(
    wire: &Wire,
    binary: &str,
    fast_path: &str,
    traffic: Traffic,
    log: &Path,
) -> Result<Process> {
    let (config, socket) = (wire.dir().join("pointsman.toml"), wire.dir().join("control.sock"));
    let mut text = format!("[control]\nsocket = \"{}\"\n", socket.display());
    text += &format!("[dataplane]\ncpus = [{WORKER_CPU}]\n");
    if !fast_path.is_empty() {
        text += &format!("fast_path = \"{fast_path}\"\n");
    }
    text += "[dataplane.timeouts]\nestablished = \"1h\"\nudp = \"1h\"\n";
    text += "[[interface]]\nname = \"eth0\"\n";
    service(&mut text, traffic);
    std::fs::write(&config, text)?;
    let args = ["run", "--config", &config.display().to_string()].map(str::to_owned);
    let mut process = start(&wire.near, WORKER_CPU, binary, &args, log)?;
    let metrics = ([127, 0, 0, 1], 9477).into();
    process.wait_until("ready", Duration::from_secs(20), |_| {
        wire.near.enter(|| matches!(lab::metrics::http_get(metrics, "/readyz", STEP), Ok((200, _))))
    })?;
    Ok(process)
}

fn service(text: &mut String, traffic: Traffic) {
    let (vip, protocol) = (
        if traffic.v6 { VIP6.to_string() } else { VIP.to_string() },
        if traffic.udp { "udp" } else { "tcp" },
    );
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "[[service]]\nname = \"one\"\nvip = \"{vip}\"\nport = {PORT}\nprotocol = \"{protocol}\"\n\
         scheduler = \"maglev\""
    );
    for number in 1..=BACKENDS {
        let address =
            if traffic.v6 { format!("fd99::1:{number}") } else { format!("10.99.1.{number}") };
        let _ =
            writeln!(text, "[[service.backend]]\nname = \"b{number}\"\naddress = \"{address}\"");
    }
}

const SENDER_CPU: u32 = 0;
const WORKER_CPU: u32 = 1;
const BACKENDS: u32 = 10;
const STARTING: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(250);
const WINDOW: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_secs(5);
/// Of the rate at saturation.
const STEPS_BELOW: [f64; 8] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5];
/// Less is one interruption of the machine.
const LOSSLESS: f64 = 1e-4;
