//! A balancer that is a machine of its own: a QEMU guest with a Debian kernel and an emulated
//! network card, in place of a balancer's namespace. So the product is tested on kernels and drivers
//! other than this machine's.
//!
//! ```no_run
//! # fn main() -> Result<(), lab::LabError> {
//! use lab::{Card, Guest, GuestSpec, Kernel, Lab, ServiceText};
//!
//! // No balancer in a namespace: the guest takes its place, as `lb1` with 10.77.2.1.
//! let lab = Lab::builder().balancers(0).backends(2).build()?;
//! let web = lab.start_web()?;
//! let spec = GuestSpec::new(Kernel::V6_1).card(Card::VirtioNet).queues(2).cpus(2);
//! let guest = Guest::boot(&lab, &spec)?;
//! println!("{}", guest.run("ethtool -i eth0")?);
//! guest.start_pointsman(&ServiceText::web(&lab).to_toml())?;
//! guest.set_link(false)?; // The cable is out.
//! println!("{}", guest.log()?);
//! # drop(web); Ok(()) }
//! ```
//!
//! The guest consists of a kernel from Debian's archive and an initramfs: busybox, the product,
//! `ip`, `bridge`, `tc`, `ethtool`, `bpftool`. It runs under QEMU's TCG, never under KVM: a boot takes 5 to
//! 15 s, and a CPU is some 20 times slower than a real one, so no test may expect a rate. Its only network
//! is a tap on the lab's switch, in the switch's namespace, under the balancer's name: capture there.
//! Commands go through a shell on a serial port; they work whatever the network does.
//!
//! Dropping a guest ends it. What an aborted test left is found by [`crate::clean`], because QEMU runs
//! in the switch's namespace.

mod contents;
mod image;
mod qemu;
mod qmp;
mod shell;
mod spec;

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use self::{
    contents::{Contents, PACKAGES},
    spec::{Card, GuestSpec, Kernel},
};
use self::{qemu::CARD, qmp::Qmp, shell::Shell};
use crate::{
    error::{Doing as _, LabError, Result},
    host::require_tools,
    metrics::Metrics,
    node::{Node, Role, addresses_of, mac_of, node_name},
    process::Process,
    topology::Lab,
};

/// A running guest. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Guest {
    // Order matters: fields are dropped from the top.
    shell: Mutex<Shell>,
    qmp: Mutex<Qmp>,
    qemu: Mutex<Process>,
    number: u8,
    name: String,
    release: String,
    dir: PathBuf,
}

impl Guest {
    /// Boots a guest in place of balancer [`GuestSpec::number`] and gives it that balancer's name and
    /// addresses; interface `eth0`. Returns when it is up, with the product not yet started.
    ///
    /// # Errors
    /// When kernel or QEMU cannot be fetched, the number is a balancer's of the lab, or the guest's
    /// shell does not answer within 2 minutes: with the end of the kernel's log.
    pub fn boot(lab: &Lab, spec: &GuestSpec) -> Result<Self> {
        Self::boot_with(lab, spec, &Contents::default())
    }

    /// The same with more programs, kernel modules and files.
    ///
    /// # Errors
    /// As [`boot`](Self::boot), and when something of it is not there.
    pub fn boot_with(lab: &Lab, spec: &GuestSpec, contents: &Contents) -> Result<Self> {
        require_tools(&["qemu-system-x86_64", "ldd", "strip"])?;
        let name = node_name(Role::Balancer, spec.number);
        let dir = lab.dir().join(format!("{name}-guest"));
        fs::create_dir_all(&dir).doing(|| format!("make {}", dir.display()))?;
        let image = image::build(spec, contents, &dir)?;
        // Gone with the guest of the same number before this one, or new.
        let _ = lab.switch().ip(&format!("link del {name}\n"));
        let many = if spec.queues > 1 { " multi_queue" } else { "" };
        lab.switch().ip(&format!(
            "tuntap add dev {name} mode tap vnet_hdr{many}\nlink set {name} master br0 up\n"
        ))?;
        let qemu = qemu::start(lab, spec, &image, &dir)?;
        let this = Self::connect(qemu, spec.number, image.release, dir)?;
        this.configure(lab, "eth0")?;
        Ok(this)
    }

    /// Runs a command in a shell of its own (directory and variables are not kept), within 20 s. What
    /// it printed, standard output and error together.
    ///
    /// # Errors
    /// When its exit status is not 0 ([`LabError::Command`] with what it printed), or it does not
    /// end in time; it is not killed then, and later commands wait for it.
    pub fn run(&self, command: &str) -> Result<String> {
        let (status, output) = self.status_of(command, STEP)?;
        if status == 0 {
            return Ok(output);
        }
        Err(LabError::Command {
            command: command.to_owned(),
            status: format!("exit status: {status}, in the guest"),
            stderr: output.trim_end().to_owned(),
        })
    }

    /// The same with a limit of its own; exit status and what was printed.
    ///
    /// # Errors
    /// When it does not end in time, or the guest has ended.
    pub fn status_of(&self, command: &str, limit: Duration) -> Result<(u8, String)> {
        lock(&self.shell).run(command, limit)
    }

    /// Writes a file into the guest.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        self.run(&format!(": >{path}"))?;
        // In pieces: a serial port has no flow control, and its buffer takes 4,096 bytes.
        let lines: Vec<&str> = text.lines().collect();
        for lines in lines.chunks(20) {
            let quoted = lines.join("\n").replace('\'', "'\\''");
            self.run(&format!("printf '%s\\n' '{quoted}' >>{path}"))?;
        }
        Ok(())
    }

    /// Starts the product and waits until `/readyz` says yes, at most a minute.
    ///
    /// # Errors
    /// When it ends or is not ready in time: with its log.
    pub fn start_pointsman(&self, config: &str) -> Result<()> {
        self.spawn_pointsman(config)?;
        self.wait_ready(READY)
    }

    /// Starts the product and does not wait.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn spawn_pointsman(&self, config: &str) -> Result<()> {
        self.write(CONFIG, config)?;
        self.respawn_pointsman()
    }

    /// Starts the product again, with the configuration that is there.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn respawn_pointsman(&self) -> Result<()> {
        self.run(&format!(
            "rm -f {EXIT}\n. {ENVIRONMENT}\n(pointsman run --config {CONFIG} >>{LOG} 2>&1 & echo $! >{PID}; wait $!; \
             echo $? >{EXIT}) &"
        ))
        .map(drop)
    }

    /// Gives the product an environment variable, from its next start on; for example `POINTSMAN_LOG`.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn set_env(&self, name: &str, value: &str) -> Result<()> {
        self.run(&format!("echo \"export {name}='{value}'\" >>{ENVIRONMENT}")).map(drop)
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When the product ends or is not ready in time: with its log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            if self.ready()? {
                return Ok(());
            }
            if let Some(status) = self.exit_status()? {
                let name = format!("pointsman on {} (kernel {})", self.name, self.release);
                let status = format!("exit status: {status}");
                return Err(LabError::Ended { name, status, log: self.log()? });
            }
            if begin.elapsed() > limit {
                let what = format!("{}: ready\n{}", self.name, self.log()?);
                return Err(LabError::Timeout { what, limit });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether `/readyz` says yes now.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn ready(&self) -> Result<bool> {
        Ok(self.http("/readyz")?.is_some_and(|(status, _)| status == 200))
    }

    /// The product's exit status; none while it runs or before it was started. A signal `n` counts
    /// as 128 + n.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn exit_status(&self) -> Result<Option<u8>> {
        Ok(self.run(&format!("cat {EXIT} 2>/dev/null; true"))?.trim().parse().ok())
    }

    /// Sends the product a signal, for example `KILL`, and waits for its end if that ends it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal_pointsman(&self, signal: &str) -> Result<()> {
        self.run(&format!("kill -{signal} $(cat {PID})")).map(drop)
    }

    /// SIGTERM, and waits for the end, at most 20 s. Its exit status.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub fn stop_pointsman(&self) -> Result<u8> {
        self.signal_pointsman("TERM")?;
        self.wait_exit()
    }

    /// Waits for the product's end, at most 20 s. Its exit status.
    ///
    /// # Errors
    /// When it does not end: with its log.
    pub fn wait_exit(&self) -> Result<u8> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if begin.elapsed() > STEP {
                let what = format!("{}: end of pointsman\n{}", self.name, self.log()?);
                return Err(LabError::Timeout { what, limit: STEP });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the product has printed since the boot.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn log(&self) -> Result<String> {
        self.run(&format!("cat {LOG} 2>/dev/null; true"))
    }

    /// What the kernel has printed.
    #[must_use]
    pub fn kernel_log(&self) -> String {
        kernel_log(&self.dir)
    }

    /// Fetches a path of the product's HTTP server, from inside the guest; status and body. None when
    /// nothing listens.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn http(&self, path: &str) -> Result<Option<(u16, String)>> {
        // The pipe stays open at this end: the server gives up on a client that says no more.
        let text = self.run(&format!(
            "rm -f /tmp/pipe; mkfifo /tmp/pipe; exec 3<>/tmp/pipe\n\
             printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3\n\
             nc -w 5 127.0.0.1 9477 <&3 2>/dev/null; true"
        ))?;
        let parsed = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        });
        Ok(parsed)
    }

    /// The status document; `Null` when the product does not answer.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn status(&self) -> Result<Value> {
        let body = self.http("/status.json")?.map(|(_, body)| body).unwrap_or_default();
        Ok(serde_json::from_str(&body).unwrap_or_default())
    }

    /// A scrape of the product's metrics.
    ///
    /// # Errors
    /// When it does not answer, or not in the text format.
    pub fn metrics(&self) -> Result<Metrics> {
        let (_, body) = self.http("/metrics")?.ok_or_else(|| LabError::Malformed {
            what: format!("/metrics of {}", self.name),
            detail: "no answer".into(),
        })?;
        Metrics::parse(&body)
    }

    /// Takes the cable out of the card (`false`) or puts it in. The switch's port stays up.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub fn set_link(&self, up: bool) -> Result<()> {
        lock(&self.qmp).execute("set_link", json!({ "name": CARD, "up": up })).map(drop)
    }

    /// Its name, which is that of its port on the switch.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's release, for example `6.1.0-56-amd64`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Waits for QEMU's sockets and the guest's shell.
    fn connect(mut qemu: Process, number: u8, release: String, dir: PathBuf) -> Result<Self> {
        let name = node_name(Role::Balancer, number);
        let (monitor, serial) = (dir.join("qmp"), dir.join("shell"));
        // Before the guest writes: what it prints without a listener is lost. A socket's file is there
        // before QEMU listens.
        let mut streams = None;
        qemu.wait_until("opens its sockets", STEP, |_| {
            let both = UnixStream::connect(&serial).ok().zip(UnixStream::connect(&monitor).ok());
            streams = both;
            Ok(streams.is_some())
        })?;
        let (serial, monitor) = streams.ok_or(LabError::Interrupted)?;
        let mut shell = Shell::new(serial)?;
        let qmp = Qmp::new(monitor)?;
        let booted = qemu.wait_until("boots", BOOT, |_| shell.seen("#shell\n"));
        booted.map_err(|error| LabError::Malformed {
            what: format!("boot of {name} ({release})"),
            detail: format!("{error}\n{}", kernel_log(&dir)),
        })?;
        let (shell, qmp, qemu) = (Mutex::new(shell), Mutex::new(qmp), Mutex::new(qemu));
        Ok(Self { shell, qmp, qemu, number, name, release, dir })
    }

    /// Gives a device, `eth0` or what stands on it, the addresses and routes of a balancer in a
    /// namespace: done for `eth0` at boot, and needed again when a test has made a device.
    ///
    /// # Errors
    /// When there is no such device, or it has no link within 20 s.
    pub fn configure(&self, lab: &Lab, device: &str) -> Result<()> {
        let (v4, v6) = addresses_of(Role::Balancer, self.number);
        let routes: String = lab.nodes_of(Role::Client).map(Node::routes).collect();
        self.run(&format!(
            "hostname {name}\n\
             cd /proc/sys/net/ipv6/conf\n\
             for dir in all default {device}; do\n\
             echo 0 >$dir/accept_dad; echo 0 >$dir/accept_ra\n\
             echo 0 >$dir/dad_transmits; echo 0 >$dir/router_solicitations\n\
             done\n\
             echo 1 >{device}/keep_addr_on_down\n\
             ip -batch - <<END\n\
             link set lo up\n\
             link set {device} up\n\
             addr replace {v4}/16 dev {device}\n\
             addr replace {v6}/64 dev {device} nodad\n\
             END\n\
             touch {ENVIRONMENT}",
            name = self.name
        ))?;
        // Some cards take seconds for their link, and IPv6 wants it for a route by a neighbour.
        let carrier = format!("/sys/class/net/{device}/carrier");
        self.run(&format!("until [ \"$(cat {carrier})\" = 1 ]; do sleep 0.05; done"))?;
        self.run(&format!("ip -batch - <<END\n{routes}END"))?;
        Ok(())
    }

    /// The MAC address of its card.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        mac_of(Role::Balancer, self.number)
    }

    /// QEMU's version, for example `7.2.22`.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn qemu_version(&self) -> Result<String> {
        let version = lock(&self.qmp).execute("query-version", json!({}))?;
        let numbers = ["major", "minor", "micro"].map(|part| version["qemu"][part].to_string());
        Ok(numbers.join("."))
    }

    /// The process of QEMU, to be paused or killed.
    pub fn qemu(&self) -> MutexGuard<'_, Process> {
        lock(&self.qemu)
    }
}

/// What a thread that panicked has left is as good as before: a command that was not read to its end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kernel_log(dir: &Path) -> String {
    let bytes = fs::read(dir.join("kernel.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

const CONFIG: &str = "/tmp/pointsman.toml";
const LOG: &str = "/tmp/pointsman.log";
const ENVIRONMENT: &str = "/tmp/pointsman.env";
const PID: &str = "/tmp/pointsman.pid";
const EXIT: &str = "/tmp/pointsman.exit";

/// For steps that take less than a second, on a busy machine.
const STEP: Duration = Duration::from_secs(20);
const BOOT: Duration = Duration::from_secs(120);
const READY: Duration = Duration::from_secs(60);
