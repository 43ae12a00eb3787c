//! The file as a whole: its sections and the checks between them.

use std::net::SocketAddr;

use control::Desired;

use crate::control_socket;
use crate::dataplane;
use crate::diagnostic::Diagnostic;
use crate::group;
use crate::health::{self, ByName, RawShared};
use crate::interface::RawInterface;
use crate::limits;
use crate::metrics;
use crate::node;
use crate::overlap;
use crate::section::Section;
use crate::service::RawService;
use crate::source::WithSpan;
use crate::value::repeated;
use crate::vrrp::{self, RawVrrp};

/// `None` when something is wrong, which was then reported.
pub(crate) fn read(file: &mut Section<'_>) -> Option<Desired> {
    let node_name = file.table("node", node::read).flatten();
    let interfaces = file.tables("interface", RawInterface::read);
    let dataplane = file.settings("dataplane", dataplane::read);
    let metrics_listen = file.settings("metrics", metrics::read);
    let control_socket = file.settings("control", control_socket::read);
    let instances = file.tables("vrrp", RawVrrp::read);
    let checks = file.tables("check", RawShared::read);
    let services = file.tables("service", RawService::read);

    if interfaces.as_ref().is_some_and(Vec::is_empty) {
        require_interface(file);
    }
    if services.as_ref().is_some_and(Vec::is_empty) {
        warn_without_service(file);
    }
    for mistake in cross_check(&interfaces, &services, &metrics_listen) {
        file.report(mistake);
    }
    if let (Some(checks), Some(services)) = (&checks, &services) {
        for mistake in health::check_shared(checks, services) {
            file.report(mistake);
        }
    }
    if let (Some(interfaces), Some(instances), Some(services)) =
        (&interfaces, &instances, &services)
    {
        for mistake in vrrp::cross_check(interfaces, instances, services) {
            file.report(mistake);
        }
    }

    let checks = checks?;
    let by_name = ByName::new(&checks);
    Some(Desired {
        node_name,
        interfaces: interfaces?.into_iter().map(RawInterface::build).collect::<Option<_>>()?,
        dataplane: dataplane?,
        metrics_listen: metrics_listen?.value,
        control_socket: control_socket?,
        vrrp: instances?.into_iter().map(RawVrrp::build).collect::<Option<_>>()?,
        services: services?.into_iter().map(|one| one.build(&by_name)).collect::<Option<_>>()?,
    })
}

fn cross_check(
    interfaces: &Option<Vec<RawInterface>>,
    services: &Option<Vec<RawService>>,
    metrics_listen: &Option<WithSpan<Option<SocketAddr>>>,
) -> Vec<Diagnostic> {
    let interfaces = interfaces.as_deref().unwrap_or_default();
    let services = services.as_deref().unwrap_or_default();
    let interface_names = interfaces.iter().filter_map(|interface| interface.name.as_ref());
    let service_names = services.iter().filter_map(|service| service.name.as_ref());
    let mut mistakes = repeated("interface name", interface_names);
    mistakes.extend(repeated("service name", service_names));
    mistakes.extend(limits::check(services));
    mistakes.extend(overlap::claims(services));
    mistakes.extend(overlap::closed_ports(services));
    mistakes.extend(group::check(services));
    mistakes.extend(overlap::loops(services));
    let listen = metrics_listen.as_ref();
    mistakes.extend(listen.and_then(|listen| overlap::metrics_on_vip(services, listen)));
    mistakes
}

fn require_interface(file: &mut Section<'_>) {
    let error = Diagnostic::error(file.header(), "there is no `[[interface]]`");
    let help = "add the interface that carries VIP traffic:\n[[interface]]\nname = \"eth0\"";
    file.missing_table("interface", error.with_help(help));
}

fn warn_without_service(file: &mut Section<'_>) {
    let warning = Diagnostic::warning(file.header(), "there is no `[[service]]`");
    let help = "add a `[[service]]` with `name`, `vip` and `port`: until then nothing is balanced";
    file.missing_table("service", warning.with_help(help));
}
