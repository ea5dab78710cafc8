//! Threads to receive faults from: a piece of machine code in an address
//! space and a CSpace of its own.

use core::arch::global_asm;
use core::slice;

use sel4::init_thread::slot;
use sel4::{
    Budget, CNodeCapData, CPtr, Cap, CapRights, FAULT_HANDLER_IN_TCB, ObjectBlueprint, Result,
    UserContext, VmAttributes, cap,
};

use crate::resources::{Resources, absolute};

global_asm!(
    ".section .rodata.guest_code, \"a\"",
    "guest_code_start:",
    // trap: an unknown system call, again and again.
    "2: int 0xA0",
    "jmp 2b",
    ".balign 16",
    // exception: an invalid instruction, then traps.
    "ud2",
    "2: int 0xA0",
    "jmp 2b",
    ".balign 16",
    // load: reads what RDI points to, then traps.
    "mov rax, [rdi]",
    "2: int 0xA0",
    "jmp 2b",
    ".balign 16",
    // store: writes where RDI points to, then traps.
    "mov [rdi], rax",
    "2: int 0xA0",
    "jmp 2b",
    ".balign 16",
    // jump: goes where RDI points to.
    "jmp rdi",
    "guest_code_end:",
    ".previous",
);

unsafe extern "C" {
    static guest_code_start: u8;
    static guest_code_end: u8;
}

/// The pieces of code above.
#[derive(Clone, Copy)]
pub enum Code {
    /// Traps for ever.
    Trap = 0x00,
    /// Raises vector 6, then traps.
    Exception = 0x10,
    /// Loads from RDI, then traps.
    Load = 0x20,
    /// Stores to RDI, then traps.
    Store = 0x30,
    /// Jumps to RDI.
    Jump = 0x40,
}

/// Where a thread's code page lies.
pub const CODE: usize = 0x1000_0000;
/// A page the thread may read and write.
pub const DATA: usize = CODE + sel4::GRANULE_SIZE;
/// A page that is mapped read-only.
pub const READ_ONLY: usize = DATA + sel4::GRANULE_SIZE;
/// Nothing is mapped there.
pub const UNMAPPED: usize = READ_ONLY + sel4::GRANULE_SIZE;
/// Length of the instructions `int 0xA0` and `ud2`.
pub const TRAP_LENGTH: u64 = 2;

/// How long it runs before its equals do.
const SLICE_US: u64 = 10_000;
const CSPACE_BITS: usize = 2;
const FAULT_SLOT: u64 = 1;
/// Where this program maps a page for a moment.
const WINDOW: usize = 0x2000_0000;

/// A thread that has not run yet.
pub struct Thread {
    /// The thread.
    pub tcb: cap::Tcb,
    /// Where its faults arrive.
    pub faults: cap::Endpoint,
    /// The badge they carry.
    pub badge: sel4::Badge,
}

impl Thread {
    /// Creates a thread with everything it needs.
    pub fn create(resources: &mut Resources, badge: sel4::Badge, priority: u8) -> Result<Self> {
        let vspace = address_space(resources)?;
        let faults: cap::Endpoint = resources.object(ObjectBlueprint::Endpoint)?;
        let cspace: cap::CNode = resources.object(ObjectBlueprint::CNode {
            size_bits: CSPACE_BITS,
        })?;
        let in_cspace = cspace.absolute_cptr_from_bits_with_depth(FAULT_SLOT, CSPACE_BITS);
        let (place, handler) = if FAULT_HANDLER_IN_TCB {
            let slot = resources.slot();
            (slot, CPtr::from_bits(slot.path().bits()))
        } else {
            (in_cspace, CPtr::from_bits(FAULT_SLOT))
        };
        place.mint(&absolute(faults.cptr()), CapRights::all(), badge)?;
        let tcb: cap::Tcb = resources.object(ObjectBlueprint::Tcb)?;
        tcb.tcb_configure(
            handler,
            cspace,
            CNodeCapData::skip_high_bits(CSPACE_BITS),
            vspace,
            0,
            Cap::from_bits(0),
        )?;
        tcb.tcb_set_sched_params(slot::TCB.cap(), 0, priority)?;
        resources.give_time(tcb, Budget::unlimited(SLICE_US))?;
        Ok(Self { tcb, faults, badge })
    }

    /// Starts it at a piece of code with the registers given.
    pub fn start(&self, code: Code, mut context: UserContext) -> Result<()> {
        context.rip = (CODE + code as usize) as u64;
        self.tcb.tcb_write_all_registers(true, &context)
    }
}

fn address_space(resources: &mut Resources) -> Result<cap::VSpace> {
    let vspace: cap::VSpace = resources.object(ObjectBlueprint::VSPACE)?;
    slot::ASID_POOL.cap().asid_pool_assign(vspace)?;
    page_tables(resources, vspace, CODE)?;
    let code: cap::Granule = resources.object(ObjectBlueprint::Granule)?;
    fill(resources, code)?;
    code.frame_map(vspace, CODE, CapRights::read_only(), VmAttributes::DEFAULT)?;
    let data: cap::Granule = resources.object(ObjectBlueprint::Granule)?;
    data.frame_map(vspace, DATA, CapRights::read_write(), VmAttributes::DEFAULT)?;
    let fixed: cap::Granule = resources.object(ObjectBlueprint::Granule)?;
    fixed.frame_map(
        vspace,
        READ_ONLY,
        CapRights::read_only(),
        VmAttributes::DEFAULT,
    )?;
    Ok(vspace)
}

/// Adds the levels of page tables above one page.
pub fn page_tables(resources: &mut Resources, vspace: cap::VSpace, address: usize) -> Result<()> {
    let pdpt: cap::Pdpt = resources.object(ObjectBlueprint::Pdpt)?;
    present(pdpt.map(vspace, address, VmAttributes::DEFAULT))?;
    let directory: cap::PageDirectory = resources.object(ObjectBlueprint::PageDirectory)?;
    present(directory.map(vspace, address, VmAttributes::DEFAULT))?;
    let table: cap::PageTable = resources.object(ObjectBlueprint::PageTable)?;
    present(table.map(vspace, address, VmAttributes::DEFAULT))
}

/// A level that exists already is as good.
fn present(result: Result<()>) -> Result<()> {
    match result {
        Err(sel4::Error::DeleteFirst) => Ok(()),
        other => other,
    }
}

/// Copies the code into a frame, through a copy of its capability.
fn fill(resources: &mut Resources, frame: cap::Granule) -> Result<()> {
    let alias = resources.slot();
    alias.copy(&absolute(frame.cptr()), CapRights::all())?;
    let alias: cap::Granule = Cap::from_bits(alias.path().bits());
    let vspace = slot::VSPACE.cap();
    page_tables(resources, vspace, WINDOW)?;
    alias.frame_map(
        vspace,
        WINDOW,
        CapRights::read_write(),
        VmAttributes::DEFAULT,
    )?;
    // SAFETY: the symbols enclose the code; the window was just mapped,
    // writable, and is one page, which the code does not fill.
    unsafe {
        let start = &raw const guest_code_start;
        let length = (&raw const guest_code_end).addr() - start.addr();
        let window = core::ptr::with_exposed_provenance_mut::<u8>(WINDOW);
        slice::from_raw_parts_mut(window, length)
            .copy_from_slice(slice::from_raw_parts(start, length));
    }
    alias.frame_unmap()
}
