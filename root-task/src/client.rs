//! A process as the machine sees it: address space, CSpace, thread.
//!
//! # Theory of operation
//! [`Client::build`] turns a checked program into pages, tables and a thread
//! that has not run yet; [`Client::start`] lets it. Whatever fails half way is
//! taken down by [`Client::tear_down`], which is also how a process ends.
//!
//! The CSpace is a CNode of two slots. One is empty, the other holds the fault
//! endpoint, badged with who the thread is. Its guard is a number no program
//! holds in a register by accident, so that a stray seL4 call is a capability
//! fault with a report instead of a message.
//!
//! # Invariants
//! - **N1** The badge names slot and thread ([`badge_of`]); the kernel adds it
//!   and the program cannot choose it.
//! - **N2** A thread whose `saved` is set does not run and waits for
//!   [`Client::resume`]; no reply is owed to it.

use alloc::string::String;
use core::fmt;

use cap_broker::{Broker, BrokerError, ObjectKind, OwnedObject, Rights, SpaceId};
use capos_config::ring::{CapRingHeader, init_ring_header};
use capos_loader::{
    EntryState, LoadPlan, Protection,
    layout::{CAPSET_ADDRESS, PAGE_BYTES, RING_ADDRESS},
};
use ring_server_core::{Pid, Tid};
use sel4::{CNodeCapData, CPtr, CapRights, CapRightsBuilder, UserContext, cap, init_thread};

use crate::paging::Repeats;
use crate::window::{Page, RingWindow};

/// Priority of application threads. The root task has the highest, 255.
const PRIORITY: u8 = 100;

const CNODE_RADIX: u8 = 1;
const FAULT_SLOT: u64 = 1;
/// At most 18 bits on seL4 5.0.0.
const CSPACE_GUARD: u64 = 0x2_9a5b;
const CSPACE_GUARD_BITS: usize = 64 - CNODE_RADIX as usize;

/// What the kernel asks of an endpoint it sends faults to, and no more: with
/// the right to receive, a program could take the faults of others, and answer
/// them.
const FAULT_RIGHTS: CapRights = CapRightsBuilder::none()
    .write(true)
    .grant_reply(true)
    .build();

const TID_BITS: u32 = 8;

/// The badge of a thread's fault endpoint: never zero, since thread numbers
/// are not (N1).
pub const fn badge_of(pid: Pid, tid: Tid) -> u64 {
    (pid.slot() as u64) << TID_BITS | (tid.raw() as u64 & ((1 << TID_BITS) - 1))
}

/// Process slot and thread number in a badge.
pub const fn split_badge(badge: u64) -> (usize, Tid) {
    (
        (badge >> TID_BITS) as usize,
        Tid::from_raw(badge as u32 & ((1 << TID_BITS) - 1)),
    )
}

/// Registers of a thread that waits in `cap_enter`, apart from the result.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// Address of the instruction after the trap.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
}

/// A process: what it is called, what its memory means, and its kernel
/// objects.
pub struct Client {
    /// Its number.
    pub pid: Pid,
    /// The program's name in the manifest.
    pub name: String,
    /// Its address space in the broker's books. What its addresses mean is
    /// the server's knowledge.
    pub space: SpaceId,
    /// Faults that found nothing to repair.
    pub repeats: Repeats,
    /// Set while its thread waits.
    pub saved: Option<Saved>,
    /// Calls whose delivery let its thread run next.
    pub hand_overs: u32,
    cspace: Option<OwnedObject>,
    tcb: Option<OwnedObject>,
}

/// The memory a process needs before the server knows it: its ring.
pub struct Nursery {
    /// Its address space.
    pub space: SpaceId,
    /// Its ring page.
    pub ring: RingWindow,
}

impl Nursery {
    /// An address space with an initialised ring page.
    ///
    /// # Errors
    /// The broker's, when memory runs out; nothing is left behind.
    pub fn new(broker: &mut Broker) -> Result<Self, BrokerError> {
        let space = broker.create_space()?;
        match new_page(broker, space, RING_ADDRESS, Rights::ReadWrite) {
            Ok(page) => {
                // SAFETY: the page is one frame of zeroes, mapped in our
                // window, 4096-aligned, and nobody else runs on it yet.
                unsafe { init_ring_header(page.as_ptr().cast::<CapRingHeader>()) };
                Ok(Self {
                    space,
                    ring: RingWindow::new(page),
                })
            }
            Err(error) => {
                broker.destroy_space(space)?;
                Err(error)
            }
        }
    }
}

impl Client {
    /// Fills the address space and makes a thread that has yet to be started.
    ///
    /// # Errors
    /// The broker's or the kernel's; the caller then calls
    /// [`Client::tear_down`] on nothing: what was made is gone.
    pub fn build(
        broker: &mut Broker,
        space: SpaceId,
        program: Program<'_>,
        capset: &[u8; PAGE_BYTES as usize],
        fault_endpoint: cap::Endpoint,
    ) -> Result<Self, BuildError> {
        let mut client = Self {
            pid: program.pid,
            name: String::from(program.name),
            space,
            repeats: Repeats::new(),
            saved: None,
            hand_overs: 0,
            cspace: None,
            tcb: None,
        };
        match client.furnish(broker, &program, capset, fault_endpoint) {
            Ok(()) => Ok(client),
            Err(error) => {
                client.tear_down(broker)?;
                Err(error)
            }
        }
    }

    fn furnish(
        &mut self,
        broker: &mut Broker,
        program: &Program<'_>,
        capset: &[u8; PAGE_BYTES as usize],
        fault_endpoint: cap::Endpoint,
    ) -> Result<(), BuildError> {
        new_page(broker, self.space, CAPSET_ADDRESS, Rights::Read)?.copy_in(0, capset);
        self.load_segments(broker, program)?;
        self.load_tls(broker, program)?;
        self.make_thread(broker, fault_endpoint)?;
        let entry = program.plan.entry_state(u64::from(self.pid.raw()), true);
        Ok(self
            .tcb()
            .tcb_write_all_registers(false, &context(&entry))?)
    }

    /// Backs the pages that carry bytes of the file; the rest come on demand.
    fn load_segments(&self, broker: &mut Broker, program: &Program<'_>) -> Result<(), BuildError> {
        for segment in program.plan.segments() {
            for address in (segment.start..segment.file_end).step_by(PAGE_BYTES as usize) {
                let page = new_page(broker, self.space, address, rights(segment.protection))?;
                let content = segment.page_content(address);
                let bytes =
                    content.and_then(|c| Some((c.offset_in_page, c.bytes.of(program.file)?)));
                if let Some((offset, bytes)) = bytes {
                    page.copy_in(offset as usize, bytes);
                }
            }
        }
        Ok(())
    }

    /// The TLS block: template, zeroes, and the thread pointer at itself.
    fn load_tls(&self, broker: &mut Broker, program: &Program<'_>) -> Result<(), BuildError> {
        let Some(tls) = program.plan.tls() else {
            return Ok(());
        };
        for address in (tls.region_base..tls.region_end()).step_by(PAGE_BYTES as usize) {
            new_page(broker, self.space, address, Rights::ReadWrite)?;
        }
        let template = tls.template.of(program.file).unwrap_or_default();
        write_backed(broker, self.space, tls.image, template);
        write_backed(broker, self.space, tls.fs_base, &tls.fs_base.to_le_bytes());
        Ok(())
    }

    fn make_thread(
        &mut self,
        broker: &mut Broker,
        fault_endpoint: cap::Endpoint,
    ) -> Result<(), BuildError> {
        let cnode_object = broker.sizes().cnode(CNODE_RADIX);
        let cspace = broker.create_object(cnode_object)?;
        let cnode = cap::CNode::from_bits(cspace.slot().0.into());
        self.cspace = Some(cspace);
        let own = init_thread::slot::CNODE.cap();
        cnode
            .absolute_cptr_from_bits_with_depth(FAULT_SLOT, CNODE_RADIX.into())
            .mint(
                &own.absolute_cptr(fault_endpoint.cptr()),
                FAULT_RIGHTS,
                badge_of(self.pid, Tid::MAIN),
            )?;
        let tcb_object = broker.sizes().object(ObjectKind::Tcb);
        self.tcb = Some(broker.create_object(tcb_object)?);
        let tcb = self.tcb();
        tcb.tcb_configure(
            CPtr::from_bits(CSPACE_GUARD << CNODE_RADIX | FAULT_SLOT),
            cnode,
            CNodeCapData::new(CSPACE_GUARD, CSPACE_GUARD_BITS),
            cap::VSpace::from_bits(broker.space_root(self.space)?.0.into()),
            0,
            init_thread::slot::NULL.cap().cast(),
        )?;
        Ok(tcb.tcb_set_priority(init_thread::slot::TCB.cap(), PRIORITY)?)
    }

    /// Its thread.
    pub fn tcb(&self) -> cap::Tcb {
        let slot = self.tcb.as_ref().map_or(0, |tcb| tcb.slot().0);
        cap::Tcb::from_bits(slot.into())
    }

    /// Lets the thread run from where it stands.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(&self) -> sel4::Result<()> {
        self.tcb().tcb_resume()
    }

    /// Lets a waiting thread continue with `rax`. Does nothing if it does not
    /// wait (N2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn resume(&mut self, rax: u64) -> sel4::Result<()> {
        let Some(saved) = self.saved.take() else {
            return Ok(());
        };
        self.continue_at(saved, rax)
    }

    /// Sets the registers a trap may change and lets the thread run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn continue_at(&self, saved: Saved, rax: u64) -> sel4::Result<()> {
        /// RIP, RSP, RFLAGS and RAX are the first four registers.
        const COUNT: usize = 4;
        let mut context = UserContext::default();
        context.rip = saved.rip;
        context.rsp = saved.rsp;
        context.rflags = saved.rflags;
        context.rax = rax;
        self.tcb().tcb_write_registers(true, COUNT, &context)
    }

    /// Takes thread, CSpace and memory apart and gives everything back.
    ///
    /// # Errors
    /// The broker's first; the rest is gone all the same.
    pub fn tear_down(&mut self, broker: &mut Broker) -> Result<(), BrokerError> {
        let mut outcome = Ok(());
        for object in [self.tcb.take(), self.cspace.take()].into_iter().flatten() {
            outcome = outcome.and(broker.destroy_object(object));
        }
        outcome.and(broker.destroy_space(self.space))
    }
}

/// A program about to become a process.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// The process's number.
    pub pid: Pid,
    /// The program's name.
    pub name: &'a str,
    /// Its ELF file.
    pub file: &'a [u8],
    /// What the file asks for.
    pub plan: &'a LoadPlan,
}

/// Why a process could not be built; nothing is left behind.
#[derive(Clone, Copy, Debug)]
pub enum BuildError {
    /// Memory, slots or window ran out.
    Broker(BrokerError),
    /// The kernel refused to set the thread up.
    Kernel(sel4::Error),
    /// Nothing was prepared.
    NotPrepared,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "seL4: {error:?}"),
            Self::NotPrepared => f.write_str("nothing was prepared"),
        }
    }
}

impl From<BrokerError> for BuildError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<sel4::Error> for BuildError {
    fn from(error: sel4::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Backs a page with zeroes and returns it as the root task sees it.
///
/// # Errors
/// The broker's.
pub fn new_page(
    broker: &mut Broker,
    space: SpaceId,
    address: u64,
    rights: Rights,
) -> Result<Page, BrokerError> {
    let frame = broker.back_page(space, address, rights)?;
    let window = broker.window_address(frame).ok_or(BrokerError::BadFrame)?;
    // SAFETY: the broker maps every allocated frame at its window address,
    // read-write, for as long as the frame lives.
    Ok(unsafe { Page::at(window) })
}

/// Copies bytes to client pages that are backed; others are passed over.
fn write_backed(broker: &Broker, space: SpaceId, address: u64, bytes: &[u8]) {
    let mut address = address;
    let mut rest = bytes;
    while !rest.is_empty() {
        let offset = (address % PAGE_BYTES) as usize;
        let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES as usize - offset));
        if let Some(page) = backed_page(broker, space, address) {
            page.copy_in(offset, now);
        }
        address += now.len() as u64;
        rest = later;
    }
}

/// The page that contains `address`, as the root task sees it.
#[inline]
pub fn backed_page(broker: &Broker, space: SpaceId, address: u64) -> Option<Page> {
    let byte = broker.client_byte(space, address)?;
    // SAFETY: the broker maps every allocated frame at its window address,
    // read-write, for as long as the frame lives.
    Some(unsafe { Page::at(byte & !(PAGE_BYTES - 1)) })
}

/// Rights of a mapping; x86-64 seL4 knows no execute permission.
pub const fn rights(protection: Protection) -> Rights {
    if protection.write {
        Rights::ReadWrite
    } else {
        Rights::Read
    }
}

fn context(entry: &EntryState) -> UserContext {
    let mut context = UserContext::default();
    context.rip = entry.rip;
    context.rsp = entry.rsp;
    context.rflags = entry.rflags;
    context.rdi = entry.rdi;
    context.rsi = entry.rsi;
    context.rdx = entry.rdx;
    context.rcx = entry.rcx;
    context.r8 = entry.r8;
    context.set_fs_base(entry.fs_base);
    context
}
