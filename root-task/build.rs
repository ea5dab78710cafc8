//! Links the root task as its runtime says.

fn main() {
    sel4_root_task_build::link();
}
