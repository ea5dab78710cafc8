//! FINISH is not supported, unknown operations are invalid, and so is every
//! known operation with a field set that it does not use.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::CapSqe;
use capos::prelude::*;
use capos_config::ring::{
    CAP_ERR_INVALID_REQUEST, CAP_ERR_UNSUPPORTED_OPCODE, CAP_OP_CALL, CAP_OP_CANCEL, CAP_OP_FINISH,
    CAP_OP_NOP, CAP_OP_PARK, CAP_OP_PARK_BENCH, CAP_OP_RECV, CAP_OP_RELEASE, CAP_OP_RETURN,
    CAP_OP_UNPARK, CAP_SQE_RETURN_APPLICATION_EXCEPTION, CAP_SQE_THREAD_OWNED,
};
use raw_ring::proof;
use raw_ring::{Process, Proof, entry};

/// A field, by how it is set.
type Field = (&'static str, fn(&mut CapSqe));

const METHOD: Field = ("method_id", |sqe| sqe.method_id = 1);
const CAP: Field = ("cap_id", |sqe| sqe.cap_id = 1);
const ADDR: Field = ("addr", |sqe| sqe.addr = 0x20_0000);
const LEN: Field = ("len", |sqe| sqe.len = 8);
const RESULT_ADDR: Field = ("result_addr", |sqe| sqe.result_addr = 0x100_0000);
const RESULT_LEN: Field = ("result_len", |sqe| sqe.result_len = 8);
const DEP: Field = ("pipeline_dep", |sqe| sqe.pipeline_dep = 1);
const PIPE: Field = ("pipeline_field", |sqe| sqe.pipeline_field = 1);
const TRANSFERS: Field = ("xfer_cap_count", |sqe| sqe.xfer_cap_count = 1);
const CALL_ID: Field = ("call_id", |sqe| sqe.call_id = 1);
const DISCLOSE: Field = ("session_disclosure", |sqe| sqe.session_disclosure = 1);
/// The lowest bit that names no session field.
const DISCLOSE_MORE: Field = ("session_disclosure", |sqe| sqe.session_disclosure = 8);
const DISCLOSE_TOP: Field = ("session_disclosure", |sqe| sqe.session_disclosure = 1 << 63);

/// What one operation does not allow.
struct Rule {
    opcode: u8,
    /// Flag bits it allows.
    flags: u8,
    /// Fields that must stay zero.
    reserved: &'static [Field],
}

const RULES: [Rule; 8] = [
    Rule {
        opcode: CAP_OP_CALL,
        flags: CAP_SQE_THREAD_OWNED,
        reserved: &[DEP, PIPE, CALL_ID, DISCLOSE_MORE, DISCLOSE_TOP],
    },
    Rule {
        opcode: CAP_OP_RETURN,
        flags: CAP_SQE_RETURN_APPLICATION_EXCEPTION,
        reserved: &[METHOD, RESULT_ADDR, RESULT_LEN, DEP, PIPE, DISCLOSE],
    },
    Rule {
        opcode: CAP_OP_RECV,
        flags: 0,
        reserved: &[METHOD, ADDR, LEN, DEP, PIPE, TRANSFERS, CALL_ID, DISCLOSE],
    },
    Rule {
        opcode: CAP_OP_RELEASE,
        flags: 0,
        reserved: &[
            METHOD,
            ADDR,
            LEN,
            RESULT_ADDR,
            RESULT_LEN,
            DEP,
            PIPE,
            TRANSFERS,
            CALL_ID,
            DISCLOSE,
        ],
    },
    Rule {
        opcode: CAP_OP_NOP,
        flags: 0,
        reserved: &[
            CAP,
            METHOD,
            ADDR,
            LEN,
            RESULT_ADDR,
            RESULT_LEN,
            DEP,
            PIPE,
            TRANSFERS,
            CALL_ID,
            DISCLOSE,
        ],
    },
    Rule {
        opcode: CAP_OP_CANCEL,
        flags: 0,
        reserved: &[
            METHOD,
            ADDR,
            LEN,
            RESULT_ADDR,
            RESULT_LEN,
            PIPE,
            TRANSFERS,
            CALL_ID,
            DISCLOSE,
        ],
    },
    Rule {
        opcode: CAP_OP_PARK,
        flags: CAP_SQE_THREAD_OWNED,
        reserved: &[METHOD, RESULT_ADDR, RESULT_LEN, PIPE, TRANSFERS, DISCLOSE],
    },
    Rule {
        opcode: CAP_OP_UNPARK,
        flags: 0,
        reserved: &[
            METHOD,
            RESULT_ADDR,
            RESULT_LEN,
            DEP,
            PIPE,
            TRANSFERS,
            CALL_ID,
            DISCLOSE,
        ],
    },
];

/// An entry of the operation that breaks no rule of form. It names the
/// console, which is live: what is wrong with the entry must be seen first.
fn well_formed(opcode: u8, console: u32) -> CapSqe {
    let base = entry(opcode);
    let cap_id = if opcode == CAP_OP_NOP { 0 } else { console };
    match opcode {
        CAP_OP_CANCEL => CapSqe {
            cap_id,
            pipeline_dep: 1,
            ..base
        },
        CAP_OP_PARK => CapSqe {
            cap_id,
            flags: CAP_SQE_THREAD_OWNED,
            call_id: 1,
            ..base
        },
        _ => CapSqe { cap_id, ..base },
    }
}

fn refuse(process: &mut Process, what: &str, sqe: CapSqe) -> Proof {
    process.ring.expect(what, sqe, CAP_ERR_INVALID_REQUEST)?;
    process.ring.expect("NOP afterwards", raw_ring::nop(), 0)?;
    Ok(())
}

fn check(process: &mut Process, rule: &Rule, console: u32) -> Proof {
    let good = well_formed(rule.opcode, console);
    for (name, set) in rule.reserved {
        let mut bad = good;
        set(&mut bad);
        refuse(
            process,
            &format!("operation {} with {name}", rule.opcode),
            bad,
        )?;
    }
    for bit in 0..u8::BITS {
        let flag = 1 << bit;
        if rule.flags & flag == 0 {
            let flags = good.flags | flag;
            let what = format!("operation {} with flag {flag}", rule.opcode);
            refuse(process, &what, CapSqe { flags, ..good })?;
        }
    }
    Ok(())
}

/// Rules that tie one field to another.
fn check_pairs(process: &mut Process, console: u32) -> Proof {
    let owned = CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        ..well_formed(CAP_OP_CALL, console)
    };
    refuse(process, "CALL owned by thread 0", owned)?;
    let exception = CapSqe {
        flags: CAP_SQE_RETURN_APPLICATION_EXCEPTION,
        xfer_cap_count: 1,
        ..well_formed(CAP_OP_RETURN, console)
    };
    refuse(process, "an exception with capabilities", exception)?;
    let nothing = CapSqe {
        pipeline_dep: 0,
        ..well_formed(CAP_OP_CANCEL, console)
    };
    refuse(process, "CANCEL of nothing", nothing)?;
    let unowned = CapSqe {
        flags: 0,
        ..well_formed(CAP_OP_PARK, console)
    };
    refuse(process, "PARK that no thread owns", unowned)?;
    let nobody = CapSqe {
        call_id: 0,
        ..well_formed(CAP_OP_PARK, console)
    };
    refuse(process, "PARK owned by thread 0", nobody)
}

fn prove(process: &mut Process) -> Proof {
    let console = process.cap("console")?;
    for sqe in [entry(CAP_OP_FINISH), well_formed(CAP_OP_FINISH, console)] {
        let unsupported = CAP_ERR_UNSUPPORTED_OPCODE;
        process.ring.expect("FINISH", sqe, unsupported)?;
    }
    for opcode in (CAP_OP_UNPARK + 1..=u8::MAX).chain([CAP_OP_PARK_BENCH]) {
        refuse(process, &format!("operation {opcode}"), entry(opcode))?;
    }
    for rule in &RULES {
        check(process, rule, console)?;
    }
    check_pairs(process, console)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "ring-reserved-opcodes", prove)
}

entry_point!(main);
