//! The `https` check at old appliances: with `verify = false` it takes what `curl -k` takes, with
//! `verify = true` it says what is too old.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use control::health::{CheckKind, Failure, HttpCheck, TlsCheck};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVersion};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder, X509NameBuilder};

use super::{AMPLE, get, result, servers};

/// What a server can do, and the certificate that it shows; by default what is safe today.
#[derive(Clone, Copy)]
struct Appliance {
    newest: SslVersion,
    /// In TLS 1.2 and before.
    ciphers: &'static str,
    key_bits: u32,
    /// Of the certificate: 1 or 3.
    version: i32,
}

const MODERN: Appliance =
    Appliance { newest: SslVersion::TLS1_3, ciphers: "ECDHE", key_bits: 2048, version: 3 };

impl Appliance {
    /// Starts it; writes its certificate into a file, whose path is returned.
    fn start(self, name: &str) -> (SocketAddr, PathBuf) {
        let key = PKey::from_rsa(Rsa::generate(self.key_bits).expect("a key")).expect("a key");
        let certificate = self.certificate(&key);
        let file = format!("pointsman-appliance-{}-{name}.pem", std::process::id());
        let file = std::env::temp_dir().join(file);
        std::fs::write(&file, certificate.to_pem().expect("PEM")).expect("a file");
        let context = self.context(&certificate, &key);
        let address = servers::tcp(move |stream| {
            let session = Ssl::new(&context).expect("a session");
            let mut stream = SslStream::new(session, stream).expect("a stream");
            if stream.accept().is_ok() {
                servers::head(&mut stream);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok");
                let _ = stream.shutdown();
            }
        });
        (address, file)
    }

    fn context(self, certificate: &X509, key: &PKey<Private>) -> SslContext {
        let mut builder = SslContext::builder(SslMethod::tls_server()).expect("a context");
        builder.set_security_level(0);
        builder.set_min_proto_version(None).expect("a version");
        builder.set_max_proto_version(Some(self.newest)).expect("a version");
        builder.set_cipher_list(&format!("{}:@SECLEVEL=0", self.ciphers)).expect("ciphers");
        builder.set_certificate(certificate).expect("a certificate");
        builder.set_private_key(key).expect("its key");
        builder.build()
    }

    /// Self-signed, for `appliance.test`; version 1 cannot say so but in its subject.
    fn certificate(self, key: &PKey<Private>) -> X509 {
        let build = || {
            let mut name = X509NameBuilder::new()?;
            name.append_entry_by_text("CN", NAME)?;
            let name = name.build();
            let mut builder = X509Builder::new()?;
            builder.set_version(self.version - 1)?;
            builder.set_subject_name(&name)?;
            builder.set_issuer_name(&name)?;
            builder.set_pubkey(key)?;
            builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
            builder.set_not_after(&*Asn1Time::days_from_now(2)?)?;
            if self.version == 3 {
                let context = builder.x509v3_context(None, None);
                let names = SubjectAlternativeName::new().dns(NAME).build(&context)?;
                builder.append_extension(names)?;
            }
            builder.sign(key, MessageDigest::sha256())?;
            Ok::<X509, openssl::error::ErrorStack>(builder.build())
        };
        build().expect("a certificate")
    }
}

const NAME: &str = "appliance.test";

fn https(verify: bool, ca_file: Option<PathBuf>) -> CheckKind {
    let tls = TlsCheck { sni: None, verify, ca_file };
    CheckKind::Http(HttpCheck { host: Some(NAME.to_owned()), tls: Some(tls), ..get("/") })
}

#[tokio::test]
async fn old_appliances_pass_unless_they_are_to_be_verified() {
    let table = [
        ("tls11", Appliance { newest: SslVersion::TLS1_1, ..MODERN }, "protocol version"),
        ("tls10", Appliance { newest: SslVersion::TLS1, ..MODERN }, "protocol version"),
        (
            "rsa",
            Appliance { newest: SslVersion::TLS1_2, ciphers: "AES128-SHA", ..MODERN },
            "handshake failure",
        ),
        ("rsa1024", Appliance { key_bits: 1024, ..MODERN }, "key too weak"),
        ("v1", Appliance { version: 1, ..MODERN }, "hostname mismatch"),
        (
            "all",
            Appliance {
                newest: SslVersion::TLS1,
                ciphers: "AES128-SHA",
                key_bits: 1024,
                version: 1,
            },
            "protocol version",
        ),
    ];
    for (name, appliance, reason) in table {
        let (address, file) = appliance.start(name);
        assert_eq!(result(https(false, None), address, AMPLE).await, Ok(()), "{name}");
        let failure = result(https(true, Some(file.clone())), address, AMPLE).await;
        let _ = std::fs::remove_file(file);
        let failure = failure.expect_err(name);
        assert_eq!(failure.name(), "tls", "{name}: {failure}");
        assert!(failure.to_string().contains(reason), "{name}: {failure}");
    }
}

/// What the table above varies is all that is wrong with them.
#[tokio::test]
async fn an_appliance_of_today_passes_either_way() {
    let (address, file) = MODERN.start("modern");
    for check in [https(false, None), https(true, Some(file.clone()))] {
        assert_eq!(result(check, address, AMPLE).await, Ok(()));
    }
    // The system's own certificates are those of public authorities.
    let failure = result(https(true, None), address, AMPLE).await.expect_err("self-signed");
    assert!(failure.to_string().contains("self-signed certificate"), "{failure}");
    let _ = std::fs::remove_file(file);
}

#[tokio::test]
async fn garbage_is_a_clean_error() {
    let random: &[u8] = &[0x5a; 300];
    let record: &[u8] = &[22, 3, 3, 0, 4, 2, 0xff, 0xff, 0xff];
    for garbage in [b"SSH-2.0-OpenSSH_9.2\r\n", random, record] {
        let address = servers::tcp(move |mut stream| {
            let _ = stream.write_all(garbage);
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        });
        let failure = result(https(false, None), address, AMPLE).await.expect_err("garbage");
        let Failure::Tls(reason) = &failure else { panic!("{failure:?}") };
        assert!(!reason.is_empty() && !reason.contains(".c:"), "{failure}");
    }
    let address = servers::tcp(drop);
    let failure = result(https(false, None), address, AMPLE).await.expect_err("closed");
    assert!(matches!(failure, Failure::Closed | Failure::Reset), "{failure:?}");
}
