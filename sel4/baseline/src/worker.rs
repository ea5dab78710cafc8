//! A second thread of this program, in its address space or in one of its own.
//!
//! A worker with its own space is a protection domain: page tables of its own
//! that map the image's code and constants for reading, its own stack, its own
//! IPC buffer at the address where the initial thread has its own, and a CSpace
//! with what it is given. Writable statics do not exist there; the ones the
//! bindings read are mapped for reading as they are touched, until it says that
//! it is ready.

use sel4::fault::VmFault;
use sel4::init_thread::slot;
use sel4::{
    AbsoluteCPtr, Badge, BootInfo, Budget, CNodeCapData, CPtr, Cap, CapRights, Error,
    FAULT_HANDLER_IN_TCB, Fault, FaultKind, MessageInfo, ObjectBlueprint, Result, UserContext,
    Word, cap, with_ipc_buffer,
};

use crate::pool::{Pool, absolute};

/// Slots of a worker's CSpace, as a power of two.
pub const CSPACE_BITS: usize = 8;
/// Where its endpoint for faults and for saying that it is ready is.
const CONTROL_SLOT: Word = 1;
/// The first slot that is the caller's to fill, up to [`REPLY_SLOT`].
pub const FIRST_SLOT: Word = 2;
/// Where it has its reply object, on kernels with MCS.
pub const REPLY_SLOT: Word = (1 << CSPACE_BITS) - 1;
/// The badge of its faults.
const FAULT_BADGE: Badge = 1;
/// How long its turns are among threads of its priority, in microseconds.
const SLICE_US: u64 = 10_000;
/// A worker's stack, in a place that nothing else is mapped at.
const STACK: usize = 0x5000_0000_0000;
const STACK_PAGES: usize = 4;
/// Where a worker in the initial thread's space has its IPC buffer; one more
/// page for each.
const BUFFERS: usize = 0x5100_0000_0000;
/// Interrupts on, and the bit that is always set.
const RFLAGS: Word = 0x202;

unsafe extern "C" {
    static __image_start: u8;
    static __image_writable: u8;
}

/// Where a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// In the initial thread's address space.
    Same,
    /// In one of its own.
    Own,
}

/// A thread that runs a function of this program.
pub struct Worker {
    /// The thread.
    pub tcb: cap::Tcb,
    /// Its CSpace.
    pub cspace: cap::CNode,
    /// Its address space.
    pub vspace: cap::VSpace,
    /// Where its faults arrive.
    pub control: cap::Endpoint,
    stack: usize,
    /// What it has its time from, where that is an object.
    time: Option<cap::SchedContext>,
}

impl Worker {
    /// Makes one. `number` tells workers in the same space apart.
    ///
    /// # Errors
    /// The kernel's, and those of [`Pool`].
    pub fn create(
        pool: &mut Pool,
        bootinfo: &BootInfo,
        space: Space,
        number: usize,
        priority: u8,
    ) -> Result<Self> {
        let vspace = match space {
            Space::Same => slot::VSPACE.cap(),
            Space::Own => own_space(pool, bootinfo)?,
        };
        let stack = STACK + number * 2 * STACK_PAGES * sel4::GRANULE_SIZE;
        for page in 0..STACK_PAGES {
            let frame = pool.object(ObjectBlueprint::Granule)?;
            let at = stack + page * sel4::GRANULE_SIZE;
            pool.map(vspace, frame, at, CapRights::read_write())?;
        }
        let buffer_at = match space {
            Space::Same => BUFFERS + number * sel4::GRANULE_SIZE,
            Space::Own => bootinfo.ipc_buffer().addr(),
        };
        let buffer: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
        pool.map(vspace, buffer, buffer_at, CapRights::read_write())?;
        let control: cap::Endpoint = pool.object(ObjectBlueprint::Endpoint)?;
        let cspace: cap::CNode = pool.object(ObjectBlueprint::CNode {
            size_bits: CSPACE_BITS,
        })?;
        let tcb: cap::Tcb = pool.object(ObjectBlueprint::Tcb)?;
        let worker = Self {
            tcb,
            cspace,
            vspace,
            control,
            stack,
            time: make_time(pool, bootinfo)?,
        };
        let from = absolute(control.cptr());
        let own = worker.slot(CONTROL_SLOT);
        own.mint(&from, CapRights::all(), FAULT_BADGE)?;
        let handler = if FAULT_HANDLER_IN_TCB {
            let badged = pool.slot()?;
            badged.mint(&from, CapRights::all(), FAULT_BADGE)?;
            CPtr::from_bits(badged.path().bits())
        } else {
            CPtr::from_bits(CONTROL_SLOT)
        };
        if let Some(blueprint) = ObjectBlueprint::reply() {
            let reply: cap::Reply = pool.object(blueprint)?;
            worker.slot(REPLY_SLOT).move_(&absolute(reply.cptr()))?;
        }
        let guard = CNodeCapData::skip_high_bits(CSPACE_BITS);
        tcb.tcb_configure(handler, cspace, guard, vspace, buffer_at as Word, buffer)?;
        tcb.tcb_set_sched_params(slot::TCB.cap(), 0, priority)?;
        if let Some(time) = worker.time {
            time.sched_context_bind(tcb)?;
        }
        Ok(worker)
    }

    /// Takes the time of a server that waits for calls: from now on it runs on
    /// its callers'. Nothing on kernels where time is no object.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_passive(&self) -> Result<()> {
        match self.time {
            Some(time) => time.sched_context_unbind(),
            None => Ok(()),
        }
    }

    /// A slot of its CSpace.
    #[must_use]
    pub fn slot(&self, index: Word) -> AbsoluteCPtr {
        let cspace = self.cspace;
        cspace.absolute_cptr_from_bits_with_depth(index, CSPACE_BITS)
    }

    /// Starts it at `entry`, and returns once it said that it is ready. What it
    /// touches of the image until then is mapped, for reading.
    ///
    /// # Errors
    /// The kernel's; [`Error::IllegalOperation`] where it does something else.
    pub fn start(
        &self,
        pool: &mut Pool,
        bootinfo: &BootInfo,
        entry: extern "C" fn() -> !,
    ) -> Result<()> {
        let mut context = UserContext::default();
        context.rip = entry as usize as Word;
        let top = self.stack + STACK_PAGES * sel4::GRANULE_SIZE;
        // As after a call: the ABI aligns the stack before the return address.
        context.rsp = (top - size_of::<Word>()) as Word;
        context.rflags = RFLAGS;
        self.tcb.tcb_write_all_registers(true, &context)?;
        let (mut info, _, mut words) = self.control.recv_with_mrs();
        while info.label() != READY {
            if FaultKind::of(info) != Ok(FaultKind::VmFault) {
                return Err(Error::IllegalOperation);
            }
            let Ok(Fault::VmFault(fault)) = Fault::decode(info, &words) else {
                return Err(Error::IllegalOperation);
            };
            self.map_image(pool, bootinfo, &fault)?;
            (info, _, words) = self
                .control
                .reply_recv_with_mrs(MessageInfo::new(0, 0, 0), [0; 4]);
        }
        Ok(())
    }

    fn map_image(&self, pool: &mut Pool, bootinfo: &BootInfo, fault: &VmFault) -> Result<()> {
        let first = (&raw const __image_start).addr();
        let frames = bootinfo.user_image_frames();
        let page = (fault.addr as usize).wrapping_sub(first) / sel4::GRANULE_SIZE;
        if fault.is_present() || page >= frames.len() {
            return Err(Error::IllegalOperation);
        }
        share_page(pool, bootinfo, self.vspace, page)
    }
}

/// A scheduling context without a limit, where there are such objects.
fn make_time(pool: &mut Pool, bootinfo: &BootInfo) -> Result<Option<cap::SchedContext>> {
    let Some(blueprint) = ObjectBlueprint::thread_time() else {
        return Ok(None);
    };
    let time = pool.object(blueprint)?;
    let control = bootinfo.sched_control_of(0);
    let control = control.ok_or(Error::InvalidCapability)?;
    control.sched_control_configure(time, Budget::unlimited(SLICE_US), 0)?;
    Ok(Some(time))
}

/// What a worker that answers does so through, on kernels with MCS.
#[must_use]
pub const fn own_reply() -> cap::Reply {
    Cap::from_bits(REPLY_SLOT)
}

/// What a worker says before it serves: a label that no fault has.
const READY: Word = 0x100;

/// Called by a worker: touches what the bindings read, and says that it is
/// ready. Whoever made it goes on then.
pub fn ready() {
    with_ipc_buffer(|buffer| buffer.mr(0));
    let control: cap::Endpoint = Cap::from_bits(CONTROL_SLOT);
    control.send_with_mrs(MessageInfo::new(READY, 0, 0), [0; 4]);
}

/// An address space with the image's code and constants.
fn own_space(pool: &mut Pool, bootinfo: &BootInfo) -> Result<cap::VSpace> {
    let vspace: cap::VSpace = pool.object(ObjectBlueprint::VSPACE)?;
    slot::ASID_POOL.cap().asid_pool_assign(vspace)?;
    let (first, end) = (&raw const __image_start, &raw const __image_writable);
    let pages = (end.addr() - first.addr()) / sel4::GRANULE_SIZE;
    for page in 0..pages {
        share_page(pool, bootinfo, vspace, page)?;
    }
    Ok(vspace)
}

/// Maps a page of the image for reading.
fn share_page(
    pool: &mut Pool,
    bootinfo: &BootInfo,
    vspace: cap::VSpace,
    page: usize,
) -> Result<()> {
    let index = bootinfo.user_image_frames().start + page;
    let frame = pool.copy_of(Cap::from_bits(index as Word))?;
    let at = (&raw const __image_start).addr() + page * sel4::GRANULE_SIZE;
    pool.map(vspace, frame, at, CapRights::read_only())
}
