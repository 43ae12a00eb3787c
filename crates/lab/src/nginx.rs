//! nginx as a backend: one process per backend, own configuration, own directory.
//!
//! `master_process off`: one process, so that SIGKILL ends the whole server at once (a worker
//! would outlive its master) and its answers stop as they do when a machine's server crashes.

use std::{fs, net::TcpStream, path::Path, time::Duration};

use crate::{
    error::{Doing as _, Result},
    host::require_tools,
    node::Node,
    process::Process,
};

/// A running nginx. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    name: String,
}

impl Nginx {
    /// Starts it on `node`, serving the files in `root`, and waits until it listens.
    pub(crate) fn start(node: &Node, root: &Path) -> Result<Self> {
        require_tools(&["nginx"])?;
        let dir = node.dir().join("nginx");
        fs::create_dir_all(&dir).doing(|| format!("make {}", dir.display()))?;
        let config = dir.join("nginx.conf");
        let text = configuration(&node.name(), &dir, root);
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

    /// The process, to be stopped, paused or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// `keepalive_requests` and `keepalive_timeout` are so large that a kept connection ends only when
/// the client or the test wants it to.
fn configuration(name: &str, dir: &Path, root: &Path) -> String {
    let (dir, root) = (dir.display(), root.display());
    format!(
        "daemon off;
master_process off;
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
    keepalive_timeout 3600s;
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
        root {root};
        add_header X-Backend {name} always;
        location = /health {{ return 200 \"ok\\n\"; }}
    }}
}}
"
    )
}
