//! The open connections of a server: bounded, without keeping anyone out.

use std::collections::VecDeque;

use tokio::task::AbortHandle;
use tracing::debug;

use crate::panics::Contained;

/// Connections, oldest first. One more than fit, and the oldest is cut: an answer takes
/// milliseconds, so what is old is slow, silent or idle.
#[derive(Debug)]
pub(super) struct Crowd {
    name: &'static str,
    most: usize,
    open: VecDeque<AbortHandle>,
}

impl Crowd {
    /// Of a server with this name in the log.
    pub(super) fn new(name: &'static str, most: usize) -> Self {
        Self { name, most, open: VecDeque::new() }
    }

    /// Serves one more.
    pub(super) fn serve(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.make_room();
        self.open.push_back(tokio::spawn(Contained::new(connection)).abort_handle());
    }

    /// Forgets connections that have ended; if there still is no room for one more, cuts the oldest.
    fn make_room(&mut self) {
        self.open.retain(|task| !task.is_finished());
        if self.open.len() >= self.most
            && let Some(oldest) = self.open.pop_front()
        {
            debug!("{} connection cut: too many, and it is the oldest", self.name);
            oldest.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_than_fits_cuts_the_oldest_that_is_still_open() {
        const MOST: usize = 3;
        let mut tasks = Vec::new();
        let mut crowd = Crowd::new("test", MOST);
        for _ in 0..MOST {
            crowd.make_room();
            let task = tokio::spawn(std::future::pending::<()>());
            crowd.open.push_back(task.abort_handle());
            tasks.push(task);
        }
        tasks[0].abort();
        assert!((&mut tasks[0]).await.is_err());
        crowd.make_room();
        assert_eq!(crowd.open.len(), MOST - 1, "the ended one made room enough");
        let one_more = tokio::spawn(std::future::pending::<()>());
        crowd.open.push_back(one_more.abort_handle());
        crowd.make_room();
        assert!((&mut tasks[1]).await.is_err_and(|error| error.is_cancelled()));
        assert!(!tasks[2].is_finished() && !one_more.is_finished());
    }
}
