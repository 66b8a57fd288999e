//! Checking a peer's certificate: from our authority, valid now, of our deployment, and of whom we expect.

use crate::principal::{Expected, Principal};
use crate::provider::ALGORITHMS;
use crate::refused::Refused;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme,
};
use slim_core::protocol::Name;
use std::sync::Arc;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};

/// Which side of a connection a certificate is shown on; it must be meant for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The authority of a deployment, to check certificates against.
#[derive(Debug, Clone)]
pub(crate) struct Anchor(TrustAnchor<'static>);

impl Anchor {
    pub(crate) fn new(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        Ok(Self(webpki::anchor_from_trusted_cert(certificate)?.to_owned()))
    }

    /// Who shows `certificate`, if it is from here and valid at `now`, or has not been expired for longer than `late`.
    pub(crate) fn check(
        &self,
        certificate: &CertificateDer<'_>,
        side: Side,
        now: UnixTime,
        late: Duration,
    ) -> Result<Principal, Refused> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| refused(error, now))?;
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        let anchors = std::slice::from_ref(&self.0);
        // Identities are issued by the authority itself: nothing stands between.
        let verify = |at| parsed.verify_for_usage(ALGORITHMS.all, anchors, &[], at, usage, None, None).map(drop);
        match verify(now) {
            Err(webpki::Error::CertExpired { not_after, .. })
                if now.as_secs().saturating_sub(not_after.as_secs()) <= late.as_secs() =>
            {
                verify(not_after)
            }
            result => result,
        }
        .map_err(|error| refused(error, now))?;
        principal(certificate)
    }
}

/// Who `certificate` says it belongs to, whoever signed it.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Result<Principal, Refused> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| Refused::NotAnIdentity(error.to_string()))?;
    let mut uris = parsed.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => {
            Principal::parse(uri).ok_or_else(|| Refused::NotAnIdentity(format!("{uri:?} is not a principal")))
        }
        (None, _) => Err(Refused::NotAnIdentity("it has no URI".into())),
        (Some(_), Some(_)) => Err(Refused::NotAnIdentity("it has more than one URI".into())),
    }
}

fn refused(error: webpki::Error, now: UnixTime) -> Refused {
    let now_s = now.as_secs();
    match error {
        webpki::Error::CertExpired { not_after, .. } => Refused::Expired { not_after_s: not_after.as_secs(), now_s },
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Refused::NotYetValid { not_before_s: not_before.as_secs(), now_s }
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Refused::UnknownAuthority,
        other => Refused::NotAnIdentity(other.to_string()),
    }
}

/// Checks the peers of one kind of connection.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) anchor: Anchor,
    pub(crate) deployment: Name,
    pub(crate) expected: Expected,
    /// For how long an expired identity is still accepted.
    pub(crate) late: Duration,
}

impl Verifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), Refused> {
        if !intermediates.is_empty() {
            return Err(Refused::NotAnIdentity("it comes with a chain".into()));
        }
        let found = self.anchor.check(certificate, side, now, self.late)?;
        if found.deployment != self.deployment {
            return Err(Refused::Deployment { found: Box::new(found), deployment: self.deployment.clone() });
        }
        let name_fits = self.expected.name.as_ref().is_none_or(|name| *name == found.name);
        if found.role != self.expected.role || !name_fits {
            return Err(Refused::Stranger { found: Box::new(found), expected: Box::new(self.expected.clone()) });
        }
        Ok(())
    }
}

/// Carries our reason through rustls.
fn carried(refused: Refused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

/// Never asked for: our configurations know TLS 1.3 only.
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Who it is stands in its certificate; where it was found says nothing.
        self.check(end_entity, intermediates, Side::Server, now).map_err(carried)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, Side::Client, now).map_err(carried)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}
