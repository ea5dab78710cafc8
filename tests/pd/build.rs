//! Links the domains.

fn main() {
    sel4_microkit_build::link();
}
