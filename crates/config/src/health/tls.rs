//! What `https` has beyond `http`.

use std::path::PathBuf;

use control::health::TlsCheck;

use super::host;
use crate::diagnostic::Diagnostic;
use crate::section::Section;
use crate::source::Written;
use crate::value;

pub(super) fn read(section: &mut Section<'_>, host: &Written<String>) -> Option<TlsCheck> {
    let sni = section.optional("sni", host::server_name);
    let verify = section.optional("verify", value::boolean);
    let ca_file = section.optional("ca_file", value::absolute_path(CA_FILE));
    let verifies = verify.or(true);
    if verifies == Some(true) && is_nameless(&sni, host) {
        let span = verify.at().map_or_else(|| section.header(), |verify| &verify.span);
        let mut error = Diagnostic::error(span, "`verify` needs the name in the certificate");
        error = error.with_label("no name to compare with");
        if let Some(host) = host.at() {
            error = error.with_place(&host.span, "an address");
        }
        let help = "add `sni = \"www.example.org\"` or a `host` that is a name, \
                    or write `verify = false`";
        section.report(error.with_help(help));
    }
    if let Some(file) = ca_file.at().filter(|_| verifies == Some(false)) {
        let warning = Diagnostic::warning(&file.span, "`ca_file` has no effect");
        let warning = warning.with_label("nothing is verified");
        section.report(warning.with_help("write `verify = true`, or remove it"));
    }
    let ca_file = ca_file.or(PathBuf::from(CA_FILE))?;
    let verify = verifies?;
    Some(TlsCheck { sni: sni.if_right()?, verify, ca_file: verify.then_some(ca_file) })
}

/// Whether neither of the two can be compared with a certificate.
fn is_nameless(sni: &Written<String>, host: &Written<String>) -> bool {
    let host_is_one = match host {
        Written::Absent => false,
        Written::Wrong => true,
        Written::Is(at) => host::name_of(&at.value).is_some(),
    };
    sni.is_absent() && !host_is_one
}

/// Where Debian and its relatives keep the certificates of `ca-certificates`.
const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
