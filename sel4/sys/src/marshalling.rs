//! Test: every invocation sends what libsel4 would send.
//!
//! The build script wrote the same calls twice. Ours run here, with the system
//! call replaced by a recorder; libsel4's are compiled against the prefix's
//! headers, with the same done to them, and print what they would send.

extern crate std;

use std::cell::RefCell;
use std::process::Command;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{env, format};

use crate::generated as gen_;
use crate::generated::*;
use crate::syscalls::Received;
use crate::{get_mr, message_label, message_length};

/// A function's name and a call of it.
type Call = (&'static str, fn(*mut seL4_IPCBuffer));

include!(concat!(env!("OUT_DIR"), "/marshalling.rs"));

#[derive(Default)]
struct Sent {
    service: u64,
    info: u64,
    words: [u64; 4],
}

std::thread_local! {
    static SENT: RefCell<Sent> = RefCell::default();
}

/// Takes the place of the system call: remembers what is sent, and answers
/// with success.
pub unsafe fn record(_: i64, service: u64, info: u64, words: [u64; 4], _: u64) -> Received {
    SENT.replace(Sent {
        service,
        info,
        words,
    });
    Received {
        badge: 0,
        info: 0,
        words: [0; 4],
    }
}

/// The line that describes what the call just made would have sent.
fn describe(name: &str, buffer: &seL4_IPCBuffer) -> String {
    let sent = SENT.take();
    let words = (0..message_length(sent.info) as usize).map(|index| {
        // SAFETY: the buffer is a reference, and the length is a message's.
        let word = || unsafe { get_mr(buffer, index) };
        sent.words.get(index).copied().unwrap_or_else(word)
    });
    let caps = sent.info >> seL4_MessageInfo_extraCaps_SHIFT & seL4_MessageInfo_extraCaps_MASK;
    let caps = &buffer.caps_or_badges[..caps as usize];
    format!(
        "{name} service {} label {} words{} caps{}",
        sent.service,
        message_label(sent.info),
        list(words),
        list(caps.iter().copied())
    )
}

fn list(values: impl Iterator<Item = u64>) -> String {
    values.map(|value| format!(" {value}")).collect()
}

fn ours() -> Vec<String> {
    CALLS
        .iter()
        .map(|(name, call)| {
            let mut buffer = seL4_IPCBuffer {
                tag: 0,
                msg: [0; gen_::seL4_MsgMaxLength as usize],
                userData: 0,
                caps_or_badges: [0; gen_::seL4_MsgMaxExtraCaps as usize],
                receiveCNode: 0,
                receiveIndex: 0,
                receiveDepth: 0,
            };
            call(&raw mut buffer);
            describe(name, &buffer)
        })
        .collect()
}

fn libsel4s() -> Vec<String> {
    let program = env::temp_dir().join(format!("sel4-raw-marshalling-{}", std::process::id()));
    let compiled = Command::new("gcc")
        .args([
            "-O1",
            "-w",
            "-DNDEBUG",
            "-D__thread=",
            "-I",
            env!("SEL4_RAW_INCLUDE"),
            "-o",
        ])
        .arg(&program)
        .arg(concat!(env!("OUT_DIR"), "/marshalling.c"))
        .status()
        .expect("gcc runs");
    assert!(compiled.success(), "libsel4's calls do not compile");
    let output = Command::new(&program).output().expect("the program runs");
    std::fs::remove_file(&program).expect("the program can be removed");
    String::from_utf8(output.stdout)
        .expect("it prints text")
        .lines()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_invocation_sends_what_libsel4_sends() {
    let (ours, theirs) = (ours(), libsel4s());
    assert!(ours.len() > 30, "only {} invocations", ours.len());
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "ours is on the left");
    }
}
