//! Links the root tasks.

fn main() {
    sel4_root_task_build::link();
}
