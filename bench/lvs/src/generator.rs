//! The programs of `packets.bpf.c`: making packets with live frames, and attaching the others.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::rows::Quartiles;

/// What to send.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Device to send by; the sink is attached to it.
    #[arg(long)]
    device: String,
    /// Number of sources, each with one connection.
    #[arg(long)]
    sources: u32,
    /// MAC addresses, of the balancer and of this end.
    #[arg(long, value_parser = parse_mac)]
    to: [u8; 6],
    #[arg(long, value_parser = parse_mac)]
    from: [u8; 6],
    /// Address of the service; its port is 80.
    #[arg(long)]
    vip: std::net::Ipv4Addr,
    /// Send SYN, ACK and a request of every connection first.
    #[arg(long)]
    establish: bool,
    /// Seconds at saturation.
    #[arg(long, default_value_t = 7)]
    seconds: u32,
}

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) packets: Quartiles,
    pub(crate) syns: Option<f64>,
    pub(crate) connections: Option<f64>,
    pub(crate) lost: u64,
}

/// Sends what the options say, and prints [`Found`] as JSON.
///
/// # Errors
/// When the kernel refuses, or packets do not come back.
pub(crate) fn run(options: Options) -> Result<()> {
    let object = load()?;
    let ifindex = index_of(&options.device)?;
    let _sink = attached(&object, "sink", ifindex)?;
    let map = |name: &str| -> Result<MapHandle> {
        let map = object.maps().find(|map| map.name() == name).context("no such map")?;
        Ok(MapHandle::try_from(&map)?)
    };
    let (settings, counters) = (map("settings")?, map("counters")?);
    let generator = Generator { settings, counters, received: map("received")?, options, ifindex };
    generator.configure(&Pass { paused: true, ..Pass::STEADY })?;
    // Packets are made and forwarded on the first CPU; what measures them mostly sleeps, on the second.
    thread::spawn(move || {
        let found = pin(1).and_then(|()| generator.measure());
        let printed = found.and_then(|found| {
            println!("{}", serde_json::to_string(&found)?);
            Ok(())
        });
        // The other thread knows no end of its own.
        std::process::exit(match printed {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error:#}");
                1
            }
        });
    });
    pin(0)?;
    make_packets(&object)
}

/// Keeps a program attached.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn attach(program: &str, device: &str) -> Result<()> {
    let object = load()?;
    let _link = attached(&object, program, index_of(device)?)?;
    println!("attached");
    loop {
        thread::park();
    }
}

struct Generator {
    settings: MapHandle,
    counters: MapHandle,
    received: MapHandle,
    options: Options,
    ifindex: u32,
}

/// One packet of every connection, or packets without an end.
struct Pass {
    paused: bool,
    flags: u32,
    sequence: u32,
    packets: u64,
}

impl Pass {
    const STEADY: Self = Self { paused: false, flags: ACK, sequence: 3, packets: u64::MAX };
}

impl Generator {
    fn measure(&self) -> Result<Found> {
        let sources = f64::from(self.options.sources);
        let (mut syns, mut connections, mut lost) = (None, None, 0);
        if self.options.establish {
            let mut total = 0.0;
            // The third packet's numbers are ahead of the second's: a connection then, not a scan.
            for (flags, sequence) in [(SYN, 0), (ACK, 1), (ACK | PSH, 2)] {
                let (seconds, missing) = self.pass(flags, sequence)?;
                total += seconds;
                lost += missing;
                syns.get_or_insert(sources / seconds);
            }
            connections = Some(sources / total);
            if self.options.sources < ENOUGH {
                (syns, connections) = (None, None);
            }
        }
        let (packets, missing) = self.steady()?;
        Ok(Found { packets, syns, connections, lost: lost + missing })
    }

    /// One packet of every connection: seconds, and packets that were lost.
    fn pass(&self, flags: u32, sequence: u32) -> Result<(f64, u64)> {
        let packets = u64::from(self.options.sources);
        self.restart(&Pass { paused: false, flags, sequence, packets })?;
        let begin = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(2));
            let Counters { sent, lost, received } = self.counters()?;
            if sent == packets && (received + lost >= sent) {
                if lost * 100 > packets {
                    bail!("{lost} of {packets} packets with flags {flags:#x} did not come back");
                }
                return Ok((begin.elapsed().as_secs_f64(), lost));
            }
            if begin.elapsed() > LONGEST_PASS {
                bail!("{received} of {packets} packets with flags {flags:#x} came back in time");
            }
        }
    }

    /// Packets of all connections in turn: how many came back in each second.
    fn steady(&self) -> Result<(Quartiles, u64)> {
        self.restart(&Pass::STEADY)?;
        thread::sleep(WARM_UP);
        let mut samples = Vec::new();
        let mut before = (Instant::now(), self.counters()?.received);
        for _ in 0..self.options.seconds.max(1) {
            thread::sleep(Duration::from_secs(1));
            let now = (Instant::now(), self.counters()?.received);
            let seconds = now.0.duration_since(before.0).as_secs_f64();
            samples.push((now.1 - before.1) as f64 / seconds);
            before = now;
        }
        Ok((Quartiles::of(samples), self.counters()?.lost))
    }

    /// Lets what is under way arrive, and begins to count anew.
    fn restart(&self, pass: &Pass) -> Result<()> {
        self.configure(&Pass { paused: true, ..*pass })?;
        thread::sleep(SETTLE);
        write(&self.counters, &[0; 32])?;
        write(&self.received, &[0; 8])?;
        self.configure(pass)
    }

    fn configure(&self, pass: &Pass) -> Result<()> {
        let Options { sources, vip, to, from, .. } = &self.options;
        let mut value = Vec::with_capacity(48);
        for word in [u32::from(pass.paused), self.ifindex, *sources, WINDOW] {
            value.extend(word.to_ne_bytes());
        }
        value.extend(pass.packets.to_ne_bytes());
        value.extend(pass.flags.to_ne_bytes());
        value.extend(pass.sequence.to_ne_bytes());
        value.extend(vip.octets());
        value.extend(to);
        value.extend(from);
        write(&self.settings, &value)
    }

    fn counters(&self) -> Result<Counters> {
        let (counters, received) = (read(&self.counters)?, read(&self.received)?);
        let [sent, lost] = [0, 1].map(|number| word(&counters, number));
        Ok(Counters { sent, lost, received: word(&received, 0) })
    }
}

fn write(map: &MapHandle, value: &[u8]) -> Result<()> {
    map.update(&KEY, value, MapFlags::ANY).context("write a map")
}

fn read(map: &MapHandle) -> Result<Vec<u8>> {
    map.lookup(&KEY, MapFlags::ANY)?.context("read a map")
}

struct Counters {
    sent: u64,
    lost: u64,
    received: u64,
}

/// Runs `generate` over and over. One call makes four milliard packets, as its set-up takes long.
fn make_packets(object: &Object) -> Result<()> {
    // Where the kernel's scheduler has to choose, what forwards goes first.
    rustix::process::nice(19).context("set the priority")?;
    let program = object.progs_mut().find(|one| one.name() == "generate").context("no program")?;
    loop {
        let frame = [0; FRAME];
        let input = ProgramInput {
            data_in: Some(&frame),
            flags: LIVE_FRAMES,
            repeat: u32::MAX,
            ..ProgramInput::default()
        };
        program.test_run(input).context("make packets (needs Linux 5.18)")?;
    }
}

fn load() -> Result<Object> {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/packets.bpf.o"));
    let object = ObjectBuilder::default().open_memory(bytes).context("read the BPF object")?;
    object.load().context("load the BPF programs")
}

/// Detached when this is dropped.
fn attached(object: &Object, program: &str, ifindex: u32) -> Result<libbpf_rs::Link> {
    let mut programs = object.progs_mut();
    let found = programs.find(|one| one.name() == program).context("no such program")?;
    found.attach_xdp(i32::try_from(ifindex)?).with_context(|| format!("attach {program}"))
}

/// Of the device in this network namespace; `/sys` may show another one's.
fn index_of(device: &str) -> Result<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).context("open a socket")?;
    name_to_index(&socket, device).with_context(|| format!("find the device {device}"))
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("run on CPU {cpu}"))
}

fn word(bytes: &[u8], number: usize) -> u64 {
    let at = number * 8;
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("a MAC address has six bytes")
}

const SYN: u32 = 0x02;
const PSH: u32 = 0x08;
const ACK: u32 = 0x10;
const KEY: [u8; 4] = [0; 4];
/// The shortest that Ethernet has, without its checksum.
const FRAME: usize = 60;
/// Packets under way.
const WINDOW: u32 = 128;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;
/// With fewer sources a pass is over too soon to be a rate.
const ENOUGH: u32 = 100_000;
const SETTLE: Duration = Duration::from_millis(200);
const WARM_UP: Duration = Duration::from_secs(1);
const LONGEST_PASS: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(parse_mac("02:00:0a:4d:02:01").unwrap(), [2, 0, 10, 77, 2, 1]);
        assert!(parse_mac("02:00:0a:4d:02").is_err());
        assert!(parse_mac("02:00:0a:4d:02:xx").is_err());
    }

    #[test]
    fn words_of_a_map() {
        let bytes = [1_u64.to_ne_bytes(), 7_u64.to_ne_bytes()].concat();
        assert_eq!([word(&bytes, 0), word(&bytes, 1), word(&bytes, 2)], [1, 7, 0]);
    }
}
