//! The protocol of the control socket: one JSON line asked, one JSON line answered; for
//! [listings](crate::listing) as many as it takes.
//!
//! Request: `{"version":1,"verb":"status"}`, with `"arguments":{…}` where a verb has any. Answer:
//! `{"version":1,"ok":…}` or `{"version":1,"error":"…"}`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::explain::{Explain, Explained};
use crate::listing::{Flow, FlushPersistence, Flushed, ListFlows, ListTemplates, Template};
use crate::status::Status;

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// A line from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What the daemon can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verb", content = "arguments", rename_all = "kebab-case")]
pub enum Verb {
    /// The state of the node: a [`Status`].
    Status,
    /// Give VIPs to another node: [`Resigned`].
    VrrpResign(Resign),
    /// Take over the changed configuration file: [`Reloaded`].
    Reload(Reload),
    /// Go back to the configuration before the last one: [`Reloaded`].
    Undo,
    /// Keep a configuration that would be rolled back otherwise: [`Confirmed`].
    Confirm,
    /// Have backends take no new sources: [`Changed`].
    Drain(Drain),
    /// Have backends be as in the configuration: [`Changed`].
    Enable(Enable),
    /// Give backends another weight: [`Changed`].
    SetWeight(SetWeight),
    /// List flows: lines of [`Page`](crate::listing::Page) with [`Flow`].
    Flows(ListFlows),
    /// List templates: lines of [`Page`](crate::listing::Page) with [`Template`].
    Persistence(ListTemplates),
    /// Forget templates: [`Flushed`].
    FlushPersistence(FlushPersistence),
    /// Say where the next packet of a client would go, and why: [`Explained`].
    Explain(Explain),
    /// For tests of debug builds: a kind of thread panics.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    #[schemars(skip)]
    Panic(String),
}

/// The line that answers it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Answer<T> {
    /// [`VERSION`].
    pub version: u32,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<T>,
    /// Or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A verb with its arguments, and the type of its answer.
pub trait Call: Into<Verb> {
    /// What the daemon answers.
    type Answer: Serialize + DeserializeOwned + JsonSchema;
}

macro_rules! calls {
    ($($call:ident($name:ident) => $verb:expr, $answer:ty;)+) => {$(
        impl From<$call> for Verb {
            fn from($name: $call) -> Self {
                $verb
            }
        }

        impl Call for $call {
            type Answer = $answer;
        }
    )+};
}

calls! {
    GetStatus(_call) => Self::Status, Status;
    Resign(call) => Self::VrrpResign(call), Resigned;
    Reload(call) => Self::Reload(call), Reloaded;
    Undo(_call) => Self::Undo, Reloaded;
    Confirm(_call) => Self::Confirm, Confirmed;
    Drain(call) => Self::Drain(call), Changed;
    Enable(call) => Self::Enable(call), Changed;
    SetWeight(call) => Self::SetWeight(call), Changed;
    FlushPersistence(call) => Self::FlushPersistence(call), Flushed;
    Explain(call) => Self::Explain(call), Explained;
}

/// A verb that is answered with lines of [`Page`](crate::listing::Page).
pub trait Listing: Into<Verb> {
    /// What is listed.
    type Entry<'a>: Serialize + Deserialize<'a> + JsonSchema;
}

impl Listing for ListFlows {
    type Entry<'a> = Flow<'a>;
}

impl Listing for ListTemplates {
    type Entry<'a> = Template<'a>;
}

impl From<ListFlows> for Verb {
    fn from(call: ListFlows) -> Self {
        Self::Flows(call)
    }
}

impl From<ListTemplates> for Verb {
    fn from(call: ListTemplates) -> Self {
        Self::Persistence(call)
    }
}

/// The verb `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetStatus;

/// The verb `vrrp-resign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resign {
    /// Name of a VRRP instance; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// For how long the VIPs are not taken back while another node is Active, in milliseconds.
    pub for_ms: u64,
}

impl Resign {
    /// For how long the VIPs are not taken back.
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.for_ms)
    }
}

/// The answer to [`Resign`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resigned {
    /// Names of the instances that resign.
    pub resigned: Vec<String>,
}

/// The verb `reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Go back by itself unless [`Confirm`] comes within so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_ms: Option<u64>,
}

/// The verb `undo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undo;

/// The verb `confirm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirm;

/// The verb `drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// `service/backend`, a backend's name (in every service), or a service's name (all its backends).
    pub target: String,
    /// Connections that are left after so many milliseconds are reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether clients of the backend still come back to it.
    #[serde(default)]
    pub keep_sticky: bool,
}

/// The verb `enable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enable {
    /// `service/backend`, a backend's name (in every service), or a service's name (all its backends).
    pub target: String,
}

/// The verb `set-weight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// `service/backend`, a backend's name (in every service), or a service's name (all its backends).
    pub target: String,
    /// Share of new sources, 0–65,535; 0 takes none.
    #[schemars(range(max = 65_535))]
    pub weight: u32,
}

/// The answer to [`Drain`], [`Enable`] and [`SetWeight`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The backends, as `service/backend`; at least one.
    pub backends: Vec<String>,
}

/// The answer to [`Reload`] and [`Undo`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// What changes, one line each: `+` comes, `-` goes, `~` changes.
    pub changes: Vec<String>,
    /// Whether it was taken over; not in a dry run.
    pub applied: bool,
    /// What is allowed in the file but probably not meant, rendered for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub warnings: String,
}

/// The answer to [`Confirm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// Whether a configuration waited for it.
    pub confirmed: bool,
}

/// Whether a client's version is this one.
///
/// # Errors
/// It is not; a sentence.
pub fn check_version(version: u32) -> Result<(), String> {
    if version == VERSION {
        return Ok(());
    }
    Err(format!("protocol version {version} is not {VERSION}: client and daemon differ"))
}
