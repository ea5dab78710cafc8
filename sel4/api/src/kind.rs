//! What a slot holds, found out through invocations that change nothing.
//!
//! A release kernel has no call that lists a CNode or names a capability. What
//! it has are errors that depend on the kind:
//!
//! - a copy of an empty slot fails with [`Error::FailedLookup`];
//! - data can never be set on an endpoint or a notification while moving it,
//!   on other kinds it can, or is ignored ([`Error::IllegalOperation`]);
//! - an invocation without its arguments fails with
//!   [`Error::TruncatedMessage`] where the kind knows it, and with
//!   [`Error::IllegalOperation`] where it does not.
//!
//! All of this is done to a copy, since invoking an endpoint sends a message;
//! what sends messages is set apart before anything is invoked.

use crate::ipc_buffer::buffer;
use crate::{AbsoluteCPtr, Cap, CapRights, Error, Result, Word, cap};

/// What a slot holds, as far as invocations tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// Nothing.
    Empty,
    /// An endpoint, or a notification that cannot be bound to a thread: without
    /// the right to wait for it, or bound already.
    Endpoint,
    /// A notification.
    Notification,
    /// I/O ports.
    IoPort,
    /// A thread.
    Tcb,
    /// A frame.
    Frame,
    /// A CNode.
    CNode,
    /// Untyped memory.
    Untyped,
    /// An interrupt line.
    IrqHandler,
    /// A level of page tables.
    Paging,
    /// Something that answers no question asked here, or cannot be copied.
    Other,
}

/// Two empty slots and a thread that never runs, for questions.
#[derive(Clone, Copy, Debug)]
pub struct Workbench {
    /// Receives the copy.
    pub copy: AbsoluteCPtr,
    /// Receives the copy of the copy.
    pub moved: AbsoluteCPtr,
    /// A thread without a bound notification.
    pub thread: cap::Tcb,
}

impl AbsoluteCPtr {
    /// True when the slot holds nothing. `scratch` is empty, and is so again
    /// afterwards.
    ///
    /// # Errors
    /// Those of deleting the copy, and [`Error::DeleteFirst`] where `scratch`
    /// is taken.
    pub fn is_empty(&self, scratch: &AbsoluteCPtr) -> Result<bool> {
        match scratch.copy(self, CapRights::all()) {
            Ok(()) => scratch.delete().map(|()| false),
            Err(Error::FailedLookup) => Ok(true),
            Err(Error::DeleteFirst) => Err(Error::DeleteFirst),
            // It cannot be copied, so it is there.
            Err(_) => Ok(false),
        }
    }

    /// What the slot holds. The slots of `bench` are empty, and are so again
    /// afterwards.
    ///
    /// # Errors
    /// Those of deleting the copies, and [`Error::DeleteFirst`] where a slot of
    /// `bench` is taken.
    pub fn kind(&self, bench: &Workbench) -> Result<SlotKind> {
        match bench.copy.copy(self, CapRights::all()) {
            Ok(()) => {}
            Err(Error::FailedLookup) => return Ok(SlotKind::Empty),
            Err(Error::DeleteFirst) => return Err(Error::DeleteFirst),
            Err(_) => return Ok(SlotKind::Other),
        }
        let kind = kind_of_copy(bench);
        bench.copy.delete()?;
        bench.moved.delete()?;
        kind
    }
}

fn kind_of_copy(bench: &Workbench) -> Result<SlotKind> {
    match mutate(bench, 0) {
        Ok(()) => Ok(kind_of_silent(bench.moved.path().bits())),
        Err(Error::IllegalOperation) => kind_of_messenger(bench),
        Err(error) => Err(error),
    }
}

/// What a capability is that sends no messages when it is invoked.
fn kind_of_silent(slot: Word) -> SlotKind {
    // Ports first: kernels up to 5 find any message without words too short
    // for them.
    const QUESTIONS: [(Word, SlotKind); 9] = [
        (sel4_raw::X86IOPortIn8, SlotKind::IoPort),
        (sel4_raw::TCBReadRegisters, SlotKind::Tcb),
        (sel4_raw::X86PageMap, SlotKind::Frame),
        (sel4_raw::CNodeRevoke, SlotKind::CNode),
        (sel4_raw::UntypedRetype, SlotKind::Untyped),
        (sel4_raw::IRQSetIRQHandler, SlotKind::IrqHandler),
        (sel4_raw::X86PageTableMap, SlotKind::Paging),
        (sel4_raw::X86PageDirectoryMap, SlotKind::Paging),
        (sel4_raw::X86PDPTMap, SlotKind::Paging),
    ];
    let known = QUESTIONS.iter().find(|(label, _)| is_known(slot, *label));
    known.map_or(SlotKind::Other, |(_, kind)| *kind)
}

/// Whether a capability knows an invocation: asked without its arguments.
fn is_known(slot: Word, label: Word) -> bool {
    // SAFETY: B1; there are no words beyond the registers.
    let answer = unsafe { sel4_raw::invoke(buffer(), slot, label, 0, 0, [0; 4]) };
    answer.is_err_and(|error| Error::from_raw(error) == Error::TruncatedMessage)
}

/// Tells apart what refused data: a notification can be bound to a thread, and
/// kernels up to 5 narrow ports to a port they include.
fn kind_of_messenger(bench: &Workbench) -> Result<SlotKind> {
    const PORT_BITS: u32 = u16::BITS;
    let copy = Cap::from_bits(bench.copy.path().bits());
    if bench.thread.tcb_bind_notification(copy).is_ok() {
        bench.thread.tcb_unbind_notification()?;
        return Ok(SlotKind::Notification);
    }
    for port in 1..=Word::from(u16::MAX) {
        if mutate(bench, port << PORT_BITS | port).is_ok() {
            return Ok(SlotKind::IoPort);
        }
    }
    Ok(SlotKind::Endpoint)
}

/// Moves the copy with other data, if its kind takes that.
fn mutate(bench: &Workbench, data: Word) -> Result<()> {
    bench.moved.mutate_word(&bench.copy, data)
}
