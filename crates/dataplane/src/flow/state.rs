//! What a client's half of a connection tells about it.

use crate::key::Protocol;

/// Where a flow stands. In direct routing only the client's packets are seen, as in ip_vs
/// (`ip_vs_proto_tcp.c`, the input-only table), and any host can send those of a handshake from a
/// forged address. So a TCP flow is *unproven* until a second segment's numbers advance; until then
/// it makes room for others, holds no template and is no load to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// Unproven: a packet from the middle of a connection whose SYN was not seen here.
    PickedUp = 1,
    /// Proven: the numbers of the client's segments advance.
    Established = 2,
    /// The client sent FIN; it may still acknowledge a long download.
    Closing = 3,
    /// The client sent RST.
    Reset = 4,
    /// UDP has no states.
    Udp = 5,
    /// Unproven: the client acknowledged the handshake.
    Opening = 6,
}

impl FlowState {
    /// Whether the flow lives: it is proven and not over. It may hold a persistence template.
    #[inline]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Established | Self::Udp)
    }

    /// Whether nothing proves that the flow is a connection.
    #[inline]
    pub const fn is_unproven(self) -> bool {
        matches!(self, Self::PickedUp | Self::Opening)
    }

    /// The state that has this number.
    #[inline]
    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            1 => Self::PickedUp,
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::Reset,
            5 => Self::Udp,
            6 => Self::Opening,
            _ => return None,
        })
    }

    /// The protocol of a flow in this state.
    #[inline]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::PickedUp | Self::Opening | Self::Established | Self::Closing | Self::Reset => {
                Protocol::Tcp
            }
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
            Self::Opening => "opening",
        }
    }
}

/// What a packet changed about its flow that others want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// An unproven flow turned out to be a connection, and lives from here on. Where the packet is
    /// its last one as well, the end is reported when it is observed once more.
    Proven {
        /// Whether its SYN was not seen here.
        picked_up: bool,
    },
    /// FIN or RST: the flow's life is over. Reported once; [`EndedFlow`](super::EndedFlow) does
    /// not name the template again when the entry goes.
    Ended,
    /// FIN or RST of an unproven flow.
    Abandoned,
    /// A packet of a flow whose life is over, at most once per second and flow.
    Trailing,
    /// A SYN on a flow whose handshake was seen: forged, or of a client that knows nothing of it.
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
    Prove,
    /// From a live or unproven state to this one.
    End(FlowState),
    /// Over before, and now in this state.
    Trail(FlowState),
    /// A new connection.
    Renew,
}

/// ```text
///              ACK          FIN         RST        SYN
/// PickedUp     stay *       Closing *   Reset      new connection
/// Opening      stay *       Closing *   Reset      repeated
/// Established  stay         Closing !   Reset !    repeated
/// Closing      stay         stay        Reset      new connection
/// Reset        stay         stay        stay       new connection
/// ```
/// `*` to `Established` if its numbers advance. `!` ends the flow's life.
#[inline]
pub(super) const fn step(state: FlowState, segment: Segment, advances: bool) -> Step {
    use FlowState::{Closing, Established, Opening, PickedUp, Reset, Udp};
    match (state, segment) {
        (PickedUp | Opening, Segment::Ack | Segment::Fin) if advances => Step::Prove,
        (PickedUp | Opening | Established, Segment::Ack | Segment::Other) | (Udp, _) => Step::Stay,
        (Opening | Established, Segment::Syn) => Step::Repeat,
        (PickedUp | Opening | Established, Segment::Fin) => Step::End(Closing),
        (PickedUp | Opening | Established, Segment::Rst) => Step::End(Reset),
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
        use FlowState::{Closing, Established, Opening, PickedUp, Reset, Udp};
        use Step::{End, Prove, Renew, Repeat, Stay, Trail};
        let segments = [Segment::Ack, Segment::Fin, Segment::Rst, Segment::Syn, Segment::Other];
        let table = [
            (PickedUp, [Stay, End(Closing), End(Reset), Renew, Stay], [Prove, Prove]),
            (Opening, [Stay, End(Closing), End(Reset), Repeat, Stay], [Prove, Prove]),
            (Established, [Stay, End(Closing), End(Reset), Repeat, Stay], [Stay, End(Closing)]),
            (
                Closing,
                [Trail(Closing), Trail(Closing), Trail(Reset), Renew, Trail(Closing)],
                [Trail(Closing), Trail(Closing)],
            ),
            (
                Reset,
                [Trail(Reset), Trail(Reset), Trail(Reset), Renew, Trail(Reset)],
                [Trail(Reset), Trail(Reset)],
            ),
            (Udp, [Stay; 5], [Stay; 2]),
        ];
        for (state, expected, [ack, fin]) in table {
            let got = segments.map(|segment| step(state, segment, false));
            assert_eq!(got, expected, "{state:?}");
            let [_, _, rst, syn, other] = expected;
            let got = segments.map(|segment| step(state, segment, true));
            assert_eq!(got, [ack, fin, rst, syn, other], "{state:?}, advancing");
        }
    }

    #[test]
    fn numbers_are_states_and_zero_is_none() {
        use FlowState::{Closing, Established, Opening, PickedUp, Reset, Udp};
        for state in [PickedUp, Opening, Established, Closing, Reset, Udp] {
            assert_eq!(FlowState::from_bits(state as u64), Some(state));
        }
        assert_eq!([0, 7].map(FlowState::from_bits), [None; 2]);
    }

    #[test]
    fn only_live_and_unproven_states_end() {
        use FlowState::{Closing, Established, Opening, PickedUp, Reset, Udp};
        for state in [PickedUp, Opening, Established, Closing, Reset, Udp] {
            let is_over = !state.is_live() && !state.is_unproven();
            assert!(!(state.is_live() && state.is_unproven()));
            for (flags, advances) in (0..=u8::MAX).flat_map(|f| [(f, false), (f, true)]) {
                match step(state, Segment::of(flags), advances) {
                    Step::End(to) => assert!(!is_over && !to.is_live() && !to.is_unproven()),
                    Step::Trail(to) => assert!(is_over && !to.is_live() && !to.is_unproven()),
                    Step::Prove => assert!(state.is_unproven() && advances),
                    Step::Stay | Step::Repeat => assert!(!is_over),
                    Step::Renew => assert!(!state.is_live()),
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
