//! Builds, packs and runs capOS-on-seL4 systems; the library behind the
//! `sel4-compose` command.
//!
//! | module | turns |
//! |---|---|
//! | [`app`] | a Cargo package into a capOS application ELF file |
//! | [`gate`] | that file into one whose system calls reach the server |
//! | [`image`] | programs and capabilities into a bootable image |
//! | [`kernel`] | an installed seL4 prefix into facts about it |
//! | [`qemu`] | an image into what happened when it ran |
//! | [`report`] | that into what a person sees |
//! | [`symbols`] | addresses into source places |
//! | [`system`] | all of these into a machine ready to run |

pub mod app;
pub mod gate;
pub mod image;
pub mod kernel;
pub mod qemu;
pub mod report;
pub mod symbols;
pub mod system;
