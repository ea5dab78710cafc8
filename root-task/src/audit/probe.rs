//! The thread through which the hardware is asked what a page allows.
//!
//! It runs three instructions in the address space in question: a load, a
//! store that changes nothing, an invalid one. Which of them faults says what
//! the page table really has; the value loaded says which frame it shows.
//!
//! The code lies in a page that is mapped where no program has anything, only
//! while a space is looked at.

use core::cell::Cell;

use cap_broker::{
    Broker, BrokerError, FrameId, Hold, Level, Object, ObjectKind, OwnedObject, Rights, Slot,
    SpaceId, cap_of, slot_cap,
};
use sel4::{
    AbsoluteCPtr, CNodeCapData, CPtr, Fault, FaultKind, UserContext, Workbench, cap, cap_type,
    init_thread,
};

use crate::audit::AuditError;
use crate::client::FaultPlace;
use crate::clock::Clock;
use crate::gate::{SIGNAL_BADGE, TIMER_BADGE};
use crate::means::Means;
use crate::priority;
use crate::window::Page;

/// Where the code is mapped: in the last 512 GiB of an address space.
pub const CODE_ADDRESS: u64 = 0x7fff_0000_0000;
/// Offset of the code: the first word of a page is for comparing frames.
const CODE_OFFSET: u64 = 64;
/// `mov rbx, [rax]`, `lock or byte [rax], 0`, `ud2`.
const CODE: [u8; 9] = [0x48, 0x8b, 0x18, 0xf0, 0x80, 0x08, 0x00, 0x0f, 0x0b];
const LOAD: u64 = CODE_ADDRESS + CODE_OFFSET;
const STORE: u64 = LOAD + 3;
const END: u64 = STORE + 4;
/// An address where no page is, whose fault is recognised by it.
const NOWHERE: u64 = 0x7ffe_0000_1000;

const CSPACE_RADIX: u8 = 4;
const FAULT_SLOT: u64 = 1;
/// How long a message through a capability of a program may take.
const PATIENCE_NS: u64 = 50_000_000;

/// What a page allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is mapped.
    Absent,
    /// Loads; the first word.
    Read(u64),
    /// Loads and stores; the first word.
    Write(u64),
}

/// The thread and what it takes.
pub struct Probe {
    thread: OwnedObject,
    time: Option<OwnedObject>,
    means: Means,
    cspace: OwnedObject,
    endpoint: OwnedObject,
    tables: [OwnedObject; 3],
    code: FrameId,
    slots: [Slot; 2],
    timer: cap::IrqHandler,
    signals: Cell<u64>,
}

impl Probe {
    /// Makes it; it does not run yet.
    pub fn make(
        broker: &mut Broker,
        means: &Means,
        timer: cap::IrqHandler,
    ) -> Result<Self, AuditError> {
        let table = |level| broker_table(level);
        let endpoint = broker.create_object(broker.sizes().object(ObjectKind::Endpoint))?;
        let means = means.for_endpoint(cap_of(&endpoint));
        let probe = Self {
            time: means.make_time(broker, 0, None, 0)?,
            means,
            thread: broker.create_object(broker.sizes().object(ObjectKind::Tcb))?,
            cspace: broker.create_object(broker.sizes().cnode(CSPACE_RADIX))?,
            endpoint,
            tables: [
                broker.create_object(table(Level::Pdpt))?,
                broker.create_object(table(Level::Directory))?,
                broker.create_object(table(Level::PageTable))?,
            ],
            code: broker.allocate_frame()?,
            slots: [broker.allocate_slot()?, broker.allocate_slot()?],
            timer,
            signals: Cell::new(0),
        };
        probe.prepare(broker)?;
        Ok(probe)
    }

    fn prepare(&self, broker: &Broker) -> Result<(), AuditError> {
        let window = broker.window_address(self.code);
        let window = window.ok_or(BrokerError::BadFrame)?;
        // SAFETY: the broker maps every allocated frame at its window address,
        // read-write, for as long as the frame lives.
        unsafe { Page::at(window) }.copy_in(CODE_OFFSET as usize, &CODE);
        let slot = (FAULT_SLOT, CSPACE_RADIX);
        self.means.furnish_cspace(cap_of(&self.cspace), slot, 0)?;
        if let Some(time) = &self.time {
            cap_of::<cap_type::SchedContext>(time).sched_context_bind(self.tcb())?;
        }
        let authority = init_thread::slot::TCB.cap();
        Ok(self.tcb().tcb_set_priority(authority, priority::PROBE)?)
    }

    /// Gives back what it took.
    pub fn unmake(self, broker: &mut Broker) -> Result<(), AuditError> {
        let mut outcome = broker.destroy_object(self.thread);
        if let Some(time) = self.time {
            outcome = outcome.and(broker.destroy_object(time));
        }
        outcome = outcome.and(broker.destroy_object(self.cspace));
        outcome = outcome.and(broker.destroy_object(self.endpoint));
        for table in self.tables {
            outcome = outcome.and(broker.destroy_object(table));
        }
        for slot in self.slots {
            outcome = outcome.and(broker.release_slot(slot));
        }
        Ok(outcome.and(broker.free_frame(self.code))?)
    }

    fn tcb(&self) -> cap::Tcb {
        cap_of(&self.thread)
    }

    fn endpoint(&self) -> cap::Endpoint {
        cap_of(&self.endpoint)
    }

    /// A page table of a level that is mapped nowhere.
    pub fn table(&self, level: Level) -> Slot {
        let [pdpt, directory, table] = &self.tables;
        match level {
            Level::Pdpt => pdpt.slot(),
            Level::Directory => directory.slot(),
            Level::PageTable => table.slot(),
        }
    }

    /// Slots and thread for asking what a slot holds.
    pub fn bench(&self) -> Workbench {
        let [copy, moved] = self.slots.map(path);
        Workbench {
            copy,
            moved,
            thread: self.tcb(),
        }
    }

    /// Goes to an address space, whose tables are made for it.
    pub fn enter(&self, broker: &mut Broker, space: SpaceId) -> Result<(), AuditError> {
        broker.map_frame(space, CODE_ADDRESS, self.code, Rights::Read, Hold::Shared)?;
        let vspace = broker.vspace(space)?;
        let guard = CNodeCapData::skip_high_bits(CSPACE_RADIX.into());
        let place = CPtr::from_bits(FAULT_SLOT);
        Ok(self.means.with_handler(place, 0, |handler| {
            let tcb = self.tcb();
            tcb.tcb_set_space(handler, cap_of(&self.cspace), guard, vspace)
        })?)
    }

    /// Leaves an address space as it was.
    pub fn leave(&self, broker: &mut Broker, space: SpaceId) -> Result<(), AuditError> {
        broker.unmap_page(space, CODE_ADDRESS)?;
        let end = CODE_ADDRESS + cap_broker::PAGE_BYTES;
        Ok(broker.release_tables(space, CODE_ADDRESS, end)?)
    }

    /// Tries a page of the address space it is in.
    pub fn look(&self, address: u64) -> Result<Access, AuditError> {
        self.start(LOAD, address)?;
        let (info, words) = loop {
            let (info, badge, words) = self.endpoint().recv_with_mrs();
            if badge & SIGNAL_BADGE == 0 {
                break (info, words);
            }
            self.note(badge);
        };
        match Fault::decode(info, &words) {
            Ok(Fault::VmFault(fault)) if fault.ip == LOAD => Ok(Access::Absent),
            Ok(Fault::VmFault(fault)) if fault.ip == STORE => self.loaded().map(Access::Read),
            Ok(Fault::UserException(fault)) if fault.fault_ip == END => {
                self.loaded().map(Access::Write)
            }
            _ => Err(AuditError::Silence),
        }
    }

    /// Keeps signals that came meanwhile for who serves them.
    fn note(&self, signals: u64) {
        self.signals.set(self.signals.get() | signals);
    }

    /// Badges of signals that came while it waited.
    pub fn signals(&self) -> u64 {
        self.signals.get()
    }

    /// What the load found.
    fn loaded(&self) -> Result<u64, AuditError> {
        /// RIP, RSP, RFLAGS, RAX, RBX.
        const REGISTERS: usize = 5;
        Ok(self.tcb().tcb_read_registers(false, REGISTERS)?.rbx)
    }

    fn start(&self, rip: u64, rax: u64) -> Result<(), AuditError> {
        /// RIP, RSP, RFLAGS, RAX.
        const REGISTERS: usize = 4;
        let mut context = UserContext::default();
        context.rip = rip;
        context.rax = rax;
        context.rflags = 0x202;
        Ok(self.tcb().tcb_write_registers(true, REGISTERS, &context)?)
    }

    /// Faults through the fault capability of a program's thread, as the
    /// thread itself would, and says with which badge that arrives at
    /// `endpoint`; `None` if it does not.
    pub fn fault_through(
        &self,
        place: &FaultPlace,
        vspace: cap::VSpace,
        endpoint: cap::Endpoint,
        clock: &mut Clock,
    ) -> Result<Option<u64>, AuditError> {
        let FaultPlace {
            handler,
            cspace,
            guard,
        } = *place;
        self.tcb().tcb_set_space(handler, cspace, guard, vspace)?;
        let deadline = clock.now_ns() + PATIENCE_NS;
        self.start(NOWHERE, 0)?;
        if !clock.arm(deadline) {
            return Ok(None);
        }
        let mut received = endpoint.recv_with_mrs();
        loop {
            let (info, badge, words) = received;
            if badge & SIGNAL_BADGE != 0 {
                self.note(badge);
                if badge & TIMER_BADGE == TIMER_BADGE {
                    self.timer.irq_handler_ack()?;
                }
                if !clock.arm(deadline) {
                    return Ok(None);
                }
                received = endpoint.recv_with_mrs();
                continue;
            }
            let fault = Fault::decode(info, &words);
            if matches!(fault, Ok(Fault::VmFault(fault)) if fault.ip == NOWHERE) {
                return Ok(Some(badge));
            }
            // A program's own: it faults again when it is its turn.
            received = match FaultKind::of(info) {
                Ok(FaultKind::NullFault) | Err(_) => endpoint.recv_with_mrs(),
                Ok(_) => endpoint.reply_recv_with_mrs(RETRY, [0; sel4::FAST_MESSAGE_REGISTERS]),
            };
        }
    }
}

const RETRY: sel4::MessageInfo = sel4::MessageInfo::new(0, 0, 0);

/// A slot of the root CNode.
pub fn path(slot: Slot) -> AbsoluteCPtr {
    let cap: cap::Endpoint = slot_cap(slot);
    init_thread::slot::CNODE.cap().absolute_cptr(cap.cptr())
}

const fn broker_table(level: Level) -> Object {
    Object {
        kind: ObjectKind::Table(level),
        size_bits: cap_broker::PAGE_BITS,
    }
}
