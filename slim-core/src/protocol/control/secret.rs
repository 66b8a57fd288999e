//! Text that must not be shown.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// Text that no log or error shows, overwritten when dropped. It travels as it is: over encrypted connections only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::control::{InstanceRequest, Request, decode_request, encode};
    use alloc::format;

    #[test]
    fn a_secret_travels_and_is_not_shown() {
        let identity = Secret::from(String::from("key of nat-a"));
        let request = Request::new(1, InstanceRequest::RenewIdentity { identity });
        let line = encode(&request).unwrap();
        assert!(line.contains("key of nat-a"));
        assert_eq!(decode_request(line.trim_end().as_bytes()), Ok(request.clone()));
        assert!(!format!("{request:?}").contains("nat-a"));
    }
}
