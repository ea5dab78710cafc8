//! Turns the decisions of cap-broker-core into seL4 invocations.
#![no_std]
extern crate alloc;
use alloc::vec::Vec;
pub use cap_broker_core::*;
pub use cap_broker_core::devices::{Pin, PortRange, Trigger};
pub use cap_broker_core::broker::DeviceMapping;
use cap_broker_core as core_;
use sel4::{BootInfoPtr, CPtr, CapRights, ObjectBlueprint, VmAttributes, cap, init_thread::slot};

/// seL4.
#[derive(Debug)]
pub struct Sel4;
fn own() -> cap::CNode { slot::CNODE.cap() }
fn at(s: Slot) -> sel4::AbsoluteCPtr { own().absolute_cptr(CPtr::from_bits(s.0.into())) }
impl Kernel for Sel4 {
    fn execute(&mut self, op: &Operation) -> Result<(), Refused> {
        let bits = |s: Slot| u64::from(s.0);
        let r = match *op {
            Operation::Retype { untyped, object, first, count } => {
                let bp = match object.kind {
                    ObjectKind::Untyped => ObjectBlueprint::Untyped { size_bits: object.size_bits.into() },
                    ObjectKind::Tcb => ObjectBlueprint::Tcb,
                    ObjectKind::Endpoint => ObjectBlueprint::Endpoint,
                    ObjectKind::Notification => ObjectBlueprint::Notification,
                    ObjectKind::CNode => ObjectBlueprint::CNode { size_bits: usize::from(object.size_bits) - 5 },
                    ObjectKind::VSpace => ObjectBlueprint::Pml4,
                    ObjectKind::Table(Level::Pdpt) => ObjectBlueprint::Pdpt,
                    ObjectKind::Table(Level::Directory) => ObjectBlueprint::PageDirectory,
                    ObjectKind::Table(Level::PageTable) => ObjectBlueprint::PageTable,
                    ObjectKind::Frame => ObjectBlueprint::Granule,
                    _ => return Err(Refused(1)),
                };
                cap::Untyped::from_bits(bits(untyped)).untyped_retype(&bp, &own().absolute_cptr_for_self(), first.0 as usize, count as usize)
            }
            Operation::Delete { slot } => at(slot).delete(),
            Operation::Revoke { slot } => at(slot).revoke(),
            Operation::Copy { from, to } => at(to).copy(&at(from), CapRights::all()),
            Operation::AssignAsid { space } => slot::ASID_POOL.cap().asid_pool_assign(cap::VSpace::from_bits(bits(space))),
            Operation::MapTable { table, level, space, vaddr } => {
                let (v, t, a) = (cap::VSpace::from_bits(bits(space)), bits(table), VmAttributes::DEFAULT);
                match level {
                    Level::Pdpt => cap::Pdpt::from_bits(t).map(v, vaddr as usize, a),
                    Level::Directory => cap::PageDirectory::from_bits(t).map(v, vaddr as usize, a),
                    Level::PageTable => cap::PageTable::from_bits(t).map(v, vaddr as usize, a),
                }
            }
            Operation::MapPage { frame, space, vaddr, rights, cache } => cap::Granule::from_bits(bits(frame)).frame_map(
                cap::VSpace::from_bits(bits(space)), vaddr as usize,
                if rights == Rights::Read { CapRights::read_only() } else { CapRights::read_write() },
                if cache == Cache::Normal { VmAttributes::DEFAULT } else { VmAttributes::CACHE_DISABLED }),
            Operation::UnmapPage { frame } => cap::Granule::from_bits(bits(frame)).frame_unmap(),
            Operation::ZeroPage { window } => {
                // SAFETY: temporary
                unsafe { core::ptr::write_bytes(window as *mut u8, 0, 4096) };
                Ok(())
            }
        };
        r.map_err(|e| code(e))
    }
}
/// Broker on seL4.
#[derive(Debug)]
pub struct Broker { books: core_::Broker, kernel: Sel4 }
macro_rules! fwd { ($($name:ident($($a:ident: $t:ty),*) -> $r:ty;)*) => { $(#[allow(missing_docs)] pub fn $name(&mut self $(, $a: $t)*) -> Result<$r, BrokerError> { self.books.$name(&mut self.kernel $(, $a)*) })* } }
impl Broker {
    /// New.
    pub fn new(b: &BootInfoPtr) -> Result<Self, BrokerError> {
        let boot: Vec<BootUntyped> = b.untypeds().map(|(c, d)| BootUntyped { slot: Slot(c.bits() as u32), paddr: d.paddr() as u64, size_bits: d.size_bits() as u8, is_device: d.is_device() }).collect();
        let e = b.empty();
        let cfg = BrokerConfig::new(Slot(e.start as u32), Slot(e.end as u32), Slot(slot::VSPACE.cap().bits() as u32), 1 << 17);
        Ok(Self { books: core_::Broker::new(&boot, &cfg), kernel: Sel4 })
    }
    fwd! {
        allocate_slot() -> Slot; create_object(o: Object) -> OwnedObject; destroy_object(o: OwnedObject) -> ();
        create_space() -> SpaceId; destroy_space(s: SpaceId) -> (); back_page(s: SpaceId, v: u64, r: Rights) -> FrameId;
        map_device(p: u64, n: u32) -> DeviceMapping;
    }
    #[allow(missing_docs)] pub fn sizes(&self) -> &ObjectSizes { self.books.sizes() }
    #[allow(missing_docs)] pub fn usage(&self) -> Usage { self.books.usage() }
    #[allow(missing_docs)] pub fn space_root(&self, s: SpaceId) -> Result<Slot, BrokerError> { self.books.space_root(s) }
    #[allow(missing_docs)] pub fn page(&self, s: SpaceId, v: u64) -> Option<vspace::MappedPage> { self.books.page(s, v) }
    #[allow(missing_docs)] pub fn client_byte(&self, s: SpaceId, v: u64) -> Option<u64> { self.books.client_byte(s, v) }
    #[allow(missing_docs)] pub fn window_address(&self, f: FrameId) -> Option<u64> { self.books.window_address(f) }
    #[allow(missing_docs)] pub fn request_ports(&mut self, r: PortRange) -> Result<cap::IoPort, BrokerError> {
        let s = self.allocate_slot()?;
        sel4::IoPortAuthority::of_init_thread().issue(r.first, r.last, &at(s)).map_err(|e| code(e))?;
        Ok(cap::IoPort::from_bits(s.0.into()))
    }
    #[allow(missing_docs)] pub fn request_irq(&mut self, p: Pin, t: Trigger) -> Result<cap::IrqHandler, BrokerError> {
        let l = self.books.acquire_irq(p, t).map_err(|_| Refused(1))?;
        let s = self.allocate_slot()?;
        slot::IRQ_CONTROL.cap().irq_control_get_ioapic(p.ioapic.into(), p.pin.into(), 0, 0, l.vector.into(), &at(s)).map_err(|e| code(e))?;
        Ok(cap::IrqHandler::from_bits(s.0.into()))
    }
}
fn code(e: sel4::Error) -> Refused { let _ = e; Refused(99) }
