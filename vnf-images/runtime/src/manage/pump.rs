//! What the statelet thread takes out of `st_q_out`, and when. No I/O, so that it can be checked beside an lcore in every
//! interleaving.

use slim_core::protocol::control::StateletTotals;
use slim_core::statelet::{DecodeError, Decoder, End, Record};

/// The most bytes sent at a time.
const SEND_MAX: usize = 32 << 10;

/// What came out of `st_q_out` is not statelets: a mistake on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PumpError {
    /// A record that cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The network function has announced what only the stream may have.
    #[error("the network function announced an end record")]
    End,
    /// Less came out than was there.
    #[error("st_q_out gave less than it had")]
    Short,
}

/// Takes statelets out of `st_q_out`, whole segments at a time, and counts them.
pub struct Pump {
    st_q_out: rtrb::Consumer<u8>,
    segment_bytes: usize,
    flushing: bool,
    decoder: Decoder,
    segments: u64,
    buffer: Vec<u8>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Send this; whether more is waiting.
    Send(&'a [u8], bool),
    /// Wait; whether something is waiting for its segment to fill.
    Wait(bool),
    /// Everything has been sent.
    Flushed(End, StateletTotals),
}

impl Pump {
    /// Reads `st_q_out`, whose writer announces from now on or has already begun.
    pub fn new(st_q_out: rtrb::Consumer<u8>, segment_bytes: usize) -> Self {
        let buffer = Vec::with_capacity(SEND_MAX);
        let (decoder, segment_bytes) = (Decoder::new(), segment_bytes.max(1));
        Self { st_q_out, segment_bytes, flushing: false, decoder, segments: 0, buffer }
    }

    /// The next step. `flush` says whether the lcore has stopped and everything is to be sent, `due` whether what waits
    /// has waited long enough.
    ///
    /// # Errors
    /// What `flush` fails with, or [`PumpError`].
    pub fn step<E: From<PumpError>>(
        &mut self,
        flush: impl FnOnce() -> Result<bool, E>,
        due: bool,
    ) -> Result<Step<'_>, E> {
        // First the question, then the look: the lcore had stopped before the flush was asked for, so what is there
        // now is all there will be.
        self.flushing |= flush()?;
        let there = self.st_q_out.slots();
        let send = if due || self.flushing { there } else { there - there % self.segment_bytes };
        if send > 0 {
            let send = send.min(SEND_MAX);
            self.buffer.resize(send, 0);
            self.st_q_out.pop_entire_slice(&mut self.buffer).map_err(|_| PumpError::Short)?;
            self.count()?;
            self.segments += send.div_ceil(self.segment_bytes) as u64;
            return Ok(Step::Send(&self.buffer, there > send));
        }
        if !self.flushing {
            return Ok(Step::Wait(there > 0));
        }
        let tally = self.decoder.tally();
        let totals = StateletTotals {
            records: tally.records(),
            value_bytes: tally.value_bytes(),
            bytes: tally.bytes(),
            segments: self.segments,
        };
        Ok(Step::Flushed(tally.end(), totals))
    }

    /// Counts the statelets in `buffer`, the next piece of the stream.
    fn count(&mut self) -> Result<(), PumpError> {
        let mut bytes = &self.buffer[..];
        while let Some(record) = self.decoder.decode(&mut bytes)? {
            if let Record::End(_) = record {
                return Err(PumpError::End);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slim_core::statelet::encode;

    #[test]
    fn segments_are_filled_unless_it_is_time() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(100);
        let mut pump = Pump::new(consumer, 8);
        let mut statelet = Vec::new();
        encode(7, b"abcdef", &mut statelet).unwrap();
        producer.push_entire_slice(&statelet).unwrap();
        let mut step = |flush: bool, due: bool| match pump.step::<PumpError>(|| Ok(flush), due).unwrap() {
            Step::Send(bytes, more) => format!("{} {more}", bytes.len()),
            Step::Wait(some) => format!("wait {some}"),
            Step::Flushed(end, totals) => format!("end {} {}", end.records, totals.segments),
        };
        assert_eq!(step(false, false), "8 true");
        assert_eq!(step(false, false), "wait true");
        assert_eq!(step(false, true), "2 false");
        assert_eq!(step(false, true), "wait false");
        producer.push_entire_slice(&statelet).unwrap();
        assert_eq!(step(true, false), "10 false");
        assert_eq!(step(false, false), "end 2 4");
    }

    #[test]
    fn an_announced_end_record_is_a_mistake() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(100);
        let mut pump = Pump::new(consumer, 8);
        producer.push_entire_slice(&End { records: 0, crc: 0 }.encode()).unwrap();
        assert_eq!(pump.step::<PumpError>(|| Ok(true), false), Err(PumpError::End));
    }
}
