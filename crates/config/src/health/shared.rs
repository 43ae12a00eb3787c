//! `[[check]]`: a check by name, which services refer to.

use std::collections::{BTreeMap, BTreeSet};

use super::RawCheck;
use crate::diagnostic::Diagnostic;
use crate::section::Section;
use crate::service::RawService;
use crate::source::WithSpan;
use crate::suggest;
use crate::value::{self, Checked, Value, repeated};

/// A check and its name, as far as they could be read.
#[derive(Debug)]
pub(crate) struct RawShared {
    pub(crate) name: Option<WithSpan<String>>,
    pub(crate) check: RawCheck,
}

impl RawShared {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let name = section.required("name", "name = \"web\"", value::name);
        Self { name, check: RawCheck::read(section) }
    }
}

/// All checks that have a name, by it.
#[derive(Clone, Debug)]
pub(crate) struct ByName<'a>(BTreeMap<&'a str, &'a RawCheck>);

impl<'a> ByName<'a> {
    pub(crate) fn new(shared: &'a [RawShared]) -> Self {
        let named = |one: &'a RawShared| Some((one.name.as_ref()?.value.as_str(), &one.check));
        Self(shared.iter().filter_map(named).collect())
    }

    /// `None`: it does not exist, which [`check`] reports.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawCheck> {
        self.0.get(name).copied()
    }
}

/// One name, or a list of them.
pub(crate) fn names(value: &Value<'_>) -> Checked<Vec<WithSpan<String>>> {
    if value.value.as_str().is_some() {
        return Ok(vec![WithSpan { value: value::name(value)?, span: value.span.clone() }]);
    }
    if value.value.is_table() || value.tables().next().is_some() {
        let error =
            value.error(format!("`{}` of a service is the name of a `[[check]]`", value.key));
        let help = "write `[[service.health]]` for a check of this service alone";
        return Err(vec![error.with_label("a table").with_help(help)]);
    }
    let names = value::list("[\"web\", \"ping\"]", value::name)(value)?;
    let mistakes = repeated("check", &names);
    if mistakes.is_empty() { Ok(names) } else { Err(mistakes) }
}

/// Mistakes between checks that have names and services.
pub(crate) fn check(shared: &[RawShared], services: &[RawService]) -> Vec<Diagnostic> {
    let names: Vec<&WithSpan<String>> = shared.iter().filter_map(|one| one.name.as_ref()).collect();
    let mut mistakes = repeated("check name", names.iter().copied());
    let by_name = ByName::new(shared);
    let mut used = BTreeSet::new();
    for service in services {
        for name in service.shared_checks() {
            used.insert(name.value.as_str());
            if by_name.get(&name.value).is_none() {
                mistakes.push(unknown(name, &names));
            }
        }
        mistakes.extend(service.check_with(&by_name));
    }
    for name in names.iter().filter(|name| !used.contains(name.value.as_str())) {
        let warning =
            Diagnostic::warning(&name.span, format!("no service has check `{}`", name.value));
        let help = format!("write `check = \"{}\"` in a `[[service]]`, or remove it", name.value);
        mistakes.push(warning.with_label("is never made").with_help(help));
    }
    mistakes
}

fn unknown(name: &WithSpan<String>, names: &[&WithSpan<String>]) -> Diagnostic {
    let known = || names.iter().map(|name| name.value.as_str());
    let label = match suggest::closest(&name.value, known()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "not known".to_owned(),
    };
    let error =
        Diagnostic::error(&name.span, format!("there is no `[[check]]` called `{}`", name.value));
    let help = if names.is_empty() {
        format!("add a `[[check]]` with `name = \"{}\"`", name.value)
    } else {
        format!("known are {}", suggest::list(known()))
    };
    error.with_label(label).with_help(help)
}
