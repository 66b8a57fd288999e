//! TCP session tracking, as far as time-outs and close need it.
//!
//! The states are those of RFC 6146 §3.5.2, to which RFC 7857 §2 refers, with outbound for its V6 and inbound for V4:
//!
//! ```text
//!            outbound SYN            inbound SYN               FIN outbound
//!   (none) ───────────────► Opening ─────────────► Established ─────────────► FinOutbound ─┐ FIN inbound
//!                              ▲                     ▲  │  │    FIN inbound                 ▼
//!                 outbound SYN │  outbound, no RST/SYN│  │  └──────────────► FinInbound ─► Closing
//!                              └────── Reset ─────────┘  │                  FIN outbound      │
//!                                        ▲     RST       │                                    │ outbound SYN
//!                                        └───────────────┴─ (from Opening, Fin* too)          └──► Opening
//! ```
//!
//! Where strangers' SYNs are let in, an inbound SYN leads to OpeningInbound, and an outbound one from there to
//! Established.
//!
//! A session leaves the table by time alone, never at once: Opening, Closing and Reset idle out after the transitory
//! time-outs, the others after the established one. So a lost last ACK is still translated, and a forged RST only
//! shortens a session that its interior host does not use (RFC 7857 §2.2).
//!
//! Departure: an inbound segment does not bring a Reset session back, only an outbound one does. Nothing from the
//! exterior may prolong a session's life.

use crate::types::Direction;
use slim_core::packet::TcpFlags;

/// Whether RFC 9293 knows a segment with these flags: every one but SYN and RST has ACK, and neither goes with FIN or
/// the other.
pub const fn flags_are_valid(flags: TcpFlags) -> bool {
    let (syn, rst) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::RST));
    match (syn, rst) {
        (true, true) => false,
        (true, false) | (false, true) => !flags.contains(TcpFlags::FIN),
        (false, false) => flags.contains(TcpFlags::ACK),
    }
}

/// Whether a segment with these flags is the first of a connection.
pub const fn opens(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK)
}

/// The state of a TCP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// The interior host has sent its SYN.
    Opening = 1,
    /// Both ends have sent their SYN.
    Established = 2,
    /// The interior host has sent its FIN; data may still come in.
    FinOutbound = 3,
    /// The server has sent its FIN; data may still go out.
    FinInbound = 4,
    /// Both ends have sent their FIN.
    Closing = 5,
    /// Either end has sent a RST.
    Reset = 6,
    /// The server has sent its SYN, to an endpoint that receives those of strangers.
    OpeningInbound = 7,
}

impl TcpState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Established,
        Self::FinOutbound,
        Self::FinInbound,
        Self::Closing,
        Self::Reset,
        Self::OpeningInbound,
    ];

    /// The state as tables and statelets hold it.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state behind a code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Opening),
            2 => Some(Self::Established),
            3 => Some(Self::FinOutbound),
            4 => Some(Self::FinInbound),
            5 => Some(Self::Closing),
            6 => Some(Self::Reset),
            7 => Some(Self::OpeningInbound),
            _ => None,
        }
    }

    /// The state after a valid segment.
    #[must_use]
    pub const fn after(self, direction: Direction, flags: TcpFlags) -> Self {
        use Direction::{Inbound, Outbound};
        if flags.contains(TcpFlags::RST) {
            return match self {
                Self::Closing | Self::Reset => self,
                Self::Opening | Self::OpeningInbound | Self::Established | Self::FinOutbound | Self::FinInbound => {
                    Self::Reset
                }
            };
        }
        match (self, direction) {
            (Self::Opening, Inbound) if flags.contains(TcpFlags::SYN) => Self::Established,
            (Self::OpeningInbound, Outbound) if flags.contains(TcpFlags::SYN) => Self::Established,
            (Self::Established, Outbound) if flags.contains(TcpFlags::FIN) => Self::FinOutbound,
            (Self::Established, Inbound) if flags.contains(TcpFlags::FIN) => Self::FinInbound,
            (Self::FinOutbound, Inbound) if flags.contains(TcpFlags::FIN) => Self::Closing,
            (Self::FinInbound, Outbound) if flags.contains(TcpFlags::FIN) => Self::Closing,
            // The interior host uses the same socket for a new connection.
            (Self::Closing | Self::Reset, Outbound) if opens(flags) => Self::Opening,
            // It was not reset after all: the interior host goes on.
            (Self::Reset, Outbound) => Self::Established,
            (
                Self::Opening
                | Self::OpeningInbound
                | Self::Established
                | Self::FinOutbound
                | Self::FinInbound
                | Self::Closing
                | Self::Reset,
                Inbound | Outbound,
            ) => self,
        }
    }

    /// Whether an outbound segment keeps the session alive without changing its state.
    ///
    /// Where the connection is over, retransmissions must not prolong it.
    pub const fn is_refreshed(self) -> bool {
        match self {
            Self::Opening | Self::OpeningInbound | Self::Established | Self::FinOutbound | Self::FinInbound => true,
            Self::Closing | Self::Reset => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Inbound, Outbound};

    const SYN: TcpFlags = TcpFlags::SYN;
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN: TcpFlags = TcpFlags(0x11);
    const RST: TcpFlags = TcpFlags::RST;

    fn walk(steps: &[(Direction, TcpFlags)]) -> Vec<TcpState> {
        let mut state = TcpState::Opening;
        steps
            .iter()
            .map(|&(direction, flags)| {
                state = state.after(direction, flags);
                state
            })
            .collect()
    }

    #[test]
    fn handshake_and_close_from_inside() {
        use TcpState::{Closing, Established, FinOutbound};
        assert_eq!(
            walk(&[
                (Inbound, SYN_ACK),
                (Outbound, ACK),
                (Outbound, FIN),
                (Inbound, ACK),
                (Inbound, FIN),
                (Outbound, ACK)
            ]),
            [Established, Established, FinOutbound, FinOutbound, Closing, Closing]
        );
    }

    #[test]
    fn close_from_outside() {
        use TcpState::{Closing, Established, FinInbound};
        assert_eq!(walk(&[(Inbound, SYN_ACK), (Inbound, FIN), (Outbound, FIN)]), [Established, FinInbound, Closing]);
    }

    #[test]
    fn simultaneous_open_is_established() {
        assert_eq!(walk(&[(Inbound, SYN), (Outbound, SYN_ACK)]), [TcpState::Established, TcpState::Established]);
    }

    #[test]
    fn fin_before_the_answer_changes_nothing() {
        assert_eq!(walk(&[(Outbound, FIN), (Inbound, FIN), (Inbound, ACK)]), [TcpState::Opening; 3]);
    }

    #[test]
    fn only_the_interior_host_revives_a_reset_session() {
        use TcpState::{Established, Opening, Reset};
        assert_eq!(
            walk(&[
                (Inbound, SYN_ACK),
                (Inbound, RST),
                (Inbound, ACK),
                (Inbound, SYN),
                (Outbound, RST),
                (Outbound, ACK)
            ]),
            [Established, Reset, Reset, Reset, Reset, Established]
        );
        assert_eq!(walk(&[(Inbound, RST), (Outbound, SYN)]), [Reset, Opening]);
    }

    #[test]
    fn socket_is_reused_after_close() {
        assert_eq!(
            walk(&[(Inbound, SYN_ACK), (Inbound, FIN), (Outbound, FIN), (Outbound, SYN), (Inbound, SYN_ACK)])[3..],
            [TcpState::Opening, TcpState::Established]
        );
    }

    #[test]
    fn codes_name_their_states() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_code(state.code()), Some(state));
        }
        assert_eq!(TcpState::from_code(0), None);
        assert_eq!(TcpState::from_code(8), None);
    }

    #[test]
    fn flag_combinations_without_meaning_are_invalid() {
        for byte in [0x00, 0x01, 0x03, 0x06, 0x05, 0x07, 0x13, 0x16, 0x28] {
            assert!(!flags_are_valid(TcpFlags(byte)), "{byte:#04x}");
        }
        for byte in [0x02, 0x12, 0x10, 0x11, 0x04, 0x14, 0x18, 0xc2] {
            assert!(flags_are_valid(TcpFlags(byte)), "{byte:#04x}");
        }
    }
}
