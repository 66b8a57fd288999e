//! Events that an operator wants recorded, on their way from the packet loop to the log.

/// The most bytes of an event.
pub const EVENT_LEN_MAX: usize = 31;

/// Something that an operator wants recorded, in the network function's own words: few bytes, which are put into text
/// off the packet loop, by [`NetworkFunction::describe`](super::NetworkFunction::describe).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEvent {
    len: u8,
    bytes: [u8; EVENT_LEN_MAX],
}

impl LogEvent {
    /// An event of these bytes; of more than [`EVENT_LEN_MAX`], the first.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes.len().min(EVENT_LEN_MAX);
        let mut event = Self { len: len as u8, bytes: [0; EVENT_LEN_MAX] };
        event.bytes[..len].copy_from_slice(&bytes[..len]);
        event
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
