//! `pointsman run`: the daemon.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use config::{Diagnostics, Parsed, Span};
use tokio::net::TcpListener;
use tracing::info;

use super::{Exit, color, load, print_error};
use crate::node::Node;
use crate::priority;
use crate::serve::control_socket::ControlSocket;
use crate::serve::{Source, http};

/// Run the balancer in the foreground
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file
    #[arg(long, default_value = "/etc/pointsman/pointsman.toml")]
    config: PathBuf,
}

impl Run {
    pub(super) fn run(&self) -> Exit {
        let Ok(parsed) = load(&self.config) else { return Exit::Failed };
        start_log();
        // What is computed beside the control thread does not go before the workers.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_start(priority::lower)
            .build();
        let result = runtime
            .context("cannot start the control thread")
            .and_then(|runtime| runtime.block_on(serve(parsed)));
        match result {
            Ok(()) => Exit::Done,
            Err(error) => {
                let text = format!("{error:#}");
                let prefix = if text.starts_with("error") { "" } else { "error: " };
                print_error(&format!("{prefix}{text}"));
                Exit::Failed
            }
        }
    }
}

async fn serve(parsed: Parsed) -> Result<()> {
    let Parsed { desired, spans, .. } = parsed;
    // Doors first: an address in use is found before any interface is touched.
    let http = match desired.metrics_listen {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            let message = format!("cannot listen on {address} for metrics: {error}");
            let help = "name a free address of this node as `listen` in [metrics], or \"off\"";
            located(&spans.metrics_listen(), message, help)
        })?),
        None => None,
    };
    let control = ControlSocket::bind(&desired.control_socket)
        .map_err(|error| located(&spans.control_socket(), error.to_string(), error.help()))?;
    let (source, queries) = Source::new();
    let (node, inputs) = Node::start(desired, &spans, queries).await?;
    if let Some(listener) = http {
        info!(address = ?listener.local_addr(), "serving /metrics, /status.json, /readyz");
        tokio::spawn(http::serve(listener, source.clone()));
    }
    tokio::spawn(control.serve(source));
    node.run(inputs).await
}

/// A mistake that only the machine could find, rendered.
fn located(place: &Span, message: String, help: &str) -> anyhow::Error {
    anyhow::anyhow!("{}", Diagnostics::at(place, message, help).render(false).trim_end())
}

fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| "info".into());
    // Set twice only by tests that run two daemons in one process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color())
        .try_init();
}
