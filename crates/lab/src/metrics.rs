//! The Prometheus text format, read back: `name{label="value"} → number`. And the small HTTP GET
//! that fetches it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::error::{Doing as _, LabError, Result};

/// All samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    samples: BTreeMap<Series, f64>,
}

/// Name and labels of a series; labels are sorted, so their order in the text does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads the text format. Comments and empty lines are skipped, time stamps ignored.
    ///
    /// # Errors
    /// The first line that is not a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (series, value) = parse_sample(line).ok_or_else(|| LabError::Malformed {
                what: "metrics".into(),
                detail: line.to_owned(),
            })?;
            samples.insert(series, value);
        }
        Ok(Self { samples })
    }

    /// The series with exactly these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.samples.get(&Series { name: name.to_owned(), labels }).copied()
    }

    /// Sum over all series of that name that have at least these labels; 0 without any.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// Sum per value of one label.
    #[must_use]
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.matching(name, &[]) {
            if let Some(key) = series.labels.get(label) {
                *sums.entry(key.clone()).or_insert(0.0) += value;
            }
        }
        sums
    }

    /// Whether there is any series of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.matching(name, &[]).next().is_some()
    }

    /// All names, sorted, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        let names = self.samples.keys().map(|series| series.name.as_str());
        names.filter(move |name| last.replace(*name) != Some(*name))
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Series, f64)> {
        let fits = move |series: &Series| {
            series.name == name
                && labels.iter().all(|(k, v)| series.labels.get(*k).is_some_and(|x| x == v))
        };
        self.samples.iter().filter(move |(series, _)| fits(series)).map(|(s, v)| (s, *v))
    }
}

/// Status and body of a GET over HTTP/1.0, whole exchange within about `limit` per step.
///
/// # Errors
/// Connection errors, time-outs, or a reply that is not HTTP.
pub fn http_get(to: SocketAddr, path: &str, limit: Duration) -> Result<(u16, String)> {
    let doing = || format!("GET http://{to}{path}");
    let mut stream = TcpStream::connect_timeout(&to, limit).doing(doing)?;
    stream.set_read_timeout(Some(limit)).doing(doing)?;
    stream.set_write_timeout(Some(limit)).doing(doing)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).doing(doing)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).doing(doing)?;
    let reply = String::from_utf8_lossy(&reply);
    let parsed = reply.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    let detail = || reply.chars().take(200).collect();
    parsed.ok_or_else(|| LabError::Malformed { what: doing(), detail: detail() })
}

fn parse_sample(line: &str) -> Option<(Series, f64)> {
    let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_ascii_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    (!name.is_empty()).then(|| (Series { name: name.to_owned(), labels }, value))
}

/// Reads up to the closing quote and undoes the escapes `\\`, `\"` and `\n`.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP x_total Something.
# TYPE x_total counter
x_total{service=\"web\",result=\"forwarded\"} 12
x_total{result=\"dropped\",service=\"web\"} 3 1700000000000
x_total{service=\"dns\",result=\"forwarded\"} 1e3

up 1
odd{text=\"a \\\"b\\\", {c} \\\\ \\n\",} +Inf
";

    #[test]
    fn reads_samples_whatever_the_order_of_labels() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let labels = [("result", "dropped"), ("service", "web")];
        assert_eq!(metrics.value("x_total", &labels), Some(3.0));
        assert_eq!(metrics.value("x_total", &[("service", "web")]), None);
        assert_eq!(metrics.value("up", &[]), Some(1.0));
        assert_eq!(metrics.sum("x_total", &[("service", "web")]), 15.0);
        assert_eq!(metrics.sum("x_total", &[]), 1015.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
        assert_eq!(metrics.by("x_total", "service")["dns"], 1000.0);
        assert_eq!(metrics.names().collect::<Vec<_>>(), ["odd", "up", "x_total"]);
        assert!(metrics.has("up") && !metrics.has("down"));
    }

    #[test]
    fn undoes_escapes() {
        let metrics = Metrics::parse(TEXT).unwrap();
        let text = "a \"b\", {c} \\ \n";
        assert_eq!(metrics.value("odd", &[("text", text)]), Some(f64::INFINITY));
    }

    #[test]
    fn names_the_bad_line() {
        for bad in ["x", "x{a=\"b} 1", "x{a=b} 1", "x one", "{a=\"b\"} 1"] {
            let error = Metrics::parse(&format!("up 1\n{bad}\n")).unwrap_err().to_string();
            assert!(error.ends_with(bad), "{error}");
        }
    }
}
