//! What operators changed by command, in a file: it outlives a restart.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::operator::{Drain, Override, Overrides};
use dataplane::Tick;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The file. It is written beside the control loop: a disk that hangs holds nothing up.
#[derive(Debug)]
pub(super) struct KeptOverrides {
    path: PathBuf,
    /// Number of the text that was written last.
    written: Arc<Mutex<u64>>,
    asked: u64,
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    backends: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    service: String,
    backend: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain: Option<KeptDrain>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptDrain {
    /// Milliseconds since 1970: the clock of leases begins anew with the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(default)]
    keep_sticky: bool,
}

const VERSION: u32 = 1;
const NAME: &str = "operator.json";

impl KeptOverrides {
    /// In systemd's state directory, else beside the control socket.
    pub(super) fn new(control_socket: &Path) -> Self {
        let state = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        let beside = || control_socket.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        Self { path: state.unwrap_or_else(beside).join(NAME), written: Arc::default(), asked: 0 }
    }

    /// What was kept; nothing, with a line in the log, if the file is damaged.
    pub(super) fn load(&self, now: Tick) -> Overrides {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Overrides::default(),
            Err(error) => {
                warn!(
                    "cannot read {}: {error}; drains and weights set by command are forgotten",
                    self.path.display()
                );
                return Overrides::default();
            }
        };
        read(&text, now, unix_time()).unwrap_or_else(|why| {
            warn!(
                "{} is damaged ({why}): drains and weights set by command are forgotten",
                self.path.display()
            );
            Overrides::default()
        })
    }

    /// Has it written; what was asked for later is never overwritten by what was asked for before.
    pub(super) fn save(&mut self, overrides: &Overrides, now: Tick) {
        self.asked += 1;
        let text = write(overrides, now, unix_time());
        let (number, written, path) = (self.asked, Arc::clone(&self.written), self.path.clone());
        tokio::task::spawn_blocking(move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            if *written > number {
                return;
            }
            *written = number;
            if let Err(error) = replace(&path, &text) {
                let path = path.display();
                warn!(
                    "cannot write {path}: {error}; drains and weights set by command end with a restart"
                );
            }
        });
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn write(overrides: &Overrides, now: Tick, wall: Duration) -> String {
    let millis = |deadline: Tick| {
        let at = wall + deadline.saturating_since(now);
        u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
    };
    let kept = overrides.iter().map(|(service, backend, change)| {
        let (weight, drain) = match change {
            Override::Weight(weight) => (Some(weight), None),
            Override::Drained(Drain { deadline, keep_sticky, .. }) => {
                (None, Some(KeptDrain { deadline_ms: deadline.map(millis), keep_sticky }))
            }
        };
        Kept { service: service.to_owned(), backend: backend.to_owned(), weight, drain }
    });
    let document = Document { version: VERSION, backends: kept.collect() };
    serde_json::json!(document).to_string()
}

/// # Errors
/// Why the file is not used.
fn read(text: &str, now: Tick, wall: Duration) -> Result<Overrides, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if document.version != VERSION {
        return Err(format!("version {} is not {VERSION}", document.version));
    }
    let deadline = |millis| now + Duration::from_millis(millis).saturating_sub(wall);
    let change = |kept: &Kept| match (kept.weight, &kept.drain) {
        (Some(weight @ ..=65_535), None) => Ok(Override::Weight(weight)),
        (None, Some(drain)) => Ok(Override::Drained(Drain {
            deadline: drain.deadline_ms.map(deadline),
            keep_sticky: drain.keep_sticky,
            ended: false,
        })),
        _ => Err(format!("neither weight nor drain of {}/{}", kept.service, kept.backend)),
    };
    let kept = document.backends.iter();
    kept.map(|kept| Ok((&*kept.service, &*kept.backend, change(kept)?))).collect()
}

/// All or nothing, whenever the power fails.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_nanos(5_000_000_000);
    const WALL: Duration = Duration::from_secs(1_800_000_000);

    fn overrides() -> Overrides {
        let deadline = Some(NOW + Duration::from_secs(60));
        let drain = Drain { deadline, keep_sticky: true, ended: false };
        let changes = [
            ("web", "rs1", Override::Drained(drain)),
            ("web", "rs2", Override::Weight(7)),
            ("web", "rs3", Override::Drained(Drain::default())),
        ];
        changes.into_iter().collect()
    }

    #[test]
    fn a_deadline_outlives_the_clock_of_leases() {
        let text = write(&overrides(), NOW, WALL);
        assert_eq!(read(&text, NOW, WALL), Ok(overrides()));
        let (later, rebooted) = (WALL + Duration::from_secs(20), Tick::from_nanos(1));
        let after = read(&text, rebooted, later).unwrap();
        let Some(Override::Drained(drain)) = after.of("web", "rs1") else { panic!("{after:?}") };
        assert_eq!(drain.deadline, Some(rebooted + Duration::from_secs(40)));
        let after = read(&text, rebooted, WALL * 2).unwrap();
        let Some(Override::Drained(drain)) = after.of("web", "rs1") else { panic!("{after:?}") };
        assert_eq!(drain.deadline, Some(rebooted), "over while it was away");
    }

    #[test]
    fn a_damaged_file_is_told_from_a_good_one() {
        let text = write(&overrides(), NOW, WALL);
        for length in 0..text.len() {
            assert!(read(&text[..length], NOW, WALL).is_err(), "{length} bytes");
        }
        let other = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(read(&other, NOW, WALL).is_err_and(|why| why.contains("version 2")));
        let heavy = text.replacen("\"weight\":7", "\"weight\":70000", 1);
        assert!(read(&heavy, NOW, WALL).is_err());
    }
}
