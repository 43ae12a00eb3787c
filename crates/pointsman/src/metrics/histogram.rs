//! Histograms that were filled elsewhere: who fills them calls no library that locks.

use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, proto};

use crate::status::Histogram;

/// One histogram for each set of labels.
pub(super) struct Histograms {
    desc: Desc,
    family: MetricFamily,
    labels: Vec<String>,
}

impl Histograms {
    /// None yet; `name` without the prefix.
    pub(super) fn new(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self> {
        let name = format!("pointsman_{name}");
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let opts = Opts::new(&name, help).variable_labels(labels.clone());
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        Ok(Self { desc: opts.describe()?, family, labels })
    }

    /// Adds one, with as many values as there are labels.
    pub(super) fn add(&mut self, values: &[&str], histogram: &Histogram) {
        let labels = self.labels.iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name(name.clone());
            label.set_value((*value).to_owned());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        metric.set_histogram(exposed(histogram));
        self.family.mut_metric().push(metric);
    }
}

impl Collector for Histograms {
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
