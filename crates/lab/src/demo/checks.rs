//! What the stories about lost backends share: a balancer that checks its backends, and clients of
//! whom half come back and half are new.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lab::{Lab, Nginx, Node, Pointsman, ServiceText};
use serde_json::Value;

use super::{
    BACKENDS, QUEUES,
    story::{Seen, Telling},
};

/// Backends, and the balancer in front of them. Fields are dropped from the top.
pub(super) struct Site {
    pub(super) balancer: Pointsman,
    pub(super) web: Vec<Nginx>,
    pub(super) lab: Lab,
}

impl Site {
    pub(super) fn build() -> anyhow::Result<Self> {
        let lab = Lab::builder().backends(BACKENDS).queues(QUEUES).build()?;
        let web = lab.start_web().context("start the backends")?;
        let check = format!(
            "http = {{ path = \"/health\" }}\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {FALL}",
            INTERVAL.as_millis(),
            TIMEOUT.as_millis()
        );
        let service = ServiceText::web(&lab).name("web").persistence("50s").health(&check);
        let balancer = lab.start_pointsman(0, &service.to_toml())?;
        let site = Self { balancer, web, lab };
        site.wait_for_all()?;
        Ok(site)
    }

    /// Until then, the backends that are up already would get all clients.
    fn wait_for_all(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let up = |backend: &&Value| backend["state"] == "up";
        while self.backends().iter().filter(up).count() < self.web.len() {
            anyhow::ensure!(begin.elapsed() < SOON, "not all come up\n{}", self.balancer.log());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The backends, as the status document has them; none when it does not answer.
    fn backends(&self) -> Vec<Value> {
        let mut status = self.balancer.status();
        serde_json::from_value(status["services"][0]["backends"].take()).unwrap_or_default()
    }

    /// Source addresses to be taken in turn: every other one is one of [`RETURNING`], the others
    /// do not come twice before `fresh` of them are used up.
    pub(super) fn sources(&self, fresh: u16) -> Vec<IpAddr> {
        let mut returning = self.lab.client(0).sources(RETURNING + fresh);
        let fresh = returning.split_off(RETURNING.into());
        let pairs = fresh.into_iter().zip(returning.into_iter().cycle());
        pairs.flat_map(|(fresh, returning)| [returning, fresh]).collect()
    }

    /// The backend with the most connections, counted from 0.
    pub(super) fn busiest(&self) -> anyhow::Result<usize> {
        let backends = self.backends();
        let connections = |index: &usize| backends[*index]["connections"].as_u64();
        (0..backends.len()).max_by_key(connections).context("no backend")
    }

    pub(super) fn backend(&self, index: usize) -> &Node {
        self.lab.backend(index)
    }

    /// Lets the story go on until the balancer logs the change of a backend to `state`, as logs
    /// print it. Returns how long it took from the beginning of the phase.
    pub(super) fn watch_for(
        &self,
        story: &mut Telling,
        index: usize,
        state: &str,
    ) -> anyhow::Result<Option<Duration>> {
        let (name, change) = (self.backend(index).name(), format!("-> {state}"));
        let since = story.since();
        story.watch_for(&format!("{name} {state}"), || {
            let found = self.balancer.transition(&name, &change, since)?;
            Some(Seen { at: found.instant(), why: found.text })
        })
    }
}

/// Clients that come back, each from an address of its own.
pub(super) const RETURNING: u16 = 20;
/// The check of every backend; the rest are the defaults.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
pub(super) const TIMEOUT: Duration = Duration::from_millis(500);
pub(super) const FALL: u32 = 2;
const SOON: Duration = Duration::from_secs(5);
