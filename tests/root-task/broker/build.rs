//! Links the root task.

fn main() {
    sel4_root_task_build::link();
}
