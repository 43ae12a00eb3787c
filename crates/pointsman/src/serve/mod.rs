//! Doors to the node's state: HTTP for machines on the network, a Unix socket for operators.

pub mod control_socket;
mod crowd;
pub mod http;
mod patience;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::request::{Changed, Confirmed, Reload, Reloaded};
use api::status::Status;
use control::operator::Override;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::configuration::{self, Loaded};
use crate::explain::Setting;
use crate::listing::Tables;

/// A question to the control loop, with where to send the answer.
#[derive(Debug)]
pub enum Query {
    /// The state.
    Status(oneshot::Sender<Arc<Status>>),
    /// Give the VIPs of an instance (`None`: of all) to another node, and do not take them back
    /// for so long. Answered with the instances that resign, or why none does.
    Resign(Option<String>, Duration, oneshot::Sender<Result<Vec<String>, String>>),
    /// Take this configuration over. Answered with what changes, or why nothing does.
    Reload(Box<Loaded>, Reload, oneshot::Sender<Result<Reloaded, String>>),
    /// A configuration could not be read.
    Unreadable(String),
    /// Go back to the configuration before this one.
    Undo(oneshot::Sender<Result<Reloaded, String>>),
    /// Change the backends that this means, or (`None`) have them as in the configuration.
    Operate(String, Option<Override>, oneshot::Sender<Result<Changed, String>>),
    /// The tables of the packet path, to be listed.
    Tables(oneshot::Sender<Tables>),
    /// What is needed to say where a client would go.
    Setting(oneshot::Sender<Setting>),
    /// Keep the configuration that would be rolled back.
    Confirm(oneshot::Sender<Confirmed>),
}

/// Where the state comes from: the control loop answers between two events.
#[derive(Clone, Debug)]
pub struct Source {
    queries: mpsc::Sender<Query>,
    /// The configuration file; locked while it is read and taken over, so that what was read first is
    /// not taken over last.
    file: Arc<Mutex<PathBuf>>,
    /// Which node of the file this is.
    node: Arc<str>,
    /// One for each listing that may run.
    listings: Arc<Semaphore>,
}

/// Listings at a time: each has a thread and some hundred kilobytes, for as long as its reader takes.
const LISTINGS: usize = 8;

const STOPPING: &str = "the daemon is stopping";

impl Source {
    /// A source and the questions that arrive through it. `file`: what a reload reads, as the node of
    /// this name.
    pub fn new(file: PathBuf, node: &str) -> (Self, mpsc::Receiver<Query>) {
        let (queries, receiver) = mpsc::channel(16);
        let (file, listings) = (Arc::new(Mutex::new(file)), Arc::new(Semaphore::new(LISTINGS)));
        (Self { queries, file, node: node.into(), listings }, receiver)
    }

    /// The state, which may be a moment old if it takes long to gather ([`control::Reuse`]);
    /// `None` when the node is stopping.
    pub async fn status(&self) -> Option<Arc<Status>> {
        self.ask(Query::Status).await.ok()
    }

    /// Has VRRP instances resign, see [`Query::Resign`].
    ///
    /// # Errors
    /// No such instance, or the node is stopping.
    pub async fn resign(
        &self,
        instance: Option<String>,
        time: Duration,
    ) -> Result<Vec<String>, String> {
        self.ask(|sender| Query::Resign(instance, time, sender)).await?
    }

    /// Reads the configuration file and takes it over.
    ///
    /// # Errors
    /// Why nothing changed, for people, on several lines.
    pub async fn reload(&self, reload: Reload) -> Result<Reloaded, String> {
        let file = self.file.lock().await;
        let (path, node) = (file.clone(), Arc::clone(&self.node));
        let loaded = spawn_blocking(move || configuration::reread(&path, &node)).await;
        match loaded.unwrap_or_else(|_| Err("reading the configuration failed".to_owned())) {
            Ok(loaded) => {
                self.ask(|sender| Query::Reload(Box::new(loaded), reload, sender)).await?
            }
            Err(error) if reload.dry_run => Err(error),
            Err(error) => {
                let query = Query::Unreadable(error.clone());
                self.queries.send(query).await.map_err(|_| STOPPING.to_owned())?;
                Err(error)
            }
        }
    }

    /// Goes back to the configuration before the last one.
    ///
    /// # Errors
    /// There is none, or this machine cannot run it any more.
    pub async fn undo(&self) -> Result<Reloaded, String> {
        let _file = self.file.lock().await;
        self.ask(Query::Undo).await?
    }

    /// Keeps a configuration that would be rolled back otherwise.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn confirm(&self) -> Result<Confirmed, String> {
        self.ask(Query::Confirm).await
    }

    /// Changes the backends that `target` means; `None`: as in the configuration.
    ///
    /// # Errors
    /// It means none, or the node is stopping.
    pub async fn operate(
        &self,
        target: String,
        change: Option<Override>,
    ) -> Result<Changed, String> {
        self.ask(|sender| Query::Operate(target, change, sender)).await?
    }

    /// The tables of the packet path, to be listed.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn tables(&self) -> Result<Tables, String> {
        self.ask(Query::Tables).await
    }

    /// What is needed to say where a client would go.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn setting(&self) -> Result<Setting, String> {
        self.ask(Query::Setting).await
    }

    /// The right to list a table.
    ///
    /// # Errors
    /// As many listings run as may at a time.
    fn listing(&self) -> Result<OwnedSemaphorePermit, String> {
        let permit = Arc::clone(&self.listings).try_acquire_owned();
        permit.map_err(|_| format!("{LISTINGS} listings run already: end one of them first"))
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, String> {
        let (sender, receiver) = oneshot::channel();
        self.queries.send(query(sender)).await.map_err(|_| STOPPING.to_owned())?;
        receiver.await.map_err(|_| STOPPING.to_owned())
    }
}
