//! Enters the program where it notes the time, before the runtime starts.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,--entry=noted_start");
    println!("cargo::rerun-if-changed=build.rs");
}
