//! The broker on seL4: decides with `cap-broker-core`, acts with `sel4`.
//!
//! [`Broker`] is the core's, with the kernel filled in: every method is the
//! core's method of the same name, and is described there. What this crate
//! adds is the translation of operations into invocations ([`kernel`]), of the
//! bootinfo into the core's terms, and capabilities for ports and interrupts.
//!
//! A broker takes the whole root CNode, all untyped memory and a window of
//! address space for itself, so a program has at most one.
//!
//! Invocations overwrite the IPC buffer: a server that calls the broker in the
//! middle of a message keeps the message's words elsewhere.
//!
//! # Invariants
//! - **W1** The window lies above everything else in the root task's address
//!   space ([`Broker::new`] checks what it can see), and only the broker maps
//!   anything there.
//! - **W2** An allocated frame is mapped readable and writable at its window
//!   address until it is freed.
#![no_std]

mod boot;
mod devices;
mod kernel;
mod memory;

pub use cap_broker_core::devices::{DeviceId, IrqLine, Pin, PortRange, Trigger};
pub use devices::DeviceGrant;

pub use cap_broker_core::{
    BrokerError, DeviceError, DeviceMapping, FrameId, Hold, Level, MappedPage, Object, ObjectKind,
    ObjectSizes, OwnedObject, PAGE_BITS, PAGE_BYTES, Refused, Rights, Slot, SpaceId, Usage,
};

use cap_broker_core::Broker as Books;
use devices::Grants;
use kernel::Sel4;
use sel4::{BootInfo, Cap, CapType, cap};

/// Owner of everything the root task can hand out.
pub struct Broker {
    books: Books,
    kernel: Sel4,
    grants: Grants,
}

impl Broker {
    /// Takes charge of what the kernel gave the root task: empty slots,
    /// untyped memory, ASIDs, ports, interrupts, and the window.
    ///
    /// # Errors
    /// [`BrokerError::BadAddress`] when something of the root task lies in the
    /// window (W1).
    ///
    /// # Panics
    /// When it is called a second time.
    pub fn new(bootinfo: &BootInfo) -> Result<Self, BrokerError> {
        boot::claim();
        let config = boot::config(bootinfo)?;
        let untypeds = boot::untypeds(bootinfo);
        let mut kernel = Sel4::new();
        boot::clear(&mut kernel, &untypeds, &config)?;
        Ok(Self {
            books: Books::new(&untypeds, &config),
            kernel,
            grants: Grants::default(),
        })
    }

    /// Sizes of this kernel's objects.
    pub const fn sizes(&self) -> &ObjectSizes {
        self.books.sizes()
    }

    /// Takes a slot of the root CNode.
    ///
    /// # Errors
    /// [`BrokerError::OutOfSlots`].
    pub fn allocate_slot(&mut self) -> Result<Slot, BrokerError> {
        self.books.allocate_slot(&mut self.kernel)
    }

    /// Empties a slot and gives it back.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; the slot then stays taken.
    ///
    /// # Panics
    /// When it is free already.
    pub fn release_slot(&mut self, slot: Slot) -> Result<(), BrokerError> {
        kernel::delete(slot)?;
        self.books.free_slot(slot);
        Ok(())
    }

    /// Makes a kernel object.
    ///
    /// # Errors
    /// [`BrokerError::OutOfMemory`], [`BrokerError::OutOfSlots`],
    /// [`BrokerError::OutOfRecords`], [`BrokerError::Kernel`].
    pub fn create_object(&mut self, object: Object) -> Result<OwnedObject, BrokerError> {
        self.books.create_object(&mut self.kernel, object)
    }

    /// Destroys an object with every capability to it.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; the object then stays in quarantine.
    pub fn destroy_object(&mut self, object: OwnedObject) -> Result<(), BrokerError> {
        self.books.destroy_object(&mut self.kernel, object)
    }

    /// Hands out a frame of zeroes, mapped in the window.
    ///
    /// # Errors
    /// Those of [`create_object`](Self::create_object), and
    /// [`BrokerError::OutOfWindow`].
    pub fn allocate_frame(&mut self) -> Result<FrameId, BrokerError> {
        self.books.allocate_frame(&mut self.kernel)
    }

    /// Hands out 2^`count_bits` frames, contiguous in physical memory and in
    /// the window, named `first.at(0..)`; at most 256.
    ///
    /// # Errors
    /// As [`allocate_frame`](Self::allocate_frame).
    pub fn allocate_frame_run(&mut self, count_bits: u8) -> Result<FrameId, BrokerError> {
        self.books.allocate_frame_run(&mut self.kernel, count_bits)
    }

    /// Takes a frame back that no address space owns or shares.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`].
    pub fn free_frame(&mut self, frame: FrameId) -> Result<(), BrokerError> {
        self.books.free_frame(frame)
    }

    /// Address of an allocated frame in the root task (W2).
    pub fn window_address(&self, frame: FrameId) -> Option<u64> {
        self.books.window_address(frame)
    }

    /// Physical address of an allocated frame.
    pub fn paddr(&self, frame: FrameId) -> Option<u64> {
        self.books.paddr(frame)
    }

    /// The capability of an allocated frame's owner: what a thread's IPC
    /// buffer is set with.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`].
    pub fn frame_cap(&mut self, frame: FrameId) -> Result<cap::Granule, BrokerError> {
        self.books.frame_slot(frame).map(slot_cap)
    }

    /// Makes an empty address space.
    ///
    /// # Errors
    /// As [`create_object`](Self::create_object).
    pub fn create_space(&mut self) -> Result<SpaceId, BrokerError> {
        match self.books.create_space(&mut self.kernel) {
            Err(BrokerError::Kernel(_)) if self.kernel.is_out_of_asids() => {
                let pool = self.books.create_asid_pool(&mut self.kernel)?;
                self.kernel.add_asid_pool(pool);
                self.books.create_space(&mut self.kernel)
            }
            outcome => outcome,
        }
    }

    /// Destroys an address space: pages, tables, owned frames. No thread may
    /// run in it any more.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`]; [`BrokerError::Kernel`] is the first
    /// refusal, and the rest is gone all the same.
    pub fn destroy_space(&mut self, space: SpaceId) -> Result<(), BrokerError> {
        self.books.destroy_space(&mut self.kernel, space)
    }

    /// Slot of an address space's top table.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn space_root(&self, space: SpaceId) -> Result<Slot, BrokerError> {
        self.books.space_root(space)
    }

    /// An address space as a thread is configured with it.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn vspace(&self, space: SpaceId) -> Result<cap::VSpace, BrokerError> {
        self.books.space_root(space).map(slot_cap)
    }

    /// Maps a frame, making the tables it needs. An owned frame belongs to the
    /// address space from then on.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`], [`BrokerError::BadAddress`],
    /// [`BrokerError::AlreadyMapped`], [`BrokerError::BadFrame`], and those of
    /// [`create_object`](Self::create_object).
    pub fn map_frame(
        &mut self,
        space: SpaceId,
        vaddr: u64,
        frame: FrameId,
        rights: Rights,
        hold: Hold,
    ) -> Result<(), BrokerError> {
        self.books
            .map_frame(&mut self.kernel, space, vaddr, frame, rights, hold)
    }

    /// Backs a page with a fresh frame of zeroes that the address space owns:
    /// demand paging. In steady state this is one invocation.
    ///
    /// # Errors
    /// Those of [`allocate_frame`](Self::allocate_frame) and
    /// [`map_frame`](Self::map_frame).
    pub fn back_page(
        &mut self,
        space: SpaceId,
        vaddr: u64,
        rights: Rights,
    ) -> Result<FrameId, BrokerError> {
        self.books.back_page(&mut self.kernel, space, vaddr, rights)
    }

    /// Unmaps a page; an owned frame is freed.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`], [`BrokerError::NotMapped`],
    /// [`BrokerError::Kernel`].
    pub fn unmap_page(&mut self, space: SpaceId, vaddr: u64) -> Result<MappedPage, BrokerError> {
        self.books.unmap_page(&mut self.kernel, space, vaddr)
    }

    /// Changes what a page allows; with `None` it keeps its frame unmapped.
    ///
    /// # Errors
    /// As [`unmap_page`](Self::unmap_page).
    pub fn protect_page(
        &mut self,
        space: SpaceId,
        vaddr: u64,
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        self.books
            .protect_page(&mut self.kernel, space, vaddr, rights)
    }

    /// Makes the page tables of `start..end`, so that mapping a page there
    /// takes nothing but the page.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`] and those of
    /// [`create_object`](Self::create_object).
    pub fn prepare_tables(
        &mut self,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        self.books
            .prepare_tables(&mut self.kernel, space, start, end)
    }

    /// Unmaps every page in `start..end` and says how many there were; owned
    /// frames are freed.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`]; [`BrokerError::Kernel`] is the first refusal,
    /// and the other pages are gone all the same.
    pub fn unmap_pages(
        &mut self,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<u32, BrokerError> {
        self.books.unmap_pages(&mut self.kernel, space, start, end)
    }

    /// Changes what every page in `start..end` allows; with `None` they keep
    /// their frames unmapped.
    ///
    /// # Errors
    /// As [`unmap_pages`](Self::unmap_pages).
    pub fn protect_pages(
        &mut self,
        space: SpaceId,
        start: u64,
        end: u64,
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        self.books
            .protect_pages(&mut self.kernel, space, start, end, rights)
    }

    /// Destroys the page tables in `start..end` that have no page.
    ///
    /// # Errors
    /// As [`unmap_pages`](Self::unmap_pages).
    pub fn release_tables(
        &mut self,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        self.books
            .release_tables(&mut self.kernel, space, start, end)
    }

    /// The page that contains `vaddr`, if one is mapped.
    pub fn page(&self, space: SpaceId, vaddr: u64) -> Option<MappedPage> {
        self.books.page(space, vaddr)
    }

    /// Address in the root task of the byte a client calls `vaddr`, if its
    /// page is mapped. Valid to the end of the page.
    pub fn client_byte(&self, space: SpaceId, vaddr: u64) -> Option<u64> {
        self.books.client_byte(space, vaddr)
    }

    /// Slot of the capability that maps the page of `vaddr`.
    pub fn page_slot(&self, space: SpaceId, vaddr: u64) -> Option<Slot> {
        self.books.page_slot(space, vaddr)
    }

    /// Calls `visit` with address and page of every page of a space.
    pub fn for_each_page(&self, space: SpaceId, visit: impl FnMut(u64, MappedPage)) {
        self.books.spaces().for_each_page(space, visit);
    }

    /// Lower tables of a space: level and first address.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn tables(
        &self,
        space: SpaceId,
    ) -> Result<impl Iterator<Item = (Level, u64)>, BrokerError> {
        self.books.spaces().tables(space)
    }

    /// Slots of the root CNode under management, and whether each is free.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, bool)> {
        let slots = &self.books.store().slots;
        slots
            .range()
            .map(|slot| (Slot(slot), slots.is_free(Slot(slot))))
    }

    /// Port ranges held, each with the slot of its capability.
    pub fn ports(&self) -> &[(PortRange, Slot)] {
        self.grants.ports()
    }

    /// Interrupt lines held, each with the slot of its capability.
    pub fn lines(&self) -> &[(Pin, Slot)] {
        self.grants.lines()
    }

    /// Empties every cache; afterwards [`usage`](Self::usage) compares with
    /// itself at another time.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`].
    pub fn trim(&mut self) -> Result<(), BrokerError> {
        self.books.trim(&mut self.kernel)
    }

    /// Who holds how much.
    pub fn usage(&self) -> Usage {
        self.books.usage()
    }

    /// Bytes the kernel zeroed on the broker's behalf so far.
    pub const fn zeroed_bytes(&self) -> u64 {
        self.books.zeroed_bytes()
    }

    /// Checks every invariant of the books.
    ///
    /// # Panics
    /// When one is broken, which is a defect of the broker.
    pub fn check(&self) {
        self.books.check();
    }
}

/// The capability of an object the broker made.
pub fn cap_of<T: CapType>(object: &OwnedObject) -> Cap<T> {
    slot_cap(object.slot())
}

/// The capability in a slot of the root CNode.
pub fn slot_cap<T: CapType>(slot: Slot) -> Cap<T> {
    Cap::from_bits(slot.0.into())
}
