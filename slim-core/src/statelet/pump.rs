//! What the statelet thread takes out of `st_q_out`, what it makes of it, and when it is sent (§IV-B, step 2.1). No I/O,
//! so that it can be checked beside an lcore in every interleaving.

use crate::protocol::control::StateletTotals;
use crate::statelet::{
    Coalesce, Coalescer, CompressionError, Compressor, DecodeError, Decoder, EncodeError, End, Record, Tally,
};
use alloc::vec::Vec;

/// The most bytes taken out of `st_q_out` at a time, and the most that wait to be merged or compressed.
const BATCH_BYTES: usize = 32 << 10;

/// Adds a statelet to those that wait; see [`Coalescer::push`].
pub type Push = fn(&mut Coalescer, u16, &[u8]) -> Result<(), EncodeError>;

/// How statelets become a stream.
#[derive(Debug, Clone, Copy)]
pub struct PumpOptions {
    /// Bytes of the stream that fit into a TCP segment.
    pub segment_bytes: usize,
    /// How statelets are merged while they wait; `None` if they are not.
    pub merge: Option<Push>,
    /// Whether the stream is compressed. The handshake must have said so.
    pub compress: bool,
}

impl PumpOptions {
    /// Those for the statelets of `N`.
    pub fn new<N: Coalesce>(segment_bytes: usize, coalesce: bool, compress: bool) -> Self {
        Self { segment_bytes, merge: coalesce.then_some(Coalescer::push::<N> as Push), compress }
    }
}

/// What came out of `st_q_out` is not statelets, or cannot be sent: a mistake on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PumpError {
    /// A record that cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A record that was read and cannot be written again.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The compressor failed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The network function has announced what only the stream may have.
    #[error("the network function announced an end record")]
    End,
    /// Less came out than was there.
    #[error("st_q_out gave less than it had")]
    Short,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Send this; whether more is waiting.
    Send(&'a [u8], bool),
    /// Wait; whether something is waiting for its segment to fill, or to be merged.
    Wait(bool),
    /// Everything has been sent.
    Flushed(End, StateletTotals),
}

/// Takes statelets out of `st_q_out`, has them merged and compressed if that is wanted, and counts them.
///
/// A statelet waits for its segment to fill. Where statelets are merged or compressed all wait until they are due, or
/// until there are 32 KiB of them, for the more wait together, the less is sent.
pub struct Pump {
    st_q_out: rtrb::Consumer<u8>,
    options: PumpOptions,
    flushing: bool,
    decoder: Decoder,
    waiting: Coalescer,
    compressor: Option<Compressor>,
    /// The bytes of what was sent, before compression.
    sent: Tally,
    stream_bytes: u64,
    segments: u64,
    /// What came out of `st_q_out` last.
    input: Vec<u8>,
    /// What is to be sent next.
    output: Vec<u8>,
    /// The output before it was compressed.
    plain: Vec<u8>,
}

impl Pump {
    /// Reads `st_q_out`, whose writer announces from now on or has already begun.
    pub fn new(st_q_out: rtrb::Consumer<u8>, options: PumpOptions) -> Self {
        Self {
            st_q_out,
            options: PumpOptions { segment_bytes: options.segment_bytes.max(1), ..options },
            flushing: false,
            decoder: Decoder::new(),
            waiting: Coalescer::new(),
            compressor: options.compress.then(Compressor::new),
            sent: Tally::new(),
            stream_bytes: 0,
            segments: 0,
            input: Vec::new(),
            output: Vec::new(),
            plain: Vec::new(),
        }
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
        let taken = there.min(BATCH_BYTES);
        self.take(taken)?;
        let waiting = self.waiting.bytes().len();
        let send = self.ripe(waiting, due);
        if send > 0 {
            self.make_output(send)?;
            return Ok(Step::Send(&self.output, there > taken || waiting > send));
        }
        if there > taken || waiting > 0 || !self.flushing {
            return Ok(Step::Wait(waiting > 0));
        }
        let end = self.tally().end();
        Ok(Step::Flushed(end, self.totals()))
    }

    /// The bytes of `end`, the stream's last.
    ///
    /// # Errors
    /// [`PumpError::Compression`].
    pub fn end(&mut self, end: End) -> Result<&[u8], PumpError> {
        self.output.clear();
        self.output.extend_from_slice(&end.encode());
        self.seal()?;
        Ok(&self.output)
    }

    /// How many of `waiting` bytes are to be sent now.
    fn ripe(&self, waiting: usize, due: bool) -> usize {
        let gathers = self.options.merge.is_some() || self.options.compress;
        match gathers {
            _ if due || self.flushing => waiting,
            true if waiting < BATCH_BYTES => 0,
            true => waiting,
            false => waiting - waiting % self.options.segment_bytes,
        }
    }

    /// Takes `len` bytes out of `st_q_out`; the statelets in them wait from now on.
    fn take(&mut self, len: usize) -> Result<(), PumpError> {
        self.input.resize(len, 0);
        self.st_q_out.pop_entire_slice(&mut self.input).map_err(|_| PumpError::Short)?;
        let mut bytes = &self.input[..];
        while let Some(record) = self.decoder.decode(&mut bytes)? {
            match (record, self.options.merge) {
                (Record::Statelet { statelet_type, value }, Some(push)) => {
                    push(&mut self.waiting, statelet_type, value)?;
                }
                (Record::Statelet { statelet_type, value }, None) => self.waiting.append(statelet_type, value)?,
                (Record::End(_), _) => return Err(PumpError::End),
            }
        }
        Ok(())
    }

    /// Makes the first `len` bytes of what waits the output.
    fn make_output(&mut self, len: usize) -> Result<(), PumpError> {
        self.output.clear();
        self.output.extend_from_slice(self.waiting.bytes().get(..len).unwrap_or_default());
        self.waiting.remove_front(len);
        self.sent.add_records(0, &self.output);
        self.seal()
    }

    /// Compresses the output if it is to be, and counts it.
    fn seal(&mut self) -> Result<(), PumpError> {
        if let Some(compressor) = &mut self.compressor {
            self.plain.clear();
            self.plain.append(&mut self.output);
            compressor.compress(&self.plain, &mut self.output)?;
        }
        self.stream_bytes += self.output.len() as u64;
        self.segments += self.output.len().div_ceil(self.options.segment_bytes) as u64;
        Ok(())
    }

    /// What was sent, once everything was.
    fn tally(&self) -> Tally {
        let mut tally = self.sent;
        tally.add_records(self.decoder.tally().records().saturating_sub(self.waiting.merged()), &[]);
        tally
    }

    fn totals(&self) -> StateletTotals {
        let merged = self.waiting.merged();
        StateletTotals { merged, stream_bytes: self.stream_bytes, segments: self.segments, ..self.tally().totals() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statelet::{Coalescing, Intake, encode};
    use proptest::prelude::*;

    /// The first byte is a key, the others are the latest value.
    struct Latest;

    impl Coalesce for Latest {
        fn coalescing(statelet_type: u16, _value: &[u8]) -> Coalescing {
            if statelet_type == 1 { Coalescing::Merge { key_len: 1 } } else { Coalescing::Barrier }
        }

        fn merge(_statelet_type: u16, earlier: &mut [u8], later: &[u8]) -> bool {
            earlier.copy_from_slice(later);
            true
        }
    }

    fn plain(segment_bytes: usize) -> PumpOptions {
        PumpOptions::new::<Latest>(segment_bytes, false, false)
    }

    fn record(statelet_type: u16, value: &[u8]) -> Vec<u8> {
        let mut statelet = Vec::new();
        encode(statelet_type, value, &mut statelet).unwrap();
        statelet
    }

    /// One step in words.
    fn step(pump: &mut Pump, flush: bool, due: bool) -> String {
        match pump.step::<PumpError>(|| Ok(flush), due).unwrap() {
            Step::Send(bytes, more) => format!("{} {more}", bytes.len()),
            Step::Wait(some) => format!("wait {some}"),
            Step::Flushed(end, totals) => format!("end {} +{} {}", end.records, totals.merged, totals.segments),
        }
    }

    #[test]
    fn segments_are_filled_unless_it_is_time() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(100);
        let mut pump = Pump::new(consumer, plain(8));
        producer.push_entire_slice(&record(7, b"abcdef")).unwrap();
        assert_eq!(step(&mut pump, false, false), "8 true");
        assert_eq!(step(&mut pump, false, false), "wait true");
        assert_eq!(step(&mut pump, false, true), "2 false");
        assert_eq!(step(&mut pump, false, true), "wait false");
        producer.push_entire_slice(&record(7, b"abcdef")).unwrap();
        assert_eq!(step(&mut pump, true, false), "10 false");
        assert_eq!(step(&mut pump, false, false), "end 2 +0 4");
    }

    #[test]
    fn what_may_be_merged_waits_until_it_is_due() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(100);
        let mut pump = Pump::new(consumer, PumpOptions::new::<Latest>(8, true, false));
        for value in [b"a1", b"b1", b"a2"] {
            producer.push_entire_slice(&record(1, value)).unwrap();
            assert_eq!(step(&mut pump, false, false), "wait true");
        }
        let expected = [record(1, b"a2"), record(1, b"b1")].concat();
        assert_eq!(pump.step(|| Ok::<_, PumpError>(false), true), Ok(Step::Send(&expected, false)));
        producer.push_entire_slice(&record(1, b"a3")).unwrap();
        assert_eq!(step(&mut pump, true, false), "6 false");
        assert_eq!(step(&mut pump, true, false), "end 3 +1 3");
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(2 * BATCH_BYTES);
        let mut pump = Pump::new(consumer, PumpOptions::new::<Latest>(1448, true, false));
        producer.push_entire_slice(&record(7, &[0; BATCH_BYTES])).unwrap();
        // The record's last bytes are still in the ring.
        assert_eq!(step(&mut pump, false, false), "wait false");
        assert_eq!(step(&mut pump, false, false), format!("{} false", BATCH_BYTES + 4));
    }

    #[test]
    fn an_announced_end_record_is_a_mistake() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(100);
        let mut pump = Pump::new(consumer, plain(8));
        producer.push_entire_slice(&End { records: 0, crc: 0 }.encode()).unwrap();
        assert_eq!(pump.step::<PumpError>(|| Ok(true), false), Err(PumpError::End));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is announced whenever, an intake agrees with the end record, and the last value of each key is there.
        #[test]
        fn an_intake_makes_of_it_what_was_announced(
            announced in prop::collection::vec((1u16..3, 0u8..4, any::<u8>(), any::<bool>()), 0..200),
            segment_bytes in 1usize..40,
            coalesce: bool,
            compress: bool,
            piece in 1usize..50,
        ) {
            let (mut producer, consumer) = rtrb::RingBuffer::new(4096);
            let mut pump = Pump::new(consumer, PumpOptions::new::<Latest>(segment_bytes, coalesce, compress));
            let mut sent = Vec::new();
            for (statelet_type, key, value, due) in &announced {
                producer.push_entire_slice(&record(*statelet_type, &[*key, *value])).unwrap();
                if let Step::Send(bytes, _) = pump.step::<PumpError>(|| Ok(false), *due).unwrap() {
                    sent.extend_from_slice(bytes);
                }
            }
            let (end, totals) = loop {
                match pump.step::<PumpError>(|| Ok(true), false).unwrap() {
                    Step::Send(bytes, _) => sent.extend_from_slice(bytes),
                    Step::Wait(_) => {}
                    Step::Flushed(end, totals) => break (end, totals),
                }
            };
            prop_assert_eq!(totals.stream_bytes, sent.len() as u64);
            prop_assert_eq!(end.records + totals.merged, announced.len() as u64);
            prop_assert!(coalesce || totals.merged == 0);
            sent.extend_from_slice(pump.end(end).unwrap());

            let mut intake = Intake::new(compress);
            let mut whole = Vec::new();
            for mut piece in sent.chunks(piece) {
                while intake.receive(&mut piece, &mut whole).unwrap().is_some() {}
            }
            prop_assert_eq!(intake.end(), Some(end));
            let received = StateletTotals { merged: totals.merged, segments: totals.segments, ..intake.totals() };
            prop_assert_eq!(received, StateletTotals { stream_bytes: sent.len() as u64, ..totals });

            let (mut decoder, mut bytes) = (Decoder::new(), &whole[..]);
            let mut state = std::collections::BTreeMap::new();
            while let Some(Record::Statelet { statelet_type, value }) = decoder.decode(&mut bytes).unwrap() {
                state.insert((statelet_type, value[0]), value[1]);
            }
            let expected = announced.iter().map(|(statelet_type, key, value, _)| ((*statelet_type, *key), *value));
            prop_assert_eq!(state, expected.collect());
        }
    }
}
