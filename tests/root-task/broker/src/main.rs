//! Guest test of the broker: what the host model promises, on the kernel.
//!
//! Each scenario prints a line; the last line is `verdict: exit 0`, or a panic
//! says which promise was broken. Run under `-icount shift=0,sleep=off`, the
//! cost lines count instructions.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use cap_broker::{
    Broker, BrokerError, DeviceError, DeviceId, FrameId, Hold, Object, ObjectKind, OwnedObject,
    PAGE_BYTES, Pin, PortRange, Rights, Slot, SpaceId, Trigger, Usage, cap_of,
};
use sel4::{
    BootInfoPtr, Budget, CNodeCapData, CPtr, CapRights, FAULT_HANDLER_IN_TCB, Fault,
    HAS_SCHED_CONTEXTS, ObjectBlueprint, UserContext, cap, cap_type, init_thread::slot,
};
use sel4_root_task::{EmergencyConsole, Never, root_task};

const DEBUG_EXIT: PortRange = PortRange {
    first: 0x501,
    last: 0x502,
};
const COM1: PortRange = PortRange {
    first: 0x3f8,
    last: 0x3ff,
};
const HPET: u64 = 0xfed0_0000;

/// Where the test's program lies.
const CODE: u64 = 0x20_0000;
const DATA: u64 = 0x100_0000;

#[root_task(stack_size = 128 * 1024, heap_size = 2 * 1024 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> Result<Never, BrokerError> {
    let mut broker = Broker::new(bootinfo)?;
    let com1 = broker.request_ports(COM1).expect("COM1 is free");
    let exit = broker
        .request_ports(DEBUG_EXIT)
        .expect("the exit port is free");
    let mut console = EmergencyConsole::new(com1, EmergencyConsole::COM1);
    EXIT_PORT.store(exit.bits(), Ordering::Relaxed);
    CONSOLE_PORT.store(com1.bits(), Ordering::Relaxed);
    sel4_root_task::set_panic_hook(on_panic);
    if let Some(control) = bootinfo.sched_control_of(0) {
        TIME_CONTROL.store(control.bits(), Ordering::Relaxed);
    }
    if ObjectBlueprint::reply().is_some() {
        let reply = broker.create_object(broker.sizes().object(ObjectKind::Reply))?;
        sel4::set_reply_object(cap_of(&reply));
    }
    print_machine(bootinfo, &broker, &mut console);
    // The ASID pool made here stays for good.
    more_spaces_than_one_pool(&mut broker, &mut console)?;
    for (name, scenario) in SCENARIOS {
        let before = settled(&mut broker)?;
        scenario(&mut broker, &mut console)?;
        broker.check();
        assert_eq!(settled(&mut broker)?, before, "{name} leaks");
        let _ = writeln!(console, "{name}: ok");
    }
    let _ = writeln!(console, "verdict: exit 0");
    end()
}

/// Authority over time, on kernels that have it; zero elsewhere.
static TIME_CONTROL: AtomicU64 = AtomicU64::new(0);
static EXIT_PORT: AtomicU64 = AtomicU64::new(0);
static CONSOLE_PORT: AtomicU64 = AtomicU64::new(0);

/// Ends QEMU.
fn end() -> ! {
    let exit = cap::IoPort::from_bits(EXIT_PORT.load(Ordering::Relaxed));
    // Without the port, the thread just stops.
    let _ = exit.ioport_out16(DEBUG_EXIT.first, 1);
    sel4::init_thread::suspend_self()
}

fn on_panic(info: &PanicInfo<'_>) {
    let com1 = cap::IoPort::from_bits(CONSOLE_PORT.load(Ordering::Relaxed));
    let mut console = EmergencyConsole::new(com1, EmergencyConsole::COM1);
    let _ = writeln!(console, "{info}");
    if let Some(place) = info.location() {
        let _ = writeln!(console, "verdict: panic {}:{}", place.file(), place.line());
    }
    end()
}

type Scenario = fn(&mut Broker, &mut EmergencyConsole) -> Result<(), BrokerError>;

const SCENARIOS: [(&str, Scenario); 8] = [
    ("process", processes_come_and_go),
    ("costs", costs),
    ("client", a_client_sees_what_is_mapped),
    ("shared", an_unmapped_page_is_gone_for_the_client),
    ("devices", devices_are_exclusive),
    ("objects", objects_of_every_size),
    ("asids", more_spaces_than_one_pool),
    ("exhaustion", all_memory_as_frames),
];

fn settled(broker: &mut Broker) -> Result<Usage, BrokerError> {
    broker.trim()?;
    Ok(broker.usage())
}

fn print_machine(bootinfo: &BootInfoPtr, broker: &Broker, console: &mut EmergencyConsole) {
    for (_, desc) in bootinfo.untypeds().filter(|(_, desc)| !desc.is_device()) {
        let _ = writeln!(console, "untyped {:#x} {}", desc.paddr(), desc.size_bits());
    }
    let _ = writeln!(console, "slots {:?}", bootinfo.empty());
    let _ = writeln!(console, "{:?}", broker.usage());
}

fn now() -> u64 {
    // SAFETY: reading the time-stamp counter has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Instructions, under icount, of `action`.
fn timed<T>(action: impl FnOnce() -> T) -> (u64, T) {
    let start = now();
    let outcome = action();
    (now() - start, outcome)
}

fn populate(broker: &mut Broker, pages: u64) -> Result<SpaceId, BrokerError> {
    let space = broker.create_space()?;
    for page in 0..pages {
        broker.back_page(space, CODE + page * PAGE_BYTES, Rights::ReadWrite)?;
    }
    Ok(space)
}

fn processes_come_and_go(broker: &mut Broker, _: &mut EmergencyConsole) -> Result<(), BrokerError> {
    for round in 0..20 {
        let spaces: Vec<_> = (0..5)
            .map(|_| populate(broker, 40))
            .collect::<Result<_, _>>()?;
        for space in spaces {
            let frame = broker.page(space, CODE).expect("mapped").frame;
            let mut bytes = [1; 64];
            broker.read_frame(frame, 0, &mut bytes)?;
            assert_eq!(bytes, [0; 64], "old data in round {round}");
            broker.write_frame(frame, 0, &[round + 1; 64])?;
            broker.destroy_space(space)?;
        }
    }
    Ok(())
}

fn costs(broker: &mut Broker, console: &mut EmergencyConsole) -> Result<(), BrokerError> {
    let (first, space) = timed(|| populate(broker, 1));
    let space = space?;
    let page = |index: u64| CODE + index * PAGE_BYTES;
    let (fresh, frame) = timed(|| broker.back_page(space, page(1), Rights::ReadWrite));
    frame?;
    for index in 2..64 {
        broker.back_page(space, page(index), Rights::ReadWrite)?;
    }
    let (chunk, frame) = timed(|| broker.back_page(space, page(64), Rights::ReadWrite));
    frame?;
    let (teardown, outcome) = timed(|| broker.destroy_space(space));
    outcome?;
    let (second, space) = timed(|| populate(broker, 1));
    let space = space?;
    let (steady, frame) = timed(|| broker.back_page(space, page(1), Rights::ReadWrite));
    frame?;
    let (unmap, outcome) = timed(|| broker.unmap_page(space, page(1)));
    outcome?;
    broker.destroy_space(space)?;
    let (trim, outcome) = timed(|| broker.trim());
    outcome?;
    let mut line = |name, count| {
        let _ = writeln!(console, "cost {name}: {count}");
    };
    line("first space with one page", first);
    line("fresh frame", fresh);
    line("frame that opens a chunk", chunk);
    line("destroy a space of 65 pages", teardown);
    line("next space with one page", second);
    line("recycled frame", steady);
    line("unmap a page", unmap);
    line("trim", trim);
    Ok(())
}

/// A thread in an address space of its own, whose faults come to us.
struct Client {
    endpoint: OwnedObject,
    cspace: OwnedObject,
    tcb: OwnedObject,
    /// What it has its time from, on kernels where that is an object.
    time: Option<OwnedObject>,
    space: SpaceId,
}

impl Client {
    /// A thread that will run `code`.
    fn new(broker: &mut Broker, code: &[u8]) -> Result<Self, BrokerError> {
        let space = broker.create_space()?;
        let frame = broker.back_page(space, CODE, Rights::Read)?;
        broker.write_frame(frame, 0, code)?;
        let endpoint = broker.create_object(broker.sizes().object(ObjectKind::Endpoint))?;
        let cspace = broker.create_object(broker.sizes().cnode(1))?;
        let tcb = broker.create_object(broker.sizes().object(ObjectKind::Tcb))?;
        let time = match HAS_SCHED_CONTEXTS {
            true => Some(broker.create_object(broker.sizes().object(ObjectKind::SchedContext))?),
            false => None,
        };
        let client = Self {
            endpoint,
            cspace,
            tcb,
            time,
            space,
        };
        let passage = broker.allocate_slot()?;
        client
            .configure(broker, passage)
            .expect("the kernel accepts the thread");
        broker.release_slot(passage)?;
        Ok(client)
    }

    /// Uses the empty slot `passage` and may leave a capability in it.
    fn configure(&self, broker: &Broker, passage: Slot) -> sel4::Result<()> {
        let cnode = cap_of::<cap_type::CNode>(&self.cspace);
        let root = slot::CNODE.cap();
        let endpoint = cap_of::<cap_type::Endpoint>(&self.endpoint);
        let (place, handler) = if FAULT_HANDLER_IN_TCB {
            let handler = CPtr::from_bits(passage.0.into());
            (root.absolute_cptr(handler), handler)
        } else {
            let place = cnode.absolute_cptr_from_bits_with_depth(1, 1);
            (place, CPtr::from_bits(1))
        };
        let endpoint = root.absolute_cptr(endpoint.cptr());
        place.mint(&endpoint, CapRights::all(), 7)?;
        let vspace = broker.vspace(self.space).expect("alive");
        let tcb = cap_of::<cap_type::Tcb>(&self.tcb);
        let guard = CNodeCapData::skip_high_bits(1);
        let buffer = cap::Granule::from_bits(0);
        tcb.tcb_configure(handler, cnode, guard, vspace, 0, buffer)?;
        tcb.tcb_set_sched_params(slot::TCB.cap(), 0, 100)?;
        if let Some(time) = &self.time {
            const SLICE_US: u64 = 10_000;
            let control = cap::SchedControl::from_bits(TIME_CONTROL.load(Ordering::Relaxed));
            let context = cap_of::<cap_type::SchedContext>(time);
            control.sched_control_configure(context, Budget::unlimited(SLICE_US), 0)?;
            context.sched_context_bind(tcb)?;
        }
        let mut context = UserContext::default();
        context.rip = CODE;
        context.rflags = 0x202;
        tcb.tcb_write_all_registers(true, &context)
    }

    /// Waits for the thread's next fault.
    fn fault(&self) -> Fault {
        let endpoint = cap_of::<cap_type::Endpoint>(&self.endpoint);
        let (info, badge, first) = endpoint.recv_with_mrs();
        assert_eq!(badge, 7);
        Fault::decode(info, &first).expect("a fault the kernel sent")
    }

    fn destroy(self, broker: &mut Broker) -> Result<(), BrokerError> {
        broker.destroy_object(self.tcb)?;
        self.time
            .map_or(Ok(()), |time| broker.destroy_object(time))?;
        broker.destroy_object(self.cspace)?;
        broker.destroy_object(self.endpoint)?;
        broker.destroy_space(self.space)
    }
}

/// `mov byte [0x1000000], 0x5a`, then `ud2`.
const STORE: [u8; 10] = [0xc6, 0x04, 0x25, 0, 0, 0, 1, 0x5a, 0x0f, 0x0b];
/// `mov al, [0x1000000]`, then a jump back to it.
const LOAD: [u8; 9] = [0x8a, 0x04, 0x25, 0, 0, 0, 1, 0xeb, 0xf7];

fn faulted_at(fault: &Fault) -> u64 {
    match fault {
        Fault::VmFault(fault) => fault.addr,
        other => panic!("not a page fault: {other:?}"),
    }
}

fn a_client_sees_what_is_mapped(
    broker: &mut Broker,
    console: &mut EmergencyConsole,
) -> Result<(), BrokerError> {
    let client = Client::new(broker, &STORE)?;
    assert_eq!(
        faulted_at(&client.fault()),
        DATA,
        "the page is not backed yet"
    );
    let frame = broker.back_page(client.space, DATA, Rights::Read)?;
    client.restart_after(broker);
    assert_eq!(faulted_at(&client.fault()), DATA, "read-only is read-only");
    broker.protect_page(client.space, DATA, Some(Rights::ReadWrite))?;
    client.restart_after(broker);
    assert!(
        matches!(client.fault(), Fault::UserException(_)),
        "the store went through"
    );
    let mut byte = [0];
    broker.read_frame(frame, 0, &mut byte)?;
    assert_eq!(byte, [0x5a], "the window shows what the client wrote");
    broker.read_client(client.space, DATA, &mut byte)?;
    assert_eq!(byte, [0x5a]);
    let absent = broker.read_client(client.space, DATA + PAGE_BYTES - 1, &mut [0; 2]);
    assert_eq!(
        absent,
        Err(BrokerError::NotMapped {
            vaddr: DATA + PAGE_BYTES
        })
    );
    let (cost, outcome) = timed(|| client.destroy(broker));
    let _ = writeln!(console, "cost destroy a client of two pages: {cost}");
    outcome
}

impl Client {
    /// Restarts the thread after invocations, which leave no reply pending to
    /// rely on: by resuming it.
    fn restart_after(&self, _: &Broker) {
        cap_of::<cap_type::Tcb>(&self.tcb)
            .tcb_resume()
            .expect("a thread resumes");
    }
}

/// The kernel lets mappings outlive a frame capability that is not the last
/// one; the broker does not.
fn an_unmapped_page_is_gone_for_the_client(
    broker: &mut Broker,
    _: &mut EmergencyConsole,
) -> Result<(), BrokerError> {
    let client = Client::new(broker, &LOAD)?;
    let other = broker.create_space()?;
    let frame: FrameId = broker.allocate_frame()?;
    broker.write_frame(frame, 0, &[1])?;
    assert_eq!(faulted_at(&client.fault()), DATA);
    broker.map_frame(client.space, DATA, frame, Rights::Read, Hold::Shared)?;
    broker.map_frame(other, DATA, frame, Rights::ReadWrite, Hold::Shared)?;
    client.restart_after(broker);
    // The thread loops over the load at a lower priority; let it run.
    wait_for_ticks();
    broker.unmap_page(client.space, DATA)?;
    assert_eq!(faulted_at(&client.fault()), DATA, "the mapping is gone");
    assert!(broker.page(other, DATA).is_some());
    client.destroy(broker)?;
    broker.destroy_space(other)?;
    broker.free_frame(frame)
}

/// Gives lower priorities the processor until a few ticks have passed: waits
/// on an empty notification would never end, so the root task lowers itself.
fn wait_for_ticks() {
    let own = slot::TCB.cap();
    own.tcb_set_sched_params(own, 255, 100)
        .expect("lowering is allowed");
    let start = now();
    while now() - start < 30_000_000 {
        sel4::yield_now();
    }
    own.tcb_set_sched_params(own, 255, 255)
        .expect("raising to the maximum is allowed");
}

fn devices_are_exclusive(broker: &mut Broker, _: &mut EmergencyConsole) -> Result<(), BrokerError> {
    let hpet = broker.map_device(HPET, 1)?;
    // SAFETY: the page is mapped and holds the HPET's registers; the first is
    // read-only.
    let identity = unsafe { (hpet.window() as *const u64).read_volatile() };
    assert_eq!(
        identity & 0xffff_0000,
        0x8086_0000,
        "an Intel HPET: {identity:#x}"
    );
    let again = broker.map_device(HPET, 1).map(drop);
    assert_eq!(again, Err(BrokerError::DeviceBusy { paddr: HPET }));
    broker.unmap_device(hpet)?;
    let hpet = broker.map_device(HPET, 1)?;
    broker.unmap_device(hpet)?;
    assert_eq!(broker.request_ports(COM1).map(drop), Err(DeviceError::Busy));
    let serial = broker
        .request_device(DeviceId::Serial { port: 1 })
        .expect("COM2 is free");
    assert!(serial.ports().is_some() && serial.irq().is_some() && serial.registers().is_none());
    let half = broker
        .request_device(DeviceId::Serial { port: 0 })
        .map(drop);
    assert_eq!(half, Err(DeviceError::Busy), "COM1 is ours");
    broker.release_device(serial).expect("held");
    let hpet = broker.request_device(DeviceId::Hpet).expect("free again");
    broker.release_device(hpet).expect("held");
    let pit = PortRange {
        first: 0x40,
        last: 0x43,
    };
    let ports = broker.request_ports(pit).expect("the PIT is free");
    assert!(ports.ioport_in8(0x40).is_ok());
    assert!(
        ports.ioport_in8(0x44).is_err(),
        "the capability ends where the range does"
    );
    broker.release_ports(pit).expect("held");
    assert!(ports.ioport_in8(0x40).is_err(), "the capability is gone");
    let pin = Pin { ioapic: 0, pin: 4 };
    let handler = broker
        .request_irq(pin, Trigger::Edge)
        .expect("the pin is free");
    assert!(handler.irq_handler_ack().is_ok());
    assert_eq!(
        broker.request_irq(pin, Trigger::Edge).map(drop),
        Err(DeviceError::Busy)
    );
    broker.release_irq(pin).expect("held");
    broker.request_irq(pin, Trigger::Level).expect("free again");
    broker.release_irq(pin).expect("held");
    Ok(())
}

fn objects_of_every_size(broker: &mut Broker, _: &mut EmergencyConsole) -> Result<(), BrokerError> {
    let sizes = *broker.sizes();
    let untyped = |size_bits| Object {
        kind: ObjectKind::Untyped,
        size_bits,
    };
    let fixed = [
        ObjectKind::Tcb,
        ObjectKind::Endpoint,
        ObjectKind::Notification,
    ];
    let kinds = fixed.map(|kind| sizes.object(kind)).into_iter();
    let kinds: Vec<_> = kinds
        .chain((1..12).map(|radix| sizes.cnode(radix)))
        .chain((4..22).map(untyped))
        .collect();
    for _ in 0..3 {
        let mut objects = Vec::new();
        for object in kinds.iter().chain(kinds.iter().rev()) {
            objects.push(broker.create_object(*object)?);
        }
        // Every other one first, so that halves are left over.
        let mut odd = false;
        let (first, second): (Vec<_>, Vec<_>) = objects.into_iter().partition(|_| {
            odd = !odd;
            odd
        });
        for object in first.into_iter().chain(second) {
            broker.destroy_object(object)?;
        }
    }
    Ok(())
}

fn more_spaces_than_one_pool(
    broker: &mut Broker,
    _: &mut EmergencyConsole,
) -> Result<(), BrokerError> {
    let mut spaces = Vec::new();
    for _ in 0..600 {
        spaces.push(broker.create_space()?);
    }
    spaces
        .into_iter()
        .try_for_each(|space| broker.destroy_space(space))
}

fn all_memory_as_frames(
    broker: &mut Broker,
    console: &mut EmergencyConsole,
) -> Result<(), BrokerError> {
    let mut frames = Vec::new();
    let error = loop {
        match broker.allocate_frame() {
            Ok(frame) => frames.push(frame),
            Err(error) => break error,
        }
    };
    let usage = broker.usage();
    let _ = writeln!(console, "{} frames, then: {error}; {usage:?}", frames.len());
    frames
        .into_iter()
        .try_for_each(|frame| broker.free_frame(frame))
}
