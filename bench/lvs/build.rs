//! Compiles `src/packets.bpf.c` to `OUT_DIR/packets.bpf.o`.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let source = "src/packets.bpf.c";
    println!("cargo::rerun-if-changed={source}");
    let variable =
        |name| env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"));
    let object = PathBuf::from(variable("OUT_DIR")).join("packets.bpf.o");
    // Where Debian keeps `asm/types.h`: clang looks there for the host's own target, not for BPF.
    let multiarch = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    let include = Path::new(&multiarch).is_dir().then(|| format!("-I{multiarch}"));
    let flags = ["-Wall", "-Wextra", "-Werror", "-mcpu=v3"].map(str::to_owned);
    SkeletonBuilder::new()
        .source(source)
        .obj(object)
        .clang_args(flags.into_iter().chain(include))
        .build()
        .unwrap_or_else(|error| panic!("{source} (needs clang and libc6-dev): {error:?}"));
}
