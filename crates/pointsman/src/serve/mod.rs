//! Doors to the node's state: HTTP for machines on the network, a Unix socket for operators.

pub mod control_socket;
mod crowd;
pub mod http;
mod patience;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use api::status::Status;

/// A question to the control loop, with where to send the answer.
#[derive(Debug)]
pub enum Query {
    /// The state.
    Status(oneshot::Sender<Status>),
    /// Give the VIPs of an instance (`None`: of all) to another node, and do not take them back
    /// for so long. Answered with the instances that resign, or why none does.
    Resign(Option<String>, Duration, oneshot::Sender<Result<Vec<String>, String>>),
}

/// Where the state comes from: the control loop answers between two events.
#[derive(Clone, Debug)]
pub struct Source(mpsc::Sender<Query>);

impl Source {
    /// A source and the questions that arrive through it.
    pub fn new() -> (Self, mpsc::Receiver<Query>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// The state now; `None` when the node is stopping.
    pub async fn status(&self) -> Option<Status> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Query::Status(sender)).await.ok()?;
        receiver.await.ok()
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
        const STOPPING: &str = "the daemon is stopping";
        let (sender, receiver) = oneshot::channel();
        let query = Query::Resign(instance, time, sender);
        self.0.send(query).await.map_err(|_| STOPPING.to_owned())?;
        receiver.await.unwrap_or_else(|_| Err(STOPPING.to_owned()))
    }
}
