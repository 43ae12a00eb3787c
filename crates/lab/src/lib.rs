//! A network in a box: clients, a switch, balancers and backends in network namespaces, and the
//! clients that measure what goes through.
//!
//! The crate knows the product as a black box only: the binary `pointsman run --config FILE`, its
//! metrics URL inside the balancer's namespace and its control socket. It needs root, and it
//! never touches anything outside the namespaces, processes and directories that it makes; all of
//! them carry a name that says which process made them ([`clean`]).
//!
//! A test looks like this:
//!
//! ```no_run
//! # fn main() -> Result<(), lab::LabError> {
//! use lab::{Lab, LoadClient, ServiceText};
//!
//! let lab = Lab::builder().clients(1).balancers(1).backends(3).queues(4).build()?;
//! let web = lab.start_web()?;
//! let file = lab.files().ensure("50k")?;
//! let lb = lab.start_pointsman(0, &ServiceText::web(&lab).persistence("50s").to_toml())?;
//! let report = LoadClient::new(lab.vip_port(80), &file)
//!     .threads(10)
//!     .sources(lab.client(0).sources(200))
//!     .requests(10_000)
//!     .run(lab.client(0).netns())?;
//! assert_eq!(report.failed(), 0, "{report}");
//! # drop((web, lb)); Ok(()) }
//! ```

#![forbid(unsafe_code)]

pub mod capture;
pub mod clean;
pub mod config_text;
pub mod error;
pub mod fast_path;
pub mod files;
pub mod guest;
pub mod host;
mod identity;
pub mod load;
pub mod log;
pub mod metrics;
pub mod netns;
pub mod nginx;
pub mod node;
pub mod pcap;
pub mod pointsman;
pub mod probe;
pub mod process;
pub mod topology;
pub mod wire;

pub use capture::{Capture, Direction};
pub use config_text::{ServiceText, VrrpText};
pub use error::{LabError, Result};
pub use files::{Files, Served};
pub use guest::{Card, Contents, Guest, GuestSpec, Kernel};
pub use load::{LoadClient, LoadReport, Outcome, Record, RunningLoad, Stretch, Timeline};
pub use log::Transition;
pub use metrics::Metrics;
pub use netns::NetNs;
pub use nginx::{Nginx, NginxStyle};
pub use node::Node;
pub use pointsman::{Pointsman, pointsman_binary, write_config};
pub use probe::{EchoResponder, ProbeClient, ProbeReport};
pub use process::{Output, Process};
pub use topology::{Lab, LabBuilder};
pub use wire::Wire;
