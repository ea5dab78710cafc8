//! Time of day, from the CMOS clock, once at boot.
//!
//! A machine whose clock does not answer, or shows nonsense, starts all the
//! same: `WallClock` then says that its time is not to be trusted.

use cap_broker::{Broker, DeviceError};
use cmos_rtc::{DATA_PORT, INDEX_PORT, Registers};
use ring_server_core::ClockReading;
use sel4::cap;

use crate::clock::Clock;
use crate::{hardware, log};

/// The clock's registers behind their two ports.
struct Ports(cap::IoPort);

impl Registers for Ports {
    fn read(&mut self, register: u8) -> u8 {
        // The kernel refuses ports outside the capability only, and these are
        // inside; what cannot be read looks like a bus without a device.
        self.0
            .ioport_out8(INDEX_PORT, register)
            .and_then(|()| self.0.ioport_in8(DATA_PORT))
            .unwrap_or(u8::MAX)
    }
}

/// Reads the clock; `None` if there is no sense in it.
///
/// # Errors
/// [`DeviceError`] if its ports cannot be had.
pub fn read(broker: &mut Broker, clock: &Clock) -> Result<Option<ClockReading>, DeviceError> {
    let ports = broker.request_ports(hardware::RTC)?;
    let read = cmos_rtc::read_time(&mut Ports(ports));
    let monotonic_ns = clock.now_ns();
    broker.release_ports(hardware::RTC)?;
    match read {
        Ok(utc_seconds) => {
            log!("the clock says {utc_seconds} s since 1970");
            Ok(Some(ClockReading {
                utc_seconds,
                utc_nanos: 0,
                monotonic_ns,
            }))
        }
        Err(error) => {
            log!("no time of day: {error}");
            Ok(None)
        }
    }
}
