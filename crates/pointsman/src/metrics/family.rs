//! Metrics whose labels are checked by the compiler.

use std::marker::PhantomData;

use prometheus::core::{AtomicU64, Collector, GenericCounterVec};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts, Registry};

use super::labels::LabelSet;

/// A page under construction.
#[derive(Default)]
pub(super) struct Page {
    registry: Registry,
}

/// A gauge for each set of labels `L`.
pub(super) struct Gauge<L> {
    vec: GaugeVec,
    labels: PhantomData<fn(&L)>,
}

/// A counter for each set of labels `L`.
pub(super) struct Counter<L> {
    vec: GenericCounterVec<AtomicU64>,
    labels: PhantomData<fn(&L)>,
}

impl Page {
    /// A gauge of this name, without the prefix.
    pub(super) fn gauge<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
    ) -> prometheus::Result<Gauge<L>> {
        let vec = GaugeVec::new(Opts::new(format!("pointsman_{name}"), help), L::NAMES)?;
        self.register(vec.clone())?;
        Ok(Gauge { vec, labels: PhantomData })
    }

    /// A counter of this name, without the prefix.
    pub(super) fn counter<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
    ) -> prometheus::Result<Counter<L>> {
        let vec = GenericCounterVec::new(Opts::new(format!("pointsman_{name}"), help), L::NAMES)?;
        self.register(vec.clone())?;
        Ok(Counter { vec, labels: PhantomData })
    }

    pub(super) fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

impl<L: LabelSet> Gauge<L> {
    pub(super) fn set(&self, labels: &L, value: f64) {
        self.vec.with_label_values(&labels.values()).set(value);
    }
}

impl<L: LabelSet> Counter<L> {
    pub(super) fn add(&self, labels: &L, value: u64) {
        self.vec.with_label_values(&labels.values()).inc_by(value);
    }
}

pub(super) fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, and a gauge is a float anyway")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}
