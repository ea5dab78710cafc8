//! Checks of threads and of the faults they send.

use alloc::string::String;

use sel4::fault::{Access, UnknownSyscall, UserException};
use sel4::{
    Error, Fault, FaultKind, MessageInfo, ObjectBlueprint, UserContext, Word, cap, with_ipc_buffer,
    with_ipc_buffer_mut,
};

use crate::ensure;
use crate::report::{Outcome, refused};
use crate::resources::{Resources, absolute};
use crate::thread::{CODE, Code, DATA, READ_ONLY, TRAP_LENGTH, Thread, UNMAPPED};

/// A worker's priority: below the initial thread's.
pub const PRIORITY: u8 = 200;
/// The initial thread's own priority.
const TOP_PRIORITY: u8 = u8::MAX;

type Words = [Word; 4];
const BADGE: sel4::Badge = 0x77;

fn create(resources: &mut Resources) -> Result<Thread, String> {
    Thread::create(resources, BADGE, PRIORITY).map_err(refused("thread"))
}

/// Registers with values that tell them apart.
fn marked() -> UserContext {
    let mut context = UserContext::default();
    context.rsp = (DATA + sel4::GRANULE_SIZE) as Word;
    context.rflags = 0x202;
    context.rax = 0xA0A0;
    context.rbx = 0xB0B0;
    context.rcx = 0xC0C0;
    context.rdx = 0xD0D0;
    context.rsi = 0x5151;
    context.rdi = 0xD1D1;
    context.rbp = 0xB9B9;
    context.r8 = 0x808;
    context.r9 = 0x909;
    context.r10 = 0x1010;
    context.r11 = 0x1111;
    context.r12 = 0x1212;
    context.r13 = 0x1313;
    context.r14 = 0x1414;
    context.r15 = 0x1515;
    context
}

fn receive(thread: &Thread) -> Result<(MessageInfo, Words), String> {
    let (info, badge, words) = thread.faults.recv_with_mrs();
    ensure!(badge == thread.badge, "badge {badge:#x}");
    Ok((info, words))
}

fn decode(info: MessageInfo, words: &Words) -> Result<Fault, String> {
    Fault::decode(info, words).map_err(|fault| alloc::format!("{fault:?}"))
}

/// A trap arrives with every register, and an answer of sixteen words sets
/// them and moves on.
pub fn unknown_syscall(resources: &mut Resources) -> Outcome {
    let thread = create(resources)?;
    thread
        .start(Code::Trap, marked())
        .map_err(refused("start"))?;
    let (info, words) = receive(&thread)?;
    let Fault::UnknownSyscall(first) = decode(info, &words)? else {
        return Err(alloc::format!("{info:?}"));
    };
    let sent = marked();
    ensure!(first.fault_ip == CODE as Word, "ip {:#x}", first.fault_ip);
    ensure!(
        first.syscall >> 24 & 0xff == 0xA0,
        "number {:#x}",
        first.syscall
    );
    ensure!(
        (first.rax, first.rbx, first.rcx, first.rdx) == (sent.rax, sent.rbx, sent.rcx, sent.rdx)
            && (first.rsi, first.rdi, first.rbp) == (sent.rsi, sent.rdi, sent.rbp)
            && (first.r8, first.r9, first.r10, first.r11) == (sent.r8, sent.r9, sent.r10, sent.r11)
            && (first.r12, first.r13, first.r14, first.r15)
                == (sent.r12, sent.r13, sent.r14, sent.r15)
            && first.sp == sent.rsp,
        "registers {first:x?}"
    );

    let (info, words) = step(&thread, [0x4242, words[1], words[2], words[3]]);
    let Fault::UnknownSyscall(second) = decode(info, &words)? else {
        return Err(alloc::format!("second {info:?}"));
    };
    let expected = UnknownSyscall {
        rax: 0x4242,
        // The number repeats low bits of RAX.
        syscall: second.syscall,
        ..first
    };
    ensure!(second == expected, "second {second:x?}");
    thread.tcb.tcb_suspend().map_err(refused("suspend"))
}

/// Answers a trap and receives the next: the inner step of a server.
#[inline(always)]
fn step(thread: &Thread, words: Words) -> (MessageInfo, Words) {
    with_ipc_buffer_mut(|buffer| {
        let ip = buffer.mr_at::<{ UnknownSyscall::FAULT_IP }>();
        buffer.set_mr_at::<{ UnknownSyscall::FAULT_IP }>(ip + TRAP_LENGTH);
    });
    let info = MessageInfo::new(0, 0, UnknownSyscall::REPLY_LENGTH);
    let (info, _, words) = thread.faults.reply_recv_with_mrs(info, words);
    (info, words)
}

/// Instructions for one round trip from answering a trap to receiving the next.
pub struct RoundTrip {
    /// The least that was seen.
    pub minimum: u64,
    /// The middle of what was seen.
    pub median: u64,
}

/// How a trap is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// By `seL4_ReplyRecv`, at once.
    Reply,
    /// By `seL4_TCB_WriteRegisters` of four registers and a receive: the way to
    /// let a thread go on that was kept waiting.
    Registers,
}

/// Measures the round trip that every system call of an application pays, in
/// ticks of the time-stamp counter (instructions under `-icount shift=0`),
/// with the application at the server's priority or below it.
pub fn measure(
    resources: &mut Resources,
    equal: bool,
    answer: Answer,
) -> Result<RoundTrip, String> {
    const ROUNDS: usize = 401;
    /// RIP, RSP, RFLAGS and RAX.
    const REGISTERS: usize = 4;
    let priority = if equal { TOP_PRIORITY } else { PRIORITY };
    let thread = Thread::create(resources, BADGE, priority).map_err(refused("thread"))?;
    thread
        .start(Code::Trap, marked())
        .map_err(refused("start"))?;
    let (_, mut words) = receive(&thread)?;
    let mut onwards = marked();
    onwards.rip = CODE as Word + TRAP_LENGTH;
    let mut ticks = [0; ROUNDS];
    for tick in &mut ticks {
        // The trap is followed by a jump back, so moving on is not staying.
        let start = timestamp();
        match answer {
            Answer::Reply => {
                let info = MessageInfo::new(0, 0, UnknownSyscall::REPLY_LENGTH);
                with_ipc_buffer_mut(|buffer| {
                    buffer.set_mr_at::<{ UnknownSyscall::FAULT_IP }>(CODE as Word + TRAP_LENGTH);
                });
                (_, _, words) = thread.faults.reply_recv_with_mrs(info, words);
            }
            Answer::Registers => {
                let written = thread.tcb.tcb_write_registers(true, REGISTERS, &onwards);
                written.map_err(refused("write"))?;
                (_, _, words) = thread.faults.recv_with_mrs();
            }
        }
        *tick = timestamp() - start;
    }
    thread.tcb.tcb_suspend().map_err(refused("suspend"))?;
    ticks.sort_unstable();
    Ok(RoundTrip {
        minimum: ticks[0],
        median: ticks[ROUNDS / 2],
    })
}

/// The time-stamp counter.
pub fn timestamp() -> u64 {
    // SAFETY: the instruction reads a counter; the kernel leaves it enabled.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// An exception names its vector; writing registers moves the thread on.
pub fn user_exception(resources: &mut Resources) -> Outcome {
    let thread = create(resources)?;
    thread
        .start(Code::Exception, marked())
        .map_err(refused("start"))?;
    let (info, words) = receive(&thread)?;
    let Fault::UserException(fault) = decode(info, &words)? else {
        return Err(alloc::format!("{info:?}"));
    };
    let at = (CODE + Code::Exception as usize) as Word;
    ensure!(fault.number == 6 && fault.fault_ip == at, "{fault:x?}");
    ensure!(fault.sp == marked().rsp, "sp {:#x}", fault.sp);

    let mut context = thread
        .tcb
        .tcb_read_registers(false, 4)
        .map_err(refused("read"))?;
    ensure!(
        context.rip == at && context.rax == marked().rax,
        "{context:x?}"
    );
    context.rip += TRAP_LENGTH;
    context.rax = 0x1234;
    thread
        .tcb
        .tcb_write_registers(true, 4, &context)
        .map_err(refused("write"))?;
    let (info, words) = receive(&thread)?;
    ensure!(
        FaultKind::of(info) == Ok(FaultKind::UnknownSyscall),
        "{info:?}"
    );
    ensure!(words[UnknownSyscall::RAX] == 0x1234, "rax {:#x}", words[0]);
    let rbx = words[UnknownSyscall::RBX];
    ensure!(
        rbx == marked().rbx,
        "writing four registers changed rbx to {rbx:#x}"
    );
    thread.tcb.tcb_suspend().map_err(refused("suspend"))
}

/// An exception answered directly goes on where the answer says.
pub fn exception_reply(resources: &mut Resources) -> Outcome {
    let thread = create(resources)?;
    thread
        .start(Code::Exception, marked())
        .map_err(refused("start"))?;
    let (_, mut words) = receive(&thread)?;
    words[UserException::FAULT_IP] += TRAP_LENGTH;
    let info = MessageInfo::new(0, 0, UserException::REPLY_LENGTH);
    let (info, _, words) = thread.faults.reply_recv_with_mrs(info, words);
    ensure!(
        FaultKind::of(info) == Ok(FaultKind::UnknownSyscall),
        "{info:?}"
    );
    ensure!(
        words[UnknownSyscall::RAX] == marked().rax,
        "rax {:#x}",
        words[0]
    );
    thread.tcb.tcb_suspend().map_err(refused("suspend"))
}

/// Page faults name address, access and whether the page is mapped.
pub fn vm_fault(resources: &mut Resources) -> Outcome {
    let cases = [
        (Code::Load, UNMAPPED, Access::Read, false),
        (Code::Store, UNMAPPED, Access::Write, false),
        (Code::Store, READ_ONLY, Access::Write, true),
        (Code::Jump, UNMAPPED, Access::Execute, false),
        (Code::Load, 0, Access::Read, false),
    ];
    for (code, address, access, present) in cases {
        let thread = create(resources)?;
        let mut context = marked();
        context.rdi = address as Word;
        thread.start(code, context).map_err(refused("start"))?;
        let (info, words) = receive(&thread)?;
        let Fault::VmFault(fault) = decode(info, &words)? else {
            return Err(alloc::format!("{info:?}"));
        };
        ensure!(
            fault.addr == address as Word
                && fault.access() == access
                && fault.is_present() == present,
            "{access:?} at {address:#x}: {fault:x?} {:?}",
            fault.access()
        );
        thread.tcb.tcb_suspend().map_err(refused("suspend"))?;
    }
    Ok(())
}

/// A fault that is not answered blocks its thread until registers are written
/// and the thread is resumed.
pub fn blocked(resources: &mut Resources) -> Outcome {
    let thread = create(resources)?;
    thread
        .start(Code::Trap, marked())
        .map_err(refused("start"))?;
    receive(&thread)?;
    let mut context = thread
        .tcb
        .tcb_read_registers(false, 4)
        .map_err(refused("read"))?;
    context.rip += TRAP_LENGTH;
    context.rax = 1;
    thread
        .tcb
        .tcb_write_registers(false, 4, &context)
        .map_err(refused("write"))?;
    let (_, badge) = thread.faults.nb_recv();
    ensure!(badge == 0, "the thread ran: badge {badge:#x}");
    context.rax = 2;
    thread
        .tcb
        .tcb_write_registers(false, 4, &context)
        .map_err(refused("write again"))?;
    thread.tcb.tcb_resume().map_err(refused("resume"))?;
    let (info, words) = receive(&thread)?;
    ensure!(
        FaultKind::of(info) == Ok(FaultKind::UnknownSyscall),
        "{info:?}"
    );
    ensure!(words[UnknownSyscall::RAX] == 2, "rax {:#x}", words[0]);
    let sp = with_ipc_buffer(|buffer| buffer.mr_at::<{ UnknownSyscall::SP }>());
    ensure!(sp == marked().rsp, "sp {sp:#x}");
    thread.tcb.tcb_suspend().map_err(refused("suspend"))
}

/// A signal reaches a thread that receives on an endpoint, and is no fault.
pub fn bound_notification(resources: &mut Resources) -> Outcome {
    let notification: cap::Notification = resources
        .object(ObjectBlueprint::Notification)
        .map_err(refused("notification"))?;
    let slot = resources.slot();
    slot.mint(
        &absolute(notification.cptr()),
        sel4::CapRights::write_only(),
        0x40,
    )
    .map_err(refused("mint"))?;
    let tcb = sel4::init_thread::slot::TCB.cap();
    tcb.tcb_bind_notification(notification)
        .map_err(refused("bind"))?;
    sel4::Cap::<sel4::cap_type::Notification>::from_bits(slot.path().bits()).signal();
    let endpoint: cap::Endpoint = resources
        .object(ObjectBlueprint::Endpoint)
        .map_err(refused("endpoint"))?;
    let (info, badge, _) = endpoint.recv_with_mrs();
    ensure!(badge == 0x40, "badge {badge:#x}");
    ensure!(FaultKind::of(info) == Ok(FaultKind::NullFault), "{info:?}");
    tcb.tcb_unbind_notification().map_err(refused("unbind"))?;
    let again = tcb.tcb_unbind_notification();
    ensure!(
        again == Err(Error::IllegalOperation),
        "unbound twice: {again:?}"
    );
    Ok(())
}
