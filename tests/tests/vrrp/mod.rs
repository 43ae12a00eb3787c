//! Two balancers with one VRRP instance, a UDP service, and probes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use lab::{
    EchoResponder, Lab, LabError, Nginx, Pointsman, ProbeClient, Result, ServiceText, VrrpText,
    pointsman_binary,
};
use serde_json::Value;

/// How the instance is configured.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) interval: Duration,
    pub(crate) priorities: [u8; 2],
    /// Further lines of `[[vrrp]]`.
    pub(crate) extra: String,
    /// A second instance for IPv6, in one group with the first.
    pub(crate) both_families: bool,
    /// Also an HTTP service on the VIP, with nginx on the backends.
    pub(crate) web: bool,
}

impl Settings {
    /// 100 ms adverts, the first balancer preferred.
    pub(crate) fn fast() -> Self {
        Self {
            interval: ms(100),
            priorities: [150, 100],
            extra: String::new(),
            both_families: false,
            web: false,
        }
    }

    /// `Skew_Time` of the second balancer.
    pub(crate) fn skew_of_backup(&self) -> Duration {
        self.interval * (256 - u32::from(self.priorities[1])) / 256
    }

    pub(crate) fn config(&self, lab: &Lab, index: usize) -> String {
        let instance = |name: &str, extra: &str| {
            VrrpText::new(name, self.priorities[index], self.interval).with(extra).to_toml()
        };
        let service = ServiceText::web(lab).with("vrrp = \"VI_1\"");
        let mut text = service.clone().udp().port(PORT).to_toml();
        if self.web {
            // Checked, as services are: a node that lost its link must not come back without backends.
            text += &service.persistence("50s").health(tests::health::HTTP).service_toml();
        }
        if self.both_families {
            let extra = format!("{}\ngroup = \"edge\"", self.extra);
            let six = ServiceText::web_v6(lab).with("vrrp = \"VI_6\"").service_toml();
            return text + &six + &instance("VI_1", &extra) + &instance("VI_6", &extra);
        }
        text + &instance("VI_1", &self.extra)
    }
}

/// The lab and what runs in it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) balancers: [Option<Pointsman>; 2],
    _echo: Vec<EchoResponder>,
    _web: Vec<Nginx>,
    pub(crate) lab: Lab,
    pub(crate) settings: Settings,
}

const PORT: u16 = 7007;
const LONG: Duration = Duration::from_secs(15);

impl Pair {
    /// Both run, the first one is Active.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let lab = Lab::builder().balancers(2).backends(2).build()?;
        let address = lab.vip_port(PORT);
        let echo = (0..2)
            .map(|at| EchoResponder::start(lab.backend(at).netns(), address))
            .collect::<Result<Vec<_>>>()?;
        let web = if settings.web { lab.start_web()? } else { Vec::new() };
        let start = |at: usize| lab.start_pointsman(at, &settings.config(&lab, at)).map(Some);
        let balancers = [start(0)?, start(1)?];
        let settings = settings.clone();
        let pair = Self { balancers, _echo: echo, _web: web, lab, settings };
        pair.wait_active(0)?;
        pair.wait_reachable()?;
        Ok(pair)
    }

    pub(crate) fn probe(&self) -> Result<ProbeClient> {
        ProbeClient::start(self.lab.client(0).netns(), self.lab.vip_port(PORT), 1000)
    }

    /// Waits until a hundred probes in a row are answered.
    pub(crate) fn wait_reachable(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let probes = self.probe()?;
            self.wait(ms(100));
            let report = probes.finish();
            if report.sent > 0 && report.answered == report.sent {
                return Ok(());
            }
            if begin.elapsed() > LONG {
                return Err(self.late(&format!("no answers: {report:?}")));
            }
        }
    }

    pub(crate) fn first(&mut self) -> &mut Pointsman {
        self.balancers[0].as_mut().expect("it runs")
    }

    pub(crate) fn second(&mut self) -> &mut Pointsman {
        self.balancers[1].as_mut().expect("it runs")
    }

    /// Lets time pass: the effect under test takes as long.
    pub(crate) fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    pub(crate) fn kill_first(&mut self) -> Result<()> {
        self.first().process().kill()
    }

    /// Starts the first balancer again.
    pub(crate) fn restart_first(&mut self) -> Result<()> {
        self.spawn_first()?;
        let first = self.balancers[0].as_mut();
        first.map_or(Ok(()), |balancer| balancer.wait_ready(LONG))
    }

    /// The same without waiting until it is ready.
    pub(crate) fn spawn_first(&mut self) -> Result<()> {
        self.balancers[0] = None;
        let config = self.settings.config(&self.lab, 0);
        self.balancers[0] = Some(Pointsman::spawn(self.lab.balancer(0), &config)?);
        Ok(())
    }

    pub(crate) fn resign(&self, index: usize, time: &str) -> Result<()> {
        let Some(balancer) = &self.balancers[index] else { return Ok(()) };
        let (binary, socket) = (pointsman_binary()?, balancer.socket().display().to_string());
        let binary = binary.display().to_string();
        let argv = [binary.as_str(), "vrrp", "resign", "--for", time, "--socket", &socket];
        self.lab.balancer(index).netns().run(&argv, LONG)?.ok().map(drop)
    }

    /// The instance as the status document has it; `Null` when the balancer does not answer.
    pub(crate) fn instance(&self, index: usize) -> Value {
        self.nth_instance(index, 0)
    }

    /// The same of a further instance.
    pub(crate) fn nth_instance(&self, index: usize, at: usize) -> Value {
        self.balancers[index].as_ref().map_or(Value::Null, |balancer| balancer.vrrp(at))
    }

    pub(crate) fn states(&self) -> Result<[String; 2]> {
        Ok([0, 1].map(|at| self.instance(at)["state"].as_str().unwrap_or("none").to_owned()))
    }

    /// Waits until this balancer has the VIPs.
    pub(crate) fn wait_active(&self, index: usize) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < LONG {
            if self.instance(index)["vips_active"] == Value::Bool(true) {
                return Ok(());
            }
            std::thread::sleep(ms(5));
        }
        Err(self.late(&format!("balancer {index} does not become Active")))
    }

    /// After traffic stopped: the packet equation and the frame accounting of every worker.
    pub(crate) fn check_packets(&self) {
        for balancer in self.balancers.iter().flatten() {
            tests::close_books(balancer);
        }
    }

    /// No take-over looked like a foreign claim to the VIPs.
    pub(crate) fn check_no_claims(&self) {
        for index in 0..2 {
            let instance = self.instance(index);
            let claims = instance["foreign_claims"].as_u64().unwrap_or(0);
            assert_eq!(claims, 0, "{instance:#}");
        }
    }

    pub(crate) fn late(&self, what: &str) -> LabError {
        let logs = self.balancers.iter().flatten().map(Pointsman::log);
        let what = format!("{what}\n{}", logs.collect::<Vec<_>>().join("\n-----\n"));
        LabError::Timeout { what, limit: LONG }
    }
}

/// Kills the Active at different phases; the outage of no run exceeds `limit`.
pub(crate) fn kill_and_measure(mut pair: Pair, runs: u32, limit: Duration) -> Result<()> {
    let mut outages = Vec::new();
    for run in 0..runs {
        let probes = pair.probe()?;
        pair.wait(ms(300 + 17 * u64::from(run)));
        pair.kill_first()?;
        pair.wait_active(1)?;
        pair.wait(ms(300));
        let report = probes.finish();
        outages.push(report.longest_outage());
        pair.restart_first()?;
        pair.wait_active(0)?;
        pair.wait_reachable()?;
    }
    note(&format!("kill -9 at {:?} adverts: {outages:?}", pair.settings.interval));
    assert!(outages.iter().all(|outage| *outage <= limit), "{outages:?}");
    pair.check_no_claims();
    pair.check_packets();
    Ok(())
}

/// Shown with `--nocapture`.
#[expect(clippy::print_stdout, reason = "what was measured is for people")]
pub(crate) fn note(text: &str) {
    println!("{text}");
}

/// Runs of each measurement.
pub(crate) fn runs() -> u32 {
    runs_of(5)
}

/// That many, or 20 in the long tests.
pub(crate) fn runs_of(few: u32) -> u32 {
    if std::env::var_os("POINTSMAN_LONG").is_some_and(|value| value == "1") { 20 } else { few }
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
