//! What the destination does with the records of the statelet stream (h, and in the mode `duplicate` f without output).

use crate::nf::{Environment, InstallError, NetworkFunction, PortId};
use crate::packet::OwnedPacket;
use crate::protocol::Mode;
use crate::statelet::{self, Align, DropTotals, Duplicate};
use crate::time::Instant;
use crate::vei::lcore::Synchronised;
use alloc::boxed::Box;

/// Applies records to a network function that is not live yet.
#[derive(Debug)]
pub struct Installer {
    mode: Mode,
    /// Whose random choices the network function makes in the end.
    seed: u64,
    /// The source's clock, as last heard of.
    aligned: Option<Instant>,
    packet: OwnedPacket,
    drops: Option<Box<DropTotals>>,
}

/// Nothing that is processed here is seen by anybody.
struct Silent(Instant);

impl Environment for Silent {
    fn now(&self) -> Instant {
        self.0
    }

    fn upd_enable(&self) -> bool {
        false
    }

    fn announce(&mut self, _statelet_type: u16, _value: &[u8]) {}

    fn emit(&mut self, _port: PortId, _frame: &[u8]) {}
}

impl Installer {
    /// Applies what a source sends in `mode` to a network function that was made with `seed`.
    pub fn new(mode: Mode, seed: u64) -> Self {
        Self { mode, seed, aligned: None, packet: OwnedPacket::default(), drops: None }
    }

    /// Applies one record.
    ///
    /// # Errors
    /// The network function's, or if a source has no business to send it in this mode.
    pub fn install<N: NetworkFunction>(
        &mut self,
        nf: &mut N,
        statelet_type: u16,
        value: &[u8],
    ) -> Result<(), InstallError> {
        let malformed = InstallError::Malformed { statelet_type, len: value.len() };
        match (statelet_type, self.mode, self.aligned) {
            (statelet::TYPE_ALIGN, Mode::Duplicate, _) => {
                let Align { now, seed } = Align::decode_value(value).ok_or(malformed)?;
                nf.align(now, seed);
                self.aligned = Some(now);
                Ok(())
            }
            (statelet::TYPE_PACKET, Mode::Duplicate, Some(before)) => {
                let Duplicate { now, port, frame } = Duplicate::decode_value(value).ok_or(malformed)?;
                if now < before || usize::from(port.0) >= N::PORTS.len() {
                    return Err(malformed);
                }
                self.aligned = Some(now);
                self.packet.assign(frame);
                nf.process(&mut Silent(now), port, &mut self.packet);
                Ok(())
            }
            (statelet::TYPE_DROPS, ..) => {
                let totals = DropTotals::decode_value(value, N::DROP_REASONS.len()).ok_or(malformed)?;
                self.drops = Some(Box::new(totals));
                Ok(())
            }
            (statelet::TYPE_RESERVED.., ..) => Err(InstallError::UnknownType(statelet_type)),
            _ => nf.install(statelet_type, value),
        }
    }

    /// Everything has been applied: from here on the network function makes choices of its own.
    pub fn finish<N: NetworkFunction>(&mut self, mut nf: Box<N>) -> Synchronised<N> {
        if let Some(now) = self.aligned.take() {
            nf.align(now, self.seed);
        }
        Synchronised { nf, drops: self.drops.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nf::Shard;
    use crate::nf::source_counter::{Config, SourceCounter};

    fn function() -> SourceCounter {
        SourceCounter::new(&Config { sources_max: 10 }, Shard::ONLY, 1).unwrap()
    }

    fn duplicate(now: u64, port: u8) -> Vec<u8> {
        [&Duplicate::encode_head(Instant::from_nanos(now), PortId(port))[..], b"frame"].concat()
    }

    const ALIGN: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9];

    #[test]
    fn packets_are_taken_in_their_mode_only() {
        for mode in [Mode::Statelet, Mode::Buffer, Mode::StopAndCopy] {
            let mut installer = Installer::new(mode, 1);
            for (statelet_type, value) in
                [(statelet::TYPE_ALIGN, ALIGN.to_vec()), (statelet::TYPE_PACKET, duplicate(5, 0))]
            {
                let refused = Err(InstallError::UnknownType(statelet_type));
                assert_eq!(installer.install(&mut function(), statelet_type, &value), refused);
            }
        }
    }

    #[test]
    fn packets_need_an_aligned_instance_a_port_and_a_clock_that_does_not_go_back() {
        let (mut nf, mut installer) = (function(), Installer::new(Mode::Duplicate, 1));
        let mut packet =
            |installer: &mut Installer, value: &[u8]| installer.install(&mut nf, statelet::TYPE_PACKET, value);
        let unknown = Err(InstallError::UnknownType(statelet::TYPE_PACKET));
        assert_eq!(packet(&mut installer, &duplicate(5, 0)), unknown);
        installer.install(&mut function(), statelet::TYPE_ALIGN, &ALIGN).unwrap();
        let malformed = |len| Err(InstallError::Malformed { statelet_type: statelet::TYPE_PACKET, len });
        assert_eq!(packet(&mut installer, &duplicate(4, 0)), malformed(14));
        assert_eq!(packet(&mut installer, &duplicate(5, 2)), malformed(14));
        assert_eq!(packet(&mut installer, &[0; 8]), malformed(8));
        assert_eq!(packet(&mut installer, &duplicate(5, 1)), Ok(()));
        assert_eq!(packet(&mut installer, &duplicate(7, 0)), Ok(()));
        assert_eq!(packet(&mut installer, &duplicate(6, 0)), malformed(14));
    }
}
