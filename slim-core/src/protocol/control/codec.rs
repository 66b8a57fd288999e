//! Lines of JSON: a message to a line, and bytes of a connection back to messages.

use super::{ControlError, ErrorCode, Request, VERSION};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest line, its newline not counted. Longer ones end the connection.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// A line does not end within [`LINE_BYTES_MAX`] bytes. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {LINE_BYTES_MAX} bytes")]
pub struct LineTooLong;

/// A line is not an acceptable message. The connection can go on with the next line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is of another version of the protocol.
    #[error("protocol version {found}, expected {VERSION}")]
    Version {
        /// The version named.
        found: u64,
        /// The request's id, if it could be read.
        id: Option<u64>,
    },
    /// It is not the JSON object that was expected.
    #[error("malformed message: {message}")]
    Malformed {
        /// Where and why.
        message: String,
        /// The request's id, if it could be read.
        id: Option<u64>,
    },
}

impl DecodeError {
    /// The id of the request that could not be understood, to answer it all the same.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Version { id, .. } | Self::Malformed { id, .. } => *id,
        }
    }

    /// The answer to such a request.
    pub fn to_control_error(&self) -> ControlError {
        let code = match self {
            Self::Version { .. } => ErrorCode::UnsupportedVersion,
            Self::Malformed { .. } => ErrorCode::Malformed,
        };
        ControlError::new(code, self.to_string())
    }
}

/// Writes one message as a line, newline included.
///
/// # Errors
/// Only if it exceeds [`LINE_BYTES_MAX`]: every message type can be written as JSON.
pub fn encode<T: Serialize>(message: &T) -> Result<String, LineTooLong> {
    let mut line = serde_json::to_string(message).map_err(|_| LineTooLong)?;
    if line.len() > LINE_BYTES_MAX {
        return Err(LineTooLong);
    }
    line.push('\n');
    Ok(line)
}

/// Reads one line, with or without its newline.
///
/// # Errors
/// [`DecodeError::Version`] if it is of another version, whatever else it holds; otherwise what is wrong with it.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, DecodeError> {
    match serde_json::from_slice(line) {
        Ok(message) => match probe(line) {
            Probe { v: Some(v), id } if v != u64::from(VERSION) => Err(DecodeError::Version { found: v, id }),
            _ => Ok(message),
        },
        Err(error) => match probe(line) {
            Probe { v: Some(v), id } if v != u64::from(VERSION) => Err(DecodeError::Version { found: v, id }),
            Probe { id, .. } => Err(DecodeError::Malformed { message: format!("{error}"), id }),
        },
    }
}

/// Reads one line as a request.
///
/// # Errors
/// See [`decode`].
pub fn decode_request<T: DeserializeOwned>(line: &[u8]) -> Result<Request<T>, DecodeError> {
    decode(line)
}

/// What every line has, whatever else it holds.
#[derive(Deserialize, Default)]
struct Probe {
    v: Option<u64>,
    id: Option<u64>,
}

fn probe(line: &[u8]) -> Probe {
    serde_json::from_slice(line).unwrap_or_default()
}

/// Cuts the bytes of a connection into lines.
///
/// Feed it what arrives with [`extend`](Self::extend), then take lines with [`next_line`](Self::next_line) until there
/// are none. It never holds more than one line of [`LINE_BYTES_MAX`] bytes and what was last fed.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Everything before this has been handed out.
    start: usize,
    /// Everything before this is known to hold no newline.
    searched: usize,
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes in the order they arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its newline; empty lines are skipped.
    ///
    /// # Errors
    /// [`LineTooLong`] once more than [`LINE_BYTES_MAX`] bytes came without a newline.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n') else {
                self.searched = self.bytes.len();
                return if self.bytes.len() - self.start > LINE_BYTES_MAX { Err(LineTooLong) } else { Ok(None) };
            };
            let (start, end) = (self.start, self.searched + at);
            self.start = end + 1;
            self.searched = self.start;
            if end - start > LINE_BYTES_MAX {
                return Err(LineTooLong);
            }
            if end > start {
                return Ok(Some(&self.bytes[start..end]));
            }
        }
    }
}
