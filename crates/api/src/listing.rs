//! Tables of the packet path, entry by entry: answered with as many lines as it takes.
//!
//! Each line is an [`Answer`](crate::request::Answer) with a [`Page`]; the last one says so. A line with
//! an error ends the listing as well.

use std::borrow::Cow;
use std::net::IpAddr;

use dataplane::Protocol;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The verb `flows`: the flows of all workers, in no order. Without filters: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFlows {
    /// Only flows of clients in this prefix: `192.0.2.0/24`, or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only flows of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only flows of this backend: `service/backend`, or a backend's name in every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Only flows in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
}

/// The verb `persistence`: the templates, in no order. Without filters: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListTemplates {
    /// Only templates of sources in this prefix: `192.0.2.0/24`, or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only templates of this service, or of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only templates that name this backend: `service/backend`, or a backend's name in every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// The verb `flush-persistence`: forget templates. Connections go on; the next new connection of a source
/// is scheduled anew. Without filters: all. Answered with [`Flushed`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlushPersistence {
    /// Only templates of sources in this prefix: `192.0.2.0/24`, or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only templates of this service, or of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// The answer to [`FlushPersistence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flushed {
    /// Templates that were forgotten.
    pub templates: u64,
}

/// Some entries of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The entries; there may be none.
    pub entries: Vec<T>,
    /// Whether this is the last line.
    pub last: bool,
}

/// A flow: what a worker remembers of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flow<'a> {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The client's address and port: `192.0.2.1:40000`, `[2001:db8::1]:40000`.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The VIP and its port, in the same form.
    #[serde(borrow)]
    pub destination: Cow<'a, str>,
    /// Name of the service; empty if the configuration has none for it any more.
    #[serde(borrow)]
    pub service: Cow<'a, str>,
    /// Name of the backend.
    #[serde(borrow)]
    pub backend: Cow<'a, str>,
    /// Address of the backend; absent if the configuration does not have it any more.
    pub address: Option<IpAddr>,
    /// How far it has come.
    pub state: FlowState,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// Seconds until it is forgotten if no packet comes.
    pub expires_seconds: f64,
}

/// A persistence template: which backend a source keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Template<'a> {
    /// The source, with the bits of the persistence prefix only.
    pub source: IpAddr,
    /// Name of the service, or of the group whose services share it.
    #[serde(borrow)]
    pub service: Cow<'a, str>,
    /// Name of the backend.
    #[serde(borrow)]
    pub backend: Cow<'a, str>,
    /// Address of the backend; absent if the configuration does not have it any more.
    pub address: Option<IpAddr>,
    /// Connections that hold it: while there are any, it does not expire.
    pub live_flows: u32,
    /// Seconds until it expires if nothing holds or renews it.
    pub expires_seconds: f64,
}

label::labels! {
    /// How far a flow has come, as far as the client's packets tell.
    pub enum FlowState {
        PickedUp => "picked-up", "A packet from the middle of a connection whose SYN was not seen here; nothing proves it yet.";
        Opening => "opening", "The client acknowledged the handshake; nothing proves it yet.";
        Established => "established", "The numbers of the client's segments advance.";
        Closing => "closing", "The client sent FIN.";
        Reset => "reset", "The client sent RST.";
        Udp => "udp", "A UDP flow has no states.";
    }
}

impl From<dataplane::FlowState> for FlowState {
    fn from(state: dataplane::FlowState) -> Self {
        use dataplane::FlowState as From;
        match state {
            From::PickedUp => Self::PickedUp,
            From::Opening => Self::Opening,
            From::Established => Self::Established,
            From::Closing => Self::Closing,
            From::Reset => Self::Reset,
            From::Udp => Self::Udp,
        }
    }
}
