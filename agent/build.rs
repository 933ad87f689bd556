//! Finds the kernel programs' object, which `cargo xtask build` made, for the agent to carry.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=EVENKEEL_EBPF_OBJECT");
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("evenkeel-ebpf.o");
    match env::var_os("EVENKEEL_EBPF_OBJECT") {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", Path::new(&object).display());
            fs::copy(&object, &out)
                .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask build`", object.display()));
        }
        // Plain `cargo check` and unit tests need no kernel programs; the agent says at run time what is missing.
        None => fs::write(&out, []).expect("OUT_DIR is writable"),
    }
}
