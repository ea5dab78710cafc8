//! Builds, packs and runs capOS-on-seL4 systems; the library behind the
//! `sel4-compose` command.
//!
//! | module | turns |
//! |---|---|
//! | [`description`] | a `system.toml` or CUE's JSON into a manifest and programs |
//! | [`app`] | a Cargo package into a capOS application ELF file |
//! | [`audit`] | a log into what processes really held |
//! | [`gate`] | that file into one whose system calls reach the server |
//! | [`image`] | programs and capabilities into a bootable image |
//! | [`inventory`] | such an image into who holds what |
//! | [`kernel`] | an installed seL4 prefix into facts about it |
//! | [`proof_check`] | its configuration into the distance from the proved one |
//! | [`system`] | all of these into a machine ready to run |
//! | [`qemu`] | that into what happened when it ran |
//! | [`symbols`] | addresses into source places |
//! | [`terminal`] | steps of a conversation into keys at the guest's terminal |
//! | [`answers`], [`keyboard`] | a file, or a person's keys, into the same |
//! | [`simulation`] | a run into a terminal in front of a person, or its transcript |
//! | [`recording`] | what a terminal showed into a picture |
//! | [`report`] | a run into what a person sees |
//! | [`scenario`], [`prove`] | scenario files into proofs |
//! | [`mutants`] | one good program into hundreds of bad ones |
//! | [`doctor`] | machine and kernel into findings and repairs |
//! | [`host`] | the workspace into test results without a guest |

pub mod answers;
pub mod app;
pub mod audit;
pub mod bench;
pub mod budget;
pub mod description;
pub mod doctor;
pub mod domains;
pub mod gate;
pub mod host;
pub mod image;
pub mod inventory;
pub mod kernel;
pub mod keyboard;
pub mod mutants;
pub mod proof_check;
pub mod prove;
pub mod qemu;
pub mod recording;
pub mod report;
pub mod scenario;
mod secrets;
pub mod simulation;
pub mod symbols;
pub mod system;
pub mod terminal;
