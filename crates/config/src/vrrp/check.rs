//! Checks between VRRP instances, interfaces and services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use control::vrrp::{MAX_VIPS_V4, MAX_VIPS_V6, Version};

use super::{RawVrrp, senders};
use crate::diagnostic::Diagnostic;
use crate::interface::RawInterface;
use crate::service::RawService;
use crate::source::WithSpan;
use crate::suggest;
use crate::value::repeated;

/// What is wrong between the sections.
pub(crate) fn cross_check(
    interfaces: &[RawInterface],
    instances: &[RawVrrp],
    services: &[RawService],
) -> Vec<Diagnostic> {
    let names = instances.iter().filter_map(|instance| instance.name.as_ref());
    let mut mistakes = repeated("VRRP instance name", names.clone());
    let known: Vec<&str> = names.map(|name| name.value.as_str()).collect();
    mistakes.extend(services.iter().filter_map(|service| unknown_instance(service, &known)));
    mistakes.extend(torn_vips(services));
    mistakes.extend(too_many(instances));
    for instance in instances {
        mistakes.extend(unknown_interface(instance, interfaces));
        mistakes.extend(unknown_tracked(instance, services));
        mistakes.extend(vips(instance, services));
    }
    mistakes.extend(same_router(instances, services));
    mistakes
}

fn unknown_instance(service: &RawService, known: &[&str]) -> Option<Diagnostic> {
    let named = service.vrrp.as_ref()?;
    if known.contains(&named.value.as_str()) {
        return None;
    }
    Some(unknown("[[vrrp]]", named, known))
}

fn unknown_interface(instance: &RawVrrp, interfaces: &[RawInterface]) -> Option<Diagnostic> {
    let named = instance.interface.as_ref()?;
    let known = interfaces.iter().filter_map(|interface| interface.name.as_ref());
    let known: Vec<&str> = known.map(|name| name.value.as_str()).collect();
    (!known.contains(&named.value.as_str())).then(|| unknown("[[interface]]", named, &known))
}

fn unknown_tracked(instance: &RawVrrp, services: &[RawService]) -> Vec<Diagnostic> {
    let known = services.iter().filter_map(|service| service.name.as_ref());
    let known: Vec<&str> = known.map(|name| name.value.as_str()).collect();
    let tracked = instance.track.iter().flatten().filter_map(|track| track.service());
    tracked
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, span)| {
            let named = WithSpan { value: name.to_owned(), span: span.clone() };
            unknown("[[service]]", &named, &known)
        })
        .collect()
}

fn unknown(table: &str, named: &WithSpan<String>, known: &[&str]) -> Diagnostic {
    let error = Diagnostic::error(&named.span, format!("there is no `{table}` `{}`", named.value));
    let error = match suggest::closest(&named.value, known.iter().copied()) {
        Some(meant) => error.with_label(format!("did you mean `{meant}`?")),
        None => error.with_label("not configured"),
    };
    let help = if known.is_empty() {
        format!("add a `{table}` with `name = \"{}\"`", named.value)
    } else {
        format!("there are: {}", suggest::list(known.iter().copied()))
    };
    error.with_help(help)
}

/// One VIP in two instances would be active on two nodes.
fn torn_vips(services: &[RawService]) -> Vec<Diagnostic> {
    let mut first: BTreeMap<IpAddr, &RawService> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for service in services {
        let Some(vip) = &service.vip else { continue };
        let earlier = *first.entry(vip.value).or_insert(service);
        let name = |service: &RawService| service.vrrp.as_ref().map(|vrrp| vrrp.value.clone());
        let (here, there) = (name(service), name(earlier));
        if here == there {
            continue;
        }
        let say = |name: Option<String>| {
            name.map_or_else(|| "no instance".to_owned(), |name| format!("`{name}`"))
        };
        let message =
            format!("the VIP {} belongs to {} and to {}", vip.value, say(there), say(here));
        let mut error =
            Diagnostic::error(&vip.span, message).with_label("an address moves as a whole");
        if let Some(vip) = &earlier.vip {
            error = error.with_place(&vip.span, "used here with another `vrrp`");
        }
        mistakes.push(error.with_help("give all services of a VIP the same `vrrp`"));
    }
    mistakes
}

fn too_many(instances: &[RawVrrp]) -> Option<Diagnostic> {
    let extra = instances.get(MAX_INSTANCES)?;
    let message = format!("there are more than {MAX_INSTANCES} VRRP instances");
    let error = Diagnostic::error(&extra.header, message).with_label("one too many");
    Some(error.with_help("put several VIPs into one instance"))
}

/// The VIPs of the services that name an instance.
fn vips_of<'a>(
    instance: &RawVrrp,
    services: &'a [RawService],
) -> impl Iterator<Item = &'a WithSpan<IpAddr>> + Clone {
    let name = instance.name.as_ref().map(|name| name.value.clone());
    let mine = services.iter().filter(move |service| {
        name.is_some() && service.vrrp.as_ref().map(|vrrp| &vrrp.value) == name.as_ref()
    });
    mine.filter_map(|service| service.vip.as_ref())
}

fn vips(instance: &RawVrrp, services: &[RawService]) -> Vec<Diagnostic> {
    let Some(name) = &instance.name else { return Vec::new() };
    let vips = vips_of(instance, services);
    let Some(first) = vips.clone().next() else {
        let message = format!("no service has `vrrp = \"{}\"`", name.value);
        let error = Diagnostic::error(&name.span, message).with_label("an instance without VIPs");
        let help = format!("add `vrrp = \"{}\"` to a `[[service]]`, or remove it", name.value);
        return vec![error.with_help(help)];
    };
    let mut mistakes = Vec::new();
    let v4 = first.value.is_ipv4();
    if let Some(other) = vips.clone().find(|vip| vip.value.is_ipv4() != v4) {
        let message = format!("VRRP instance `{}` has IPv4 and IPv6 VIPs", name.value);
        let error = Diagnostic::error(&other.span, message).with_label("of another family");
        let error = error.with_place(&first.span, "the first VIP");
        let help = "use two instances, one for each family; they may have the same `vrid` and a \
                    common `group`";
        mistakes.push(error.with_help(help));
    }
    if instance.version == Some(Version::V2) && !v4 {
        let message = format!("VRRP instance `{}` is version 2, which has no IPv6", name.value);
        let error = Diagnostic::error(&first.span, message).with_label("an IPv6 VIP");
        mistakes.push(error.with_help("use `version = 3`"));
    }
    mistakes.extend(senders::check(instance, first, vips.clone()));
    let count = vips.map(|vip| vip.value).collect::<std::collections::BTreeSet<_>>().len();
    let max = if v4 { MAX_VIPS_V4 } else { MAX_VIPS_V6 };
    if count > max {
        let message = format!("VRRP instance `{}` has {count} VIPs", name.value);
        let error = Diagnostic::error(&name.span, message);
        let error = error.with_label(format!("{max} fit one advert"));
        mistakes.push(error.with_help("spread them over several instances"));
    }
    mistakes
}

/// The same VRID twice on one interface, in one family.
fn same_router(instances: &[RawVrrp], services: &[RawService]) -> Vec<Diagnostic> {
    let mut first = BTreeMap::new();
    let mut mistakes = Vec::new();
    for instance in instances {
        let (Some(interface), Some(vrid)) = (&instance.interface, &instance.vrid) else { continue };
        let Some(vip) = vips_of(instance, services).next() else { continue };
        let key = (&interface.value, vip.value.is_ipv4(), vrid.value);
        let Some(earlier) = first.insert(key, vrid) else { continue };
        let message = format!("VRID {} is used twice on {}", vrid.value, interface.value);
        let error = Diagnostic::error(&vrid.span, message).with_label("used again here");
        let error = error.with_place(&earlier.span, "first used here");
        mistakes.push(error.with_help("give one of them another `vrid`, on all its nodes"));
    }
    mistakes
}

/// One slot of the lease array is for services without VRRP.
const MAX_INSTANCES: usize = 255;
