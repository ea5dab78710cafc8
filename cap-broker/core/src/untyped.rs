//! Untyped memory: a buddy allocator that obeys seL4's retype rules.
//!
//! A free block is split by retyping it into its two halves, which takes two
//! slots; halves are merged by revoking the block they came from. Splits and
//! merges are remembered, not undone eagerly: merging costs zeroing at the
//! next split (K1), so a freed block stays on its list until a request cannot
//! be served otherwise. That never costs an allocation:
//!
//! - **Fragmentation bound.** A request for 2^n bytes fails only if no aligned
//!   free block of 2^n bytes exists in any untyped, merged or not. Sizes are
//!   exact powers of two, so nothing is lost inside a block either.
//! - **Zeroing bound.** A request zeroes at most one block: the smallest free
//!   one that is large enough (a block made by a split starts clean). Before a
//!   block of 2^[`MERGE_SCAN_BITS`] bytes or more that would be zeroed is
//!   split, a smaller one is looked for among the blocks that could be merged.
//!   The largest boot untypeds, whose first split costs most, go last.
//!
//! Device memory is taken by address: the untyped that contains it is split
//! towards it. It is merged as soon as it is free, which costs no zeroing.
//!
//! # Invariants
//! - **U1** A split block's halves lie side by side in memory, in the arena
//!   and in the CNode; a block's parent is the block it was split from.
//! - **U2** `free_bytes` of a split block is the sum of its halves'; of a free
//!   one its size; of an allocated one zero.
//! - **U3** The free lists hold exactly the free blocks of RAM.
//! - **U4** A slot is charged for each half and for nothing else.

use alloc::vec::Vec;

use crate::error::BrokerError;
use crate::operation::{BootUntyped, Kernel, Object, ObjectKind, Operation, Slot};
use crate::slots::SlotAllocator;

/// Smallest untyped (`seL4_MinUntypedBits`): the smallest object is 16 bytes.
pub const MIN_BLOCK_BITS: u8 = 4;
/// Splitting a used block of at least this size first looks for a smaller one
/// to merge: the search is cheap beside zeroing 128 KiB.
pub const MERGE_SCAN_BITS: u8 = 17;

const SIZE_CLASSES: usize = 64;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Allocated,
    Split {
        child: u32,
    },
    /// Not part of any block; a pair of nodes for the next split.
    Spare,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    paddr: u64,
    free_bytes: u64,
    slot: Slot,
    parent: u32,
    previous: u32,
    next: u32,
    state: State,
    size_bits: u8,
    is_device: bool,
    /// The watermark may be above the bottom: the next retype zeroes.
    used: bool,
}

/// A block of untyped memory that belongs to whoever holds this value.
///
/// It is neither `Copy` nor `Clone`: giving it to
/// [`UntypedAllocator::free`] is the only way out, so it is freed once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is dropped is never free again"]
pub struct Block {
    node: u32,
}

/// Bytes of RAM under management.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All of it.
    pub total: u64,
    /// Not part of any allocated block.
    pub free: u64,
    /// Zeroed by the kernel on the allocator's behalf since it was made; an
    /// upper bound after the kernel refused a retype.
    pub zeroed: u64,
}

impl MemoryUsage {
    /// In allocated blocks.
    pub const fn allocated(&self) -> u64 {
        self.total - self.free
    }
}

/// The books of untyped memory.
#[derive(Clone, Debug)]
pub struct UntypedAllocator {
    nodes: Vec<Node>,
    capacity: usize,
    roots: u32,
    spare_pairs: u32,
    lists: [u32; SIZE_CLASSES],
    total: u64,
    free: u64,
    zeroed: u64,
}

impl UntypedAllocator {
    /// Takes charge of the boot untypeds. At most `block_capacity` blocks,
    /// split ones included, will be tracked at a time. Untypeds of less than
    /// 2^[`MIN_BLOCK_BITS`] bytes are left alone.
    pub fn new(boot: &[BootUntyped], block_capacity: usize) -> Self {
        let mut allocator = Self {
            nodes: Vec::with_capacity(boot.len()),
            capacity: block_capacity.max(boot.len()).min(NONE as usize),
            roots: 0,
            spare_pairs: NONE,
            lists: [NONE; SIZE_CLASSES],
            total: 0,
            free: 0,
            zeroed: 0,
        };
        let usable = |size_bits| (MIN_BLOCK_BITS..SIZE_CLASSES as u8).contains(&size_bits);
        for untyped in boot.iter().filter(|untyped| usable(untyped.size_bits)) {
            allocator.add_root(untyped);
        }
        allocator
    }

    fn add_root(&mut self, untyped: &BootUntyped) {
        let size = 1 << untyped.size_bits;
        self.nodes.push(Node {
            paddr: untyped.paddr,
            free_bytes: size,
            slot: untyped.slot,
            parent: NONE,
            previous: NONE,
            next: NONE,
            state: State::Free,
            size_bits: untyped.size_bits,
            is_device: untyped.is_device,
            used: true, // K2
        });
        self.roots += 1;
        if !untyped.is_device {
            self.total += size;
            self.free += size;
            self.link(self.roots - 1);
        }
    }

    /// Bytes of RAM: all, free, zeroed so far.
    pub const fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            total: self.total,
            free: self.free,
            zeroed: self.zeroed,
        }
    }

    /// Slot of the block's untyped capability.
    pub fn slot(&self, block: &Block) -> Slot {
        self.nodes[block.node as usize].slot
    }

    /// Physical address of the block's first byte.
    pub fn paddr(&self, block: &Block) -> u64 {
        self.nodes[block.node as usize].paddr
    }

    /// Size of the block in bytes, as a power of two.
    pub fn size_bits(&self, block: &Block) -> u8 {
        self.nodes[block.node as usize].size_bits
    }

    /// Takes a block of exactly 2^`size_bits` bytes of RAM, aligned to its
    /// size. Sizes below 2^[`MIN_BLOCK_BITS`] are rounded up to it.
    ///
    /// # Errors
    /// [`BrokerError::OutOfMemory`], [`BrokerError::OutOfSlots`] or
    /// [`BrokerError::OutOfRecords`] for the splits, [`BrokerError::Kernel`].
    /// Splits made before a failure stay, as free blocks.
    pub fn allocate(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        size_bits: u8,
    ) -> Result<Block, BrokerError> {
        let size_bits = size_bits.max(MIN_BLOCK_BITS);
        let mut node = self.pick(kernel, slots, size_bits)?;
        while self.nodes[node as usize].size_bits > size_bits {
            node = self.split(kernel, slots, node)?;
        }
        Ok(self.hand_out(node))
    }

    /// Takes the device block of 2^`size_bits` bytes that contains `paddr`.
    ///
    /// # Errors
    /// [`BrokerError::NoSuchDevice`] when no device untyped that large has
    /// it, [`BrokerError::DeviceBusy`] when part of it is taken, and those of
    /// [`allocate`](Self::allocate).
    pub fn allocate_device(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        paddr: u64,
        size_bits: u8,
    ) -> Result<Block, BrokerError> {
        let absent = BrokerError::NoSuchDevice { paddr };
        let size_bits = size_bits.max(MIN_BLOCK_BITS);
        let root = (0..self.roots).find(|root| self.is_device_with(*root, paddr));
        let mut node = root.ok_or(absent)?;
        while self.nodes[node as usize].size_bits > size_bits {
            let low = match self.nodes[node as usize].state {
                State::Split { child } => child,
                State::Free => self.split(kernel, slots, node)?,
                State::Allocated | State::Spare => return Err(BrokerError::DeviceBusy { paddr }),
            };
            let high = self.nodes[low as usize + 1].paddr;
            node = if paddr >= high { low + 1 } else { low };
        }
        match self.nodes[node as usize] {
            Node {
                size_bits: size, ..
            } if size < size_bits => Err(absent),
            Node {
                state: State::Free, ..
            } => Ok(self.hand_out(node)),
            _ => Err(BrokerError::DeviceBusy { paddr }),
        }
    }

    /// The largest device untyped of boot that contains `paddr`, as first
    /// address and size in bits.
    pub fn device_at(&self, paddr: u64) -> Option<(u64, u8)> {
        let root = (0..self.roots).find(|root| self.is_device_with(*root, paddr))?;
        let node = &self.nodes[root as usize];
        Some((node.paddr, node.size_bits))
    }

    /// Makes `count` objects of a block, in consecutive slots from `first`.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`].
    pub fn retype(
        &mut self,
        kernel: &mut impl Kernel,
        block: &Block,
        object: Object,
        first: Slot,
        count: u32,
    ) -> Result<(), BrokerError> {
        self.retype_node(kernel, block.node, object, first, count)
    }

    /// Makes an ASID pool of a block, in `slot`.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`], also when the kernel has no pool left.
    pub fn make_asid_pool(
        &mut self,
        kernel: &mut impl Kernel,
        block: &Block,
        slot: Slot,
    ) -> Result<(), BrokerError> {
        self.make_of_node(kernel, block.node, |untyped| Operation::MakeAsidPool {
            untyped,
            to: slot,
        })
    }

    /// Deletes everything made of a block, wherever its capabilities are.
    ///
    /// # Preconditions
    /// No frame capability made of it is mapped (K5).
    ///
    /// # Errors
    /// [`BrokerError::Kernel`].
    pub fn revoke(&self, kernel: &mut impl Kernel, block: &Block) -> Result<(), BrokerError> {
        kernel.execute(&Operation::Revoke {
            slot: self.slot(block),
        })?;
        Ok(())
    }

    /// Gives a block back.
    ///
    /// # Preconditions
    /// Nothing made of it exists any more ([`revoke`](Self::revoke)).
    pub fn free(&mut self, kernel: &mut impl Kernel, slots: &mut SlotAllocator, block: Block) {
        let node = block.node;
        let size = 1_u64 << self.nodes[node as usize].size_bits;
        self.nodes[node as usize].state = State::Free;
        self.credit(node, size);
        if self.nodes[node as usize].is_device {
            self.merge_upwards(kernel, slots, node);
        } else {
            self.free += size;
            self.link(node);
        }
    }

    /// Merges everything that can be merged, giving the slots of the halves
    /// back. The next allocations pay for it in zeroing.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; blocks not reached stay split.
    pub fn merge_all(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
    ) -> Result<(), BrokerError> {
        for root in 0..self.roots {
            self.merge_below(kernel, slots, root)?;
        }
        Ok(())
    }

    /// Size in bits of the largest block an allocation would get; `None` when
    /// nothing is free.
    pub fn largest_available(&self) -> Option<u8> {
        let whole = |node: &&Node| {
            !node.is_device
                && matches!(node.state, State::Free | State::Split { .. })
                && node.free_bytes == 1 << node.size_bits
        };
        self.nodes
            .iter()
            .filter(whole)
            .map(|node| node.size_bits)
            .max()
    }

    /// Number of slots that hold halves.
    pub fn slots_held(&self) -> u32 {
        let halves = self.nodes.iter().skip(self.roots as usize);
        halves.filter(|node| node.state != State::Spare).count() as u32
    }

    /// Calls `visit` with first address, size in bits and device flag of each
    /// allocated block.
    pub fn for_each_allocated(&self, mut visit: impl FnMut(u64, u8, bool)) {
        let allocated = self
            .nodes
            .iter()
            .filter(|node| node.state == State::Allocated);
        allocated.for_each(|node| visit(node.paddr, node.size_bits, node.is_device));
    }

    /// Checks U1 to U4 as far as they concern this structure.
    ///
    /// # Panics
    /// When one is broken, which is a defect of this module.
    pub fn check(&self) {
        let mut free = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            self.check_node(at as u32, node);
            let counts = !node.is_device && node.state == State::Free;
            free += if counts { 1 << node.size_bits } else { 0 };
        }
        assert_eq!(free, self.free, "U2 broken: free bytes");
        self.check_lists();
    }

    fn check_node(&self, at: u32, node: &Node) {
        let size = 1_u64 << node.size_bits;
        match node.state {
            State::Free => assert_eq!(node.free_bytes, size, "U2 broken at {at}"),
            State::Allocated => assert_eq!(node.free_bytes, 0, "U2 broken at {at}"),
            State::Spare => {}
            State::Split { child } => {
                let (low, high) = (&self.nodes[child as usize], &self.nodes[child as usize + 1]);
                assert_eq!(
                    node.free_bytes,
                    low.free_bytes + high.free_bytes,
                    "U2 broken at {at}"
                );
                assert_eq!((low.parent, high.parent), (at, at), "U1 broken at {at}");
                assert_eq!(low.paddr, node.paddr, "U1 broken at {at}");
                assert_eq!(high.paddr, node.paddr + size / 2, "U1 broken at {at}");
                assert_eq!(high.slot, low.slot.at(1), "U1 broken at {at}");
            }
        }
    }

    fn check_lists(&self) {
        let mut listed = 0;
        for (class, head) in self.lists.iter().enumerate() {
            let mut at = *head;
            let mut previous = NONE;
            while at != NONE {
                let node = &self.nodes[at as usize];
                assert_eq!(node.state, State::Free, "U3 broken: {at} is listed");
                assert_eq!(
                    usize::from(node.size_bits),
                    class,
                    "U3 broken: class of {at}"
                );
                assert_eq!(node.previous, previous, "U3 broken: links of {at}");
                assert!(!node.is_device, "U3 broken: {at} is a device");
                listed += 1;
                (previous, at) = (at, node.next);
            }
        }
        let free = |node: &&Node| node.state == State::Free && !node.is_device;
        assert_eq!(
            self.nodes.iter().filter(free).count(),
            listed,
            "U3 broken: count"
        );
    }

    fn is_device_with(&self, root: u32, paddr: u64) -> bool {
        let node = &self.nodes[root as usize];
        node.is_device && paddr >= node.paddr && (paddr - node.paddr) >> node.size_bits == 0
    }

    /// The free block to serve a request from; see the module's bounds.
    fn pick(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        size_bits: u8,
    ) -> Result<u32, BrokerError> {
        let classes = self.lists.iter().skip(usize::from(size_bits));
        let listed = classes.copied().find(|head| *head != NONE);
        let limit = match listed.map(|node| self.nodes[node as usize]) {
            None => SIZE_CLASSES as u8,
            Some(node) if self.is_dear(&node, size_bits) => node.size_bits,
            Some(_) => return listed.ok_or(BrokerError::OutOfMemory { size_bits }),
        };
        match self.smallest_mergeable(size_bits, limit) {
            Some(node) => self.merge(kernel, slots, node).map(|()| node),
            None => listed.ok_or(BrokerError::OutOfMemory { size_bits }),
        }
    }

    /// True when splitting `node` costs enough zeroing to look further.
    const fn is_dear(&self, node: &Node, wanted_bits: u8) -> bool {
        node.used && node.size_bits > wanted_bits && node.size_bits >= MERGE_SCAN_BITS
    }

    fn smallest_mergeable(&self, least_bits: u8, below_bits: u8) -> Option<u32> {
        let mergeable = |node: &Node| {
            matches!(node.state, State::Split { .. })
                && !node.is_device
                && (least_bits..below_bits).contains(&node.size_bits)
                && node.free_bytes == 1 << node.size_bits
        };
        let candidates = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| mergeable(node));
        candidates
            .min_by_key(|(_, node)| node.size_bits)
            .map(|(at, _)| at as u32)
    }

    /// Splits a free block and returns its lower half.
    fn split(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        node: u32,
    ) -> Result<u32, BrokerError> {
        let pair = self.spare_pair()?;
        let half_bits = self.nodes[node as usize].size_bits - 1;
        let half = Object {
            kind: ObjectKind::Untyped,
            size_bits: half_bits,
        };
        let made = slots.allocate_run(2).and_then(|first| {
            let retyped = self.retype_node(kernel, node, half, first, 2);
            retyped
                .inspect_err(|_| slots.free_run(first, 2))
                .map(|()| first)
        });
        let first = made.inspect_err(|_| self.keep_pair(pair))?;
        self.adopt_halves(node, pair, first, half_bits);
        Ok(pair)
    }

    fn adopt_halves(&mut self, parent: u32, pair: u32, first: Slot, size_bits: u8) {
        self.unlink(parent);
        self.nodes[parent as usize].state = State::Split { child: pair };
        let Node {
            paddr, is_device, ..
        } = self.nodes[parent as usize];
        for half in 0..2 {
            self.nodes[(pair + half) as usize] = Node {
                paddr: paddr + (u64::from(half) << size_bits),
                free_bytes: 1 << size_bits,
                slot: first.at(half),
                parent,
                previous: NONE,
                next: NONE,
                state: State::Free,
                size_bits,
                is_device,
                used: false, // K2
            };
            self.link(pair + half);
        }
    }

    /// Turns a split block that is wholly free into one free block.
    fn merge(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        node: u32,
    ) -> Result<(), BrokerError> {
        kernel.execute(&Operation::Revoke {
            slot: self.nodes[node as usize].slot,
        })?;
        self.forget_halves(slots, node);
        self.nodes[node as usize].state = State::Free;
        self.link(node);
        Ok(())
    }

    /// Drops the books of everything below `node`. Recursion is at most one
    /// level per size class.
    fn forget_halves(&mut self, slots: &mut SlotAllocator, node: u32) {
        let State::Split { child } = self.nodes[node as usize].state else {
            return;
        };
        for half in [child, child + 1] {
            self.forget_halves(slots, half);
            self.unlink(half);
        }
        slots.free_run(self.nodes[child as usize].slot, 2);
        self.keep_pair(child);
    }

    fn merge_below(
        &mut self,
        kernel: &mut impl Kernel,
        slots: &mut SlotAllocator,
        node: u32,
    ) -> Result<(), BrokerError> {
        let Node {
            state,
            free_bytes,
            size_bits,
            ..
        } = self.nodes[node as usize];
        match state {
            State::Split { .. } if free_bytes == 1 << size_bits => self.merge(kernel, slots, node),
            State::Split { child } => {
                self.merge_below(kernel, slots, child)?;
                self.merge_below(kernel, slots, child + 1)
            }
            _ => Ok(()),
        }
    }

    /// Merges device memory around a block that became free. A refusal leaves
    /// it split, which costs slots and nothing else.
    fn merge_upwards(&mut self, kernel: &mut impl Kernel, slots: &mut SlotAllocator, node: u32) {
        let mut whole = None;
        let mut at = self.nodes[node as usize].parent;
        while at != NONE {
            let ancestor = &self.nodes[at as usize];
            if ancestor.free_bytes != 1 << ancestor.size_bits {
                break;
            }
            whole = Some(at);
            at = ancestor.parent;
        }
        if let Some(whole) = whole {
            let _ = self.merge(kernel, slots, whole);
        }
    }

    fn retype_node(
        &mut self,
        kernel: &mut impl Kernel,
        node: u32,
        object: Object,
        first: Slot,
        count: u32,
    ) -> Result<(), BrokerError> {
        self.make_of_node(kernel, node, |untyped| Operation::Retype {
            untyped,
            object,
            first,
            count,
        })
    }

    fn make_of_node(
        &mut self,
        kernel: &mut impl Kernel,
        node: u32,
        operation: impl FnOnce(Slot) -> Operation,
    ) -> Result<(), BrokerError> {
        let record = &mut self.nodes[node as usize];
        let zeroed = if record.used && !record.is_device {
            1 << record.size_bits
        } else {
            0
        };
        // Also when the kernel refuses: it may have begun.
        record.used = true;
        kernel.execute(&operation(record.slot))?;
        self.zeroed += zeroed;
        Ok(())
    }

    fn hand_out(&mut self, node: u32) -> Block {
        let Node {
            size_bits,
            is_device,
            ..
        } = self.nodes[node as usize];
        self.unlink(node);
        self.nodes[node as usize].state = State::Allocated;
        self.debit(node, 1 << size_bits);
        if !is_device {
            self.free -= 1 << size_bits;
        }
        Block { node }
    }

    fn credit(&mut self, node: u32, bytes: u64) {
        self.for_each_ancestor(node, |ancestor| ancestor.free_bytes += bytes);
    }

    fn debit(&mut self, node: u32, bytes: u64) {
        self.for_each_ancestor(node, |ancestor| ancestor.free_bytes -= bytes);
    }

    fn for_each_ancestor(&mut self, node: u32, mut change: impl FnMut(&mut Node)) {
        let mut at = node;
        while at != NONE {
            change(&mut self.nodes[at as usize]);
            at = self.nodes[at as usize].parent;
        }
    }

    fn spare_pair(&mut self) -> Result<u32, BrokerError> {
        const FULL: BrokerError = BrokerError::OutOfRecords("untyped blocks");
        if self.spare_pairs != NONE {
            let pair = self.spare_pairs;
            self.spare_pairs = self.nodes[pair as usize].next;
            return Ok(pair);
        }
        if self.nodes.len() + 2 > self.capacity {
            return Err(FULL);
        }
        self.nodes.try_reserve(2).map_err(|_| FULL)?;
        let pair = self.nodes.len() as u32;
        let spare = Node {
            paddr: 0,
            free_bytes: 0,
            slot: Slot(0),
            parent: NONE,
            previous: NONE,
            next: NONE,
            state: State::Spare,
            size_bits: 0,
            is_device: false,
            used: false,
        };
        self.nodes.extend([spare, spare]);
        Ok(pair)
    }

    fn keep_pair(&mut self, pair: u32) {
        for half in [pair, pair + 1] {
            self.nodes[half as usize].state = State::Spare;
        }
        self.nodes[pair as usize].next = self.spare_pairs;
        self.spare_pairs = pair;
    }

    fn link(&mut self, node: u32) {
        let record = self.nodes[node as usize];
        if record.is_device {
            return;
        }
        let class = usize::from(record.size_bits);
        let head = self.lists[class];
        let record = &mut self.nodes[node as usize];
        (record.previous, record.next) = (NONE, head);
        if head != NONE {
            self.nodes[head as usize].previous = node;
        }
        self.lists[class] = node;
    }

    /// Takes a free block off its list; does nothing for others.
    fn unlink(&mut self, node: u32) {
        let record = self.nodes[node as usize];
        if record.is_device || record.state != State::Free {
            return;
        }
        match record.previous {
            NONE => self.lists[usize::from(record.size_bits)] = record.next,
            previous => self.nodes[previous as usize].next = record.next,
        }
        if record.next != NONE {
            self.nodes[record.next as usize].previous = record.previous;
        }
    }
}
