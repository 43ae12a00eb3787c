//! `[[service.backend]]` and `[service.fallback]`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use control::Backend;
use control::health::CheckOverride;

use crate::health::RawOverride;
use crate::net;
use crate::section::Section;
use crate::source::WithSpan;
use crate::value;

/// A backend as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawBackend {
    pub(crate) name: Option<WithSpan<String>>,
    pub(crate) address: Option<WithSpan<IpAddr>>,
    pub(crate) weight: Option<u32>,
    /// `None`: it is not written, or no table, which was reported.
    pub(crate) check: Option<RawOverride>,
}

impl RawBackend {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let address = "address = \"192.0.2.11\"";
        Self {
            name: section.required("name", "name = \"web1\"", value::name),
            address: section.required("address", address, net::host_address),
            weight: section.or("weight", 1, value::number(WEIGHT)),
            check: section.table("check", RawOverride::read),
        }
    }

    /// A fallback takes all new clients or none: it has no weight.
    pub(crate) fn read_fallback(section: &mut Section<'_>) -> Self {
        let address = "address = \"192.0.2.20\"";
        Self {
            name: section.required("name", "name = \"sorry\"", value::name),
            address: section.required("address", address, net::host_address),
            weight: Some(1),
            check: None,
        }
    }

    pub(crate) fn build(self) -> Option<Backend> {
        Some(Backend {
            name: self.name?.value,
            address: self.address?.value,
            weight: self.weight?,
            check: match &self.check {
                Some(check) => check.build()?,
                None => CheckOverride::default(),
            },
            drain: None,
        })
    }
}

const WEIGHT: RangeInclusive<u32> = 0..=65_535;
