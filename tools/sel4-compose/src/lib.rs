//! Builds, packs and runs capOS-on-seL4 systems; the library behind the
//! `sel4-compose` command.
//!
//! | module | turns |
//! |---|---|
//! | [`app`] | a Cargo package into a capOS application ELF file |
//! | [`gate`] | that file into one whose system calls reach the server |
//! | [`image`] | programs and capabilities into a bootable image |
//! | [`kernel`] | an installed seL4 prefix into facts about it |
//! | [`system`] | all of these into a machine ready to run |
//! | [`qemu`] | that into what happened when it ran |
//! | [`symbols`] | addresses into source places |
//! | [`report`] | a run into what a person sees |
//! | [`scenario`], [`prove`] | scenario files into proofs |
//! | [`host`] | the workspace into test results without a guest |

pub mod app;
pub mod budget;
pub mod gate;
pub mod host;
pub mod image;
pub mod kernel;
pub mod prove;
pub mod qemu;
pub mod report;
pub mod scenario;
pub mod symbols;
pub mod system;
