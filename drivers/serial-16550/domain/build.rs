//! Links the domain.

fn main() {
    sel4_microkit_build::link();
}
