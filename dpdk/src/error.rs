//! What can go wrong in DPDK's control path.

use core::fmt;

/// A refused or failed operation of the control path. The packet path has no errors, only counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The EAL has been started in this process before, or has failed in a way it cannot be restarted from.
    #[error("the EAL can be started only once in a process")]
    AlreadyInitialised,
    /// An argument or name that DPDK must not see, with the reason.
    #[error("invalid argument {argument:?}: {reason}")]
    InvalidArgument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// DPDK refused an operation.
    #[error("cannot {operation} {object}: {errno}{}", Detail(.detail))]
    Refused {
        /// What was to be done, such as `attach`.
        operation: &'static str,
        /// To what.
        object: String,
        /// Why, as an error number.
        errno: Errno,
        /// What DPDK last logged as an error meanwhile; often the better explanation.
        detail: Option<String>,
    },
    /// There is no port of this name.
    #[error("no port named {0}")]
    NoSuchPort(String),
    /// There is a port of this name already, or it is open already.
    #[error("port {0} exists already")]
    PortExists(String),
    /// The driver has no receive interrupts for this queue; poll with bounded sleeps instead.
    #[error("port {0} has no receive interrupts")]
    InterruptsUnsupported(String),
}

/// A system error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

struct Detail<'a>(&'a Option<String>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// Turns a DPDK return code, negative on failure, into a result.
pub(crate) fn check(code: i32, operation: &'static str, object: &str) -> Result<i32, Error> {
    if code >= 0 { Ok(code) } else { Err(refused(-code, operation, object)) }
}

/// The error for `errno`, with what DPDK logged about it.
pub(crate) fn refused(errno: i32, operation: &'static str, object: &str) -> Error {
    let detail = crate::logging::take_last_error();
    Error::Refused { operation, object: object.into(), errno: Errno(errno), detail }
}
