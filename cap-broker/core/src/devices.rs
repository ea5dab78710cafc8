//! I/O port ranges and interrupt lines: who holds them, one holder each.

use alloc::vec::Vec;

use crate::error::DeviceError;

/// I/O ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, itself included.
    pub last: u16,
}

impl PortRange {
    const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The port ranges that are held. No two overlap; they are sorted.
#[derive(Clone, Debug)]
pub struct IoPorts {
    held: Vec<PortRange>,
    capacity: usize,
}

impl IoPorts {
    /// None held; at most `capacity` ranges at a time.
    pub fn new(capacity: usize) -> Self {
        Self {
            held: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Takes a range.
    ///
    /// # Errors
    /// [`DeviceError::BadRequest`] for a range that ends before it starts,
    /// [`DeviceError::Busy`], [`DeviceError::TableFull`].
    pub fn acquire(&mut self, range: PortRange) -> Result<(), DeviceError> {
        if range.first > range.last {
            return Err(DeviceError::BadRequest);
        }
        if self.held.iter().any(|held| held.overlaps(&range)) {
            return Err(DeviceError::Busy);
        }
        if self.held.len() >= self.capacity {
            return Err(DeviceError::TableFull);
        }
        let at = self.held.partition_point(|held| held.first < range.first);
        self.held.insert(at, range);
        Ok(())
    }

    /// Gives back a range that was taken, exactly.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`].
    pub fn release(&mut self, range: PortRange) -> Result<(), DeviceError> {
        let at = self
            .held
            .binary_search(&range)
            .map_err(|_| DeviceError::NotHeld)?;
        self.held.remove(at);
        Ok(())
    }

    /// The ranges held, sorted.
    pub fn held(&self) -> &[PortRange] {
        &self.held
    }
}

/// How a line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Edge-triggered, active high (ISA).
    Edge,
    /// Level-triggered, active low (PCI).
    Level,
    /// Edge-triggered, active low.
    EdgeLow,
    /// Level-triggered, active high.
    LevelHigh,
}

/// One input of one I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// Which I/O APIC.
    pub ioapic: u8,
    /// Which of its inputs.
    pub pin: u8,
}

/// An interrupt line that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqLine {
    /// The input it arrives at.
    pub pin: Pin,
    /// How it signals.
    pub trigger: Trigger,
    /// The user vector the kernel delivers it as.
    pub vector: u8,
}

/// A device every PC has, at its customary place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId {
    /// A 16550 serial port: 0 is COM1, 3 is COM4. Interrupts are shared by
    /// COM1 and COM3, COM2 and COM4, so the latter of a pair gets none.
    Serial {
        /// Which one.
        port: u8,
    },
    /// The 8254 interval timer.
    Pit,
    /// The high-precision event timer's registers. Where its interrupts go is
    /// the driver's choice among its pins.
    Hpet,
    /// The real-time clock.
    Rtc,
    /// PCI configuration space by ports.
    PciConfiguration,
}

/// What a device consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceResources {
    /// Its I/O ports.
    pub ports: Option<PortRange>,
    /// Where its interrupt arrives, and how.
    pub irq: Option<(Pin, Trigger)>,
    /// Physical address of its registers, one page.
    pub registers: Option<u64>,
}

impl DeviceId {
    /// The device's customary ports, interrupt and registers; `None` for a
    /// serial port past COM4.
    pub fn resources(self) -> Option<DeviceResources> {
        let ports = |first: u16, count: u16| {
            Some(PortRange {
                first,
                last: first + (count - 1),
            })
        };
        let isa = |pin| Some((Pin { ioapic: 0, pin }, Trigger::Edge));
        let none = DeviceResources::default();
        Some(match self {
            Self::Serial { port: 0 } => DeviceResources {
                ports: ports(0x3f8, 8),
                irq: isa(4),
                ..none
            },
            Self::Serial { port: 1 } => DeviceResources {
                ports: ports(0x2f8, 8),
                irq: isa(3),
                ..none
            },
            Self::Serial { port: 2 } => DeviceResources {
                ports: ports(0x3e8, 8),
                ..none
            },
            Self::Serial { port: 3 } => DeviceResources {
                ports: ports(0x2e8, 8),
                ..none
            },
            Self::Serial { .. } => return None,
            // The I/O APIC gets the timer at pin 2.
            Self::Pit => DeviceResources {
                ports: ports(0x40, 4),
                irq: isa(2),
                ..none
            },
            Self::Hpet => DeviceResources {
                registers: Some(0xfed0_0000),
                ..none
            },
            Self::Rtc => DeviceResources {
                ports: ports(0x70, 2),
                irq: isa(8),
                ..none
            },
            Self::PciConfiguration => DeviceResources {
                ports: ports(0xcf8, 8),
                ..none
            },
        })
    }
}

/// Vectors for user interrupts (`irq_user_max` in seL4's x86 IRQ decoding:
/// 0..=107).
pub const IRQ_VECTOR_COUNT: u8 = 108;
/// Inputs of one I/O APIC.
pub const IOAPIC_PIN_COUNT: u8 = 24;

/// The interrupt lines that are held: each pin and each vector at most once.
///
/// The kernel accepts a second handler for a pin and silently re-routes it;
/// this table is what makes lines exclusive.
#[derive(Clone, Debug)]
pub struct Interrupts {
    ioapic_count: u8,
    held: Vec<IrqLine>,
    vectors: u128,
}

impl Interrupts {
    /// None held, on a machine with `ioapic_count` I/O APICs.
    pub fn new(ioapic_count: u8) -> Self {
        Self {
            ioapic_count,
            held: Vec::new(),
            vectors: 0,
        }
    }

    /// Takes a pin and chooses a vector for it: the highest that is free, since
    /// descriptions of systems tend to name low ones.
    ///
    /// # Errors
    /// [`DeviceError::BadRequest`] for a pin that does not exist,
    /// [`DeviceError::Busy`], [`DeviceError::TableFull`] when no vector is
    /// left.
    pub fn acquire(&mut self, pin: Pin, trigger: Trigger) -> Result<IrqLine, DeviceError> {
        self.check_pin(pin)?;
        let mut vectors = (0..IRQ_VECTOR_COUNT).rev();
        let free = vectors.find(|vector| self.vectors & 1 << vector == 0);
        self.acquire_at(pin, trigger, free.ok_or(DeviceError::TableFull)?)
    }

    /// Takes a pin and a vector.
    ///
    /// # Errors
    /// [`DeviceError::BadRequest`] for a pin or vector that does not exist,
    /// [`DeviceError::Busy`] where either is taken.
    pub fn acquire_at(
        &mut self,
        pin: Pin,
        trigger: Trigger,
        vector: u8,
    ) -> Result<IrqLine, DeviceError> {
        self.check_pin(pin)?;
        self.acquire_vector(vector)?;
        let line = IrqLine {
            pin,
            trigger,
            vector,
        };
        self.held.push(line);
        Ok(line)
    }

    /// Takes a vector for an interrupt that comes as a message, for good.
    ///
    /// # Errors
    /// [`DeviceError::BadRequest`] for a vector that does not exist,
    /// [`DeviceError::Busy`].
    pub fn acquire_vector(&mut self, vector: u8) -> Result<(), DeviceError> {
        if vector >= IRQ_VECTOR_COUNT {
            return Err(DeviceError::BadRequest);
        }
        if self.vectors & 1 << vector != 0 {
            return Err(DeviceError::Busy);
        }
        self.vectors |= 1 << vector;
        Ok(())
    }

    fn check_pin(&self, pin: Pin) -> Result<(), DeviceError> {
        if pin.ioapic >= self.ioapic_count || pin.pin >= IOAPIC_PIN_COUNT {
            return Err(DeviceError::BadRequest);
        }
        match self.held.iter().any(|line| line.pin == pin) {
            true => Err(DeviceError::Busy),
            false => Ok(()),
        }
    }

    /// Gives a pin and its vector back.
    ///
    /// # Errors
    /// [`DeviceError::NotHeld`].
    pub fn release(&mut self, pin: Pin) -> Result<(), DeviceError> {
        let at = self
            .held
            .iter()
            .position(|line| line.pin == pin)
            .ok_or(DeviceError::NotHeld)?;
        let line = self.held.swap_remove(at);
        self.vectors &= !(1 << line.vector);
        Ok(())
    }

    /// The lines held, in no particular order.
    pub fn held(&self) -> &[IrqLine] {
        &self.held
    }
}

const _: () = assert!(IRQ_VECTOR_COUNT as u32 <= u128::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ports(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn port_ranges_are_exclusive_down_to_one_port() {
        let mut table = IoPorts::new(8);
        table.acquire(ports(0x3f8, 0x3ff)).unwrap();
        assert_eq!(table.acquire(ports(0x3ff, 0x400)), Err(DeviceError::Busy));
        assert_eq!(table.acquire(ports(0x3f0, 0x3f8)), Err(DeviceError::Busy));
        assert_eq!(table.acquire(ports(0, 0xffff)), Err(DeviceError::Busy));
        assert_eq!(table.acquire(ports(0x3fa, 0x3fa)), Err(DeviceError::Busy));
        assert_eq!(table.acquire(ports(5, 4)), Err(DeviceError::BadRequest));
        table.acquire(ports(0x400, 0x400)).unwrap();
        table.acquire(ports(0x3f7, 0x3f7)).unwrap();
        assert!(table.held().is_sorted());
        assert_eq!(
            table.release(ports(0x3f8, 0x3fe)),
            Err(DeviceError::NotHeld)
        );
        table.release(ports(0x3f8, 0x3ff)).unwrap();
        table.acquire(ports(0x3f8, 0x3ff)).unwrap();
    }

    #[test]
    fn a_full_port_table_says_so() {
        let mut table = IoPorts::new(1);
        table.acquire(ports(0, 0)).unwrap();
        assert_eq!(table.acquire(ports(2, 2)), Err(DeviceError::TableFull));
    }

    #[test]
    fn all_platform_devices_can_be_held_together() {
        let serial = (0..4).map(|port| DeviceId::Serial { port });
        let others = [
            DeviceId::Pit,
            DeviceId::Hpet,
            DeviceId::Rtc,
            DeviceId::PciConfiguration,
        ];
        let (mut ranges, mut lines) = (IoPorts::new(16), Interrupts::new(1));
        for device in serial.chain(others) {
            let resources = device.resources().expect("a device there is");
            resources
                .ports
                .map_or(Ok(()), |range| ranges.acquire(range))
                .unwrap();
            if let Some((pin, trigger)) = resources.irq {
                lines.acquire(pin, trigger).unwrap();
            }
        }
        assert_eq!(DeviceId::Serial { port: 4 }.resources(), None);
    }

    #[test]
    fn pins_and_vectors_are_exclusive() {
        let mut table = Interrupts::new(1);
        let first = table
            .acquire(Pin { ioapic: 0, pin: 2 }, Trigger::Edge)
            .unwrap();
        let second = table
            .acquire(Pin { ioapic: 0, pin: 4 }, Trigger::Level)
            .unwrap();
        assert_ne!(first.vector, second.vector);
        let again = table.acquire(first.pin, Trigger::Edge);
        assert_eq!(again, Err(DeviceError::Busy));
        let absent = table.acquire(Pin { ioapic: 1, pin: 2 }, Trigger::Edge);
        assert_eq!(absent, Err(DeviceError::BadRequest));
        let absent = table.acquire(Pin { ioapic: 0, pin: 24 }, Trigger::Edge);
        assert_eq!(absent, Err(DeviceError::BadRequest));
        table.release(first.pin).unwrap();
        assert_eq!(table.release(first.pin), Err(DeviceError::NotHeld));
        let third = table
            .acquire(Pin { ioapic: 0, pin: 5 }, Trigger::Edge)
            .unwrap();
        assert_eq!(
            third.vector, first.vector,
            "a vector given back is used again"
        );
    }

    #[test]
    fn vectors_can_be_named_and_are_exclusive() {
        let mut table = Interrupts::new(1);
        let pin = |pin| Pin { ioapic: 0, pin };
        let line = table.acquire_at(pin(4), Trigger::EdgeLow, 4).unwrap();
        assert_eq!(line.vector, 4);
        let again = table.acquire_at(pin(5), Trigger::Edge, 4);
        assert_eq!(again, Err(DeviceError::Busy));
        let again = table.acquire_at(pin(4), Trigger::Edge, 5);
        assert_eq!(again, Err(DeviceError::Busy));
        table.acquire_vector(5).unwrap();
        assert_eq!(table.acquire_vector(5), Err(DeviceError::Busy));
        let past = table.acquire_vector(IRQ_VECTOR_COUNT);
        assert_eq!(past, Err(DeviceError::BadRequest));
        table.acquire_at(pin(5), Trigger::LevelHigh, 6).unwrap();
        table.release(pin(4)).unwrap();
        table.acquire_at(pin(4), Trigger::Edge, 4).unwrap();
    }

    #[test]
    fn vectors_run_out_before_pins_do() {
        let mut table = Interrupts::new(8);
        for number in 0..IRQ_VECTOR_COUNT {
            let pin = Pin {
                ioapic: number / IOAPIC_PIN_COUNT,
                pin: number % IOAPIC_PIN_COUNT,
            };
            let vector = table.acquire(pin, Trigger::Edge).unwrap().vector;
            assert_eq!(vector, IRQ_VECTOR_COUNT - 1 - number);
        }
        let pin = Pin { ioapic: 7, pin: 0 };
        assert_eq!(
            table.acquire(pin, Trigger::Edge),
            Err(DeviceError::TableFull)
        );
    }
}
