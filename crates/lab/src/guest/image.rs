//! Kernel and initramfs of a guest. What comes from Debian's archive is fetched once into a cache
//! ([`cache`]); the rest is this machine's: the product, `ip`, `ethtool` and their libraries.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    contents::{Contents, PACKAGES},
    spec::{GuestSpec, Kernel},
};
use crate::{
    error::{Doing as _, LabError, Result},
    pointsman::pointsman_binary,
};

/// What QEMU starts.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// The kernel's release, for example `6.1.0-56-amd64`.
    pub(super) release: String,
}

/// Makes the image of a guest in `dir`.
pub(super) fn build(spec: &GuestSpec, contents: &Contents, dir: &Path) -> Result<Image> {
    let busybox = fetch(&["busybox"], "busybox")?;
    let cached = fetch_kernel(spec.kernel, contents)?;
    let release = cached.join("version");
    let release = fs::read_to_string(&release).doing(|| format!("read {}", release.display()))?;
    let root = dir.join("root");
    for part in ["bin", "dev", "etc", "lib", "proc", "run", "sys", "tmp", "var"] {
        let path = root.join(part);
        fs::create_dir_all(&path).doing(|| format!("make {}", path.display()))?;
    }
    copy(&busybox, &root.join("bin/busybox"))?;
    tool("cp", &[Path::new("-r"), &cached.join("lib/modules"), &root.join("lib")])?;
    add_programs(&root)?;
    if spec.systemd {
        add_systemd(&root)?;
    }
    add_contents(contents, spec.kernel.suite, &root)?;
    let init = root.join("init");
    fs::write(&init, INIT).doing(|| format!("write {}", init.display()))?;
    tool("chmod", &[Path::new("755"), &init])?;
    let initramfs = dir.join("initramfs");
    pack(&busybox, &root, &initramfs)?;
    fs::remove_dir_all(&root).doing(|| format!("remove {}", root.display()))?;
    Ok(Image { kernel: cached.join("vmlinuz"), initramfs, release: release.trim().to_owned() })
}

/// The kernel with the modules that a guest may load, and those of `contents`.
fn fetch_kernel(kernel: Kernel, contents: &Contents) -> Result<PathBuf> {
    let Kernel { version, suite } = kernel;
    let Contents { name, modules, .. } = contents;
    if modules.is_empty() {
        return fetch(&["kernel", version, suite], &format!("kernel-{version}-{suite}"));
    }
    let what = [&["kernel", version, suite, name], &modules[..]].concat();
    fetch(&what, &format!("kernel-{version}-{suite}-{name}"))
}

/// Copies what a guest holds beside the product.
fn add_contents(contents: &Contents, suite: &str, root: &Path) -> Result<()> {
    let Contents { name, packages, tools, programs, files, .. } = contents;
    if !packages.is_empty() {
        let what = [&["packages", suite, name], &packages[..]].concat();
        let from = fetch(&what, &format!("packages-{suite}-{name}"))?;
        tool("cp", &[Path::new("-rT"), &from, &root.join(PACKAGES)])?;
    }
    let mut libraries = BTreeSet::new();
    for name in tools {
        let path = crate::host::find_tool(name)?;
        libraries.extend(loaded_by(&path)?);
        copy(&path, &root.join("bin").join(name))?;
    }
    for path in programs {
        libraries.extend(loaded_by(path)?);
        let name = path.file_name().unwrap_or_default();
        tool("strip", &[path, Path::new("-o"), &root.join("bin").join(name)])?;
    }
    for (from, to) in files {
        copy(from, &root.join(to))?;
    }
    add_files(&libraries, root)
}

/// Makes sure that a thing is in the cache; its path there.
pub(super) fn fetch(what: &[&str], name: &str) -> Result<PathBuf> {
    let cache = cache();
    let path = cache.join(name);
    if path.exists() {
        return Ok(path);
    }
    let output = Command::new("sh")
        .arg("-c")
        .arg(FETCH)
        .arg("fetch")
        .arg(&cache)
        .args(what)
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("fetch {}", what.join(" ")))?;
    if output.status.success() {
        return Ok(path);
    }
    Err(LabError::Command {
        command: format!("fetch {} {}", cache.display(), what.join(" ")),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

/// `POINTSMAN_GUESTS`, else a directory that outlives the working tree.
fn cache() -> PathBuf {
    std::env::var_os("POINTSMAN_GUESTS").map_or_else(|| CACHE.into(), PathBuf::from)
}

/// Copies the product without its debugging information, the tools, and the libraries that any of
/// them loads, to where they are here.
fn add_programs(root: &Path) -> Result<()> {
    let product = root.join("bin/pointsman");
    let binary = pointsman_binary()?;
    tool("strip", &[&binary, Path::new("-o"), &product])?;
    let mut libraries = loaded_by(&binary)?;
    for name in TOOLS {
        let path = crate::host::find_tool(name)?;
        libraries.extend(loaded_by(&path)?);
        copy(&path, &root.join("bin").join(name))?;
    }
    add_files(&libraries, root)?;
    // Programs look for each other in the usual places, too.
    symlink("bin", root.join("sbin")).doing(|| "link /sbin".into())
}

/// Copies systemd and its targets, which is what an installed machine without services has.
fn add_systemd(root: &Path) -> Result<()> {
    let mut files = BTreeSet::new();
    for name in ["/lib/systemd/systemd", "/bin/systemctl"] {
        let program = Path::new(name);
        files.extend(loaded_by(program)?);
        files.insert(program.to_owned());
    }
    let units = Path::new("/lib/systemd/system");
    for entry in fs::read_dir(units).doing(|| format!("read {}", units.display()))? {
        let unit = entry.doing(|| format!("read {}", units.display()))?.path();
        if unit.extension().is_some_and(|extension| extension == "target") {
            files.insert(unit);
        }
    }
    add_files(&files, root)?;
    let own = root.join("etc/systemd/system");
    fs::create_dir_all(&own).doing(|| format!("make {}", own.display()))?;
    let usual = "/lib/systemd/system/multi-user.target";
    symlink(usual, own.join("default.target")).doing(|| "link default.target".into())?;
    // Without an identity systemd takes the machine for new and enables all units.
    let identity = root.join("etc/machine-id");
    fs::write(&identity, "0123456789abcdef0123456789abcdef\n")
        .doing(|| format!("write {}", identity.display()))?;
    let usr = root.join("usr");
    fs::create_dir_all(&usr).doing(|| format!("make {}", usr.display()))?;
    symlink("../bin", usr.join("bin")).doing(|| "link /usr/bin".into())
}

/// Copies files to where they are here.
fn add_files(files: &BTreeSet<PathBuf>, root: &Path) -> Result<()> {
    for file in files {
        let to = root.join(file.strip_prefix("/").unwrap_or(file));
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir).doing(|| format!("make {}", dir.display()))?;
        }
        copy(file, &to)?;
    }
    Ok(())
}

/// The libraries of a program, the dynamic loader included.
fn loaded_by(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.doing(|| format!("ldd {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).doing(|| format!("copy {} to {}", from.display(), to.display())).map(drop)
}

fn pack(busybox: &Path, root: &Path, to: &Path) -> Result<()> {
    let script = "cd \"$1\" && find . | \"$0\" cpio -o -H newc >\"$2\"";
    tool("sh", &[Path::new("-c"), Path::new(script), busybox, root, to])
}

fn tool(program: &str, args: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.doing(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: format!("{program} {args:?}"),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

const CACHE: &str = "/var/cache/pointsman/guests";
const TOOLS: &[&str] = &["bpftool", "bridge", "dash", "ethtool", "ip", "tc"];
const FETCH: &str = include_str!("fetch.sh");
const INIT: &str = include_str!("init.sh");
