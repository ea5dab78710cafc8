//! Takes over the cfgs that describe the kernel, and passes them on.

use std::{env, fs};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(sel4_config, values(any()))");
    println!("cargo::rustc-check-cfg=cfg(sel4_has, values(any()))");
    let path = env::var("DEP_SEL4_RAW_CFGS").expect("sel4-raw publishes the kernel's cfgs");
    println!("cargo::rerun-if-changed={path}");
    println!("cargo::metadata=cfgs={path}");
    let cfgs = fs::read_to_string(&path).expect("the file sel4-raw published is readable");
    for cfg in cfgs.lines() {
        println!("cargo::rustc-cfg={cfg}");
    }
}
