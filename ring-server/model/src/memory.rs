//! Simulated process memory: pages with permissions, backed on first touch.

use std::collections::BTreeMap;

use ring_server_core::{
    AccessFault, AddressMap, Backed, Backing, NoMemory, Protection, Region, RegionKind,
};

const PAGE: u64 = 4096;

#[derive(Debug)]
struct ModelPage {
    protection: Protection,
    bytes: Option<Box<[u8; PAGE as usize]>>,
}

const REGIONS_MAX: usize = 512;

/// Memory that is zero on first touch and that its process may unmap, as a
/// region of a map.
pub const fn anonymous(start: u64, len: u64, protection: Protection) -> Region {
    Region {
        start,
        end: start + len,
        protection,
        backing: Backing::DemandZero,
        kind: RegionKind::Anonymous,
    }
}

/// The memory of one process.
#[derive(Debug, Default)]
pub struct Memory {
    pages: BTreeMap<u64, ModelPage>,
}

impl Memory {
    /// Maps whole pages, zero on first touch.
    pub fn map(&mut self, start: u64, len: u64, protection: Protection) {
        for base in (start..start + len).step_by(PAGE as usize) {
            let page = ModelPage {
                protection,
                bytes: None,
            };
            self.pages.insert(base, page);
        }
    }

    /// Takes pages away, as an unmap behind the server's back would.
    pub fn unmap(&mut self, start: u64, len: u64) {
        self.pages
            .retain(|&base, _| !(start..start + len).contains(&base));
    }

    /// The same ranges as the core sees them.
    pub fn address_space(&self) -> AddressMap {
        let mut space = AddressMap::new(REGIONS_MAX);
        for (&base, page) in &self.pages {
            let mapped = space.insert(anonymous(base, PAGE, page.protection));
            mapped.expect("pages are disjoint and in user space");
        }
        space
    }

    /// Backs a page as after a fault.
    pub fn back(&mut self, page: u64) -> Result<Backed, NoMemory> {
        let page = self.pages.get_mut(&page).ok_or(NoMemory)?;
        if page.bytes.is_some() {
            return Ok(Backed::Already);
        }
        page.bytes = Some(Box::new([0; PAGE as usize]));
        Ok(Backed::Now)
    }

    /// Copies out, failing on the first unmapped byte.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        let mut at = addr;
        let mut rest = out;
        while !rest.is_empty() {
            let (page, within) = split(at);
            let chunk = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at_mut(chunk);
            let page = self.pages.get(&page).ok_or(AccessFault)?;
            if page.protection.is_none() {
                return Err(AccessFault);
            }
            match &page.bytes {
                Some(bytes) => now.copy_from_slice(&bytes[within..within + chunk]),
                None => now.fill(0),
            }
            at = at.wrapping_add(chunk as u64);
            rest = later;
        }
        Ok(())
    }

    /// Copies in, failing on the first byte that is not writable.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        let mut at = addr;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (page, within) = split(at);
            let chunk = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at(chunk);
            let page = self.pages.get_mut(&page).ok_or(AccessFault)?;
            if !page.protection.write {
                return Err(AccessFault);
            }
            let backing = page
                .bytes
                .get_or_insert_with(|| Box::new([0; PAGE as usize]));
            backing[within..within + chunk].copy_from_slice(now);
            at = at.wrapping_add(chunk as u64);
            rest = later;
        }
        Ok(())
    }
}

/// Page base and offset of an address.
fn split(addr: u64) -> (u64, usize) {
    (addr & !(PAGE - 1), (addr % PAGE) as usize)
}
