//! Compiles the programs in `bpf/` and writes their Rust skeletons to `OUT_DIR`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let bpf = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../../bpf");
    let out = PathBuf::from(variable("OUT_DIR"));
    let mut clang_args = vec!["-Wall".to_owned(), "-Wextra".to_owned(), "-Werror".to_owned()];
    // Compare-and-swap is of the third instruction set, which all supported kernels have.
    clang_args.push("-mcpu=v3".to_owned());
    clang_args.extend(multiarch_include().map(|dir| format!("-I{dir}")));

    for header in ["abi.h", "flows.h", "forward.h", "judge.h", "maps.h", "parse.h"] {
        println!("cargo::rerun-if-changed={}", bpf.join(header).display());
    }
    for name in ["losses", "restore_tags", "steer", "steer_tags"] {
        println!("cargo::rerun-if-changed={}", bpf.join(format!("{name}.bpf.c")).display());
        SkeletonBuilder::new()
            .source(bpf.join(format!("{name}.bpf.c")))
            .clang_args(clang_args.clone())
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|error| {
                panic!("bpf/{name}.bpf.c (needs clang and libc6-dev): {error:?}")
            });
    }
}

/// Where Debian keeps `asm/types.h`: clang looks there for the host's own target, not for BPF.
/// Distributions without multiarch have it in `/usr/include` and need nothing.
fn multiarch_include() -> Option<String> {
    let triplet = Command::new("gcc")
        .arg("-print-multiarch")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|triplet| triplet.trim().to_owned())
        .filter(|triplet| !triplet.is_empty())
        .unwrap_or_else(|| format!("{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")));
    let dir = format!("/usr/include/{triplet}");
    Path::new(&dir).is_dir().then_some(dir)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
