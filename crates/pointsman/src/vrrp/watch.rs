//! Whether this node can forward: the workers' heartbeats, their sockets, the links, and the
//! control thread.

use std::sync::Arc;
use std::time::Duration;

use control::vrrp::Block;
use dataplane::{PortId, Tick};

use super::Instance;
use crate::worker::shared::WorkerShared;

/// What is watched. Looked at every [`LOOK_EVERY`].
#[derive(Debug, Default)]
pub(super) struct Watch {
    workers: Vec<Watched>,
    last_look: Option<Tick>,
    /// After a stall of this very thread the others need a moment to show that they live.
    lenient_until: Tick,
}

#[derive(Debug)]
struct Watched {
    port: PortId,
    shared: Arc<WorkerShared>,
    unable_since: Option<Tick>,
}

/// How often to look.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A worker without a sign of life, or a queue without a socket or whose socket does not receive or
/// send, for this long cannot forward.
const DEAD_AFTER: Duration = Duration::from_millis(700);

impl Watch {
    /// Other workers than before.
    pub(super) fn watch(&mut self, workers: Vec<(PortId, Arc<WorkerShared>)>) {
        let mut list = Vec::with_capacity(workers.len());
        for (port, shared) in workers {
            let old = self.workers.iter().find(|old| Arc::ptr_eq(&old.shared, &shared));
            let unable_since = old.and_then(|old| old.unable_since);
            list.push(Watched { port, shared, unable_since });
        }
        self.workers = list;
    }

    /// Notes the time; call before asking for [`block`](Self::block).
    pub(super) fn look(&mut self, now: Tick) {
        let gap = self.last_look.map_or(Duration::ZERO, |last| now.saturating_since(last));
        if gap > 3 * LOOK_EVERY {
            self.lenient_until = now + DEAD_AFTER;
        }
        self.last_look = Some(now);
        for worker in &mut self.workers {
            let able = worker.shared.is_able();
            worker.unable_since = if able { None } else { worker.unable_since.or(Some(now)) };
        }
    }

    /// Why an instance cannot forward.
    pub(super) fn block(
        &self,
        instance: &Instance,
        link: bool,
        control_beat: Tick,
        now: Tick,
    ) -> Option<Block> {
        if !link {
            return Some(Block::Link);
        }
        if now < self.lenient_until {
            return None;
        }
        let mine = || self.workers.iter().filter(|worker| worker.port == instance.port);
        if mine().any(|worker| now.saturating_since(worker.shared.last_beat()) > DEAD_AFTER) {
            return Some(Block::Worker);
        }
        let unable = |worker: &Watched| {
            worker.unable_since.is_some_and(|since| now.saturating_since(since) > DEAD_AFTER)
        };
        if mine().any(unable) {
            return Some(Block::Queue);
        }
        let silent = now.saturating_since(control_beat) > instance.control_timeout;
        silent.then_some(Block::Control)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use dataplane::InstanceSlot;

    use super::*;

    const PORT: PortId = PortId(0);

    fn at(ms: u64) -> Tick {
        Tick::from_nanos(ms * 1_000_000)
    }

    struct Bench {
        watch: Watch,
        worker: Arc<WorkerShared>,
        instance: Instance,
    }

    impl Bench {
        fn new() -> Self {
            let worker = Arc::new(WorkerShared::default());
            worker.bound.store(true, Relaxed);
            let mut watch = Watch::default();
            watch.watch(vec![(PORT, Arc::clone(&worker))]);
            let control_timeout = Duration::from_secs(5);
            let instance = Instance { slot: InstanceSlot(1), port: PORT, control_timeout };
            Self { watch, worker, instance }
        }

        /// Looks every 100 ms, the last time at `to`; the control thread was alive at `beat`.
        fn looks(&mut self, from: u64, to: u64, beat: u64) -> Option<Block> {
            let mut last = None;
            for ms in (from..=to).step_by(100) {
                self.watch.look(at(ms));
                last = self.watch.block(&self.instance, true, at(beat), at(ms));
            }
            last
        }
    }

    #[test]
    fn a_silent_worker_blocks_after_700_ms_and_only_its_own_interface() {
        let mut bench = Bench::new();
        bench.worker.beat(at(1000));
        assert_eq!(bench.looks(1000, 1700, 1000), None);
        assert_eq!(bench.looks(1800, 1800, 1000), Some(Block::Worker));
        let other = Instance { port: PortId(1), ..bench.instance };
        assert_eq!(bench.watch.block(&other, true, at(1000), at(1800)), None);
        bench.worker.beat(at(1850));
        assert_eq!(bench.looks(1900, 1900, 1000), None);
    }

    #[test]
    fn a_queue_may_be_bound_anew_and_not_stay_unbound() {
        let mut bench = Bench::new();
        for ms in (1000..3000).step_by(100) {
            bench.worker.beat(at(ms));
            bench.worker.bound.store(!(1500..2000).contains(&ms) && ms < 2200, Relaxed);
            let expected = (ms > 2900).then_some(Block::Queue);
            assert_eq!(bench.looks(ms, ms, ms), expected, "{ms}");
        }
    }

    #[test]
    fn a_queue_that_does_not_send_or_receive_blocks_as_one_without_a_socket() {
        let mut bench = Bench::new();
        let worker = Arc::clone(&bench.worker);
        for (flag, from) in [(&worker.stalled, 1000), (&worker.blind, 5000)] {
            worker.beat(at(from + 900));
            flag.store(true, Relaxed);
            assert_eq!(bench.looks(from, from + 700, from), None);
            assert_eq!(bench.looks(from + 800, from + 800, from), Some(Block::Queue));
            flag.store(false, Relaxed);
            assert_eq!(bench.looks(from + 900, from + 900, from), None);
        }
    }

    #[test]
    fn a_control_thread_may_be_silent_for_as_long_as_configured() {
        let mut bench = Bench::new();
        for ms in (1000..7000).step_by(100) {
            bench.worker.beat(at(ms));
            let expected = (ms > 6000).then_some(Block::Control);
            assert_eq!(bench.looks(ms, ms, 1000), expected, "{ms}");
        }
    }

    #[test]
    fn a_lost_link_blocks_at_once_and_a_stall_of_this_thread_proves_nothing() {
        let mut bench = Bench::new();
        bench.worker.beat(at(1000));
        bench.looks(1000, 1200, 1000);
        assert_eq!(bench.looks(9000, 9000, 1000), None, "everybody was frozen");
        assert_eq!(
            bench.watch.block(&bench.instance, false, at(9000), at(9000)),
            Some(Block::Link)
        );
        assert_eq!(bench.looks(9100, 9700, 9000), Some(Block::Worker), "still silent");
    }
}
