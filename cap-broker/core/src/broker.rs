//! The broker: memory, slots, frames, address spaces and devices together.
//!
//! Every request that runs out of memory, slots or window first makes the
//! caches give back what they hold and tries once more, so exhaustion is
//! reported only when it is real.
//!
//! # Invariants
//! Those of the parts, and
//! - **A1** After everything a client asked for is given back and
//!   [`Broker::trim`] ran, [`Usage`] is what it was before.

use alloc::vec::Vec;

use crate::devices::{Interrupts, IoPorts, IrqLine, Pin, PortRange, Trigger};
use crate::error::{BrokerError, DeviceError};
use crate::frames::{FrameId, FramePool, Window};
use crate::operation::{
    BootUntyped, Cache, Kernel, Level, Object, ObjectKind, ObjectSizes, Operation, Rights, Slot,
};
use crate::slots::SlotAllocator;
use crate::store::{OwnedObject, Store};
use crate::untyped::UntypedAllocator;
use crate::vspace::{AddressSpaces, Hold, MappedPage, SpaceId, TableSet};
use crate::{PAGE_BITS, PAGE_BYTES};

/// What a broker starts with, besides the boot untypeds.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Object sizes of the kernel.
    pub sizes: ObjectSizes,
    /// First empty slot of the root CNode (`seL4_BootInfo.empty`).
    pub first_slot: Slot,
    /// First slot past the empty ones.
    pub end_slot: Slot,
    /// Top table of the root task's address space.
    pub window_space: Slot,
    /// First address of the window; page-aligned.
    pub window_base: u64,
    /// Pages of the window.
    pub window_pages: u32,
    /// Tables that exist in the window's range at boot, as level and any
    /// address they map. Choose a window in an untouched 512 GiB and this is
    /// empty.
    pub window_tables: Vec<(Level, u64)>,
    /// Bytes of a chunk of frames, as a power of two: a trade of latency of
    /// the first frame of a chunk against operations per frame.
    pub chunk_bits: u8,
    /// Most untyped blocks tracked at a time.
    pub block_capacity: usize,
    /// I/O APICs of the machine.
    pub ioapic_count: u8,
    /// Most port ranges held at a time.
    pub port_capacity: usize,
}

impl BrokerConfig {
    /// 64 frames to a chunk: 17 thousand instructions for the retype that
    /// makes one.
    pub const CHUNK_BITS: u8 = PAGE_BITS + 6;
    /// Enough for some thousands of objects.
    pub const BLOCK_CAPACITY: usize = 16384;
    /// Window pages beyond those RAM can fill, for device registers.
    pub const DEVICE_PAGES: u32 = 4096;
    /// First address of the window: 512 GiB up, where no program of ours is
    /// linked.
    pub const WINDOW_BASE: u64 = 1 << 39;

    /// The defaults for a root task with these slots, top table and window
    /// size.
    pub const fn new(first_slot: Slot, end_slot: Slot, space: Slot, window_pages: u32) -> Self {
        Self {
            sizes: ObjectSizes::SEL4_5_X86_64,
            first_slot,
            end_slot,
            window_space: space,
            window_base: Self::WINDOW_BASE,
            window_pages,
            window_tables: Vec::new(),
            chunk_bits: Self::CHUNK_BITS,
            block_capacity: Self::BLOCK_CAPACITY,
            ioapic_count: 1,
            port_capacity: 64,
        }
    }
}

/// Who holds how much. Sizes are in bytes of RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes under management.
    pub total_bytes: u64,
    /// Bytes in no object and no frame chunk.
    pub free_bytes: u64,
    /// Bytes in frames that are made but free.
    pub cached_bytes: u64,
    /// Bytes whose release the kernel refused; zero on a healthy system.
    pub quarantined_bytes: u64,
    /// Slots under management.
    pub total_slots: u32,
    /// Slots taken, cached frames' and split blocks' included.
    pub used_slots: u32,
    /// Frames handed out.
    pub frames: u32,
    /// Window pages taken.
    pub window_pages: u32,
    /// Page tables behind the window.
    pub window_tables: u32,
    /// Address spaces.
    pub spaces: u32,
}

impl Usage {
    /// Bytes an allocation could still get, in frames or otherwise.
    pub const fn available_bytes(&self) -> u64 {
        self.free_bytes + self.cached_bytes
    }

    /// Bytes handed out.
    pub const fn used_bytes(&self) -> u64 {
        self.total_bytes - self.available_bytes()
    }
}

/// Device registers mapped in the root task's window.
#[derive(Debug)]
#[must_use = "a mapping that is dropped is never given back"]
pub struct DeviceMapping {
    paddr: u64,
    window: u64,
    first_page: u32,
    frames: Vec<OwnedObject>,
}

impl DeviceMapping {
    /// Physical address of the first page.
    pub const fn paddr(&self) -> u64 {
        self.paddr
    }

    /// Address of the first page in the root task.
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// Number of pages.
    pub const fn pages(&self) -> usize {
        self.frames.len()
    }
}

/// The books of everything the root task can hand out.
#[derive(Debug)]
pub struct Broker {
    store: Store,
    frames: FramePool,
    spaces: AddressSpaces,
    ports: IoPorts,
    interrupts: Interrupts,
    sizes: ObjectSizes,
}

/// Runs `attempt` on the parts; when it ran out of something the caches may
/// hold, empties them and runs it once more.
macro_rules! with_pressure {
    ($self:ident, $kernel:ident, $attempt:expr) => {
        match $attempt {
            Err(shortage) if is_shortage(&shortage) => {
                if $self.relieve($kernel, &shortage)? {
                    $attempt
                } else {
                    Err(shortage)
                }
            }
            outcome => outcome,
        }
    };
}

const fn is_shortage(error: &BrokerError) -> bool {
    matches!(
        error,
        BrokerError::OutOfMemory { .. }
            | BrokerError::OutOfSlots { .. }
            | BrokerError::OutOfWindow { .. }
    )
}

impl Broker {
    /// Takes charge of the boot untypeds, slots and window.
    pub fn new(boot: &[BootUntyped], config: &BrokerConfig) -> Self {
        let mut tables = TableSet::new();
        for (level, vaddr) in &config.window_tables {
            tables.note_existing(*level, *vaddr);
        }
        let window = Window::new(
            config.window_space,
            config.window_base,
            config.window_pages,
            tables,
        );
        Self {
            store: Store {
                untyped: UntypedAllocator::new(boot, config.block_capacity),
                slots: SlotAllocator::new(config.first_slot, config.end_slot),
                quarantined_bytes: 0,
            },
            frames: FramePool::new(window, config.chunk_bits),
            spaces: AddressSpaces::new(),
            ports: IoPorts::new(config.port_capacity),
            interrupts: Interrupts::new(config.ioapic_count),
            sizes: config.sizes,
        }
    }

    /// Object sizes of the kernel.
    pub const fn sizes(&self) -> &ObjectSizes {
        &self.sizes
    }

    /// Takes one slot of the root CNode.
    ///
    /// # Errors
    /// [`BrokerError::OutOfSlots`].
    pub fn allocate_slot(&mut self, kernel: &mut impl Kernel) -> Result<Slot, BrokerError> {
        with_pressure!(self, kernel, self.store.slots.allocate())
    }

    /// Gives a slot back that the caller has emptied.
    ///
    /// # Panics
    /// When it is free already.
    pub fn free_slot(&mut self, slot: Slot) {
        self.store.slots.free(slot);
    }

    /// Makes one kernel object.
    ///
    /// # Errors
    /// [`BrokerError::OutOfMemory`], [`BrokerError::OutOfSlots`],
    /// [`BrokerError::OutOfRecords`], [`BrokerError::Kernel`].
    pub fn create_object(
        &mut self,
        kernel: &mut impl Kernel,
        object: Object,
    ) -> Result<OwnedObject, BrokerError> {
        with_pressure!(self, kernel, self.store.create(kernel, object))
    }

    /// Makes a pool of numbers for 512 more address spaces. It is never
    /// destroyed: address spaces depend on it.
    ///
    /// # Errors
    /// Those of [`create_object`](Self::create_object).
    pub fn create_asid_pool(
        &mut self,
        kernel: &mut impl Kernel,
    ) -> Result<OwnedObject, BrokerError> {
        let object = self.sizes.object(ObjectKind::AsidPool);
        self.create_object(kernel, object)
    }

    /// Destroys an object, with every capability to it.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; the object then stays in quarantine.
    pub fn destroy_object(
        &mut self,
        kernel: &mut impl Kernel,
        object: OwnedObject,
    ) -> Result<(), BrokerError> {
        self.store.destroy(kernel, object)
    }

    /// Hands out a frame of zeroes, mapped in the window. In steady state this
    /// costs no kernel operation.
    ///
    /// # Errors
    /// Those of [`FramePool::allocate`].
    pub fn allocate_frame(&mut self, kernel: &mut impl Kernel) -> Result<FrameId, BrokerError> {
        with_pressure!(self, kernel, self.frames.allocate(kernel, &mut self.store))
    }

    /// Hands out 2^`count_bits` contiguous frames, named `first.at(0..)`.
    ///
    /// # Errors
    /// Those of [`FramePool::allocate_run`].
    pub fn allocate_frame_run(
        &mut self,
        kernel: &mut impl Kernel,
        count_bits: u8,
    ) -> Result<FrameId, BrokerError> {
        with_pressure!(
            self,
            kernel,
            self.frames
                .allocate_run(kernel, &mut self.store, count_bits)
        )
    }

    /// Takes back a frame that no address space owns. Pages that share it are
    /// unmapped first.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`].
    pub fn free_frame(&mut self, frame: FrameId) -> Result<(), BrokerError> {
        self.frames.free(frame)
    }

    /// Address of an allocated frame in the root task.
    pub fn window_address(&self, frame: FrameId) -> Option<u64> {
        self.frames.window_address(frame)
    }

    /// Physical address of an allocated frame.
    pub fn paddr(&self, frame: FrameId) -> Option<u64> {
        self.frames.paddr(frame)
    }

    /// Makes an empty address space.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::create`].
    pub fn create_space(&mut self, kernel: &mut impl Kernel) -> Result<SpaceId, BrokerError> {
        with_pressure!(self, kernel, self.spaces.create(kernel, &mut self.store))
    }

    /// Destroys an address space, its tables, pages and owned frames.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::destroy`].
    pub fn destroy_space(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
    ) -> Result<(), BrokerError> {
        self.spaces
            .destroy(kernel, &mut self.store, &mut self.frames, space)
    }

    /// Slot of an address space's top table.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn space_root(&self, space: SpaceId) -> Result<Slot, BrokerError> {
        self.spaces.root(space)
    }

    /// Maps a frame, making the tables it needs. An owned frame belongs to the
    /// address space from then on.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::map`].
    pub fn map_frame(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        vaddr: u64,
        frame: FrameId,
        rights: Rights,
        hold: Hold,
    ) -> Result<(), BrokerError> {
        with_pressure!(
            self,
            kernel,
            self.spaces.map(
                kernel,
                &mut self.store,
                &mut self.frames,
                space,
                vaddr,
                frame,
                rights,
                hold
            )
        )
    }

    /// Backs a page with a fresh frame of zeroes: what demand paging does.
    ///
    /// # Errors
    /// Those of [`allocate_frame`](Self::allocate_frame) and
    /// [`map_frame`](Self::map_frame); the frame is free again then.
    pub fn back_page(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        vaddr: u64,
        rights: Rights,
    ) -> Result<FrameId, BrokerError> {
        let frame = self.allocate_frame(kernel)?;
        match self.map_frame(kernel, space, vaddr, frame, rights, Hold::Owned) {
            Ok(()) => Ok(frame),
            Err(error) => {
                self.frames.free(frame)?;
                Err(error)
            }
        }
    }

    /// Unmaps a page; an owned frame is freed.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::unmap`].
    pub fn unmap_page(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        vaddr: u64,
    ) -> Result<MappedPage, BrokerError> {
        self.spaces
            .unmap(kernel, &mut self.store, &mut self.frames, space, vaddr)
    }

    /// Changes what a page allows; with `None` it keeps its frame unmapped.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::protect`].
    pub fn protect_page(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        vaddr: u64,
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        self.spaces
            .protect(kernel, &mut self.frames, space, vaddr, rights)
    }

    /// Makes what mapping pages in `start..end` needs besides frames.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::prepare`].
    pub fn prepare_tables(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        with_pressure!(
            self,
            kernel,
            self.spaces
                .prepare(kernel, &mut self.store, space, start, end)
        )
    }

    /// Unmaps every page in `start..end`; owned frames are freed.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::unmap_all`].
    pub fn unmap_pages(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<u32, BrokerError> {
        let (store, frames) = (&mut self.store, &mut self.frames);
        self.spaces
            .unmap_all(kernel, store, frames, space, start, end)
    }

    /// Changes what every page in `start..end` allows.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::protect_all`].
    pub fn protect_pages(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        start: u64,
        end: u64,
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        self.spaces
            .protect_all(kernel, &mut self.frames, space, (start, end), rights)
    }

    /// Destroys the page tables in `start..end` that have no page.
    ///
    /// # Errors
    /// Those of [`AddressSpaces::release_tables`].
    pub fn release_tables(
        &mut self,
        kernel: &mut impl Kernel,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        self.spaces
            .release_tables(kernel, &mut self.store, space, start, end)
    }

    /// The page that contains `vaddr`, if one is mapped.
    pub fn page(&self, space: SpaceId, vaddr: u64) -> Option<MappedPage> {
        self.spaces.page(space, vaddr)
    }

    /// Slot of the capability that maps the page of `vaddr`.
    pub fn page_slot(&self, space: SpaceId, vaddr: u64) -> Option<Slot> {
        let page = self.spaces.page(space, vaddr)?;
        let copy = self.spaces.copy_slot(space, vaddr);
        copy.or_else(|| self.frames.slot(page.frame))
    }

    /// Address in the root task of the byte a client calls `vaddr`, if its
    /// page is mapped. Valid up to the end of the page.
    pub fn client_byte(&self, space: SpaceId, vaddr: u64) -> Option<u64> {
        let page = self.spaces.page(space, vaddr)?;
        Some(self.frames.window_address(page.frame)? + vaddr % PAGE_BYTES)
    }

    /// Maps `pages` pages of device registers from `paddr` in the window,
    /// uncached.
    ///
    /// # Errors
    /// [`BrokerError::BadAddress`] for an unaligned address or no pages,
    /// [`BrokerError::NoSuchDevice`], [`BrokerError::DeviceBusy`], and those
    /// of memory, slots and window.
    pub fn map_device(
        &mut self,
        kernel: &mut impl Kernel,
        paddr: u64,
        pages: u32,
    ) -> Result<DeviceMapping, BrokerError> {
        let end = paddr.checked_add(u64::from(pages) * PAGE_BYTES);
        if !paddr.is_multiple_of(PAGE_BYTES) || pages == 0 || end.is_none() {
            return Err(BrokerError::BadAddress { vaddr: paddr });
        }
        let first_page = self.frames.window.take(pages)?;
        let mut mapping = DeviceMapping {
            paddr,
            window: self.frames.window.address(first_page),
            first_page,
            frames: Vec::new(),
        };
        for index in 0..pages {
            if let Err(error) = self.add_device_page(kernel, &mut mapping, index) {
                self.release_device_pages(kernel, mapping.frames)?;
                self.frames.window.give_back(first_page, pages);
                return Err(error);
            }
        }
        Ok(mapping)
    }

    /// Gives device registers back.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; what could not be unmapped stays taken.
    pub fn unmap_device(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: DeviceMapping,
    ) -> Result<(), BrokerError> {
        let pages = mapping.frames.len() as u32;
        self.release_device_pages(kernel, mapping.frames)?;
        self.frames.window.give_back(mapping.first_page, pages);
        Ok(())
    }

    /// Takes a range of I/O ports.
    ///
    /// # Errors
    /// Those of [`IoPorts::acquire`].
    pub fn acquire_ports(&mut self, range: PortRange) -> Result<(), DeviceError> {
        self.ports.acquire(range)
    }

    /// Gives a range of I/O ports back.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`].
    pub fn release_ports(&mut self, range: PortRange) -> Result<(), DeviceError> {
        self.ports.release(range)
    }

    /// Takes an interrupt line.
    ///
    /// # Errors
    /// Those of [`Interrupts::acquire`].
    pub fn acquire_irq(&mut self, pin: Pin, trigger: Trigger) -> Result<IrqLine, DeviceError> {
        self.interrupts.acquire(pin, trigger)
    }

    /// Takes an interrupt line with a vector of the caller's choice.
    ///
    /// # Errors
    /// Those of [`Interrupts::acquire_at`].
    pub fn acquire_irq_at(
        &mut self,
        pin: Pin,
        trigger: Trigger,
        vector: u8,
    ) -> Result<IrqLine, DeviceError> {
        self.interrupts.acquire_at(pin, trigger, vector)
    }

    /// Takes a vector for an interrupt that comes as a message, for good.
    ///
    /// # Errors
    /// Those of [`Interrupts::acquire_vector`].
    pub fn acquire_vector(&mut self, vector: u8) -> Result<(), DeviceError> {
        self.interrupts.acquire_vector(vector)
    }

    /// The capability of an allocated frame's owner.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`].
    pub fn frame_slot(&mut self, frame: FrameId) -> Result<Slot, BrokerError> {
        self.frames.owner(frame).map(|(slot, _)| slot)
    }

    /// Gives an interrupt line back.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`].
    pub fn release_irq(&mut self, pin: Pin) -> Result<(), DeviceError> {
        self.interrupts.release(pin)
    }

    /// Empties every cache: idle frames, split free blocks, unused window
    /// tables. Not needed for correctness; it makes [`Usage`] comparable.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`].
    pub fn trim(&mut self, kernel: &mut impl Kernel) -> Result<(), BrokerError> {
        self.frames.release_idle(kernel, &mut self.store)?;
        self.frames.window.release_tables(kernel, &mut self.store)?;
        self.store.untyped.merge_all(kernel, &mut self.store.slots)
    }

    /// Who holds how much.
    pub fn usage(&self) -> Usage {
        let memory = self.store.untyped.usage();
        let frames = self.frames.usage();
        Usage {
            total_bytes: memory.total,
            free_bytes: memory.free,
            cached_bytes: u64::from(frames.cached) * PAGE_BYTES,
            quarantined_bytes: self.store.quarantined_bytes,
            total_slots: self.store.slots.capacity(),
            used_slots: self.store.slots.used(),
            frames: frames.allocated,
            window_pages: self.frames.window.used(),
            window_tables: self.frames.window.table_count() as u32,
            spaces: self.spaces.count() as u32,
        }
    }

    /// Bytes the kernel zeroed on the broker's behalf so far.
    pub const fn zeroed_bytes(&self) -> u64 {
        self.store.untyped.usage().zeroed
    }

    /// Untyped memory and slots, for reports.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Address spaces, for reports.
    pub const fn spaces(&self) -> &AddressSpaces {
        &self.spaces
    }

    /// Checks the invariants of every part.
    ///
    /// # Panics
    /// When one is broken, which is a defect of this crate.
    pub fn check(&self) {
        self.store.untyped.check();
        self.store.slots.check();
        self.frames.check();
        self.spaces.check();
    }

    /// Makes the caches give back what `shortage` is about; true when it is
    /// worth trying again.
    fn relieve(
        &mut self,
        kernel: &mut impl Kernel,
        shortage: &BrokerError,
    ) -> Result<bool, BrokerError> {
        let before = (
            self.store.slots.available(),
            self.store.untyped.usage().free,
        );
        self.frames.release_idle(kernel, &mut self.store)?;
        if matches!(shortage, BrokerError::OutOfSlots { .. }) {
            self.store
                .untyped
                .merge_all(kernel, &mut self.store.slots)?;
        }
        Ok(before
            != (
                self.store.slots.available(),
                self.store.untyped.usage().free,
            ))
    }

    fn add_device_page(
        &mut self,
        kernel: &mut impl Kernel,
        mapping: &mut DeviceMapping,
        index: u32,
    ) -> Result<(), BrokerError> {
        let paddr = mapping.paddr + u64::from(index) * PAGE_BYTES;
        let Store { untyped, slots, .. } = &mut self.store;
        let block = untyped.allocate_device(kernel, slots, paddr, PAGE_BITS)?;
        let object = Object {
            kind: ObjectKind::Frame,
            size_bits: PAGE_BITS,
        };
        let frame = self.store.create_in(kernel, object, block)?;
        let page = mapping.first_page + index;
        let window = &mut self.frames.window;
        match window.map(kernel, &mut self.store, frame.slot(), page, Cache::Disabled) {
            Ok(()) => {
                mapping.frames.push(frame);
                Ok(())
            }
            Err(error) => {
                self.store.destroy(kernel, frame)?;
                Err(error)
            }
        }
    }

    fn release_device_pages(
        &mut self,
        kernel: &mut impl Kernel,
        frames: Vec<OwnedObject>,
    ) -> Result<(), BrokerError> {
        let mut outcome = Ok(());
        for frame in frames {
            let unmapped = kernel.execute(&Operation::UnmapPage {
                frame: frame.slot(),
            });
            outcome = match unmapped {
                Ok(()) => outcome.and(self.store.destroy(kernel, frame)),
                Err(refused) => outcome.and(Err(refused.into())),
            };
        }
        outcome
    }
}
