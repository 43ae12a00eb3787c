//! TLS of `https` checks, by OpenSSL: made once for each set of trusted certificates, shared by
//! all checks that trust the same.
//!
//! With `verify = false` a check takes what `curl -k` takes, old appliances included: TLS 1.0, RSA
//! key exchange, keys of 1,024 bits, certificates of version 1, servers without RFC 5746.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use control::health::{Check, CheckKind, Failure, HttpCheck, TlsCheck};
use openssl::error::ErrorStack;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef,
    SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509VerifyResult};
use thiserror::Error as ThisError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

use super::socket::failure_or;
use super::text::printable;

/// Why there can be no TLS.
#[derive(Clone, Debug, ThisError)]
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
    /// The library, or the system's configuration of it, does not take it.
    #[error("{0}")]
    Refused(#[from] ErrorStack),
}

/// Where distributions keep the certificates that they trust.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// The configurations that were made so far: the system's bundle takes long to read.
#[derive(Debug, Default)]
pub(super) struct Contexts(BTreeMap<Option<Trusted>, Result<SslContext, TlsError>>);

/// Whose certificates are trusted. `None`: the system's.
type Trusted = Option<PathBuf>;

impl Contexts {
    /// Reads the certificates and makes the configuration.
    ///
    /// # Errors
    /// No file of certificates can be read, or one holds none.
    pub(super) fn of(&mut self, check: &TlsCheck) -> Result<SslContext, TlsError> {
        let trusted = check.verify.then(|| check.ca_file.clone());
        let make = || match check.verify {
            true => strict(check.ca_file.as_deref()),
            false => lenient(),
        };
        self.0.entry(trusted).or_insert_with(make).clone()
    }
}

/// What a check wants of TLS.
pub(super) fn of(check: &Check) -> Option<&TlsCheck> {
    if let CheckKind::Http(http) = &check.kind { http.tls.as_ref() } else { None }
}

/// Any certificate, any version, any strength; but the server must have the certificate's key.
fn lenient() -> Result<SslContext, TlsError> {
    let mut builder = builder()?;
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_security_level(0);
    builder.set_min_proto_version(None)?;
    builder.set_cipher_list("DEFAULT:@SECLEVEL=0")?;
    builder.set_options(
        LEGACY_SERVER_CONNECT
            | SslOptions::ALLOW_UNSAFE_LEGACY_RENEGOTIATION
            | SslOptions::IGNORE_UNEXPECTED_EOF,
    );
    Ok(builder.build())
}

/// What is safe today, whatever the system's configuration allows.
fn strict(ca_file: Option<&Path>) -> Result<SslContext, TlsError> {
    let mut builder = builder()?;
    builder.set_verify(SslVerifyMode::PEER);
    builder.set_cert_store(roots(ca_file)?);
    // 112 bits: RSA from 2,048, no SHA-1 in signatures.
    builder.set_security_level(2);
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_cipher_list("ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:@SECLEVEL=2")?;
    builder.clear_options(LEGACY_SERVER_CONNECT);
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    Ok(builder.build())
}

fn builder() -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    // The system's configuration may have a bound of its own.
    builder.set_max_proto_version(None)?;
    builder.set_options(SslOptions::NO_COMPRESSION);
    builder.set_alpn_protos(b"\x08http/1.1")?;
    // A resumed session would pass although the certificate has expired meanwhile.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    Ok(builder)
}

/// Makes the handshake over a connection.
///
/// # Errors
/// What it says of the backend.
pub(super) async fn handshake<S>(
    context: &SslContext,
    name: &ServerName,
    stream: S,
) -> Result<SslStream<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let local = |error: ErrorStack| Failure::Local(printable(error));
    let session = session(context, name).map_err(local)?;
    let mut stream = SslStream::new(session, stream).map_err(local)?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(handshake_failure(&error, stream.ssl())),
    }
}

fn session(context: &SslContext, name: &ServerName) -> Result<Ssl, ErrorStack> {
    let mut session = Ssl::new(context)?;
    let parameters = session.param_mut();
    // RFC 9525: names of other kinds than these do not count.
    parameters
        .set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS | X509CheckFlags::NEVER_CHECK_SUBJECT);
    match name {
        ServerName::Address(address) => parameters.set_ip(*address)?,
        ServerName::Name(name) => {
            parameters.set_host(name)?;
            session.set_hostname(name)?;
        }
    }
    Ok(session)
}

/// The name that is asked for and, where it is verified, must be in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerName {
    /// Sent as SNI.
    Name(String),
    /// Not sent (RFC 6066 §3).
    Address(IpAddr),
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// `sni`, else the name or address in `host`, else the address that is asked.
pub(super) fn server_name(check: &HttpCheck, tls: &TlsCheck, asked: IpAddr) -> ServerName {
    let host = check.host.as_deref().map(without_port);
    let name = tls.sni.as_deref().or(host);
    name.and_then(parse_name).unwrap_or(ServerName::Address(asked))
}

fn parse_name(written: &str) -> Option<ServerName> {
    if let Ok(address) = written.parse() {
        return Some(ServerName::Address(address));
    }
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !written.is_empty() && written.bytes().all(fit);
    is_name.then(|| ServerName::Name(written.to_owned()))
}

/// `name:80` → `name`; `[2001:db8::1]:80` → `2001:db8::1`.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// What a failed handshake says of the backend.
fn handshake_failure(error: &ssl::Error, session: &SslRef) -> Failure {
    let verified = session.verify_result();
    let failure = failure_of(error);
    if let Failure::Tls(reason) = &failure
        && verified != X509VerifyResult::OK
    {
        return Failure::Tls(printable(format!("{reason}: {}", verified.error_string())));
    }
    failure
}

/// What an error of TLS says of the backend.
pub(super) fn failure_of(error: &ssl::Error) -> Failure {
    if let Some(error) = error.io_error() {
        return failure_or(error, Failure::Tls);
    }
    let mut reasons = error.ssl_error().into_iter().flat_map(ErrorStack::errors);
    let closed = error.code() == ErrorCode::ZERO_RETURN
        || (error.code() == ErrorCode::SYSCALL && error.ssl_error().is_none())
        || reasons.clone().any(|error| error.reason_code() == UNEXPECTED_EOF);
    if closed {
        return Failure::Closed;
    }
    // Without the names of functions and files of the library.
    let reason = reasons.next_back().and_then(openssl::error::Error::reason);
    Failure::Tls(reason.map_or_else(|| printable(error), printable))
}

fn roots(ca_file: Option<&Path>) -> Result<X509Store, TlsError> {
    let system = || SYSTEM.map(Path::new).into_iter().find(|path| path.exists());
    let path = ca_file.or_else(system).ok_or(TlsError::NoRoots)?;
    let unreadable = |detail: String| TlsError::Unreadable { path: path.to_owned(), detail };
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8_lossy(&text);
    // One by one: a bundle may hold certificates that this library does not take.
    let blocks = text.match_indices(BEGIN).filter_map(|(at, _)| text.get(at..));
    let mut store = X509StoreBuilder::new()?;
    let mut taken = 0;
    for certificate in blocks.filter_map(|block| X509::from_pem(block.as_bytes()).ok()) {
        store.add_cert(certificate)?;
        taken += 1;
    }
    if taken == 0 {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(store.build())
}

/// Begins a block of PEM, of whatever kind.
const BEGIN: &str = "-----BEGIN ";

/// `SSL_OP_LEGACY_SERVER_CONNECT`: on or off by default, depending on the release.
const LEGACY_SERVER_CONNECT: SslOptions = SslOptions::from_bits_retain(0x4);
/// `SSL_R_UNEXPECTED_EOF_WHILE_READING`.
const UNEXPECTED_EOF: i32 = 294;

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
            server_name(&check, &tls, asked).to_string()
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
        let error = Contexts::default()
            .of(&check("/nonexistent/ca.pem"))
            .expect_err("no such file")
            .to_string();
        assert!(error.contains("/nonexistent/ca.pem") && error.contains("No such file"), "{error}");
        let error =
            Contexts::default().of(&check("/dev/null")).expect_err("no certificate").to_string();
        assert_eq!(error, "cannot read /dev/null: it holds no certificate");
    }
}
