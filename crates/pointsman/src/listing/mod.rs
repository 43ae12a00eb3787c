//! Lists the tables of the packet path for operators, on threads that come last: workers notice nothing.
//!
//! Flows are read without a lock, beside their workers. Templates are read a page at a time, each as
//! long under a lock as a sweep. What is listed goes out by a short queue, whose end a slow reader holds
//! back: nothing piles up.

mod filter;
mod names;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use api::listing::{
    Flow, FlushPersistence, ListFlows, ListTemplates, Page, Template as ListedTemplate,
};
use api::request::{Answer, VERSION};
use dataplane::{FlowReader, SharedTables, Tick, Timeouts};
use serde::Serialize;
use tokio::sync::mpsc;

use filter::{FlowFilter, TemplateFilter};
pub use names::{Named, Names};

use crate::panics::contain;
use crate::{clock, priority};

/// What a listing is made from.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The flows of each worker.
    pub flows: Vec<FlowReader>,
    /// How long flows are remembered.
    pub timeouts: Timeouts,
    /// The templates.
    pub shared: Arc<SharedTables>,
    /// What the slots in them stand for.
    pub names: Names,
}

/// Lines of an answer, on their way.
pub type Lines = mpsc::Receiver<Vec<u8>>;

/// Lines that wait for a reader at most.
const QUEUE: usize = 4;
/// Buckets of 16 flows that make a line.
const BUCKETS: usize = 64;
/// Templates that make a line, at most.
const TEMPLATES: usize = 1024;

impl Tables {
    /// Lists flows.
    ///
    /// # Errors
    /// A filter means nothing; a sentence.
    pub fn flows(self, wanted: &ListFlows) -> Result<Lines, String> {
        let filter = FlowFilter::new(wanted, &self.names)?;
        start(move |out| {
            priority::yield_to_all();
            for reader in &self.flows {
                for from in (0..reader.buckets()).step_by(BUCKETS) {
                    let flows = reader.page(from, BUCKETS, &self.timeouts, clock::now());
                    let listed = flows.filter(|flow| filter.takes(flow));
                    out.entries(listed.map(|flow| self.names.flow(&flow)).collect())?;
                }
            }
            Some(())
        })
    }

    /// Lists templates.
    ///
    /// # Errors
    /// A filter means nothing; a sentence.
    pub fn templates(self, wanted: &ListTemplates) -> Result<Lines, String> {
        let filter = TemplateFilter::new(wanted, &self.names)?;
        start(move |out| {
            let mut after = None;
            loop {
                let now = clock::now();
                let page = self.shared.persistence.page(after, TEMPLATES, now);
                let listed = page.entries.iter().filter(|entry| filter.takes(entry));
                out.entries(listed.map(|entry| self.names.template(entry, now)).collect())?;
                after = page.next;
                if after.is_none() {
                    return Some(());
                }
            }
        })
    }

    /// Forgets templates; how many. Blocks for as long as it takes.
    ///
    /// # Errors
    /// A filter means nothing; a sentence.
    pub fn flush(&self, wanted: FlushPersistence) -> Result<u64, String> {
        let FlushPersistence { source, service } = wanted;
        let wanted = ListTemplates { source, service, backend: None };
        let filter = TemplateFilter::new(&wanted, &self.names)?;
        let persistence = &self.shared.persistence;
        let flushed = (0..persistence.maps()).map(|map| {
            let templates = persistence.flush(map, |key| filter.means(key));
            std::thread::yield_now();
            templates as u64
        });
        Ok(flushed.sum())
    }
}

/// Where a listing goes to.
struct Out {
    lines: mpsc::Sender<Vec<u8>>,
}

impl Out {
    /// `None`: the reader is gone.
    fn entries<T: Serialize>(&self, entries: Vec<T>) -> Option<()> {
        if entries.is_empty() { Some(()) } else { self.line(Page { entries, last: false }) }
    }

    fn line<T: Serialize>(&self, page: Page<T>) -> Option<()> {
        let answer = Answer { version: VERSION, ok: Some(page), error: None };
        let mut line = serde_json::to_vec(&answer).ok()?;
        line.push(b'\n');
        self.lines.blocking_send(line).ok()
    }
}

/// Starts a thread that lists. Its last line says that it is one, unless it panicked.
fn start(list: impl FnOnce(&Out) -> Option<()> + Send + 'static) -> Result<Lines, String> {
    let (lines, received) = mpsc::channel(QUEUE);
    let out = Out { lines };
    let run = move || {
        contain(|| list(&out).and_then(|()| out.line(Page::<()> { entries: vec![], last: true })));
    };
    let thread = std::thread::Builder::new().name("listing".to_owned()).spawn(run);
    thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(received)
}

impl Names {
    fn flow(&self, flow: &dataplane::SeenFlow) -> Flow<'_> {
        let key = &flow.key;
        let Named { service, backend, address } = self.of(flow.backend);
        Flow {
            protocol: key.protocol,
            source: Cow::Owned(endpoint(key.src, key.src_port)),
            destination: Cow::Owned(endpoint(key.dst, key.dst_port)),
            service: Cow::Borrowed(service),
            backend: Cow::Borrowed(backend),
            address: *address,
            state: flow.state.into(),
            idle_seconds: flow.idle.as_secs_f64(),
            expires_seconds: flow.left.as_secs_f64(),
        }
    }

    fn template(&self, entry: &dataplane::TemplateEntry, now: Tick) -> ListedTemplate<'_> {
        let Named { backend, address, .. } = self.of(entry.backend);
        ListedTemplate {
            source: entry.key.source.ip(),
            service: Cow::Borrowed(self.owner(entry.key.service)),
            backend: Cow::Borrowed(backend),
            address: *address,
            live_flows: entry.live_flows,
            expires_seconds: entry.deadline.saturating_since(now).as_secs_f64(),
        }
    }
}

fn endpoint(address: dataplane::Addr, port: u16) -> String {
    std::net::SocketAddr::new(address.ip(), port).to_string()
}
