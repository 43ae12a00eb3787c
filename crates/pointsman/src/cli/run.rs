//! `pointsman run`: the daemon.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use api::request::Reload;
use clap::Args;
use config::{Diagnostics, Parsed, Span};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tracing::info;

use super::{Exit, color, load, print_error};
use crate::configuration::{self, Loaded};
use crate::node::Node;
use crate::serve::control_socket::ControlSocket;
use crate::serve::{Source, http};
use crate::{log, panics, priority, process, signals};

/// Run the balancer in the foreground
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file
    #[arg(long, default_value = "/etc/pointsman/pointsman.toml")]
    config: PathBuf,
    /// Which `[node.NAME]` of the file this is; the name of the host without it
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Run {
    pub(super) fn run(&self) -> Exit {
        let node = self.node.clone().unwrap_or_else(configuration::host_name);
        let Ok(loaded) = load(&self.config, &node) else { return Exit::Failed };
        let file = configuration::absolute(&self.config);
        if let Err(error) = log::start(color()) {
            print_error(&format!("error: cannot start the log: {error}"));
            return Exit::Failed;
        }
        panics::install_hook();
        // A panic of this thread drops the node, which releases the VIPs first; the hook has logged it.
        let result = catch_unwind(AssertUnwindSafe(|| run(loaded, file, &node)))
            .unwrap_or_else(|_| Err(anyhow!("the control thread panicked; see the log above")));
        panics::log_traces();
        match result {
            Ok(()) => {
                log::end("");
                Exit::Done
            }
            Err(error) => {
                let text = format!("{error:#}");
                let prefix = if text.starts_with("error") { "" } else { "error: " };
                log::end(&format!("{prefix}{text}\n"));
                Exit::Failed
            }
        }
    }
}

fn run(loaded: Loaded, file: PathBuf, node: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(priority::lower)
        .build()
        .context("cannot start the control thread")?;
    process::adopt_orphans()?;
    let result = runtime.block_on(serve(loaded, file, node));
    process::end_all();
    // A page that is being made, or a name that is being looked up, is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(loaded: Loaded, file: PathBuf, node: &str) -> Result<()> {
    let hangups = signals::hangups()?;
    let Parsed { desired, spans, .. } = &loaded.parsed;
    // Of several daemons that start at the same time, the one with the lock of the control socket goes
    // on. An address in use is found before any interface is touched, too.
    let control = ControlSocket::bind(&desired.control_socket)
        .map_err(|error| located(&spans.control_socket(), error.to_string(), error.help()))?;
    let http = match desired.metrics_listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            let message = format!("cannot listen on {address} for metrics: {error}");
            let help = "name a free address of this node as `listen` in [metrics], or \"off\"";
            located(&spans.metrics_listen(), message, help)
        })?),
        None => None,
    };
    let (source, queries) = Source::new(file, node);
    let (node, inputs) = Node::start(loaded, queries).await?;
    if let Some(listener) = http {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "serving /metrics, /status.json, /healthz, /readyz");
        }
        tokio::spawn(http::serve(listener, source.clone()));
    }
    tokio::spawn(reload_at(hangups, source.clone()));
    tokio::spawn(control.serve(source));
    node.run(inputs).await
}

/// Reloads at each SIGHUP; what became of it is in the log.
async fn reload_at(mut hangups: Signal, source: Source) {
    while hangups.recv().await.is_some() {
        info!("SIGHUP: reloading");
        // The node logs what changes, or why nothing does.
        let _ = source.reload(Reload::default()).await;
    }
}

/// A mistake that only the machine could find, rendered.
fn located(place: &Span, message: String, help: &str) -> anyhow::Error {
    anyhow::anyhow!("{}", Diagnostics::at(place, message, help).render(false).trim_end())
}
