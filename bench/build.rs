//! Compiles the programs of the veth bench.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("bpf/veth.bpf.c");
    let object = PathBuf::from(variable("OUT_DIR")).join("veth.o");
    println!("cargo::rerun-if-changed={}", source.display());
    let headers = format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    SkeletonBuilder::new()
        .source(&source)
        .obj(&object)
        .clang_args(["-Wall", "-Wextra", "-Werror", "-mcpu=v3", &headers])
        .build()
        .unwrap_or_else(|error| panic!("{} (needs clang): {error:?}", source.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
