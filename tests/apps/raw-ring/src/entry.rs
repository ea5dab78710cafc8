//! Submission entries, one function per operation.

use capos_config::ring::{
    CAP_OP_CALL, CAP_OP_CANCEL, CAP_OP_NOP, CAP_OP_RECV, CAP_OP_RELEASE, CAP_OP_RETURN, CapSqe,
};

use crate::message::{Mailbox, Message};

/// An entry with every field but the operation zero.
pub const fn entry(opcode: u8) -> CapSqe {
    CapSqe {
        opcode,
        flags: 0,
        method_id: 0,
        cap_id: 0,
        user_data: 0,
        addr: 0,
        len: 0,
        result_len: 0,
        result_addr: 0,
        pipeline_dep: 0,
        pipeline_field: 0,
        xfer_cap_count: 0,
        call_id: 0,
        session_disclosure: 0,
    }
}

/// NOP.
pub const fn nop() -> CapSqe {
    entry(CAP_OP_NOP)
}

/// CALL of a method without params and without room for a result.
pub const fn call(cap_id: u32, method_id: u16) -> CapSqe {
    CapSqe {
        cap_id,
        method_id,
        ..entry(CAP_OP_CALL)
    }
}

/// RELEASE.
pub const fn release(cap_id: u32) -> CapSqe {
    CapSqe {
        cap_id,
        ..entry(CAP_OP_RELEASE)
    }
}

/// RECV into a mailbox, which must stay where it is until the completion.
pub fn receive(cap_id: u32, mailbox: &mut Mailbox) -> CapSqe {
    CapSqe {
        cap_id,
        ..entry(CAP_OP_RECV)
    }
    .result(mailbox.bytes_mut())
}

/// RETURN without payload.
pub const fn returns(cap_id: u32, call_id: u32) -> CapSqe {
    CapSqe {
        cap_id,
        call_id,
        ..entry(CAP_OP_RETURN)
    }
}

/// CANCEL of the RECV that was submitted with `user_data`.
pub const fn cancel(cap_id: u32, user_data: u64) -> CapSqe {
    CapSqe {
        cap_id,
        pipeline_dep: user_data,
        ..entry(CAP_OP_CANCEL)
    }
}

/// What an entry can be given.
pub trait Sqe: Sized {
    /// Params, which must stay where they are until they are copied.
    fn params(self, params: &[u8]) -> Self;
    /// Params and transfer descriptors.
    fn message(self, message: &Message) -> Self;
    /// Room for a result, which must stay until the completion.
    fn result(self, result: &mut [u8]) -> Self;
    /// A `user_data`.
    fn user_data(self, user_data: u64) -> Self;
}

impl Sqe for CapSqe {
    fn params(self, params: &[u8]) -> Self {
        Self {
            addr: params.as_ptr() as u64,
            len: params.len() as u32,
            ..self
        }
    }

    fn message(self, message: &Message) -> Self {
        Self {
            xfer_cap_count: message.transfer_count(),
            ..self.params(message.params())
        }
    }

    fn result(self, result: &mut [u8]) -> Self {
        Self {
            result_addr: result.as_mut_ptr() as u64,
            result_len: result.len() as u32,
            ..self
        }
    }

    fn user_data(self, user_data: u64) -> Self {
        Self { user_data, ..self }
    }
}
