//! Publishes pictures in a thread of its own: the kernel waits until no program goes by the former one
//! any more, some 10 ms, and nothing else should.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Receiver, Sender, unbounded};
use steer::{FastPath, Picture};
use tracing::error;

/// The thread, and what it has done.
#[derive(Debug)]
pub struct Publisher {
    jobs: Option<Sender<Job>>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    generation: u64,
    picture: Picture,
}

impl Publisher {
    /// Starts it.
    ///
    /// # Errors
    /// What thread creation returns.
    pub fn start(fast_path: Arc<FastPath>) -> io::Result<Self> {
        let (jobs, received) = unbounded();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&acknowledged);
        let thread = Builder::new()
            .name("pictures".to_owned())
            .spawn(move || run(&fast_path, &received, &done))?;
        Ok(Self { jobs: Some(jobs), acknowledged, thread: Some(thread) })
    }

    /// Has the programs go by this picture of a snapshot; does not wait.
    pub fn publish(&self, generation: u64, picture: Picture) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job { generation, picture }));
        if sent.is_none_or(|sent| sent.is_err()) {
            error!("the thread that tells the XDP program of changes is gone");
        }
    }

    /// The generation that all programs go by, or a later one.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Acquire)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.jobs = None;
        // A panic in it was noticed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(fast_path: &FastPath, jobs: &Receiver<Job>, acknowledged: &AtomicU64) {
    while let Ok(job) = jobs.recv() {
        // What came meanwhile replaces it.
        let Job { generation, picture } = jobs.try_iter().last().unwrap_or(job);
        if let Err(error) = fast_path.publish(&picture) {
            error!(%error, "the XDP program forwards no flows until the next change");
            if let Err(error) = fast_path.withdraw() {
                error!(%error, "the XDP program may go by what is not true any more");
                continue;
            }
        }
        acknowledged.store(generation, Release);
    }
}
