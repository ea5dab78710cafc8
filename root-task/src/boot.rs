//! From the kernel's hand-over to the first process (docs/boot.md).

use core::fmt;
use core::panic::PanicInfo;

use alloc::string::String;
use alloc::vec::Vec;

use cap_broker::{
    Broker, BrokerError, DeviceError, Object, ObjectKind, Pin, PortRange, Trigger, cap_of,
};
use capos_config::ResourceProfile;
use capos_config::manifest::{KernelBootstrapManifest, LogLevel};
use capos_loader::layout::PAGE_BYTES;
use ring_server_core::{
    CAPSET_PAGE_BYTES, Class, CpuBudget, CreateError, Grant, Limits, Machine, PROCESS_SLOTS,
    PrepareError, ProcessSpec, Server, UnsupportedSource, program_budget,
};
use sel4::{BootInfoPtr, CapRights, HAS_SCHED_CONTEXTS, ObjectBlueprint, cap, init_thread};
use sel4_root_task::{CrashReport, WATCH_SLOTS, WATCH_UNTYPED_BITS, watch_faults};

use crate::archive::{Archive, ArchiveError, Package, Verification};
use crate::audit::{self, Auditor};
use crate::books::Comparison;
use crate::clock::{Clock, ClockError, HPET_PADDR};
use crate::console::Console;
use crate::domains::{Domains, DomainsError};
use crate::driven::Driven;
use crate::entropy::{NoEntropy, boot_secret};
use crate::gate::{Gate, TERMINAL_BADGE, TIMER_BADGE, TimerIrq};
use crate::means::Means;
use crate::serial::{COM1, COM2, COM3, Uart};
use crate::terminal::{COM2_PIN, COM2_TRIGGER, TerminalLine};
use crate::world::World;
use crate::{end, hardware, log, memory, rtc};

const _: () = assert!(CAPSET_PAGE_BYTES == PAGE_BYTES as usize);

/// Why the system did not start.
#[derive(Debug)]
pub enum BootError {
    /// Memory, slots or window.
    Broker(BrokerError),
    /// Ports or an interrupt.
    Device(DeviceError),
    /// The kernel refused something.
    Kernel(sel4::Error),
    /// No console answers at COM1.
    NoConsole,
    /// A region shared with a serial driver does not have the size of a
    /// ring: a page and a power of two.
    NoRing,
    /// The timer.
    Clock(ClockError),
    /// No secret can be made.
    Entropy(NoEntropy),
    /// The boot archive.
    Archive(ArchiveError),
    /// The protection domains.
    Domains(DomainsError),
    /// The manifest gives this program a budget that cannot be kept.
    Budget(String),
    /// The first program; the log has the reason.
    Program(PrepareError),
    /// The server refused the first process.
    Create(CreateError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "{error}"),
            Self::Device(error) => write!(f, "device: {error}"),
            Self::Kernel(error) => write!(f, "seL4: {error:?}"),
            Self::NoConsole => f.write_str("no UART answers at COM1"),
            Self::NoRing => f.write_str("a region of a serial driver has not the size of a ring"),
            Self::Clock(error) => write!(f, "clock: {error:?}"),
            Self::Entropy(NoEntropy) => f.write_str("the processor has no working RDRAND"),
            Self::Archive(error) => write!(f, "boot archive: {error}"),
            Self::Domains(error) => write!(f, "{error}"),
            Self::Budget(program) => write!(f, "budget of program `{program}` is out of range"),
            Self::Program(error) => write!(f, "first program: {error:?}"),
            Self::Create(CreateError::Unsupported(UnsupportedSource(source))) => {
                write!(
                    f,
                    "capability source `{source}` is not provided yet; take it out of CAPS, or out of the manifest"
                )
            }
            Self::Create(error) => write!(f, "first process: {error:?}"),
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for BootError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    BrokerError => Broker,
    DeviceError => Device,
    sel4::Error => Kernel,
    ClockError => Clock,
    NoEntropy => Entropy,
    ArchiveError => Archive,
    DomainsError => Domains,
    PrepareError => Program,
    CreateError => Create,
}

/// Starts everything up to the point where the first process may run.
///
/// # Errors
/// The first step that failed; the log says which, if there is a log yet.
pub fn boot(bootinfo: &BootInfoPtr) -> Result<Gate, BootError> {
    let mut broker = Broker::new(bootinfo)?;
    let (uart, com1) = open_ports(&mut broker)?;
    let com2 = broker.request_ports(hardware::TERMINAL)?;
    sel4_root_task::set_panic_hook(on_panic);
    watch_self(bootinfo, &mut broker)?;
    extend_heap(&mut broker)?;
    log!("memory {}", Megabytes(broker.usage().free_bytes));
    let mut clock = open_clock(&mut broker)?;
    log!("clock {} kHz", clock.tsc_khz());
    open_reply(&mut broker)?;
    #[cfg(feature = "baseline")]
    crate::baseline::measure(&mut broker, bootinfo)?;
    let reading = rtc::read(&mut broker, &clock)?;
    let endpoint = broker.create_object(broker.sizes().object(ObjectKind::Endpoint))?;
    let endpoint = cap::Endpoint::from_bits(endpoint.slot().0.into());
    let (timer, notification) = open_timer(&mut broker, &mut clock)?;
    let means = Means::new(&mut broker, bootinfo, endpoint)?;
    let archive = Archive::new(sel4_root_task::boot_archive())?;
    let Verification { bytes, ticks } = archive.verification;
    let audit = archive.optional(audit::ENTRY)?.map(Auditor::new);
    let (package, manifest) = Package::open(archive)?;
    if is_debugged(&manifest) {
        log!("boot archive: {bytes} bytes verified in {ticks} ticks");
    }
    let system = package.domains()?;
    let count = system.domains.len();
    let lent = [(hardware::CONSOLE, com1), (hardware::TERMINAL, com2)];
    let mut domains = Domains::start(
        &mut broker,
        &package,
        system,
        endpoint,
        notification,
        &lent,
        &means,
    )?;
    let driven = driven(&mut domains, &broker, hardware::CONSOLE)?;
    let mut console = Console::new(uart, driven);
    if is_debugged(&manifest) {
        console.measure();
    }
    let driven = driven_terminal(&mut domains, &broker, com2)?;
    let terminal = match driven {
        Some(line) => Some(line),
        None => open_terminal(&mut broker, com2, notification)?,
    };
    log!("protection domains {count}");
    let mut gate = Gate {
        world: World::new(broker, clock, console, package, means),
        server: Server::with_boot_secret(boot_secret()?),
        endpoint,
        timer,
        domains,
        books: None,
        audit,
    };
    gate.world.terminal = terminal;
    gate.world.set_clock_reading(reading);
    gate.world.set_cores(bootinfo.num_nodes());
    gate.world.set_budgets(budgets(&manifest)?);
    gate.world.note_idle()?;
    let capacity = memory::capacity(&gate.world.broker.usage());
    log!(
        "memory {} to promise",
        Megabytes(capacity.pages * PAGE_BYTES)
    );
    gate.server.set_memory_capacity(capacity);
    gate.books = is_debugged(&manifest).then(Comparison::default);
    start_first(&mut gate, &manifest)?;
    gate.audit.iter().for_each(audit::announce);
    gate.audit("boot");
    Ok(gate)
}

/// Whether the manifest asks for everything in the log.
fn is_debugged(manifest: &KernelBootstrapManifest) -> bool {
    let params = manifest.kernel_params.as_ref();
    params.is_some_and(|params| params.log_level == LogLevel::Debug)
}

/// What programs may have of the processor, as the manifest says. A kernel
/// that cannot keep them runs the programs without.
fn budgets(manifest: &KernelBootstrapManifest) -> Result<Vec<(String, CpuBudget)>, BootError> {
    let params = manifest.kernel_params.iter();
    let profiles = params.flat_map(|params| &params.resource_profiles);
    let mut budgets = Vec::new();
    for (program, budget) in profiles.filter_map(program_budget) {
        let budget = budget.map_err(|_| BootError::Budget(program.into()))?;
        budgets.push((program.into(), budget));
    }
    if !HAS_SCHED_CONTEXTS && !budgets.is_empty() {
        let count = budgets.len();
        log!("{count} programs have a budget that this kernel cannot keep: it has no MCS");
        budgets.clear();
    }
    Ok(budgets)
}

/// Bytes for people.
struct Megabytes(u64);

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// Gives the heap what every process there can be takes from it: the image
/// brings enough to get this far.
fn extend_heap(broker: &mut Broker) -> Result<(), BootError> {
    /// Measured: what the server and the broker keep for one process.
    const PROCESS_BYTES: usize = 160 * 1024;
    /// Frames of one run, as a power of two, and their bytes.
    const RUN_BITS: u8 = 8;
    const RUN_BYTES: usize = (PAGE_BYTES as usize) << RUN_BITS;
    /// What the server takes before there are processes.
    const SERVER_BYTES: usize = 10 * 1024 * 1024;
    /// Records of page tables that processes have beyond the usual.
    const TABLE_BYTES: usize = memory::EXTRA_TABLES as usize * memory::TABLE_RECORD_BYTES;
    let bytes = PROCESS_SLOTS * PROCESS_BYTES + SERVER_BYTES + TABLE_BYTES;
    for _ in 0..bytes.div_ceil(RUN_BYTES) {
        let run = broker.allocate_frame_run(RUN_BITS)?;
        let window = broker.window_address(run).ok_or(BrokerError::BadFrame)?;
        // SAFETY: the frames of a run are contiguous in the window, mapped
        // read-write, and never freed.
        unsafe { sel4_root_task::extend_heap(window as *mut u8, RUN_BYTES) };
    }
    Ok(())
}

/// Has a second thread report the root task's own faults, which would
/// otherwise stop it without a word.
fn watch_self(bootinfo: &BootInfoPtr, broker: &mut Broker) -> Result<(), BootError> {
    let memory = broker.create_object(Object {
        kind: ObjectKind::Untyped,
        size_bits: WATCH_UNTYPED_BITS as u8,
    })?;
    let mut slots = [0; WATCH_SLOTS];
    for slot in &mut slots {
        *slot = broker.allocate_slot()?.0 as usize;
    }
    let memory = cap::Untyped::from_bits(memory.slot().0.into());
    Ok(watch_faults(bootinfo, memory, slots, Some(on_fault))?)
}

/// Runs on the watching thread, which has no IPC buffer: writing to ports is
/// all it can do.
fn on_fault(crash: &CrashReport) {
    log!("{crash}");
    log::line(format_args!(
        "verdict: panic a fault of its own, see the log"
    ));
    end::power_off()
}

/// The last words of the root task itself.
fn on_panic(info: &PanicInfo<'_>) {
    log!("panic: {}", info.message());
    if let Some(place) = info.location() {
        let (file, line) = (place.file(), place.line());
        log::line(format_args!("verdict: panic {file}:{line}"));
    }
    end::stop()
}

/// Opens log, console and the way to stop the machine.
fn open_ports(broker: &mut Broker) -> Result<(Uart, cap::IoPort), BootError> {
    end::open(broker.request_ports(hardware::DEBUG_EXIT)?);
    let com1 = broker.request_ports(hardware::CONSOLE)?;
    let com3 = broker.request_ports(hardware::LOG)?;
    let console = Uart::open(com1, COM1)?;
    if Uart::open(com3, COM3)?.is_some() {
        log::open(com3, COM3);
    } else {
        log::open(com1, COM1);
    }
    Ok((console.ok_or(BootError::NoConsole)?, com1))
}

/// Makes the object by which faults are answered, where that takes one. One
/// will do: a fault that is not answered before the next is received is
/// answered by writing registers, if at all (`crate::gate`, G1).
fn open_reply(broker: &mut Broker) -> Result<(), BootError> {
    if ObjectBlueprint::reply().is_some() {
        let reply = broker.create_object(broker.sizes().object(ObjectKind::Reply))?;
        sel4::set_reply_object(cap_of(&reply));
    }
    Ok(())
}

/// Stops the PIT, which shares the HPET timer's pin, and calibrates.
fn open_clock(broker: &mut Broker) -> Result<Clock, BootError> {
    /// Channel 0, both bytes, mode 0: it waits for a count that never comes.
    const PIT_CHANNEL0_MODE0: u8 = 0x30;
    let pit = broker.request_ports(hardware::PIT)?;
    pit.ioport_out8(hardware::PIT_COMMAND, PIT_CHANNEL0_MODE0)?;
    let registers = broker.map_device(HPET_PADDR as u64, 1)?;
    // SAFETY: the broker maps a device page uncached and hands it out once;
    // the mapping is never given back.
    Ok(unsafe { Clock::new(registers.window() as *mut u8) }?)
}

/// Lets the timer's interrupt reach the event loop, through the notification
/// that is returned.
fn open_timer(
    broker: &mut Broker,
    clock: &mut Clock,
) -> Result<(TimerIrq, cap::Notification), BootError> {
    let notification = broker.create_object(broker.sizes().object(ObjectKind::Notification))?;
    let plain = cap::Notification::from_bits(notification.slot().0.into());
    let pin = Pin {
        ioapic: 0,
        pin: clock.irq_pin() as u8,
    };
    let handler = broker.request_irq(pin, Trigger::Edge)?;
    handler.irq_handler_set_notification(badged(broker, plain, TIMER_BADGE)?)?;
    init_thread::slot::TCB.cap().tcb_bind_notification(plain)?;
    handler.irq_handler_ack()?;
    let timer = TimerIrq {
        handler,
        armed: None,
    };
    Ok((timer, plain))
}

/// The same notification under a badge.
fn badged(
    broker: &mut Broker,
    plain: cap::Notification,
    badge: u64,
) -> Result<cap::Notification, BootError> {
    let own = init_thread::slot::CNODE.cap();
    let badged = cap::Notification::from_bits(broker.allocate_slot()?.0.into());
    own.absolute_cptr(badged.cptr()).mint(
        &own.absolute_cptr(plain.cptr()),
        CapRights::all(),
        badge,
    )?;
    Ok(badged)
}

/// A port whose driver is among the domains.
fn driven(
    domains: &mut Domains,
    broker: &Broker,
    ports: PortRange,
) -> Result<Option<Driven>, BootError> {
    let Some(port) = domains.driver_of(broker, ports) else {
        return Ok(None);
    };
    // SAFETY: a region of the domains is never freed, and the broker maps its
    // frames, a run, one behind the other in the window, read-write; each port
    // is asked for once, and nothing else here reaches its regions.
    let driven = unsafe { Driven::new(port) };
    driven.map(Some).ok_or(BootError::NoRing)
}

/// The terminal's line, if a domain drives it and a UART answers.
fn driven_terminal(
    domains: &mut Domains,
    broker: &Broker,
    ports: cap::IoPort,
) -> Result<Option<TerminalLine>, BootError> {
    let Some(driven) = driven(domains, broker, hardware::TERMINAL)? else {
        return Ok(None);
    };
    let uart = Uart::open(ports, COM2)?;
    Ok(uart.map(|uart| TerminalLine::driven(uart, driven)))
}

/// Opens the terminal where no domain drives it, if the machine has one.
fn open_terminal(
    broker: &mut Broker,
    ports: cap::IoPort,
    notification: cap::Notification,
) -> Result<Option<TerminalLine>, BootError> {
    let Some(uart) = Uart::open(ports, COM2)? else {
        return Ok(None);
    };
    let handler = broker.request_irq(COM2_PIN, COM2_TRIGGER)?;
    handler.irq_handler_set_notification(badged(broker, notification, TERMINAL_BADGE)?)?;
    handler.irq_handler_ack()?;
    uart.listen()?;
    Ok(Some(TerminalLine::own(uart, handler)))
}

/// Makes and starts the process the manifest calls init.
fn start_first(gate: &mut Gate, manifest: &KernelBootstrapManifest) -> Result<(), BootError> {
    let name = manifest.init.binary.as_str();
    let grants: Vec<Grant<'_>> = manifest
        .init
        .caps
        .iter()
        .map(|cap| Grant {
            badge: cap.badge,
            disclosure_scope: cap.disclosure_scope,
            ..Grant::kernel(&cap.name, cap.source)
        })
        .collect();
    let embryo = gate.world.prepare(name)?;
    let spec = ProcessSpec::new(embryo.ring, embryo.space)
        .limits(system_limits(manifest))
        .grants(&grants);
    let mut capset = [0; CAPSET_PAGE_BYTES];
    let pid = gate.server.create_process(spec, &mut capset)?;
    gate.world.set_first(pid);
    Ok(gate.world.launch(pid, Class::Init, &capset)?)
}

/// Quotas of the first process, which those it starts inherit.
fn system_limits(manifest: &KernelBootstrapManifest) -> Limits {
    /// Name of the resource profile that sets them, if the manifest has it.
    const PROFILE: &str = "system";
    let profiles = manifest
        .kernel_params
        .iter()
        .flat_map(|params| &params.resource_profiles);
    let mut named = profiles.filter(|profile| profile.name == PROFILE);
    named.next().map_or(Limits::CEILING, |profile| {
        Limits::from_profile(&ResourceProfile::from_manifest(profile))
    })
}
