//! Time: the time-stamp counter for reading, the HPET for waking.
//!
//! `Clock` calibrates the TSC against the HPET main counter once at boot and
//! from then on reads time with one `rdtsc`. Waking uses HPET timer 0 as a
//! one-shot through the I/O APIC; the interrupt arrives on the notification
//! bound to the event loop's thread.
//!
//! Register names and offsets: IA-PC HPET specification 1.0a, section 2.3.
//! The PIT shares timer 0's I/O APIC pin on a PC and must be stopped first
//! (`crate::boot` does).
//!
//! # Invariants
//! - **C1** `now_ns` never decreases: the TSC does not and the scale is fixed.
//! - **C2** After `arm` returns, the comparator lies ahead of the counter, or
//!   the deadline has been reported as already due.

use core::arch::x86_64::_rdtsc;

/// Physical address of the HPET register block on a PC.
pub const HPET_PADDR: usize = 0xfed0_0000;

const FS_PER_NS: u64 = 1_000_000;
/// The specification's upper bound on the tick period: 100 ns.
const PERIOD_MAX_FS: u64 = 0x05f5_e100;
const CALIBRATION_NS: u64 = 2_000_000;
/// A comparator closer than this may be passed while it is being written.
const ARM_MARGIN_TICKS: u64 = 64;

/// A quarter of the counter's range, centuries on any HPET.
const WAIT_TICKS_MAX: u64 = u64::MAX / 4;

mod reg {
    pub const CAPABILITIES: usize = 0x000;
    pub const CONFIG: usize = 0x010;
    pub const MAIN_COUNTER: usize = 0x0f0;
    pub const TIMER0_CONFIG: usize = 0x100;
    pub const TIMER0_COMPARATOR: usize = 0x108;
}

/// The main counter is 64 bits wide.
const CAPABILITY_COUNT_SIZE: u64 = 1 << 13;
/// The comparator of timer 0 is 64 bits wide.
const TIMER_SIZE_CAP: u64 = 1 << 5;
const CONFIG_ENABLE: u64 = 1 << 0;
const CONFIG_LEGACY: u64 = 1 << 1;
const TIMER_ENABLE: u64 = 1 << 2;
const TIMER_ROUTE_SHIFT: u32 = 9;
const TIMER_ROUTE_CAP_SHIFT: u32 = 32;

/// Why the timer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// No HPET answers at the standard address: its tick period reads as
    /// nothing the specification allows. Enable it in the firmware.
    NoHpet,
    /// The HPET counts in 32 bits only, which wraps within minutes; this clock
    /// needs 64.
    NarrowHpet,
    /// Timer 0 cannot be routed to any I/O APIC pin.
    NoRoute,
    /// The TSC did not advance while the HPET did.
    TscStopped,
}

/// The HPET register block, mapped uncached in the root task.
struct Hpet {
    base: *mut u8,
}

impl Hpet {
    fn read(&self, offset: usize) -> u64 {
        // SAFETY: `Clock::new`'s caller vouched for a mapped register page, and
        // `reg` offsets are 8-aligned inside it.
        unsafe { self.base.add(offset).cast::<u64>().read_volatile() }
    }

    fn write(&mut self, offset: usize, value: u64) {
        // SAFETY: as in `read`.
        unsafe { self.base.add(offset).cast::<u64>().write_volatile(value) }
    }

    fn counter(&self) -> u64 {
        self.read(reg::MAIN_COUNTER)
    }
}

/// Reads nanoseconds since boot and programs the next wake-up.
pub struct Clock {
    hpet: Hpet,
    tick_period_fs: u64,
    tsc_base: u64,
    /// Nanoseconds per TSC tick, 32.32 fixed point.
    scale: u64,
    irq_pin: u32,
}

impl Clock {
    /// Starts the HPET counter, calibrates the TSC against it (2 ms) and
    /// routes timer 0 to the lowest I/O APIC pin it offers.
    ///
    /// # Safety
    /// `registers` must be the HPET register block, mapped uncached and
    /// writable for as long as the `Clock` lives, with no other user.
    pub unsafe fn new(registers: *mut u8) -> Result<Self, ClockError> {
        let mut hpet = Hpet { base: registers };
        let capabilities = hpet.read(reg::CAPABILITIES);
        let tick_period_fs = capabilities >> 32;
        if tick_period_fs == 0 || tick_period_fs > PERIOD_MAX_FS {
            return Err(ClockError::NoHpet);
        }
        let comparator_is_wide = hpet.read(reg::TIMER0_CONFIG) & TIMER_SIZE_CAP != 0;
        if capabilities & CAPABILITY_COUNT_SIZE == 0 || !comparator_is_wide {
            return Err(ClockError::NarrowHpet);
        }
        let config = hpet.read(reg::CONFIG) & !CONFIG_LEGACY;
        hpet.write(reg::CONFIG, config | CONFIG_ENABLE);
        let irq_pin = route_timer0(&mut hpet)?;
        let (tsc_base, scale) = calibrate_tsc(&hpet, tick_period_fs)?;
        Ok(Self {
            hpet,
            tick_period_fs,
            tsc_base,
            scale,
            irq_pin,
        })
    }

    /// The I/O APIC pin timer 0 raises (edge triggered).
    pub fn irq_pin(&self) -> u32 {
        self.irq_pin
    }

    /// Measured TSC frequency in kHz.
    pub fn tsc_khz(&self) -> u64 {
        ((1_000_000u128 << 32) / u128::from(self.scale)) as u64
    }

    /// Nanoseconds since the clock was created (C1).
    #[inline]
    pub fn now_ns(&self) -> u64 {
        let ticks = rdtsc().wrapping_sub(self.tsc_base);
        ((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64
    }

    /// Arms timer 0 for `deadline_ns`. Returns `false` when the deadline is
    /// already due, in which case no interrupt will come for it (C2).
    #[must_use]
    pub fn arm(&mut self, deadline_ns: u64) -> bool {
        let Some(wait_ns) = deadline_ns.checked_sub(self.now_ns()).filter(|&ns| ns > 0) else {
            return false;
        };
        let wait_ticks =
            u128::from(wait_ns) * u128::from(FS_PER_NS) / u128::from(self.tick_period_fs);
        // What is further away than the counter can tell is never reached.
        let wait_ticks = u64::try_from(wait_ticks).unwrap_or(u64::MAX);
        let wait_ticks = wait_ticks.clamp(ARM_MARGIN_TICKS, WAIT_TICKS_MAX);
        let target = self.hpet.counter().wrapping_add(wait_ticks);
        self.hpet.write(reg::TIMER0_COMPARATOR, target);
        target.wrapping_sub(self.hpet.counter()) <= u64::MAX / 2
    }
}

/// Reads the time-stamp counter.
#[inline]
pub fn rdtsc() -> u64 {
    // SAFETY: seL4 leaves CR4.TSD clear, so `rdtsc` is allowed at ring 3.
    unsafe { _rdtsc() }
}

fn route_timer0(hpet: &mut Hpet) -> Result<u32, ClockError> {
    let config = hpet.read(reg::TIMER0_CONFIG);
    let pins = (config >> TIMER_ROUTE_CAP_SHIFT) as u32;
    if pins == 0 {
        return Err(ClockError::NoRoute);
    }
    let pin = pins.trailing_zeros();
    hpet.write(reg::TIMER0_COMPARATOR, u64::MAX);
    hpet.write(
        reg::TIMER0_CONFIG,
        (u64::from(pin) << TIMER_ROUTE_SHIFT) | TIMER_ENABLE,
    );
    Ok(pin)
}

/// Returns the TSC value that counts as zero and the 32.32 scale.
fn calibrate_tsc(hpet: &Hpet, tick_period_fs: u64) -> Result<(u64, u64), ClockError> {
    let wait_ticks = CALIBRATION_NS * FS_PER_NS / tick_period_fs;
    let start = hpet.counter();
    let tsc_base = rdtsc();
    while hpet.counter().wrapping_sub(start) < wait_ticks {
        core::hint::spin_loop();
    }
    let elapsed_fs = u128::from(hpet.counter().wrapping_sub(start)) * u128::from(tick_period_fs);
    let tsc_ticks = u128::from(rdtsc().wrapping_sub(tsc_base));
    if tsc_ticks == 0 {
        return Err(ClockError::TscStopped);
    }
    let scale = (elapsed_fs << 32) / (tsc_ticks * u128::from(FS_PER_NS));
    Ok((tsc_base, scale as u64))
}

const _: () = assert!(
    CALIBRATION_NS * FS_PER_NS < u64::MAX,
    "calibration fits 64 bits"
);
