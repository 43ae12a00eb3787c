//! Doors to the node's state: HTTP for machines on the network, a Unix socket for operators.

pub mod control_socket;
pub mod http;

use tokio::sync::{mpsc, oneshot};

use crate::status::Status;

/// A question to the control loop: where to send the status.
pub type Query = oneshot::Sender<Status>;

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
        self.0.send(sender).await.ok()?;
        receiver.await.ok()
    }
}
