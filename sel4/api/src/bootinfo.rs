//! What the kernel tells the initial thread.

use core::ops::{Deref, Range};
use core::ptr::NonNull;

use crate::{Cap, GRANULE_SIZE, IpcBuffer, Word, cap};

/// `seL4_BootInfo`. The struct is packed differently by different kernels, so
/// its members are read at the offsets the headers give.
#[repr(transparent)]
pub struct BootInfo([u8; sel4_raw::seL4_BootInfo_SIZE as usize]);

/// A pointer to the bootinfo frame and the extra information behind it.
#[derive(Clone, Copy, Debug)]
pub struct BootInfoPtr(NonNull<BootInfo>);

/// `seL4_UntypedDesc`: one untyped the kernel hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntypedDesc {
    paddr: Word,
    size_bits: usize,
    is_device: bool,
}

/// A chunk of extra information (`seL4_BootInfoHeader` and what follows).
#[derive(Clone, Copy, Debug)]
pub struct BootInfoExtra<'a> {
    /// Which information it is (`SEL4_BOOTINFO_HEADER_*`).
    pub id: Word,
    /// The information.
    pub content: &'a [u8],
}

/// Reads a member at its offset.
macro_rules! member {
    ($self:expr, $offset:ident, $size:ident) => {
        read(&$self.0, sel4_raw::$offset, sel4_raw::$size)
    };
}

/// Reads a little-endian integer of up to eight bytes.
fn read(bytes: &[u8], offset: usize, size: usize) -> Word {
    let mut word = [0; size_of::<Word>()];
    word[..size].copy_from_slice(&bytes[offset..offset + size]);
    Word::from_le_bytes(word)
}

impl BootInfo {
    /// `extraLen`: bytes of extra information.
    #[must_use]
    pub fn extra_len(&self) -> usize {
        member!(
            self,
            seL4_BootInfo_extraLen_OFFSET,
            seL4_BootInfo_extraLen_SIZE
        ) as usize
    }

    /// `nodeID`: the core this is.
    #[must_use]
    pub fn node_id(&self) -> Word {
        member!(self, seL4_BootInfo_nodeID_OFFSET, seL4_BootInfo_nodeID_SIZE)
    }

    /// `numNodes`: how many cores the kernel runs on.
    #[must_use]
    pub fn num_nodes(&self) -> Word {
        member!(
            self,
            seL4_BootInfo_numNodes_OFFSET,
            seL4_BootInfo_numNodes_SIZE
        )
    }

    /// `ipcBuffer`: where the initial thread's IPC buffer is.
    #[must_use]
    pub fn ipc_buffer(&self) -> *mut IpcBuffer {
        let address = member!(
            self,
            seL4_BootInfo_ipcBuffer_OFFSET,
            seL4_BootInfo_ipcBuffer_SIZE
        );
        core::ptr::with_exposed_provenance_mut(address as usize)
    }

    /// `initThreadCNodeSizeBits`: slots of the initial CNode, as a power of two.
    #[must_use]
    pub fn init_thread_cnode_size_bits(&self) -> usize {
        member!(
            self,
            seL4_BootInfo_initThreadCNodeSizeBits_OFFSET,
            seL4_BootInfo_initThreadCNodeSizeBits_SIZE
        ) as usize
    }

    /// `empty`: the empty slots of the initial CNode.
    #[must_use]
    pub fn empty(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_empty_OFFSET)
    }

    /// `userImageFrames`: the frames of the initial thread's image, one per
    /// page, in order of their addresses.
    #[must_use]
    pub fn user_image_frames(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_userImageFrames_OFFSET)
    }

    /// `userImagePaging`: the page tables that map them.
    #[must_use]
    pub fn user_image_paging(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_userImagePaging_OFFSET)
    }

    /// `extraBIPages`: the frames of the extra information.
    #[must_use]
    pub fn extra_bootinfo_pages(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_extraBIPages_OFFSET)
    }

    /// `schedcontrol`: authority over each core's time.
    #[cfg(sel4_has = "seL4_BootInfo.schedcontrol")]
    #[must_use]
    pub fn sched_control(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_schedcontrol_OFFSET)
    }

    /// `untyped`: the slots of the untypeds.
    #[must_use]
    pub fn untyped(&self) -> Range<usize> {
        self.slots(sel4_raw::seL4_BootInfo_untyped_OFFSET)
    }

    /// `untypedList`: the untypeds, in the order of their slots.
    pub fn untyped_list(&self) -> impl ExactSizeIterator<Item = UntypedDesc> + '_ {
        self.untyped_descriptions().map(UntypedDesc::read)
    }

    /// The untypeds with their capabilities.
    pub fn untypeds(&self) -> impl ExactSizeIterator<Item = (cap::Untyped, UntypedDesc)> + '_ {
        let start = self.untyped().start;
        self.untyped_list()
            .enumerate()
            .map(move |(index, desc)| (Cap::from_bits((start + index) as Word), desc))
    }

    fn untyped_descriptions(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let start = sel4_raw::seL4_BootInfo_untypedList_OFFSET;
        let list = &self.0[start..start + sel4_raw::seL4_BootInfo_untypedList_SIZE];
        list.chunks_exact(sel4_raw::seL4_UntypedDesc_SIZE as usize)
            .take(self.untyped().len())
    }

    fn slots(&self, offset: usize) -> Range<usize> {
        let start = offset + sel4_raw::seL4_SlotRegion_start_OFFSET;
        let end = offset + sel4_raw::seL4_SlotRegion_end_OFFSET;
        let size = sel4_raw::seL4_SlotRegion_start_SIZE;
        read(&self.0, start, size) as usize..read(&self.0, end, size) as usize
    }
}

impl UntypedDesc {
    fn read(bytes: &[u8]) -> Self {
        let field = |offset, size| read(bytes, offset, size);
        Self {
            paddr: field(
                sel4_raw::seL4_UntypedDesc_paddr_OFFSET,
                sel4_raw::seL4_UntypedDesc_paddr_SIZE,
            ),
            size_bits: field(
                sel4_raw::seL4_UntypedDesc_sizeBits_OFFSET,
                sel4_raw::seL4_UntypedDesc_sizeBits_SIZE,
            ) as usize,
            is_device: field(
                sel4_raw::seL4_UntypedDesc_isDevice_OFFSET,
                sel4_raw::seL4_UntypedDesc_isDevice_SIZE,
            ) != 0,
        }
    }

    /// Physical address in bytes.
    #[must_use]
    pub const fn paddr(&self) -> Word {
        self.paddr
    }

    /// Size as a power of two.
    #[must_use]
    pub const fn size_bits(&self) -> usize {
        self.size_bits
    }

    /// Whether it is device memory, which becomes frames and untypeds only and
    /// is never cleared.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        self.is_device
    }
}

impl BootInfoPtr {
    /// Takes the pointer the kernel passes to the initial thread.
    ///
    /// # Safety
    /// It is that pointer, and the frames behind it stay mapped and unchanged
    /// while the program runs.
    #[must_use]
    pub const unsafe fn new(ptr: NonNull<BootInfo>) -> Self {
        Self(ptr)
    }

    /// The extra information, chunk by chunk. It begins one page after the
    /// bootinfo.
    pub fn extra(&self) -> impl Iterator<Item = BootInfoExtra<'_>> {
        let start = self.0.cast::<u8>().as_ptr().wrapping_add(GRANULE_SIZE);
        // SAFETY: the kernel maps `extra_len` bytes there, and whoever made
        // `self` vouched that they stay.
        let mut rest = unsafe { core::slice::from_raw_parts(start, self.extra_len()) };
        core::iter::from_fn(move || {
            let (chunk, tail) = next_chunk(rest)?;
            rest = tail;
            Some(chunk)
        })
    }

    /// Frequency of the time-stamp counter in MHz, as the kernel measured it.
    #[cfg(sel4_has = "seL4_BootInfo.archInfo")]
    #[must_use]
    pub fn tsc_frequency_mhz(&self) -> Option<u32> {
        let info: &BootInfo = self;
        let mhz = member!(
            info,
            seL4_BootInfo_archInfo_OFFSET,
            seL4_BootInfo_archInfo_SIZE
        );
        u32::try_from(mhz).ok().filter(|mhz| *mhz != 0)
    }

    /// Frequency of the time-stamp counter in MHz, as the kernel measured it.
    #[cfg(not(sel4_has = "seL4_BootInfo.archInfo"))]
    #[must_use]
    pub fn tsc_frequency_mhz(&self) -> Option<u32> {
        let chunk = self
            .extra()
            .find(|chunk| chunk.id == sel4_raw::SEL4_BOOTINFO_HEADER_X86_TSC_FREQ)?;
        chunk
            .content
            .first_chunk()
            .map(|mhz| u32::from_le_bytes(*mhz))
    }
}

/// Splits off a chunk; `None` where nothing sensible is left.
fn next_chunk(bytes: &[u8]) -> Option<(BootInfoExtra<'_>, &[u8])> {
    const HEADER: usize = sel4_raw::seL4_BootInfoHeader_SIZE as usize;
    if bytes.len() < HEADER {
        return None;
    }
    let id = read(
        bytes,
        sel4_raw::seL4_BootInfoHeader_id_OFFSET,
        sel4_raw::seL4_BootInfoHeader_id_SIZE,
    );
    let length = read(
        bytes,
        sel4_raw::seL4_BootInfoHeader_len_OFFSET,
        sel4_raw::seL4_BootInfoHeader_len_SIZE,
    ) as usize;
    let (chunk, rest) = bytes.split_at_checked(length)?;
    let content = chunk.get(HEADER..)?;
    Some((BootInfoExtra { id, content }, rest))
}

impl Deref for BootInfoPtr {
    type Target = BootInfo;

    fn deref(&self) -> &BootInfo {
        // SAFETY: whoever made `self` vouched that the frame stays mapped and
        // unchanged; the struct has no alignment.
        unsafe { self.0.as_ref() }
    }
}
