//! From the lines a measuring guest prints to tables, plots, history and a gate.
//!
//! A guest prints `bench NAME median=N min=N max=N samples=N*COUNT,...`, with
//! every sample, so that all statistics are computed here ([`Row`]). From the
//! rows of a run come sel4bench's JSON ([`json`]), the table of goals
//! ([`goals`]), a report with plots ([`report`]), the comparison with an earlier
//! run ([`history`]) and the gate that `make test` applies ([`gate`]).

pub mod gate;
pub mod goals;
pub mod history;
pub mod json;
pub mod plot;
pub mod report;
mod row;
pub mod xml;

pub use row::{Row, Run, Statistics};
