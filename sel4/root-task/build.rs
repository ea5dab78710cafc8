//! Publishes the linker script, and takes over the cfgs that describe the
//! kernel.

use std::path::Path;
use std::{env, fs};

fn main() {
    let package = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets CARGO_MANIFEST_DIR");
    let script = Path::new(&package).join("root-task.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::metadata=linker_script={}", script.display());

    println!("cargo::rustc-check-cfg=cfg(sel4_config, values(any()))");
    println!("cargo::rustc-check-cfg=cfg(sel4_has, values(any()))");
    let path = env::var("DEP_SEL4_CFGS").expect("sel4 publishes the kernel's cfgs");
    println!("cargo::rerun-if-changed={path}");
    let cfgs = fs::read_to_string(&path).expect("the file sel4 published is readable");
    for cfg in cfgs.lines() {
        println!("cargo::rustc-cfg={cfg}");
    }
}
