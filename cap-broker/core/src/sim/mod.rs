//! A kernel for the host, and the boot-time allocation simulation.
//!
//! [`SimKernel`] enforces the rules of [`crate::operation`]: an operation the
//! real kernel would refuse, or carry out with a consequence the broker does
//! not expect, panics with the rule's label. [`boot`] runs a broker against
//! memory that does not exist, to say before a boot whether a system fits.

mod boot;
mod kernel;

pub use boot::{
    Backing, Demand, KERNEL_BYTES, MachineProfile, PageRun, ProgramDemand, ProgramShare, Report,
    Shortfall, simulate,
};
pub use kernel::{Counts, Refusal, SimKernel};
