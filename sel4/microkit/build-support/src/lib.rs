//! Links a protection domain: its build script's `main` is one call of
//! [`link`], and its package depends on `sel4-microkit`, which publishes the
//! linker script.

use std::env;

/// Where Cargo puts what `sel4-microkit` publishes.
const SCRIPT: &str = "DEP_SEL4_MICROKIT_LINKER_SCRIPT";

/// Tells Cargo how to link the package's programs.
///
/// # Panics
/// Where the package does not depend on `sel4-microkit`.
pub fn link() {
    let script = env::var(SCRIPT).unwrap_or_else(|_| {
        panic!("a protection domain's package needs `sel4-microkit` among its dependencies")
    });
    println!("cargo::rerun-if-changed={script}");
    let script = format!("-Wl,-T,{script}");
    let arguments = [
        // No C library, no start files, fixed addresses.
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        script.as_str(),
        "-Wl,-z,max-page-size=4096",
        // Relocation read-only data would be one more segment.
        "-Wl,-z,norelro",
        "-Wl,--build-id=none",
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
