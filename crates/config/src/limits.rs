//! How much there may be of everything that has a place in tables of a fixed size.

use ::dataplane::{MAX_BACKENDS, MAX_SERVICES};

use crate::diagnostic::Diagnostic;
use crate::service::RawService;

/// The first service and the first backend that find no place. The same host in two services is two
/// backends.
pub(crate) fn check(services: &[RawService]) -> impl Iterator<Item = Diagnostic> {
    too_many_services(services).into_iter().chain(too_many_backends(services))
}

fn too_many_services(services: &[RawService]) -> Option<Diagnostic> {
    let extra = services.get(MAX_SERVICES)?;
    let message = format!("there are {} services, of at most {MAX_SERVICES}", services.len());
    let error = Diagnostic::error(&extra.header, message).with_label("one too many");
    Some(error.with_help(
        "let one service have a range of ports (`port = \"8000-8100\"`, `port = \"any\"`), or \
         spread the services over several balancers",
    ))
}

fn too_many_backends(services: &[RawService]) -> Option<Diagnostic> {
    let hosts = || services.iter().flat_map(RawService::hosts);
    let extra = hosts().nth(MAX_BACKENDS)?;
    let span = extra.address.as_ref().map(|address| &address.span);
    let span = span.or_else(|| services.first().map(|service| &service.header))?;
    let count = hosts().count();
    let message = format!("the services have {count} backends, of at most {MAX_BACKENDS} together");
    let error = Diagnostic::error(span, message).with_label("one too many");
    Some(error.with_help(
        "a backend counts once for each service that has it, a fallback as well: let services that \
         share their backends be one with a range of ports, or spread them over several balancers",
    ))
}
