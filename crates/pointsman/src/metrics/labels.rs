//! The label sets of the metrics, and the labels that only metrics have.

use std::net::IpAddr;

use api::status::{BackendState, XdpMode};
use control::health::FailureKind;
use control::vrrp::{Reason, Reject, StateName};
use dataplane::DropReason;
use steer::Outcome;

/// Names and values of the labels of a metric.
pub(super) trait LabelSet {
    /// Names.
    const NAMES: &'static [&'static str];

    /// Values, in the order of the names.
    fn values(&self) -> Vec<String>;
}

impl LabelSet for () {
    const NAMES: &'static [&'static str] = &[];

    fn values(&self) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! label_sets {
    ($($name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name $(<$life>)? {
            $(pub(super) $field: $type,)+
        }

        impl $(<$life>)? LabelSet for $name $(<$life>)? {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn values(&self) -> Vec<String> {
                vec![$(self.$field.to_string()),+]
            }
        }
    )+};
}

label_sets! {
    OfBuild<'a> { version: &'a str }
    OfGeneration { stage: Stage }
    OfReload { result: Taken }
    OfDrop { reason: DropReason }
    OfInterface<'a> { interface: &'a str }
    OfMode<'a> { interface: &'a str, mode: XdpMode }
    OfOutcome<'a> { interface: &'a str, outcome: Outcome }
    OfQueue<'a> { interface: &'a str, queue: u32 }
    OfPlace<'a> { interface: &'a str, queue: u32, place: Place }
    OfFate<'a> { interface: &'a str, queue: u32, fate: Fate }
    OfException<'a> { interface: &'a str, queue: u32, kind: Exception }
    OfService<'a> { service: &'a str }
    OfResult<'a> { service: &'a str, result: Delivery }
    OfBackend<'a> { service: &'a str, backend: &'a str }
    OfBackendState<'a> { service: &'a str, backend: &'a str, state: BackendState }
    OfSessions<'a> { service: &'a str, backend: &'a str, state: Sessions }
    OfCheck<'a> { address: IpAddr, check: &'a str }
    OfCheckUse<'a> { service: &'a str, backend: &'a str, address: IpAddr, check: &'a str }
    OfFailure<'a> { address: IpAddr, check: &'a str, reason: FailureKind }
    OfInstance<'a> { instance: &'a str }
    OfPriority<'a> { instance: &'a str, kind: Priority }
    OfPeer<'a> { instance: &'a str, peer: IpAddr }
    OfVrrpState<'a> { instance: &'a str, state: StateName }
    OfTransition<'a> { instance: &'a str, to: StateName, reason: Reason }
    OfReject<'a> { instance: &'a str, reason: Reject }
}

label::labels! {
    /// How far a configuration of the packet path has come.
    pub(super) enum Stage {
        Published => "published", "The workers can read it.";
        Acknowledged => "acknowledged", "All workers work with it.";
    }
}

label::labels! {
    /// What became of a configuration that was to be taken over.
    pub(super) enum Taken {
        Applied => "applied", "It is or was in force.";
        Refused => "refused", "It had a mistake: nothing changed.";
    }
}

label::labels! {
    /// Where a frame of a UMEM is.
    pub(super) enum Place {
        Total => "total", "Anywhere.";
        Fill => "fill", "With the kernel, to be filled.";
        Tx => "tx", "With the kernel, to be sent.";
        Held => "held", "In the worker's hands.";
    }
}

label::labels! {
    /// What a worker did with a frame.
    pub(super) enum Fate {
        Received => "received", "Taken from the RX ring.";
        Adopted => "adopted", "Taken from the mailbox.";
        Forwarded => "forwarded", "Sent to a backend.";
        Answered => "answered", "Answered.";
        HandedOver => "handed_over", "Copied to other workers.";
        Dropped => "dropped", "Dropped.";
        Originated => "originated", "A reset sent unasked.";
        OriginatedLost => "originated_lost", "The same that the transmit ring refused.";
    }
}

label::labels! {
    /// Why a packet was forwarded without a flow entry of its own history.
    pub(super) enum Exception {
        TableFull => "table_full", "The flow found no room.";
        PickedUp => "picked_up", "A mid-stream packet was placed by the deterministic hash.";
    }
}

label::labels! {
    /// What became of a frame for a service.
    pub(super) enum Delivery {
        Forwarded => "forwarded", "Sent to a backend.";
        Dropped => "dropped", "Dropped for want of a backend.";
    }
}

label::labels! {
    /// Kinds of flows.
    pub(super) enum Sessions {
        Active => "active", "Flows that live.";
        Inactive => "inactive", "Flows that ended but are remembered.";
        Unproven => "unproven", "Flows that nothing proves to be connections.";
    }
}

label::labels! {
    /// Which priority of a VRRP instance.
    pub(super) enum Priority {
        Configured => "configured", "As in the configuration.";
        Effective => "effective", "The one that decides.";
    }
}
