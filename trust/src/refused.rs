//! Why a peer is refused.

use crate::principal::{Expected, Principal};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use slim_core::protocol::Name;
use std::io;

/// Why there is no connection, or no longer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not encrypt, we do.
    #[error("it speaks plaintext, TLS is expected here: is only one side run with `plaintext`?")]
    Plaintext,
    /// It encrypts, we do not.
    #[error("it speaks TLS, plaintext is expected here: is only one side run with `plaintext`?")]
    Tls,
    /// It shows no certificate.
    #[error("it has no identity")]
    NoIdentity,
    /// Its certificate is from somewhere else.
    #[error("its identity is not from this deployment's authority")]
    UnknownAuthority,
    /// Its certificate was valid.
    #[error("its identity has expired: it was valid until {not_after_s} s since 1970, now it is {now_s}")]
    Expired {
        /// The end of its validity.
        not_after_s: u64,
        /// Our clock.
        now_s: u64,
    },
    /// Its certificate will be valid.
    #[error("its identity is not valid yet: it will be from {not_before_s} s since 1970 on, now it is {now_s}")]
    NotYetValid {
        /// The begin of its validity.
        not_before_s: u64,
        /// Our clock.
        now_s: u64,
    },
    /// Its certificate does not say who it is.
    #[error("its certificate is no identity: {0}")]
    NotAnIdentity(String),
    /// It belongs to another deployment.
    #[error("it is {found}, of another deployment than {deployment}")]
    Deployment {
        /// Who it is.
        found: Box<Principal>,
        /// Ours.
        deployment: Name,
    },
    /// It is somebody else.
    #[error("it is {found}, only {expected} may speak here")]
    Stranger {
        /// Who it is.
        found: Box<Principal>,
        /// Who is expected.
        expected: Box<Expected>,
    },
    /// It refuses us.
    #[error("it refuses our identity: {0}")]
    ByPeer(&'static str),
    /// It did not finish in time.
    #[error("it did not finish its handshake in time")]
    Slow,
    /// It left.
    #[error("it closed the connection during the handshake")]
    Closed,
    /// It broke the rules of TLS.
    #[error("TLS: {0}")]
    Protocol(String),
    /// The system reports an error.
    #[error("{0}")]
    Io(String),
    /// Too many strangers from its address.
    #[error("too many connections from its address")]
    Crowd,
    /// It had to make room for another.
    #[error("it had to make room for another connection")]
    Evicted,
}

impl Refused {
    /// The names of all counters.
    pub const CAUSES: [&'static str; 9] =
        ["plaintext", "no_identity", "unknown_ca", "expired", "role", "protocol", "slow", "closed", "crowd"];

    /// The counter it belongs to, one of [`CAUSES`](Self::CAUSES).
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Plaintext | Self::Tls => "plaintext",
            Self::NoIdentity | Self::NotAnIdentity(_) => "no_identity",
            Self::UnknownAuthority => "unknown_ca",
            Self::Expired { .. } | Self::NotYetValid { .. } => "expired",
            Self::Deployment { .. } | Self::Stranger { .. } => "role",
            Self::Protocol(_) | Self::ByPeer(_) => "protocol",
            Self::Slow => "slow",
            Self::Closed | Self::Io(_) => "closed",
            Self::Crowd | Self::Evicted => "crowd",
        }
    }

    /// Whether the connection broke before anything was decided, so that another try may do better.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Slow | Self::Closed | Self::Io(_) | Self::Crowd | Self::Evicted)
    }

    pub(crate) fn from_tls(error: TlsError) -> Self {
        match error {
            TlsError::NoCertificatesPresented => Self::NoIdentity,
            TlsError::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Self>() {
                Some(refused) => refused.clone(),
                None => Self::NotAnIdentity(other.to_string()),
            },
            TlsError::AlertReceived(alert) => Self::ByPeer(alert_words(alert)),
            other => Self::Protocol(other.to_string()),
        }
    }

    /// What a failed read or write means.
    pub fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Slow,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
                Some(refused) => refused.clone(),
                None => Self::Io(error.to_string()),
            },
        }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Slow => io::ErrorKind::TimedOut,
            Refused::Closed => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, refused)
    }
}

/// What a peer's alert means here. It can say little more than that the certificate does not please it.
fn alert_words(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateUnknown => {
            "another role, name or deployment, or not valid now; its log says which"
        }
        AlertDescription::CertificateRequired => "it saw none",
        AlertDescription::UnknownCA | AlertDescription::BadCertificate => "not from its deployment's authority",
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => "no common version of TLS or cipher",
        AlertDescription::DecodeError | AlertDescription::UnexpectedMessage => "it does not understand us",
        _ => "its log says why",
    }
}
