//! Builds the CapSet page: what a process was granted, by name.

use capos_config::capset::{
    CAPSET_MAGIC, CAPSET_MAX_ENTRIES, CAPSET_NAME_MAX, CAPSET_VERSION, CapSetEntry, CapSetHeader,
};
use core::mem::{offset_of, size_of};

use crate::cap_table::CapId;

/// Bytes of the page.
pub const CAPSET_PAGE_BYTES: usize = 4096;

/// Why an entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapSetError {
    /// The page is full: grant fewer capabilities.
    Full,
    /// The name is longer than an entry: shorten it.
    NameTooLong,
}

/// A CapSet page under construction. Entries keep their order; of two equal
/// names a client finds the first.
#[derive(Debug)]
pub struct CapSetPage<'a> {
    page: &'a mut [u8; CAPSET_PAGE_BYTES],
    count: usize,
}

impl<'a> CapSetPage<'a> {
    /// Clears `page` and makes it an empty CapSet.
    pub fn new(page: &'a mut [u8; CAPSET_PAGE_BYTES]) -> Self {
        page.fill(0);
        let mut set = Self { page, count: 0 };
        set.put(offset_of!(CapSetHeader, magic), &CAPSET_MAGIC.to_le_bytes());
        set.put(
            offset_of!(CapSetHeader, version),
            &CAPSET_VERSION.to_le_bytes(),
        );
        set
    }

    /// Appends a capability.
    ///
    /// # Errors
    /// [`CapSetError`]; the page is unchanged.
    pub fn push(&mut self, name: &str, id: CapId, interface_id: u64) -> Result<(), CapSetError> {
        if self.count == CAPSET_MAX_ENTRIES {
            return Err(CapSetError::Full);
        }
        if name.len() > CAPSET_NAME_MAX {
            return Err(CapSetError::NameTooLong);
        }
        let entry = size_of::<CapSetHeader>() + self.count * size_of::<CapSetEntry>();
        let name_len = name.len() as u32;
        self.put(
            entry + offset_of!(CapSetEntry, cap_id),
            &id.raw().to_le_bytes(),
        );
        self.put(
            entry + offset_of!(CapSetEntry, name_len),
            &name_len.to_le_bytes(),
        );
        self.put(
            entry + offset_of!(CapSetEntry, interface_id),
            &interface_id.to_le_bytes(),
        );
        self.put(entry + offset_of!(CapSetEntry, name), name.as_bytes());
        self.count += 1;
        let count = self.count as u32;
        self.put(offset_of!(CapSetHeader, count), &count.to_le_bytes());
        Ok(())
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}
