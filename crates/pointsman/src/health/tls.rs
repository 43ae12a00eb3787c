//! TLS of `https` checks: made once per check, shared by its backends.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::health::{HttpCheck, TlsCheck};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::VerifierBuilderError,
};
use thiserror::Error as ThisError;

/// Why there can be no TLS.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// A file of trusted certificates.
    #[error("cannot read {}: {detail}", path.display())]
    Unreadable {
        /// As configured.
        path: PathBuf,
        /// What the system or the parser says.
        detail: String,
    },
    /// There is no `ca_file`, and none of the system's.
    #[error("this system has no certificates to trust: none of {}", SYSTEM.join(", "))]
    NoRoots,
    /// The library does not take it.
    #[error("{0}")]
    Refused(#[from] Error),
    /// The certificates are of no use.
    #[error("{0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// Where distributions keep the certificates that they trust.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Reads the certificates and makes the configuration.
///
/// # Errors
/// No file of certificates can be read, or one holds none.
pub(super) fn config(check: &TlsCheck) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if check.verify {
        let roots = Arc::new(roots(check.ca_file.as_deref())?);
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?
    } else {
        Arc::new(Anyone(Arc::clone(&provider)))
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would pass although the certificate has expired meanwhile.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name that is asked for and, where it is verified, must be in the certificate. An address is
/// not sent as SNI.
pub(super) fn server_name(check: &HttpCheck, tls: &TlsCheck, asked: IpAddr) -> ServerName<'static> {
    let host = check.host.as_deref().map(without_port);
    let name = tls.sni.as_deref().or(host).map(str::to_owned);
    name.and_then(|name| ServerName::try_from(name).ok())
        .unwrap_or_else(|| ServerName::IpAddress(asked.into()))
}

/// `name:80` → `name`; `[2001:db8::1]:80` → `2001:db8::1`.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let system = || SYSTEM.map(Path::new).into_iter().find(|path| path.exists());
    let path = ca_file.or_else(system).ok_or(TlsError::NoRoots)?;
    let unreadable = |detail: String| TlsError::Unreadable { path: path.to_owned(), detail };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold certificates that this library does not take.
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Takes any certificate, but the server must have its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_host_header_if_it_is_one() {
        let asked = IpAddr::from([192, 0, 2, 1]);
        let name = |host: Option<&str>, sni: Option<&str>| {
            let tls = TlsCheck { sni: sni.map(str::to_owned), verify: true, ca_file: None };
            let check = HttpCheck {
                method: "GET".to_owned(),
                path: "/".to_owned(),
                host: host.map(str::to_owned),
                headers: Vec::new(),
                status: control::health::StatusSet::default(),
                body: None,
                tls: None,
            };
            server_name(&check, &tls, asked).to_str().into_owned()
        };
        let table = [
            (None, None, "192.0.2.1"),
            (Some("www.example:8443"), None, "www.example"),
            (Some("[2001:db8::1]:8443"), None, "2001:db8::1"),
            (Some("www.example"), Some("other.example"), "other.example"),
            (Some("no name"), None, "192.0.2.1"),
        ];
        for (host, sni, expected) in table {
            assert_eq!(name(host, sni), expected, "{host:?} {sni:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_an_error() {
        let check =
            |path: &str| TlsCheck { sni: None, verify: true, ca_file: Some(PathBuf::from(path)) };
        let error = config(&check("/nonexistent/ca.pem")).expect_err("no such file").to_string();
        assert!(error.contains("/nonexistent/ca.pem") && error.contains("No such file"), "{error}");
        let error = config(&check("/dev/null")).expect_err("no certificate").to_string();
        assert_eq!(error, "cannot read /dev/null: it holds no certificate");
    }
}
