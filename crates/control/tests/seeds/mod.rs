//! What simulations share: chance, and the run of many seeds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) mod rng;

/// A number in an environment variable.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds `0..count` on all processors; what the lowest seed that fails says, or the sums.
pub(crate) fn run_all<S, V>(
    count: u64,
    run: impl Fn(u64) -> Result<S, Box<V>> + Sync,
    add: impl Fn(&mut S, &S) + Sync,
) -> Result<S, Box<V>>
where
    S: Default + Send,
    V: Send,
{
    let next = AtomicU64::new(0);
    let result = Mutex::new((S::default(), None::<(u64, Box<V>)>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let outcome = run(seed);
                    let mut result = result.lock().unwrap();
                    match outcome {
                        Ok(stats) => add(&mut result.0, &stats),
                        Err(violation) => {
                            next.store(count, Ordering::Relaxed);
                            if result.1.as_ref().is_none_or(|(lowest, _)| *lowest > seed) {
                                result.1 = Some((seed, violation));
                            }
                        }
                    }
                }
            });
        }
    });
    let (stats, violation) = result.into_inner().unwrap();
    violation.map_or(Ok(stats), |(_, violation)| Err(violation))
}
