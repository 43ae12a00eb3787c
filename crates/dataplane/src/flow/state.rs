//! What a client's half of a connection tells about it.

use crate::key::Protocol;

/// Where a flow stands, as ip_vs keeps it in direct routing: only the client's packets are seen
/// (`ip_vs_proto_tcp.c`, the input-only table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// A packet from the middle of a connection without history. Idles out as half-open does, and
    /// makes room for others when its buckets are full.
    PickedUp = 1,
    /// The client acknowledged the handshake, or a picked-up flow sent a second packet.
    Established = 2,
    /// The client sent FIN; it may still acknowledge a long download.
    Closing = 3,
    /// The client sent RST.
    Reset = 4,
    /// UDP has no states.
    Udp = 5,
}

impl FlowState {
    /// Whether the flow lives: it holds its persistence template.
    #[inline]
    pub const fn is_live(self) -> bool {
        match self {
            Self::PickedUp | Self::Established | Self::Udp => true,
            Self::Closing | Self::Reset => false,
        }
    }

    /// The protocol of a flow in this state.
    #[inline]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::PickedUp | Self::Established | Self::Closing | Self::Reset => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }

    /// Lower-case name for dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PickedUp => "picked_up",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Udp => "udp",
        }
    }
}

/// What a packet changed about its flow that others want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A picked-up flow sent its second packet: it is a connection, not a stray packet.
    Confirmed,
    /// FIN or RST: the flow's life is over. Reported once; [`EndedFlow`](super::EndedFlow) does
    /// not name the template again when the entry goes.
    Ended,
    /// A packet of a flow whose life is over, at most once per second and flow.
    Trailing,
    /// A SYN on an established connection: forged, or of a client that knows nothing of it.
    Repeated,
    /// A SYN that begins a new connection on this 5-tuple. The entry is as it was: remove it.
    NewConnection,
}

/// The part of a TCP segment that moves the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Rst,
    Syn,
    Fin,
    Ack,
    /// No flag that means anything from a client: it only shows that the flow is in use.
    Other,
}

impl Segment {
    /// Precedence as in ip_vs: RST, SYN, FIN, ACK. A SYN with ACK is no request for a connection.
    #[inline]
    pub(super) const fn of(flags: u8) -> Self {
        if flags & (FIN | SYN | RST | ACK) == ACK {
            Self::Ack
        } else if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            if flags & ACK == 0 { Self::Syn } else { Self::Other }
        } else if flags & FIN != 0 {
            Self::Fin
        } else {
            Self::Other
        }
    }
}

/// What a segment does to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing but that it was seen.
    Stay,
    /// The same, but worth a thought.
    Repeat,
    /// To `Established`.
    Confirm,
    /// From a live state to this one.
    End(FlowState),
    /// Over before, and now in this state.
    Trail(FlowState),
    /// A new connection.
    Renew,
}

/// ```text
///              ACK          FIN         RST        SYN
/// PickedUp     Established  Closing !   Reset !    new connection
/// Established  stay         Closing !   Reset !    repeated
/// Closing      stay         stay        Reset      new connection
/// Reset        stay         stay        stay       new connection
/// ```
/// `!` ends the flow's life.
#[inline]
pub(super) const fn step(state: FlowState, segment: Segment) -> Step {
    use FlowState::{Closing, Established, PickedUp, Reset, Udp};
    match (state, segment) {
        (Established, Segment::Ack | Segment::Other) | (PickedUp, Segment::Other) | (Udp, _) => {
            Step::Stay
        }
        (Established, Segment::Syn) => Step::Repeat,
        (PickedUp, Segment::Ack) => Step::Confirm,
        (PickedUp | Established, Segment::Fin) => Step::End(Closing),
        (PickedUp | Established, Segment::Rst) => Step::End(Reset),
        (PickedUp | Closing | Reset, Segment::Syn) => Step::Renew,
        (Closing, Segment::Rst) => Step::Trail(Reset),
        (Closing | Reset, _) => Step::Trail(state),
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_segment() {
        use FlowState::{Closing, Established, PickedUp, Reset, Udp};
        use Step::{Confirm, End, Renew, Repeat, Stay, Trail};
        let segments = [Segment::Ack, Segment::Fin, Segment::Rst, Segment::Syn, Segment::Other];
        let table = [
            (PickedUp, [Confirm, End(Closing), End(Reset), Renew, Stay]),
            (Established, [Stay, End(Closing), End(Reset), Repeat, Stay]),
            (Closing, [Trail(Closing), Trail(Closing), Trail(Reset), Renew, Trail(Closing)]),
            (Reset, [Trail(Reset), Trail(Reset), Trail(Reset), Renew, Trail(Reset)]),
            (Udp, [Stay; 5]),
        ];
        for (state, expected) in table {
            let got = segments.map(|segment| step(state, segment));
            assert_eq!(got, expected, "{state:?}");
        }
    }

    #[test]
    fn only_live_states_end() {
        use FlowState::{Closing, Established, PickedUp, Reset, Udp};
        for state in [PickedUp, Established, Closing, Reset, Udp] {
            for flags in 0..=u8::MAX {
                match step(state, Segment::of(flags)) {
                    Step::End(to) => assert!(state.is_live() && !to.is_live()),
                    Step::Trail(to) => assert!(!state.is_live() && !to.is_live()),
                    Step::Stay | Step::Confirm | Step::Repeat => assert!(state.is_live()),
                    Step::Renew => assert_ne!(state, Established),
                }
            }
        }
    }

    #[test]
    fn flag_precedence() {
        let table = [
            (ACK, Segment::Ack),
            (ACK | 0x08, Segment::Ack),
            (ACK | 0xe0, Segment::Ack),
            (SYN, Segment::Syn),
            (SYN | 0xc0, Segment::Syn),
            (SYN | FIN, Segment::Syn),
            (SYN | ACK, Segment::Other),
            (SYN | RST, Segment::Rst),
            (RST | ACK | FIN, Segment::Rst),
            (FIN | ACK, Segment::Fin),
            (FIN, Segment::Fin),
            (0, Segment::Other),
            (0x08, Segment::Other),
        ];
        for (flags, expected) in table {
            assert_eq!(Segment::of(flags), expected, "flags {flags:#04x}");
        }
    }
}
