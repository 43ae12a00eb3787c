//! Frames for active VIPs on queues that no socket is bound to.

use std::time::Duration;

use dataplane::Tick;

/// Distinguishes frames that bypass the workers for good from those that came while a socket was
/// bound anew.
#[derive(Debug, Default)]
pub struct UnboundWatch {
    window: Option<(Tick, u64)>,
    growing_windows: u32,
}

impl UnboundWatch {
    /// The counter's value; to be called at least once a second.
    pub fn look(&mut self, now: Tick, unbound: u64) {
        let Some((begin, before)) = self.window else {
            self.window = Some((now, unbound));
            return;
        };
        if now.saturating_since(begin) >= WINDOW {
            self.window = Some((now, unbound));
            self.growing_windows = if unbound > before { self.growing_windows + 1 } else { 0 };
        }
    }

    /// Whether frames keep coming that no worker gets.
    pub const fn is_growing(&self) -> bool {
        self.growing_windows >= WINDOWS
    }
}

const WINDOW: Duration = Duration::from_secs(1);
/// Binding anew may fall into two windows.
const WINDOWS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// When it begins and ends to grow, in milliseconds, if the counter has these values.
    fn growing(unbound: impl Fn(u64) -> u64) -> Vec<(u64, bool)> {
        let mut watch = UnboundWatch::default();
        let mut changes = Vec::new();
        for ms in (0..10_000).step_by(100) {
            let before = watch.is_growing();
            watch.look(Tick::from_nanos((ms + 5_000) * 1_000_000), unbound(ms));
            if watch.is_growing() != before {
                changes.push((ms, watch.is_growing()));
            }
        }
        changes
    }

    #[test]
    fn what_keeps_growing_is_noticed_and_what_ends_is_forgotten() {
        assert_eq!(growing(|ms| ms / 500), [(3_000, true)]);
        assert_eq!(growing(|ms| ms.min(4_100)), [(3_000, true), (6_000, false)]);
    }

    #[test]
    fn binding_anew_is_no_growth() {
        assert_eq!(growing(|_| 900), []);
        assert_eq!(growing(|ms| ms.clamp(2_900, 3_200)), []);
        assert_eq!(growing(|ms| if ms % 4_000 < 2_000 { ms / 4_000 } else { ms / 4_000 + 7 }), []);
    }
}
