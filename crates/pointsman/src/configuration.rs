//! The configuration file: read for a start, a check and a reload alike.

use std::fs::File;
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Diagnostics, Include, Parsed};
use siphasher::sip::SipHasher13;

/// A configuration without errors, as it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in it.
    pub parsed: Parsed,
    /// Of its text: two nodes with the same file show the same.
    pub hash: u64,
}

/// A file that is longer is something else than a configuration.
const LONGEST: u64 = 64 << 20;

/// Reads and checks a file and what it includes, for the node of this name. May block for as long as the
/// file system does.
///
/// # Errors
/// All that is wrong, rendered for people, with ANSI colours if `color`.
pub fn read(path: &Path, node: &str, color: bool) -> Result<Loaded, String> {
    let files = files(path, color)?;
    let mut hasher = SipHasher13::new();
    for file in &files {
        hasher.write(file.text.as_bytes());
    }
    match config::parse_files(&files, Some(node)) {
        Ok(parsed) => Ok(Loaded { parsed, hash: hasher.finish() }),
        Err(mistakes) => Err(rendered(&mistakes, color)),
    }
}

/// The nodes that have a section of their own.
///
/// # Errors
/// A file cannot be read.
pub fn nodes(path: &Path, color: bool) -> Result<Vec<String>, String> {
    files(path, color).map(|files| config::nodes(&files))
}

/// The same while the daemon runs: a FIFO is not waited for.
///
/// # Errors
/// As [`read`].
pub fn reread(path: &Path, node: &str) -> Result<Loaded, String> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(format!("error: {} is not a regular file", path.display()));
    }
    read(path, node, false)
}

/// The name of this host: which node this is, unless it is said.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The file, then those that it includes.
fn files(path: &Path, color: bool) -> Result<Vec<config::File>, String> {
    let name = path.display().to_string();
    let text = text(path).map_err(|error| {
        format!(
            "error: cannot read the configuration {name}: {error}\n  = help: name a text file that \
             this user may read, such as /etc/pointsman/pointsman.toml"
        )
    })?;
    let mut files = vec![config::File { name, text }];
    let mut paths = vec![path.canonicalize().unwrap_or_else(|_| path.to_owned())];
    let includes = config::includes(&files[0]).map_err(|mistakes| rendered(&mistakes, color))?;
    for Include { pattern, span } in includes {
        let wrong =
            |message: String, help: &str| rendered(&Diagnostics::at(&span, message, help), color);
        for found in
            matching(path, &pattern).map_err(|why| wrong(why, "name a file, or a pattern"))?
        {
            let name = found.display().to_string();
            let real = found.canonicalize().unwrap_or_else(|_| found.clone());
            if paths.contains(&real) {
                let help = "let one pattern match it; the main file includes itself by no pattern";
                return Err(wrong(format!("{name} is included twice"), help));
            }
            if found.metadata().is_ok_and(|found| !found.is_file()) {
                return Err(wrong(
                    format!("{name} is not a regular file"),
                    "match text files only",
                ));
            }
            let text = self::text(&found).map_err(|error| {
                wrong(format!("cannot read {name}: {error}"), "remove it, or let this user read it")
            })?;
            paths.push(real);
            files.push(config::File { name, text });
        }
    }
    Ok(files)
}

/// What a pattern matches, relative to the directory of the file, in the order of the alphabet. A name
/// without `*`, `?` and `[` is a file that must be there.
///
/// # Errors
/// It is no pattern, or a directory cannot be read.
fn matching(main: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let directory = main.parent().unwrap_or_else(|| Path::new(""));
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![directory.join(pattern)]);
    }
    let literal = glob::Pattern::escape(&directory.to_string_lossy());
    let whole = Path::new(&literal).join(pattern);
    let found = glob::glob(&whole.to_string_lossy())
        .map_err(|error| format!("`{pattern}` is no pattern: {error}"))?;
    found.map(|path| path.map_err(|error| error.to_string())).collect()
}

fn rendered(mistakes: &Diagnostics, color: bool) -> String {
    format!("{}\n{}", mistakes.render(color).trim_end(), mistakes.summary())
}

/// The path that a reload reads, whatever directory it is asked from.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(std::io::Error::other("it is longer than 64 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "[[interface]]\nname = \"eth0\"\n";

    /// A directory of its own, which goes with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path =
                std::env::temp_dir().join(format!("pointsman-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("conf.d")).unwrap();
            for (name, text) in files {
                std::fs::write(path.join(name), text).unwrap();
            }
            Self(path)
        }

        fn read(&self) -> Result<Loaded, String> {
            read(&self.0.join("main.toml"), "lb1", false)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn service(name: &str, last: u8) -> String {
        format!("[[service]]\nname = \"{name}\"\nvip = \"192.0.2.{last}\"\nport = 80\n")
    }

    #[test]
    fn a_pattern_is_read_in_the_order_of_the_alphabet() {
        let main = format!("include = [\"conf.d/*.toml\"]\n{MAIN}");
        let (a, b, c) = (service("a", 1), service("b", 2), service("c", 3));
        let files = [("main.toml", &*main), ("conf.d/2.toml", &*b), ("conf.d/1.toml", &*a)];
        let directory = Directory::new("sorted", &files);
        std::fs::write(directory.0.join("conf.d/3.txt"), &c).unwrap();
        let loaded = directory.read().unwrap();
        let services = loaded.parsed.desired.services.iter();
        assert_eq!(services.map(|service| &*service.name).collect::<Vec<_>>(), ["a", "b"]);
        std::fs::write(directory.0.join("conf.d/3.toml"), &c).unwrap();
        assert_ne!(directory.read().unwrap().hash, loaded.hash, "an included file counts, too");
    }

    #[test]
    fn what_cannot_be_included_is_told_with_its_place() {
        for (include, expected) in [
            ("\"missing.toml\"", "cannot read"),
            ("\"conf.d\"", "not a regular file"),
            ("\"main.toml\"", "included twice"),
            ("\"conf.d/1.toml\", \"conf.d/*.toml\"", "included twice"),
            ("\"conf.d/[\"", "no pattern"),
        ] {
            let main = format!("include = [{include}]\n{MAIN}");
            let files = [("main.toml", &*main), ("conf.d/1.toml", "")];
            let said = Directory::new("wrong", &files).read().unwrap_err();
            assert!(said.contains(expected) && said.contains("main.toml:1:"), "{include}: {said}");
        }
    }
}
