//! nginx as a backend: one process per backend, own configuration, own directory.
//!
//! `master_process off` by default: one process, so that SIGKILL ends the whole server
//! at once (a worker would outlive its master) and its answers stop as they do when a machine's
//! server crashes.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{Doing as _, Result},
    host::require_tools,
    node::Node,
    process::Process,
};

/// How an nginx runs.
#[derive(Clone, Debug)]
pub struct NginxStyle {
    /// Worker processes under a master; 0: one process that is both.
    pub workers: u8,
    /// How long it keeps a connection without a request.
    pub keepalive: Duration,
    /// Certificate and key in PEM for TLS on port 443; none: no TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Default for NginxStyle {
    /// One process; a kept connection ends only when the client or the test wants it to.
    fn default() -> Self {
        Self { workers: 0, keepalive: Duration::from_secs(3600), certificate: None }
    }
}

/// A running nginx. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    name: String,
}

impl Nginx {
    /// Starts it on `node`, serving the files in `root`, and waits until it listens.
    pub(crate) fn start(node: &Node, root: &Path, style: &NginxStyle) -> Result<Self> {
        require_tools(&["nginx"])?;
        let dir = node.dir().join("nginx");
        fs::create_dir_all(&dir).doing(|| format!("make {}", dir.display()))?;
        let config = dir.join("nginx.conf");
        let text = configuration(&node.name(), &dir, root, style);
        fs::write(&config, text).doing(|| format!("write {}", config.display()))?;
        let (config, prefix) = (config.display().to_string(), dir.display().to_string());
        let error_log = format!("{prefix}/error.log");
        let argv = ["nginx", "-p", &prefix, "-e", &error_log, "-c", &config];
        let name = format!("nginx on {}", node.name());
        let mut process = Process::start(node.netns(), &name, &argv, &dir.join("output.log"))?;
        process.wait_until("listens on port 80", Duration::from_secs(5), |_| {
            node.netns().enter(|| TcpStream::connect("127.0.0.1:80").is_ok())
        })?;
        Ok(Self { process, name: node.name() })
    }

    /// The name that its answers carry in `X-Backend`: that of its node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process ids of its workers: the children of the master.
    ///
    /// # Errors
    /// When it has ended.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
        Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// The process, to be stopped, paused or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn configuration(name: &str, dir: &Path, root: &Path, style: &NginxStyle) -> String {
    let (dir, root) = (dir.display(), root.display());
    let processes = match style.workers {
        0 => "master_process off;".to_owned(),
        workers => format!("user root;\nworker_processes {workers};"),
    };
    let tls = style.certificate.as_ref().map_or_else(String::new, |(certificate, key)| {
        let (certificate, key) = (certificate.display(), key.display());
        format!(
            "listen 443 ssl;
        listen [::]:443 ssl ipv6only=on;
        ssl_certificate {certificate};
        ssl_certificate_key {key};"
        )
    });
    let keepalive = style.keepalive.as_secs();
    format!(
        "daemon off;
{processes}
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
worker_rlimit_nofile 65536;
events {{
    worker_connections 16384;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    keepalive_timeout {keepalive}s;
    keepalive_requests 1000000000;
    open_file_cache max=100;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096 ipv6only=on;
        {tls}
        root {root};
        add_header X-Backend {name} always;
        location = /health {{ return 200 \"ok\\n\"; }}
    }}
}}
"
    )
}
