//! Statelets on the wire: type-length-value records (§VI-A), and their end.
//!
//! ```text
//!  0      2      4                  4 + length
//! ┌──────┬──────┬──────────────────┐
//! │ type │length│ value            │   numbers are big endian, length is 0 to 65,535
//! └──────┴──────┴──────────────────┘
//! ```
//!
//! Types from [`TYPE_RESERVED`] upwards belong to the stream. One ends it, see [`End`]; a stream that stops without it
//! has failed. Two are for the mode `duplicate`, see [`Duplicate`] and [`Align`], and one carries counters on, see
//! [`DropTotals`]. The sender keeps a [`Tally`] of what it sends, the [`Decoder`] keeps its own and compares the two at the
//! end. Before they are sent, statelets may be [merged](Coalescer) and their bytes [compressed](Compressor). A [`Pump`]
//! does all that at the source, an [`Intake`] undoes it at the destination.

mod coalesce;
mod compress;
mod decode;
mod drops;
mod duplicate;
mod encode;
mod intake;
mod pump;
mod sigma;

pub use coalesce::{Coalesce, Coalescer, Coalescing};
pub use compress::{CompressionError, Compressor, Decompressor};
pub use decode::{DecodeError, Decoder, Record};
pub use drops::{DropTotals, TYPE_DROPS};
pub use duplicate::{Align, Duplicate, HEAD_LEN as DUPLICATE_HEAD_LEN, TYPE_ALIGN, TYPE_PACKET};
pub use encode::{EncodeError, End, HEADER_LEN, Tally, encode, encode_into, encoded_len, header};
pub use intake::{Intake, IntakeError};
pub use pump::{Pump, PumpError, PumpOptions, Push, Step};
pub use sigma::{Sigma, WireCosts};

/// The longest value of a statelet, in bytes.
pub const VALUE_LEN_MAX: usize = u16::MAX as usize;

/// Statelet types from here upwards belong to the stream itself.
pub const TYPE_RESERVED: u16 = 0xff00;
