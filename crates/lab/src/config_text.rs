//! Configuration text for the product, as design and manual describe it: one service on one
//! interface, with the backends of a lab, and a VRRP instance for it. Tests that need more append
//! their own tables.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use crate::{node::Role, topology::Lab};

/// A service whose backends are those of a lab.
#[derive(Clone, Debug)]
pub struct ServiceText {
    name: Option<String>,
    vip: IpAddr,
    protocol: &'static str,
    port: u16,
    scheduler: String,
    persistence: Option<String>,
    backends: Vec<(String, IpAddr, u32)>,
    extra: String,
    checks: String,
}

impl ServiceText {
    /// TCP port 80 on the first VIP, `maglev`, no persistence, all backends with weight 1.
    #[must_use]
    pub fn web(lab: &Lab) -> Self {
        let backends = lab.nodes_of(Role::Backend);
        Self {
            name: None,
            vip: lab.vip().into(),
            protocol: "tcp",
            port: 80,
            scheduler: "maglev".into(),
            persistence: None,
            backends: backends.map(|rs| (rs.name(), rs.address().into(), 1)).collect(),
            extra: String::new(),
            checks: String::new(),
        }
    }

    /// The same on the IPv6 VIP, with the backends' IPv6 addresses.
    #[must_use]
    pub fn web_v6(lab: &Lab) -> Self {
        let backends = lab.nodes_of(Role::Backend);
        let backends = backends.map(|rs| (rs.name(), rs.address_v6().into(), 1)).collect();
        Self { vip: lab.vip_v6().into(), backends, ..Self::web(lab) }
    }

    /// Another name than protocol and port: a file may hold several services on one port.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// UDP instead of TCP.
    #[must_use]
    pub fn udp(mut self) -> Self {
        self.protocol = "udp";
        self
    }

    /// Another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Another VIP.
    #[must_use]
    pub fn vip(mut self, vip: IpAddr) -> Self {
        self.vip = vip;
        self
    }

    /// Another scheduler.
    #[must_use]
    pub fn scheduler(mut self, name: &str) -> Self {
        self.scheduler = name.into();
        self
    }

    /// Persistence with a time-out such as `50s`.
    #[must_use]
    pub fn persistence(mut self, timeout: &str) -> Self {
        self.persistence = Some(timeout.into());
        self
    }

    /// Weights of the first backends, in order.
    #[must_use]
    pub fn weights(mut self, weights: &[u32]) -> Self {
        for (backend, weight) in self.backends.iter_mut().zip(weights) {
            backend.2 = *weight;
        }
        self
    }

    /// Appends lines to the table `[[service]]`, before its sub-tables; for example
    /// `vrrp = "VI_1"`.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Appends a health check, a table `[[service.health]]` with these lines. Several are ANDed.
    #[must_use]
    pub fn health(mut self, lines: &str) -> Self {
        // Writing to a String cannot fail; likewise below.
        let _ = write!(self.checks, "\n[[service.health]]\n{lines}\n");
        self
    }

    /// The service alone; without [`ServiceText::name`] its name is protocol and port, for example
    /// `tcp-80`.
    #[must_use]
    pub fn service_toml(&self) -> String {
        let Self { vip, protocol, port, scheduler, extra, .. } = self;
        let name = self.name.clone().unwrap_or_else(|| format!("{protocol}-{port}"));
        let mut text = format!(
            "\n[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\n\
             protocol = \"{protocol}\"\nport = {port}\nscheduler = \"{scheduler}\"\n{extra}"
        );
        if let Some(timeout) = &self.persistence {
            let _ = write!(text, "\n[service.persistence]\ntimeout = \"{timeout}\"\n");
        }
        for (name, address, weight) in &self.backends {
            let _ = write!(
                text,
                "\n[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                 weight = {weight}\n"
            );
        }
        text + &self.checks
    }

    /// A whole file: the interface `eth0` and this service.
    #[must_use]
    pub fn to_toml(&self) -> String {
        format!("[[interface]]\nname = \"eth0\"\n{}", self.service_toml())
    }
}

/// A VRRP instance on `eth0`, VRID 51.
#[derive(Clone, Debug)]
pub struct VrrpText {
    name: String,
    priority: u8,
    interval: Duration,
    extra: String,
}

impl VrrpText {
    /// With adverts every `interval`, of which whole milliseconds count. A service names it with
    /// `vrrp = "NAME"`, see [`ServiceText::with`].
    #[must_use]
    pub fn new(name: &str, priority: u8, interval: Duration) -> Self {
        Self { name: name.into(), priority, interval, extra: String::new() }
    }

    /// Appends lines to the table.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// The table `[[vrrp]]`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Self { name, priority, interval, extra } = self;
        format!(
            "\n[[vrrp]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = 51\n\
             priority = {priority}\nadvert_interval = \"{}ms\"\n{extra}",
            interval.as_millis()
        )
    }
}
