//! Capabilities for device registers, I/O ports and interrupt lines.

extern crate alloc;

use alloc::vec::Vec;

use cap_broker_core::devices::{DeviceId, DeviceResources, IrqLine, Pin, PortRange, Trigger};
use cap_broker_core::{BrokerError, DeviceError, DeviceMapping, Slot};
use sel4::{IoPortAuthority, cap, init_thread};

use crate::kernel::{path, refused};
use crate::{Broker, slot_cap};

/// Where the capabilities of ranges and lines lie.
#[derive(Default)]
pub struct Grants {
    ports: Vec<(PortRange, Slot)>,
    lines: Vec<(Pin, Slot)>,
}

impl Grants {
    /// Ranges and where their capabilities lie.
    pub fn ports(&self) -> &[(PortRange, Slot)] {
        &self.ports
    }

    /// Lines and where their capabilities lie.
    pub fn lines(&self) -> &[(Pin, Slot)] {
        &self.lines
    }
}

/// A device and everything it consists of, held by whoever holds this.
#[derive(Debug)]
#[must_use = "a grant that is dropped is never given back"]
pub struct DeviceGrant {
    ports: Option<(PortRange, cap::IoPort)>,
    irq: Option<(Pin, cap::IrqHandler)>,
    registers: Option<DeviceMapping>,
}

impl DeviceGrant {
    /// Its I/O ports.
    pub fn ports(&self) -> Option<cap::IoPort> {
        self.ports.map(|(_, ports)| ports)
    }

    /// Its interrupt.
    pub fn irq(&self) -> Option<cap::IrqHandler> {
        self.irq.map(|(_, handler)| handler)
    }

    /// Its registers.
    pub const fn registers(&self) -> Option<&DeviceMapping> {
        self.registers.as_ref()
    }
}

impl Broker {
    /// Takes a device of the platform: all of its ports, interrupt and
    /// registers, or nothing.
    ///
    /// # Errors
    /// [`DeviceError::BadRequest`] for a device there is not, and those of
    /// [`request_ports`](Self::request_ports),
    /// [`request_irq`](Self::request_irq) and
    /// [`map_device`](Self::map_device).
    pub fn request_device(&mut self, device: DeviceId) -> Result<DeviceGrant, DeviceError> {
        let resources = device.resources().ok_or(DeviceError::BadRequest)?;
        let mut grant = DeviceGrant {
            ports: None,
            irq: None,
            registers: None,
        };
        match self.fill(&mut grant, &resources) {
            Ok(()) => Ok(grant),
            Err(error) => {
                self.release_device(grant)?;
                Err(error)
            }
        }
    }

    /// Gives a device back.
    ///
    /// # Errors
    /// [`DeviceError::Broker`] when the kernel refuses; what it refused stays
    /// held.
    pub fn release_device(&mut self, grant: DeviceGrant) -> Result<(), DeviceError> {
        let ports = grant
            .ports
            .map_or(Ok(()), |(range, _)| self.release_ports(range));
        let irq = grant.irq.map_or(Ok(()), |(pin, _)| self.release_irq(pin));
        let registers = grant
            .registers
            .map_or(Ok(()), |mapping| self.unmap_device(mapping));
        ports.and(irq).and(registers.map_err(Into::into))
    }

    fn fill(
        &mut self,
        grant: &mut DeviceGrant,
        resources: &DeviceResources,
    ) -> Result<(), DeviceError> {
        if let Some(range) = resources.ports {
            grant.ports = Some((range, self.request_ports(range)?));
        }
        if let Some((pin, trigger)) = resources.irq {
            grant.irq = Some((pin, self.request_irq(pin, trigger)?));
        }
        if let Some(paddr) = resources.registers {
            grant.registers = Some(self.map_device(paddr, 1)?);
        }
        Ok(())
    }

    /// Takes a range of I/O ports, exclusively.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is held then.
    pub fn request_ports(&mut self, range: PortRange) -> Result<cap::IoPort, DeviceError> {
        self.books.acquire_ports(range)?;
        let issue =
            |slot| IoPortAuthority::of_init_thread().issue(range.first, range.last, &path(slot));
        match self.issue(issue) {
            Ok(slot) => {
                self.grants.ports.push((range, slot));
                Ok(slot_cap(slot))
            }
            Err(error) => {
                self.books.release_ports(range)?;
                Err(error.into())
            }
        }
    }

    /// Gives a range of I/O ports back; its capabilities are gone then.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`]; [`DeviceError::Broker`] when the kernel
    /// refuses, and the range stays held.
    pub fn release_ports(&mut self, range: PortRange) -> Result<(), DeviceError> {
        let held = self
            .grants
            .ports
            .iter()
            .position(|(held, _)| *held == range);
        let at = held.ok_or(DeviceError::NotHeld)?;
        self.withdraw(self.grants.ports[at].1)?;
        self.grants.ports.swap_remove(at);
        self.books.release_ports(range)
    }

    /// Takes an interrupt line, exclusively; the broker chooses the vector.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is held then.
    pub fn request_irq(
        &mut self,
        pin: Pin,
        trigger: Trigger,
    ) -> Result<cap::IrqHandler, DeviceError> {
        let line = self.books.acquire_irq(pin, trigger)?;
        self.hold_line(line)
    }

    /// Issues the handler of a line that the books have taken.
    fn hold_line(&mut self, line: IrqLine) -> Result<cap::IrqHandler, DeviceError> {
        match self.issue(|slot| issue_irq(&line, slot)) {
            Ok(slot) => {
                self.grants.lines.push((line.pin, slot));
                Ok(slot_cap(slot))
            }
            Err(error) => {
                self.books.release_irq(line.pin)?;
                Err(error.into())
            }
        }
    }

    /// Takes an interrupt line with a vector of the caller's choice,
    /// exclusively.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is held then.
    pub fn request_irq_at(
        &mut self,
        pin: Pin,
        trigger: Trigger,
        vector: u8,
    ) -> Result<cap::IrqHandler, DeviceError> {
        let line = self.books.acquire_irq_at(pin, trigger, vector)?;
        self.hold_line(line)
    }

    /// Takes a vector for a PCI device (bus, device, function) that interrupts
    /// by message, for good.
    ///
    /// # Errors
    /// [`DeviceError`]; where the kernel refuses, the vector stays taken.
    pub fn request_message(
        &mut self,
        (bus, device, function): (u8, u8, u8),
        handle: u32,
        vector: u8,
    ) -> Result<cap::IrqHandler, DeviceError> {
        self.books.acquire_vector(vector)?;
        let pci = (bus.into(), device.into(), function.into());
        let control = init_thread::slot::IRQ_CONTROL.cap();
        let issue =
            |slot| control.irq_control_get_msi(pci, handle.into(), vector.into(), &path(slot));
        Ok(slot_cap(self.issue(issue)?))
    }

    /// Gives an interrupt line back; the kernel masks it.
    ///
    /// # Errors
    /// As [`release_ports`](Self::release_ports).
    pub fn release_irq(&mut self, pin: Pin) -> Result<(), DeviceError> {
        let held = self.grants.lines.iter().position(|(held, _)| *held == pin);
        let at = held.ok_or(DeviceError::NotHeld)?;
        self.withdraw(self.grants.lines[at].1)?;
        self.grants.lines.swap_remove(at);
        self.books.release_irq(pin)
    }

    /// Maps `pages` pages of device registers from `paddr` in the window,
    /// uncached, exclusively.
    ///
    /// # Errors
    /// [`BrokerError::BadAddress`], [`BrokerError::NoSuchDevice`],
    /// [`BrokerError::DeviceBusy`], and those of memory, slots and window.
    pub fn map_device(&mut self, paddr: u64, pages: u32) -> Result<DeviceMapping, BrokerError> {
        self.books.map_device(&mut self.kernel, paddr, pages)
    }

    /// Gives device registers back.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; what could not be unmapped stays taken.
    pub fn unmap_device(&mut self, mapping: DeviceMapping) -> Result<(), BrokerError> {
        self.books.unmap_device(&mut self.kernel, mapping)
    }

    /// A new slot, filled by `issue`.
    fn issue(&mut self, issue: impl FnOnce(Slot) -> sel4::Result<()>) -> Result<Slot, BrokerError> {
        let slot = self.books.allocate_slot(&mut self.kernel)?;
        match issue(slot) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.books.free_slot(slot);
                Err(refused(error).into())
            }
        }
    }

    /// Deletes a capability and its copies, and frees the slot.
    fn withdraw(&mut self, slot: Slot) -> Result<(), BrokerError> {
        path(slot).revoke().map_err(refused)?;
        self.release_slot(slot)
    }
}

fn issue_irq(line: &IrqLine, slot: Slot) -> sel4::Result<()> {
    let (level, active_low) = match line.trigger {
        Trigger::Edge => (0, 0),
        Trigger::Level => (1, 1),
        Trigger::EdgeLow => (0, 1),
        Trigger::LevelHigh => (1, 0),
    };
    init_thread::slot::IRQ_CONTROL.cap().irq_control_get_ioapic(
        line.pin.ioapic.into(),
        line.pin.pin.into(),
        level,
        active_low,
        line.vector.into(),
        &path(slot),
    )
}
