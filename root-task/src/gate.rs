//! The gate: faults in, decisions out.
//!
//! One endpoint receives the faults of every application thread, and through
//! the bound notification the timer's interrupt. The badge says who speaks;
//! what the message says is a claim (docs/gate.md).
//!
//! # Invariants
//! - **G1** Each message is answered at most once: by the reply of the next
//!   receive, or by writing the thread's registers, never by both.
//! - **G2** Nothing here waits for an application.

use ring_server_core::{ENTER_REJECTED, Entry, Overrun, Pid, Server};
use sel4::fault::{TIMEOUT_CONSUMED, UnknownSyscall, UserException, VmFault};
use sel4::{
    FAST_MESSAGE_REGISTERS, Fault, FaultKind, MessageInfo, Word, cap, with_ipc_buffer,
    with_ipc_buffer_mut,
};

use crate::audit::Auditor;
use crate::books::Comparison;
use crate::client::{Saved, Thread, backed_page, split_badge};
use crate::domains::{DomainFault, Domains, FAULT_BADGE};
use crate::end::{self, Verdict};
use crate::log;
use crate::report::{self, Crime};
use crate::terminal;
use crate::world::World;

/// Bit of the badge that only signals have: those of interrupts and, in the
/// bits above theirs, those of protection domains.
pub const SIGNAL_BADGE: u64 = 1 << 27;
/// The badge of the timer's interrupt.
pub const TIMER_BADGE: u64 = SIGNAL_BADGE | 1;
/// The badge of the terminal's interrupt.
pub const TERMINAL_BADGE: u64 = SIGNAL_BADGE | 2;
/// First bit of the domains.
pub const DOMAIN_BIT: u32 = 2;

/// The trap numbers of capOS (RAX).
mod trap {
    pub const EXIT: u64 = 1;
    pub const CAP_ENTER: u64 = 2;
}

/// `int 0xA0` and `syscall` are both two bytes long.
const TRAP_BYTES: u64 = 2;
const SYSCALL_BYTES: [u8; TRAP_BYTES as usize] = [0x0f, 0x05];
const INVALID_OPCODE: u64 = 6;
/// Words of an answer up to the instruction pointer: the registers before it
/// keep what the message said, the ones behind it are left alone.
const ANSWER_WORDS: usize = UnknownSyscall::REPLY_LENGTH;

/// The system call number seL4 makes up for `int 0xA0`: the vector above 24
/// bits of EAX, sign-extended.
const fn gate_number(rax: u64) -> u64 {
    (0xa0_u32 << 24 | (rax as u32 & 0x00ff_ffff)) as i32 as u64
}

type Registers = [Word; FAST_MESSAGE_REGISTERS];

/// Who speaks, as the badge says: a process slot and a thread's place in it.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// Slot of its process.
    pub slot: usize,
    /// Its place in the process.
    pub index: usize,
}

/// How the next receive begins.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// With nothing to answer, or an answer given already.
    Receive,
    /// With this answer; words behind the fourth are in the IPC buffer.
    Answer(MessageInfo, Registers),
}

impl Next {
    /// Lets a thread retry the instruction it faulted on, or trapped with.
    const RETRY: Self = Self::Answer(MessageInfo::new(0, 0, 0), [0; FAST_MESSAGE_REGISTERS]);
}

/// The timer's interrupt and what it is set to.
pub struct TimerIrq {
    /// Its handler.
    pub handler: cap::IrqHandler,
    /// The deadline the hardware has been given.
    pub armed: Option<u64>,
}

/// The running system.
pub struct Gate {
    /// The machine.
    pub world: World,
    /// The personality.
    pub server: Server<World>,
    /// Where faults arrive.
    pub endpoint: cap::Endpoint,
    /// The timer.
    pub timer: TimerIrq,
    /// The protection domains.
    pub domains: Domains,
    /// What is in use whenever only the first process is left, on systems that
    /// are being debugged.
    pub books: Option<Comparison>,
    /// Compares what processes hold with the books, on systems that ask for it.
    pub audit: Option<Auditor>,
}

impl Gate {
    /// Serves for ever; the end of the first process stops the machine.
    pub fn run(mut self) -> ! {
        let mut next = Next::Receive;
        loop {
            self.set_timer();
            if let Some(slot) = self.world.fairness.charge_rest() {
                self.world.end_turn(slot);
                self.set_timer();
            }
            let (info, badge, words) = match next {
                Next::Receive => self.endpoint.recv_with_mrs(),
                Next::Answer(info, words) => self.endpoint.reply_recv_with_mrs(info, words),
            };
            next = if badge & SIGNAL_BADGE != 0 {
                self.on_signals(badge)
            } else if badge & FAULT_BADGE != 0 {
                self.on_domain_fault(info, badge, &words)
            } else {
                self.serve(info, badge, &words)
            };
            self.serve_terminal();
            if self.world.take_alone_again() {
                self.read_books();
            }
        }
    }

    #[cold]
    fn read_books(&mut self) {
        if let Some(books) = &mut self.books {
            books.read(&mut self.world.broker, &self.server);
        }
    }

    /// Compares what processes hold with the books, if the system asks for it.
    /// No message is pending.
    #[cold]
    pub fn audit(&mut self, when: &str) {
        let Some(audit) = &mut self.audit else { return };
        let handler = self.timer.handler;
        let signals = audit.run(&mut self.world, &self.domains, handler, when);
        // It has used the timer.
        self.timer.armed = None;
        if signals != 0 {
            self.on_signals(signals);
        }
    }

    /// Gives the hardware the earliest deadline, if it has another one.
    #[inline]
    fn set_timer(&mut self) {
        while let Some(due) = self.next_deadline() {
            if self.timer.armed == Some(due) {
                return;
            }
            self.timer.armed = Some(due);
            if self.world.clock.arm(due) {
                return;
            }
            self.advance();
        }
    }

    #[inline]
    fn next_deadline(&self) -> Option<u64> {
        let deadline = match (self.server.next_deadline(), self.world.fairness.next_due()) {
            (deadline, None) => deadline,
            (None, due) => due,
            (Some(deadline), Some(due)) => Some(deadline.min(due)),
        };
        match &self.audit {
            None => deadline,
            Some(audit) => deadline.into_iter().chain(audit.next_due()).min(),
        }
    }

    /// Signals that arrived since the last time, all or-ed in one badge.
    #[cold]
    fn on_signals(&mut self, badge: u64) -> Next {
        if let Some(line) = &mut self.world.terminal
            && badge & line.badge() == line.badge()
        {
            line.pending = true;
        }
        if badge & TIMER_BADGE == TIMER_BADGE {
            self.on_timer();
        }
        self.domains.note_signals(badge);
        Next::Receive
    }

    /// The sender stays blocked: it is gone, or has a parent that would have
    /// been asked.
    #[cold]
    fn on_domain_fault(&mut self, info: MessageInfo, badge: u64, words: &Registers) -> Next {
        let now = self.world.clock.now_ns();
        let fault = DomainFault { badge, info, words };
        let (broker, means) = self.world.making();
        let revived = self.domains.on_fault(broker, means, now, &fault);
        self.world.console.restarted(&revived);
        if let Some(line) = &mut self.world.terminal {
            line.restarted(&revived);
        }
        Next::Receive
    }

    /// Takes in what the terminal received. It is looked at after every event,
    /// since any of them may have made room.
    #[inline]
    fn serve_terminal(&mut self) {
        if self.world.has_terminal_input()
            && let Err(error) = terminal::serve(&mut self.world, &mut self.server)
        {
            log!("terminal interrupt: {error:?}");
        }
    }

    fn on_timer(&mut self) {
        if let Err(error) = self.timer.handler.irq_handler_ack() {
            log!("timer interrupt: {error:?}");
        }
        self.advance();
    }

    /// Lets time pass up to now.
    fn advance(&mut self) {
        self.timer.armed = None;
        let now = self.world.clock.now_ns();
        // Those that wake get ahead of those that come back.
        self.world.begin_turns(now);
        self.server.advance(&mut self.world, now);
        let due = self.audit.as_ref().and_then(Auditor::next_due);
        if due.is_some_and(|due| due <= now) {
            self.audit("running");
        }
    }

    /// Answers a fault and counts what that took (`crate::fairness`).
    #[inline]
    fn serve(&mut self, info: MessageInfo, badge: u64, words: &Registers) -> Next {
        self.world.fairness.begin();
        let next = self.on_fault(info, badge, words);
        let (slot, _) = split_badge(badge);
        if self.world.fairness.charge(slot) {
            self.world.end_turn(slot);
        }
        next
    }

    #[inline]
    fn on_fault(&mut self, info: MessageInfo, badge: u64, words: &Registers) -> Next {
        let (slot, index) = split_badge(badge);
        let speaker = Speaker { slot, index };
        match FaultKind::of(info) {
            Ok(FaultKind::UnknownSyscall) => self.on_trap(speaker, words),
            Ok(FaultKind::VmFault) => self.on_page_fault(speaker, words),
            Ok(FaultKind::UserException) => self.on_exception(speaker, words),
            Ok(FaultKind::Timeout) => self.on_overrun(speaker, words[TIMEOUT_CONSUMED]),
            Ok(FaultKind::CapFault) => match Fault::decode(info, words) {
                Ok(Fault::CapFault(fault)) => self.kill(speaker, &Crime::CapFault(fault)),
                _ => Next::Receive,
            },
            _ => self.kill(speaker, &Crime::Malformed(info)),
        }
    }

    /// `int 0xA0`: the rewritten gate, or a `syscall` that was not.
    #[inline]
    fn on_trap(&mut self, speaker: Speaker, words: &Registers) -> Next {
        let rax = words[UnknownSyscall::RAX];
        let (number, rdi, rsi) = with_ipc_buffer(|buffer| {
            (
                buffer.mr_at::<{ UnknownSyscall::SYSCALL }>(),
                buffer.mr_at::<{ UnknownSyscall::RDI }>(),
                buffer.mr_at::<{ UnknownSyscall::RSI }>(),
            )
        });
        if number != gate_number(rax) {
            let fault = with_ipc_buffer(|buffer| UnknownSyscall::read(words, buffer));
            return self.kill(speaker, &Crime::RawSyscall(fault));
        }
        match self.trap(speaker, [rax, rdi, rsi]) {
            Trap::Resume(result) => self.answer_trap(words, result),
            Trap::Again => Next::RETRY,
            Trap::Block => {
                let saved = with_ipc_buffer(|buffer| Saved {
                    rip: buffer.mr_at::<{ UnknownSyscall::FAULT_IP }>() + TRAP_BYTES,
                    rsp: buffer.mr_at::<{ UnknownSyscall::SP }>(),
                    rflags: buffer.mr_at::<{ UnknownSyscall::FLAGS }>(),
                });
                self.keep_waiting(speaker, saved)
            }
            Trap::Gone => Next::Receive,
        }
    }

    #[inline]
    fn answer_trap(&self, words: &Registers, result: u64) -> Next {
        with_ipc_buffer_mut(|buffer| {
            let at = buffer.mr_at::<{ UnknownSyscall::FAULT_IP }>();
            buffer.set_mr_at::<{ UnknownSyscall::FAULT_IP }>(at.wrapping_add(TRAP_BYTES));
        });
        let mut words = *words;
        words[UnknownSyscall::RAX] = result;
        Next::Answer(MessageInfo::new(0, 0, ANSWER_WORDS), words)
    }

    fn keep_waiting(&mut self, speaker: Speaker, saved: Saved) -> Next {
        let client = self.world.client_in_mut(speaker.slot);
        if let Some(thread) = client.and_then(|client| client.thread_at_mut(speaker.index)) {
            thread.saved = Some(saved);
            thread.blocks += 1;
        }
        Next::Receive
    }

    fn thread_at(&self, speaker: Speaker) -> Option<&Thread> {
        self.world.client_in(speaker.slot)?.thread_at(speaker.index)
    }

    /// What the personality says to RAX, RDI and RSI.
    #[inline]
    fn trap(&mut self, speaker: Speaker, [rax, rdi, rsi]: [u64; 3]) -> Trap {
        let Some(pid) = self.world.client_in(speaker.slot).map(|client| client.pid) else {
            return Trap::Gone;
        };
        let (world, index) = (&mut self.world, speaker.index);
        match rax {
            trap::CAP_ENTER => match self.server.cap_enter_at(world, pid, index, rdi, rsi) {
                Entry::Resume(result) => Trap::Resume(result),
                Entry::Block => Trap::Block,
                Entry::Again => Trap::Again,
                Entry::Ended(code) => {
                    self.on_end(pid, code);
                    Trap::Gone
                }
            },
            trap::EXIT => {
                let code = self.server.exit_at(world, pid, index, rdi as i64);
                self.on_end(pid, code);
                Trap::Gone
            }
            _ => Trap::Resume(ENTER_REJECTED),
        }
    }

    /// A thread ended, and with a code its process.
    #[cold]
    fn on_end(&mut self, pid: Pid, code: Option<i64>) {
        if let Some(code) = code {
            self.end_with(pid, &Verdict::Exit(code));
        }
    }

    fn on_page_fault(&mut self, speaker: Speaker, words: &Registers) -> Next {
        let fault = with_ipc_buffer(|buffer| VmFault::read(words, buffer));
        match self.repair(speaker, &fault) {
            Ok(()) => Next::RETRY,
            Err(reason) => self.kill(speaker, &Crime::PageFault(fault, reason)),
        }
    }

    /// On kernels that never enable `syscall`, a program's own instruction
    /// arrives as an invalid opcode and is the gate.
    #[cold]
    fn on_exception(&mut self, speaker: Speaker, words: &Registers) -> Next {
        let fault = with_ipc_buffer(|buffer| UserException::read(words, buffer));
        if fault.number == INVALID_OPCODE && self.is_syscall_at(speaker.slot, fault.fault_ip) {
            return self.on_untouched_trap(speaker, &fault);
        }
        self.kill(speaker, &Crime::Exception(fault))
    }

    fn on_untouched_trap(&mut self, speaker: Speaker, fault: &UserException) -> Next {
        /// RIP, RSP, RFLAGS, RAX, RBX, RCX, RDX, RSI, RDI.
        const REGISTERS: usize = 9;
        let Some(thread) = self.thread_at(speaker) else {
            return Next::Receive;
        };
        let context = match thread.tcb().tcb_read_registers(false, REGISTERS) {
            Ok(context) => context,
            Err(_) => return self.kill(speaker, &Crime::Exception(*fault)),
        };
        let saved = Saved {
            rip: fault.fault_ip + TRAP_BYTES,
            rsp: fault.sp,
            rflags: fault.flags,
        };
        match self.trap(speaker, [context.rax, context.rdi, context.rsi]) {
            Trap::Resume(result) => {
                let thread = self.thread_at(speaker);
                if let Some(Err(error)) = thread.map(|t| t.continue_at(saved, result)) {
                    log!("a trap cannot be answered: {error:?}");
                }
                Next::Receive
            }
            Trap::Again => Next::RETRY,
            Trap::Block => self.keep_waiting(speaker, saved),
            Trap::Gone => Next::Receive,
        }
    }

    fn is_syscall_at(&self, slot: usize, ip: u64) -> bool {
        let Some(space) = self.world.client_in(slot).map(|client| client.space) else {
            return false;
        };
        let byte_at = |address: u64| {
            let page = backed_page(&self.world.broker, space, address)?;
            let mut byte = [0];
            page.copy_out((address % sel4::GRANULE_SIZE as u64) as usize, &mut byte);
            Some(byte[0])
        };
        SYSCALL_BYTES
            .iter()
            .enumerate()
            .all(|(index, &want)| byte_at(ip.wrapping_add(index as u64)) == Some(want))
    }

    /// A budget is used up: the program's, or that of a scheduling context. The
    /// kernel lets the thread go on when its next period begins.
    #[cold]
    fn on_overrun(&mut self, speaker: Speaker, consumed_us: u64) -> Next {
        let Some(client) = self.world.client_in_mut(speaker.slot) else {
            return Next::Receive;
        };
        client.note_use(speaker.index, consumed_us);
        let pid = client.pid;
        if client.limit.is_some() {
            self.world.note_overrun(speaker.slot);
            return Next::RETRY;
        }
        let server = &mut self.server;
        match server.budget_used_up(&mut self.world, pid, speaker.index) {
            Overrun::Throttled => Next::RETRY,
            Overrun::Fault => self.kill(speaker, &Crime::Overrun),
        }
    }

    /// Ends the process of the speaker, with all its threads, and says why.
    #[cold]
    fn kill(&mut self, speaker: Speaker, crime: &Crime) -> Next {
        let Some(client) = self.world.client_in(speaker.slot) else {
            return Next::Receive;
        };
        let pid = client.pid;
        let tid = client.thread_at(speaker.index).map(|thread| thread.tid);
        report::fault(client, tid, crime);
        self.server.destroy_process(&mut self.world, pid);
        self.end_with(pid, &Verdict::Killed(crime.word()));
        Next::Receive
    }

    /// The end of the first process is the end of the machine.
    fn end_with(&mut self, pid: Pid, verdict: &Verdict) {
        if self.world.is_first(pid) {
            if let Some(books) = &self.books {
                books.report();
            }
            self.audit("end");
            self.world.audit();
            self.domains.stop();
            self.world.console.finish();
            if let Some(line) = &mut self.world.terminal {
                line.finish();
            }
            end::halt(verdict);
        }
    }
}

/// What becomes of a thread that trapped.
enum Trap {
    /// It continues with this in RAX.
    Resume(u64),
    /// It traps again at once, with the registers it had.
    Again,
    /// It waits.
    Block,
    /// It is gone, or never was.
    Gone,
}
