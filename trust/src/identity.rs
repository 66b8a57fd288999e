//! One's own certificate and key, and the authority's certificate to check others against.
//!
//! An identity travels as PEM text: the certificate, its key, and the authority's certificate, in this order.

use crate::files::{FileError, read_secret};
use crate::principal::{Expected, Principal};
use crate::provider::provider;
use crate::refused::Refused;
use crate::verify::{Anchor, Side, Verifier, principal};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The longest identity that is read, in bytes. One of ours has about 1500.
pub const IDENTITY_SIZE_MAX_BYTES: usize = 16 << 10;

/// Why something is not an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is too long.
    #[error("an identity has at most {IDENTITY_SIZE_MAX_BYTES} bytes")]
    Length,
    /// It is not what it should be in PEM.
    #[error("an identity is a certificate, its key and the authority's certificate, in PEM: {0}")]
    Form(String),
    /// The certificate is not from the authority, or is none of ours. It may have expired: time tells in use.
    #[error("not from its own authority: {0}")]
    Certificate(Refused),
    /// The key does not belong to the certificate, or is of a kind that is not used.
    #[error("the key does not fit the certificate: {0}")]
    Key(String),
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A certificate with its key, and the authority it is from.
pub struct Identity {
    principal: Principal,
    anchor: Anchor,
    authority: CertificateDer<'static>,
    certified: Arc<CertifiedKey>,
    not_after_s: u64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        write!(f, "Identity({}, until {} s)", self.principal, self.not_after_s)
    }
}

impl Identity {
    /// Reads an identity and checks that its parts belong together.
    ///
    /// Whether it is valid now is not asked: clocks may be set later, and peers check it anyway.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let identity = Self::parse(pem)?;
        identity.verify()?;
        Ok(identity)
    }

    /// Reads an identity without asking whether its authority has signed the certificate. For instances: who hands them an
    /// identity has issued it or checked it, every peer checks it again, and arithmetic takes a large part of a boot in
    /// emulation.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn parse(pem: &str) -> Result<Self, IdentityError> {
        if pem.len() > IDENTITY_SIZE_MAX_BYTES {
            return Err(IdentityError::Length);
        }
        let (certificate, key, authority) = sections(pem)?;
        let anchor = Anchor::new(&authority).map_err(|error| IdentityError::Form(error.to_string()))?;
        let principal = principal(&certificate).map_err(IdentityError::Certificate)?;
        let not_after_s = not_after(&anchor, &certificate)?;
        // Among other things this finds a key of another certificate.
        let certified = CertifiedKey::from_der(vec![certificate], key, &provider())
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(Self { principal, anchor, authority, certified: Arc::new(certified), not_after_s })
    }

    /// Whether the certificate is from the authority and is meant for either side of a connection.
    fn verify(&self) -> Result<(), IdentityError> {
        let certificate = self.certified.end_entity_cert().map_err(|error| IdentityError::Form(error.to_string()))?;
        // Its last second: all but the time is checked then.
        let last = UnixTime::since_unix_epoch(Duration::from_secs(self.not_after_s));
        let check = |side| self.anchor.check(certificate, side, last, Duration::ZERO);
        check(Side::Client)
            .or_else(|refused| check(Side::Server).map_err(|_| IdentityError::Certificate(refused)))
            .map(drop)
    }

    /// Reads an identity from `file`, which nobody else may be able to read.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn read(file: &Path) -> Result<Self, IdentityError> {
        Self::from_pem(&read_secret(file, IDENTITY_SIZE_MAX_BYTES)?)
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When it expires, in seconds since 1970.
    pub fn not_after_s(&self) -> u64 {
        self.not_after_s
    }

    /// Whether `other` is from the same authority.
    pub fn has_authority_of(&self, other: &Self) -> bool {
        self.authority == other.authority
    }

    fn verifier(&self, expected: &Expected, late: Duration) -> Arc<Verifier> {
        Arc::new(Verifier {
            anchor: self.anchor.clone(),
            deployment: self.principal.deployment.clone(),
            expected: expected.clone(),
            late,
        })
    }

    pub(crate) fn server_config(&self, expected: &Expected) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.verifier(expected, Duration::ZERO))
            .with_cert_resolver(Arc::new(Only(Arc::clone(&self.certified))));
        // Nothing is resumed: each connection checks its peer anew.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    pub(crate) fn client_config(
        &self,
        expected: &Expected,
        late: Duration,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(expected, late))
            .with_client_cert_resolver(Arc::new(Only(Arc::clone(&self.certified))));
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(Arc::new(config))
    }
}

/// The one certificate that is ever shown.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Only {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl rustls::client::ResolvesClientCert for Only {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

type Sections = (CertificateDer<'static>, PrivateKeyDer<'static>, CertificateDer<'static>);

fn sections(pem: &str) -> Result<Sections, IdentityError> {
    let form = |text: &str| IdentityError::Form(text.into());
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        found.push(section.map_err(|error| form(&error.to_string()))?);
    }
    let kinds: Vec<SectionKind> = found.iter().map(|(kind, _)| *kind).collect();
    if kinds != [SectionKind::Certificate, SectionKind::PrivateKey, SectionKind::Certificate] {
        return Err(form("the parts are others"));
    }
    let mut found = found.into_iter().map(|(_, der)| der);
    match (found.next(), found.next(), found.next()) {
        (Some(certificate), Some(key), Some(authority)) => {
            Ok((certificate.into(), PrivateKeyDer::Pkcs8(key.into()), authority.into()))
        }
        _ => Err(form("parts are missing")),
    }
}

/// The end of the validity of `certificate`. Time is what is checked first, before the signature.
fn not_after(anchor: &Anchor, certificate: &CertificateDer<'_>) -> Result<u64, IdentityError> {
    // Far in the future it has expired, and the refusal says since when. Any side will do; every identity has one.
    let far = UnixTime::since_unix_epoch(Duration::from_secs(u64::from(u32::MAX) * 1000));
    match anchor.check(certificate, Side::Client, far, Duration::ZERO) {
        Err(Refused::Expired { not_after_s, .. }) => Ok(not_after_s),
        Err(refused) => Err(IdentityError::Certificate(refused)),
        Ok(_) => Ok(u64::MAX),
    }
}
