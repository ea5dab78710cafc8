//! Reports of invalid submissions.

use crate::ids::Pid;

/// One line's worth of what a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// A submission was refused.
    Invalid {
        /// The submitter.
        pid: Pid,
        /// The `CAP_ERR_*` code it got.
        error: i32,
        /// The submission's opcode.
        opcode: u8,
        /// The capability it named, or 0 if the entry's form was at fault.
        cap_id: u32,
    },
    /// Reports of one process that were held back in the past second.
    Suppressed {
        /// The submitter.
        pid: Pid,
        /// How many.
        count: u32,
        /// The last code among them.
        last_error: i32,
    },
}
