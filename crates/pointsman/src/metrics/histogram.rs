//! Histograms that are filled elsewhere, by threads that must not call a library that locks.

use std::marker::PhantomData;

use api::status::Histogram;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, proto};

use super::labels::LabelSet;

/// One histogram for each set of labels.
pub(super) struct Histograms<L> {
    desc: Desc,
    family: MetricFamily,
    labels: PhantomData<fn(&L)>,
}

impl<L: LabelSet> Histograms<L> {
    /// None yet; `name` without the prefix.
    pub(super) fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        let name = format!("pointsman_{name}");
        let labels = L::NAMES.iter().map(|label| (*label).to_owned()).collect();
        let opts = Opts::new(&name, help).variable_labels(labels);
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        Ok(Self { desc: opts.describe()?, family, labels: PhantomData })
    }

    /// Adds one.
    pub(super) fn add(&mut self, labels: &L, histogram: &Histogram) {
        let labels = L::NAMES.iter().zip(labels.values()).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(value);
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        metric.set_histogram(exposed(histogram));
        self.family.mut_metric().push(metric);
    }
}

impl<L> Collector for Histograms<L> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.family.clone()]
    }
}

fn exposed(histogram: &Histogram) -> proto::Histogram {
    let mut exposed = proto::Histogram::default();
    let mut cumulative = 0;
    let buckets = histogram.bounds.iter().zip(&histogram.counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    exposed.set_bucket(buckets.collect());
    exposed.set_sample_count(histogram.counts.iter().sum());
    exposed.set_sample_sum(histogram.sum);
    exposed
}
