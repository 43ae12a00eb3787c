//! What becomes of a frame. Drops are values, never errors.

use crate::slots::PortId;

/// The fate of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten for a backend: transmit on this port.
    Forward(PortId),
    /// Turned in place into an answer (ARP, NA, echo reply, reset, ICMP error): transmit on the port
    /// it came from.
    Answer,
    /// Copy to the other workers, one of which may hold the flow it belongs to.
    HandOver,
    /// A fragment that came before the first one of its datagram: keep it in the worker's
    /// [`WaitingRoom`](crate::WaitingRoom).
    Wait,
    /// Recycle the frame.
    Drop(DropReason),
}

label::labels! {
    /// Why a frame was not forwarded. Counter, metric label and documentation come from here.
    pub enum DropReason {
        Malformed => "malformed", "A header is cut off or contradicts itself.";
        TooLong => "too_long", "Longer than the MTU: an offload of the sender or below merged packets.";
        Inactive => "inactive", "The VIP's lease ran out before the frame was looked at.";
        NotVip => "not_vip", "The destination is not a configured VIP (a change was under way).";
        NotVipPort => "not_vip_port", "No service listens on this port or protocol of the VIP.";
        OtherHost => "other_host", "Sent to the MAC address of another host, or to all of them.";
        Fragment => "fragment", "A later fragment whose first one did not come in time, or went to no backend.";
        FragmentFull => "fragment_full", "A later fragment that waited for its first one made room for others.";
        NoBackend => "no_backend", "The service has no backend that may take a new connection.";
        NoNeighbour => "no_neighbour", "The flow's backend has no known MAC address.";
        BackendDown => "backend_down", "The flow's backend is down and its client is not told (again).";
        Loop => "loop", "The source MAC is our own, or that of the backend that the frame would go to.";
        Unsupported => "unsupported", "Traffic to a VIP that is neither balanced nor answered.";
        NoFlow => "no_flow", "An ICMP error about a flow that no worker knows.";
        TxFull => "tx_full", "The transmit ring stayed full.";
        MailboxFull => "mailbox_full", "Another worker's mailbox was full.";
        NoPort => "no_port", "The interface towards the backend has no bound queue.";
    }
}
