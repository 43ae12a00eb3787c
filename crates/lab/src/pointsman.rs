//! The product, as a black box: its binary, its configuration file, its metrics URL, its log.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::{
    error::{Doing as _, LabError, Result},
    log::Transition,
    metrics::{Metrics, http_get},
    netns::NetNs,
    node::Node,
    process::Process,
};

/// A running balancer process. Dropping it kills it.
#[derive(Debug)]
pub struct Pointsman {
    process: Process,
    netns: Arc<NetNs>,
    config: PathBuf,
    socket: PathBuf,
}

impl Pointsman {
    /// Starts it on `node` and waits for `/readyz`, see [`crate::Lab::start_pointsman`].
    pub(crate) fn start(node: &Node, config: &str) -> Result<Self> {
        let mut this = Self::spawn(node, config)?;
        this.wait_ready(Duration::from_secs(10))?;
        Ok(this)
    }

    /// Waits until `/readyz` says yes, at most `limit`.
    ///
    /// # Errors
    /// When the process ends, with the end of its log, or is not ready in time.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let netns = Arc::clone(&self.netns);
        self.process.wait_until("ready", limit, |_| {
            netns.enter(|| matches!(http_get(METRICS, "/readyz", SCRAPE), Ok((200, _))))
        })
    }

    /// Starts it and does not wait: for tests of the start itself.
    ///
    /// # Errors
    /// When there is no binary or the configuration cannot be written.
    pub fn spawn(node: &Node, config: &str) -> Result<Self> {
        Self::spawn_binary(node, &pointsman_binary()?, config)
    }

    /// As [`Pointsman::spawn`], with another binary: an older version, or a stand-in.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn spawn_binary(node: &Node, binary: &Path, config: &str) -> Result<Self> {
        let socket = node.dir().join("control.sock");
        let path = write_config(node, config)?;
        let argv = [&*binary.to_string_lossy(), "run", "--config", &path.to_string_lossy()];
        let log = node.dir().join("pointsman.log");
        let name = format!("pointsman on {}", node.name());
        let process = Process::start(node.netns(), &name, &argv, &log)?;
        Ok(Self { process, netns: Arc::clone(&node.netns), config: path, socket })
    }

    /// The process, to be stopped, paused or killed; its log is what it printed since the
    /// balancer was made (restarts included).
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What its log says of a backend's change of state, see [`Transition::find`].
    #[must_use]
    pub fn transition(&self, backend: &str, change: &str, from: SystemTime) -> Option<Transition> {
        Transition::find(&self.log(), backend, change, from)
    }

    /// Its configuration file; rewriting it changes nothing before a reload.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether `/readyz` says so now.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn ready(&self) -> Result<bool> {
        self.netns.enter(|| matches!(http_get(METRICS, "/readyz", SCRAPE), Ok((200, _))))
    }

    /// Fetches a path of its HTTP server; status and body.
    ///
    /// # Errors
    /// When there is no answer within 2 s.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        self.netns.enter(|| http_get(METRICS, path, SCRAPE))?
    }

    /// The status document; `Null` when it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let Ok((200, text)) = self.http("/status.json") else { return Value::Null };
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// VRRP instance `index`, as the status document has it; `Null` when it does not answer or has
    /// no such instance.
    #[must_use]
    pub fn vrrp(&self, index: usize) -> Value {
        self.status()["vrrp"][index].take()
    }

    /// A scrape of its metrics.
    ///
    /// # Errors
    /// When there is no answer within 2 s or it is not in the text format.
    pub fn metrics(&self) -> Result<Metrics> {
        match self.http("/metrics")? {
            (200, text) => Metrics::parse(&text),
            (status, detail) => {
                Err(LabError::Malformed { what: format!("/metrics: status {status}"), detail })
            }
        }
    }
}

/// Writes the configuration to the node's directory. A text without a `[control]` table gets one
/// with a socket there, so that several labs do not share a path.
///
/// # Errors
/// When the file cannot be written.
pub fn write_config(node: &Node, config: &str) -> Result<PathBuf> {
    let socket = node.dir().join("control.sock");
    let mut text = config.to_owned();
    if !config.lines().any(|line| line.trim() == "[control]") {
        text.push_str(&format!("\n[control]\nsocket = \"{}\"\n", socket.display()));
    }
    if !veths_keep_tags() && !text.contains("tagged_frames") {
        let (name, key) = ("name = \"eth0\"\n", "tagged_frames = \"none\"\n");
        text = text.replacen(name, &format!("{name}{key}"), 1);
    }
    let path = node.dir().join("pointsman.toml");
    fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Whether XDP can see VLAN tags on a veth (Linux 6.8): else the product wants to be told that there are
/// none.
fn veths_keep_tags() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(8))
}

/// The product's binary: `POINTSMAN_BIN`, else `pointsman` beside the running program (for a test
/// in `target/PROFILE/deps`: in `target/PROFILE`).
///
/// # Errors
/// [`LabError::NoBinary`] with the path at which it was expected.
pub fn pointsman_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("POINTSMAN_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().doing(|| "find the running program".into())?;
            beside(&own)
        }
    };
    if path.is_file() { Ok(path) } else { Err(LabError::NoBinary(path)) }
}

fn beside(program: &Path) -> PathBuf {
    let mut dir = program.parent().unwrap_or_else(|| Path::new("/"));
    if dir.ends_with("deps") {
        dir = dir.parent().unwrap_or(dir);
    }
    dir.join("pointsman")
}

/// Where the product serves its metrics by default, inside its own namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
const SCRAPE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_beside_the_program_or_the_test() {
        assert_eq!(beside(Path::new("/t/debug/pointsman-lab")), Path::new("/t/debug/pointsman"));
        assert_eq!(beside(Path::new("/t/debug/deps/system-1f")), Path::new("/t/debug/pointsman"));
    }
}
