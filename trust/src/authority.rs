//! Making deployments and identities. Only the controller does this; the authority's key never leaves its folder.

use crate::files::{FileError, create_secret, read_secret};
use crate::identity::{Identity, IdentityError};
use crate::principal::{Principal, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use slim_core::protocol::Name;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// How far clocks may be apart: identities are valid from this long ago.
pub const CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// How long an authority, and the controller's own identity, are valid.
const LONG: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const CONTROLLER: &str = "controller.pem";

/// A deployment or an identity cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one already.
    #[error("{} exists already, with the authority of a deployment in it: remove it to begin anew", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} holds no deployment's identities: `slimctl init --dir {}` makes them", .0.display(), .0.display())]
    Missing(PathBuf),
    /// A file is not what it should be.
    #[error("{}: {reason}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An identity is not one.
    #[error("{}: {source}", file.display())]
    Identity {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The cryptography refuses.
    #[error("cannot issue an identity: {0}")]
    Issue(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Issue(error.to_string())
    }
}

/// The authority of a deployment, with its key.
pub struct Authority {
    deployment: Name,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.deployment)
    }
}

impl Authority {
    /// Makes the authority of a new deployment, in memory.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(deployment: Name) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let params = authority_params(&deployment, SystemTime::now())?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { deployment, issuer: Issuer::new(params, key), certificate_pem })
    }

    /// Makes a new deployment in `folder`: its authority, and the controller's identity.
    ///
    /// # Errors
    /// There is one already, or the folder cannot be written.
    pub fn init(folder: &Path, deployment: Name) -> Result<Self, AuthorityError> {
        let files = [CERTIFICATE, KEY, CONTROLLER].map(|file| folder.join(file));
        if files.iter().any(|file| file.exists()) {
            return Err(AuthorityError::Exists(folder.into()));
        }
        make_folder(folder)?;
        let authority = Self::new(deployment)?;
        let controller = Name::try_from("controller").map_err(|error| AuthorityError::Issue(error.to_string()))?;
        let controller = authority.issue(Role::Controller, &controller, LONG)?;
        let key = Zeroizing::new(authority.issuer.key().serialize_pem());
        let [certificate_file, key_file, controller_file] = files;
        create_secret(&key_file, &key)?;
        create_secret(&controller_file, &controller)?;
        // Last, so that a deployment with this file is complete.
        create_secret(&certificate_file, &authority.certificate_pem)?;
        Ok(authority)
    }

    /// Reads the authority of the deployment in `folder`.
    ///
    /// # Errors
    /// There is none; says how to make one. Or it is damaged, or others can read its key.
    pub fn read(folder: &Path) -> Result<Self, AuthorityError> {
        let missing = |error: FileError| {
            if error.is_missing() { AuthorityError::Missing(folder.into()) } else { error.into() }
        };
        let certificate_file = folder.join(CERTIFICATE);
        let certificate_pem =
            read_secret(&certificate_file, crate::identity::IDENTITY_SIZE_MAX_BYTES).map_err(missing)?;
        let key_file = folder.join(KEY);
        let key = read_secret(&key_file, crate::identity::IDENTITY_SIZE_MAX_BYTES).map_err(missing)?;
        let malformed = |file: &Path, reason: String| AuthorityError::Malformed { file: file.into(), reason };
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| malformed(&certificate_file, error.to_string()))?;
        let deployment = deployment_of(&der)
            .ok_or_else(|| malformed(&certificate_file, "it is not a deployment's authority".into()))?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&key, &PKCS_ED25519)
            .map_err(|error| malformed(&key_file, error.to_string()))?;
        // Only the name and the key matter to what is issued.
        let issuer = Issuer::new(authority_params(&deployment, SystemTime::now())?, key);
        Ok(Self { deployment, issuer, certificate_pem: certificate_pem.to_string() })
    }

    /// The controller's own identity in `folder`.
    ///
    /// # Errors
    /// It is missing or damaged, or others can read it.
    pub fn controller(folder: &Path) -> Result<Identity, AuthorityError> {
        let file = folder.join(CONTROLLER);
        Identity::read(&file).map_err(|source| match source {
            IdentityError::File(error) if error.is_missing() => AuthorityError::Missing(folder.into()),
            source => AuthorityError::Identity { file, source },
        })
    }

    /// The deployment's name.
    pub fn deployment(&self) -> &Name {
        &self.deployment
    }

    /// An identity for `name`, valid for `lifetime` from now on, as PEM text.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn issue(&self, role: Role, name: &Name, lifetime: Duration) -> Result<Zeroizing<String>, AuthorityError> {
        self.issue_at(role, name, SystemTime::now(), lifetime)
    }

    /// As [`issue`](Self::issue), but valid from `begin` on.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn issue_at(
        &self,
        role: Role,
        name: &Name,
        begin: SystemTime,
        lifetime: Duration,
    ) -> Result<Zeroizing<String>, AuthorityError> {
        let principal = Principal { deployment: self.deployment.clone(), role, name: name.clone() };
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = params(principal.to_string(), format!("{role} {name}"), begin, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Controller => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Instance => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Switch => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = Zeroizing::new(key.serialize_pem());
        Ok(Zeroizing::new([certificate.pem().as_str(), key.as_str(), &self.certificate_pem].concat()))
    }
}

fn authority_params(deployment: &Name, begin: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let common_name = format!("SliM deployment {deployment}");
    let mut params = params(authority_uri(deployment), common_name, begin, LONG)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn params(
    uri: String,
    common_name: String,
    begin: SystemTime,
    lifetime: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.not_before = OffsetDateTime::from(begin - CLOCK_SKEW);
    params.not_after = OffsetDateTime::from(begin + lifetime);
    Ok(params)
}

fn authority_uri(deployment: &Name) -> String {
    format!("slim://{deployment}")
}

fn deployment_of(certificate: &CertificateDer<'_>) -> Option<Name> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let uri = parsed.valid_uri_names().next()?;
    uri.strip_prefix("slim://")?.try_into().ok()
}

/// Makes a folder that is its owner's only.
fn make_folder(folder: &Path) -> Result<(), AuthorityError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| FileError::Io { action: "make the folder", file: folder.into(), source }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.try_into().unwrap()
    }

    #[test]
    fn a_deployment_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("trust");
        let error = Authority::read(&folder).unwrap_err().to_string();
        assert!(error.contains("slimctl init"), "{error}");
        assert!(Authority::controller(&folder).unwrap_err().to_string().contains("slimctl init"));
        Authority::init(&folder, name("lab")).unwrap();
        assert!(matches!(Authority::init(&folder, name("lab")), Err(AuthorityError::Exists(_))));

        let authority = Authority::read(&folder).unwrap();
        assert_eq!(authority.deployment().as_str(), "lab");
        let controller = Authority::controller(&folder).unwrap();
        assert_eq!(controller.principal().to_string(), "slim://lab/controller/controller");
        let issued = authority.issue(Role::Instance, &name("nat-a"), Duration::from_secs(3600)).unwrap();
        let identity = Identity::from_pem(&issued).unwrap();
        assert_eq!(identity.principal().to_string(), "slim://lab/instance/nat-a");
        assert!(identity.has_authority_of(&controller));
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(identity.not_after_s().abs_diff(now_s + 3600) < 60);
        assert!(!format!("{identity:?} {authority:?}").contains("KEY"));
    }

    #[test]
    fn parts_that_do_not_belong_together_are_no_identity() {
        let [lab, other] = ["lab", "other"].map(|deployment| Authority::new(name(deployment)).unwrap());
        let day = Duration::from_secs(86_400);
        let issue = |authority: &Authority, name_: &str| {
            let pem = authority.issue(Role::Instance, &name(name_), day).unwrap();
            let mut parts: Vec<String> = pem.split_inclusive("-----\n").map(str::to_owned).collect();
            // Each part is a begin line, and the rest with its end line.
            let parts: Vec<String> = parts.chunks_mut(2).map(|pair| pair.concat()).collect();
            parts
        };
        let [a, b, c] = [issue(&lab, "a"), issue(&lab, "b"), issue(&other, "a")];
        assert!(Identity::from_pem(&a.concat()).is_ok());
        let cases = [
            ([&a[0], &b[1], &a[2]], "key"),
            ([&a[0], &a[1], &c[2]], "authority"),
            ([&a[2], &a[1], &a[2]], ""),
            ([&a[1], &a[0], &a[2]], "in PEM"),
        ];
        for (parts, words) in cases {
            let error = Identity::from_pem(&parts.map(String::as_str).concat()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        for cut in [&a[..1], &a[..2], &[]] {
            assert!(Identity::from_pem(&cut.concat()).is_err());
        }
        let with = |authority: &str| Identity::parse(&[&a[0], &a[1], authority].concat());
        let (own, foreign) = (with(&a[2]).unwrap(), with(&c[2]).expect("who has signed is not asked"));
        assert_eq!((own.principal(), own.not_after_s()), (foreign.principal(), foreign.not_after_s()));
        assert!(!own.has_authority_of(&foreign));
        assert!(Identity::parse(&[a[0].as_str(), &b[1], &a[2]].concat()).is_err(), "a key of another certificate");
        assert!(matches!(Identity::from_pem(&"x".repeat(20_000)), Err(IdentityError::Length)));
    }
}
