//! Links a root task: its build script's `main` is one call of [`link`], and
//! its package depends on `sel4-root-task`, which publishes the linker script.

use std::env;

/// Where Cargo puts what `sel4-root-task` publishes.
const SCRIPT: &str = "DEP_SEL4_ROOT_TASK_LINKER_SCRIPT";

/// Tells Cargo how to link the package's programs.
///
/// # Panics
/// Where the package does not depend on `sel4-root-task`.
pub fn link() {
    let script = env::var(SCRIPT).unwrap_or_else(|_| {
        panic!("a root task's package needs `sel4-root-task` among its dependencies")
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
        // The kernel maps pages of 4 KiB and hands out a frame for each.
        "-Wl,-z,max-page-size=4096",
        // Relocation read-only data would be one more segment.
        "-Wl,-z,norelro",
        "-Wl,--build-id=none",
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
