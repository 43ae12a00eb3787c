//! Where a client would go, and why.

use std::net::IpAddr;

use dataplane::Protocol;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listing::FlowState;

/// The verb `explain`: where the next packet of a client would go. Nothing changes by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The client: an address, with or without a port. With the port of a connection that is there, its
    /// next packet; else the first packet of a new one.
    pub source: String,
    /// The VIP: an address, with or without a port. Without: that of its only service of the protocol.
    pub destination: String,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The answer to [`Explain`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// What would become of the packet.
    pub outcome: Outcome,
    /// Name of the service; absent if no service is asked for.
    pub service: Option<String>,
    /// Name of the backend; absent if the packet goes to none.
    pub backend: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// What decided; absent if the packet goes to no backend.
    pub because: Option<Because>,
    /// How far its flow has come; absent if there is none.
    pub flow: Option<FlowState>,
    /// The template of its source.
    pub template: Option<TemplateOf>,
    /// The backend where its hash leads, whatever its health; with `maglev`.
    pub home: Option<String>,
    /// The same in sentences.
    pub why: Vec<String>,
}

/// The template of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateOf {
    /// The backend that it names.
    pub backend: String,
    /// Which one it is: those that were made later have larger numbers.
    pub epoch: u32,
    /// Connections that hold it.
    pub live_flows: u32,
    /// Seconds until it expires if nothing holds or renews it.
    pub expires_seconds: f64,
}

label::labels! {
    /// What would become of a packet.
    pub enum Outcome {
        Forwarded => "forwarded", "It goes to the backend.";
        Refused => "refused", "It is answered: with a reset, or an ICMP error.";
        Dropped => "dropped", "Nothing becomes of it.";
    }
}

label::labels! {
    /// What decides where a packet goes.
    pub enum Because {
        Flow => "flow", "Its connection is known.";
        Pending => "pending", "The choice of its own SYN, whose handshake is not complete.";
        Template => "template", "The persistence template of its source.";
        SourcePending => "source-pending", "The choice of another connection of its source, whose handshake is not complete.";
        Hash => "hash", "The hash of its source or 5-tuple.";
        ReSteered => "re-steered", "Its hash leads to a backend that takes no new connections, and from there to this one.";
        Scheduler => "scheduler", "The scheduler: whose turn it is, or who has the fewest connections.";
    }
}

impl From<dataplane::Because> for Because {
    fn from(because: dataplane::Because) -> Self {
        use dataplane::Because as From;
        match because {
            From::Flow => Self::Flow,
            From::Pending => Self::Pending,
            From::Template => Self::Template,
            From::SourcePending => Self::SourcePending,
            From::Hash => Self::Hash,
            From::ReSteered => Self::ReSteered,
            From::Scheduler => Self::Scheduler,
        }
    }
}
