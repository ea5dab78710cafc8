//! Threads of one program, on its one ring.
//!
//! All threads share the queue pair, so each use of it takes a lock; nobody
//! holds it while the system keeps a thread waiting. Completions that another
//! thread took wait where whoever asked for them finds them.
//!
//! The lock spins: the threads of a proof are few, and hold it for some hundred
//! instructions.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::hint;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use capos::syscall::{SyscallError, cap_enter};
use capos::{capos_capnp, default_reader_options};
use capos_config::ring::{
    CAP_CQE_TRANSFER_RESULT_CAPS, CAP_OP_PARK, CAP_OP_UNPARK, CAP_SQE_THREAD_OWNED, CapCqe, CapSqe,
};

use crate::proof::{Failure, Process, Proof, equal, that};
use crate::{RawRing, Sqe, call, entry};

/// Names of the capabilities a program with threads is granted.
pub const CONTROL: &str = "control";
/// As [`CONTROL`].
pub const SPAWNER: &str = "threads";
/// As [`CONTROL`].
pub const PARK: &str = "park";

/// Number of the thread a program starts with.
pub const MAIN: u32 = 1;
/// A wait without end.
pub const FOREVER: u64 = u64::MAX;
/// How long a thread waits before it looks at what others took, in
/// nanoseconds.
const LOOK_AGAIN_NS: u64 = 1_000_000;
/// Bytes of a stack from [`stack`].
pub const STACK_BYTES: usize = 16 * 1024;

/// Methods of the three thread interfaces.
pub mod method {
    /// `ThreadSpawner.create`.
    pub const CREATE: u16 = 0;
    /// `ThreadHandle.join`.
    pub const JOIN: u16 = 0;
    /// `ThreadHandle.exitCode`.
    pub const EXIT_CODE: u16 = 1;
    /// `ThreadControl.getFsBase`.
    pub const GET_FS_BASE: u16 = 0;
    /// `ThreadControl.setFsBase`.
    pub const SET_FS_BASE: u16 = 1;
    /// `ThreadControl.exitThread`.
    pub const EXIT_THREAD: u16 = 2;
}

/// A lock that spins.
pub struct Lock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `lock` lends the value to one thread at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock, giving the processor away meanwhile.
    pub fn lock(&self) -> Locked<'_, T> {
        while self.taken.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        Locked(self)
    }
}

/// A lock that is held until this is dropped.
pub struct Locked<'a, T>(&'a Lock<T>);

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: we hold the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we hold the lock, and `self` is borrowed for change.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

/// First function of a thread: argument, own number, process number, ring,
/// CapSet.
pub type Entry = extern "C" fn(u64, u32, u64, u64, u64) -> !;

/// What `ThreadSpawner.create` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// First instruction.
    pub entry: u64,
    /// End of the stack.
    pub stack_top: u64,
    /// Argument.
    pub arg: u64,
    /// FS base.
    pub fs_base: u64,
    /// Flags; none are known.
    pub flags: u64,
}

impl Request {
    /// A thread that runs `entry` on a new stack.
    pub fn new(entry: Entry, arg: u64) -> Self {
        Self {
            entry: entry as usize as u64,
            stack_top: stack(),
            arg,
            fs_base: 0,
            flags: 0,
        }
    }

    /// The call's params.
    pub fn params(&self) -> Vec<u8> {
        let mut message = capnp::message::Builder::new_default();
        let mut params =
            message.init_root::<capos_capnp::thread_spawner::create_params::Builder<'_>>();
        params.set_entry(self.entry);
        params.set_stack_top(self.stack_top);
        params.set_arg(self.arg);
        params.set_fs_base(self.fs_base);
        params.set_flags(self.flags);
        capnp::serialize::write_message_to_words(&message)
    }
}

/// The end of a stack that is never freed.
pub fn stack() -> u64 {
    let stack = vec![0_u128; STACK_BYTES / size_of::<u128>()].leak();
    stack.as_ptr_range().end as u64
}

/// The ring of a program and its thread capabilities, for all its threads.
pub struct Team {
    ring: Lock<RawRing>,
    /// `ThreadControl`.
    pub control: u32,
    /// `ThreadSpawner`.
    pub spawner: u32,
    /// `ParkSpace`.
    pub park: u32,
    console: u32,
}

// SAFETY: the ring is behind a lock, the rest is numbers.
unsafe impl Sync for Team {}
// SAFETY: as above.
unsafe impl Send for Team {}

impl Team {
    /// The team of this program, which nothing else may use the ring of from
    /// now on.
    ///
    /// # Errors
    /// A capability is missing.
    pub fn new(process: &Process) -> Result<&'static Self, Failure> {
        // SAFETY: the process's page; the caller gives up its own use of it.
        let ring = unsafe { RawRing::new(process.ring.base()) };
        let team = Self {
            ring: Lock::new(ring),
            control: process.cap(CONTROL)?,
            spawner: process.cap(SPAWNER)?,
            park: process.cap(PARK)?,
            console: process.cap("console")?,
        };
        Ok(alloc::boxed::Box::leak(alloc::boxed::Box::new(team)))
    }

    /// The ring, for one thread at a time.
    pub fn ring(&self) -> Locked<'_, RawRing> {
        self.ring.lock()
    }

    /// Submits an entry under a fresh `user_data`, which is returned.
    pub fn submit(&self, sqe: CapSqe) -> u64 {
        let mut ring = self.ring();
        let user_data = ring.fresh_user_data();
        ring.submit(&[CapSqe { user_data, ..sqe }]);
        user_data
    }

    /// The completion of `user_data`, if it came.
    pub fn find(&self, user_data: u64) -> Option<CapCqe> {
        self.ring().find(user_data)
    }

    /// Waits for the completion of `user_data`. A submission of another thread
    /// in front, and another thread that waits already, make this try again;
    /// so does the time, because between looking and waiting another thread may
    /// take the completion out of the queue.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&self, user_data: u64) -> Result<CapCqe, Failure> {
        loop {
            if let Some(cqe) = self.find(user_data) {
                return Ok(cqe);
            }
            match cap_enter(1, LOOK_AGAIN_NS) {
                Ok(_) | Err(SyscallError::ThreadOwnedHead) => {}
                Err(error) => return Err(Failure::new(alloc::format!("cap_enter: {error:?}"))),
            }
        }
    }

    /// Submits an entry and waits for its completion.
    ///
    /// # Errors
    /// As for [`Team::wait`].
    pub fn perform(&self, sqe: CapSqe) -> Result<CapCqe, Failure> {
        let user_data = self.submit(sqe);
        self.wait(user_data)
    }

    /// Prints a line.
    ///
    /// # Errors
    /// The console refuses.
    pub fn print(&self, text: &str) -> Proof {
        let params = crate::proof::line_params(text);
        let cqe = self.perform(call(self.console, 1).params(&params))?;
        equal("Console.writeLine", cqe.result, 0)
    }

    /// Starts a thread; returns its handle.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(&self, request: &Request) -> Result<u32, Failure> {
        let (cqe, result) = self.try_create(request)?;
        if cqe.result < 0 {
            let text = crate::exception::parse(&result).map(|(_, text)| text);
            return Err(Failure::new(alloc::format!(
                "create: {} {text:?}",
                cqe.result
            )));
        }
        equal("flags", cqe.flags, CAP_CQE_TRANSFER_RESULT_CAPS)?;
        equal("result capabilities", cqe.cap_count, 1)?;
        let at = cqe.result as usize;
        let id = result.get(at..at + 4).and_then(|id| id.try_into().ok());
        id.map(u32::from_le_bytes)
            .ok_or(Failure::new("no record of the handle"))
    }

    /// As [`Team::create`], for requests that may be refused: the completion
    /// and the result buffer.
    ///
    /// # Errors
    /// As for [`Team::wait`].
    pub fn try_create(&self, request: &Request) -> Result<(CapCqe, Vec<u8>), Failure> {
        let params = request.params();
        self.call(self.spawner, method::CREATE, &params)
    }

    /// Starts a thread that runs `entry`; returns its handle.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(&self, entry: Entry, arg: u64) -> Result<u32, Failure> {
        self.create(&Request::new(entry, arg))
    }

    /// Calls a method; returns the completion and the result buffer.
    ///
    /// # Errors
    /// As for [`Team::wait`].
    pub fn call(&self, cap: u32, method: u16, params: &[u8]) -> Result<(CapCqe, Vec<u8>), Failure> {
        let mut result = vec![0; 256];
        let sqe = call(cap, method).params(params).result(&mut result);
        let cqe = self.perform(sqe)?;
        Ok((cqe, result))
    }

    /// Waits for a thread to end; returns its exit code. For the first thread.
    ///
    /// # Errors
    /// The handle refuses.
    pub fn join(&self, handle: u32) -> Result<i64, Failure> {
        self.join_as(MAIN, handle)
    }

    /// As [`Team::join`], for any thread, which says who it is: were the entry
    /// anybody's to have taken, the thread to be joined could be the one, and
    /// would be refused for joining itself.
    ///
    /// # Errors
    /// The handle refuses.
    pub fn join_as(&self, tid: u32, handle: u32) -> Result<i64, Failure> {
        let mut result = [0; 64];
        let join = call(handle, method::JOIN).result(&mut result);
        let cqe = self.perform(owned(join, tid))?;
        equal("bytes of a join", cqe.result, 24)?;
        joined(&result)
    }

    /// Whether a thread ended, and with which code.
    ///
    /// # Errors
    /// The handle refuses.
    pub fn exit_code(&self, handle: u32) -> Result<Option<i64>, Failure> {
        use capos_capnp::thread_handle::exit_code_results::Reader;
        let (cqe, result) = self.call(handle, method::EXIT_CODE, &crate::proof::no_params())?;
        that(cqe.result > 0, "exitCode")?;
        let mut bytes = &result[..cqe.result as usize];
        let message = capnp::serialize::read_message_from_flat_slice_no_alloc(
            &mut bytes,
            default_reader_options(),
        );
        let message = message.map_err(|_| Failure::new("exitCode: no message"))?;
        let root = message.get_root::<Reader<'_>>();
        let root = root.map_err(|_| Failure::new("exitCode: no struct"))?;
        Ok(root.get_exited().then(|| root.get_exit_code()))
    }

    /// Ends the calling thread.
    pub fn exit_thread(&self, tid: u32, code: i64) -> ! {
        let mut message = capnp::message::Builder::new_default();
        message
            .init_root::<capos_capnp::thread_control::exit_thread_params::Builder<'_>>()
            .set_code(code);
        let params = capnp::serialize::write_message_to_words(&message);
        let exit = owned(call(self.control, method::EXIT_THREAD).params(&params), tid);
        let user_data = self.submit(exit);
        loop {
            // The only way back is somebody else's submission in front.
            let entered = cap_enter(1, 0);
            if self.find(user_data).is_some() || entered == Err(SyscallError::Rejected) {
                capos::syscall::exit(98);
            }
        }
    }

    /// Waits while `word` is `expected`; returns the park status or an error
    /// code.
    ///
    /// # Errors
    /// As for [`Team::wait`].
    pub fn park(
        &self,
        tid: u32,
        word: &AtomicU32,
        expected: u32,
        timeout_ns: u64,
    ) -> Result<i32, Failure> {
        let cqe = self.perform(park(self.park, tid, word, expected, timeout_ns))?;
        Ok(cqe.result)
    }

    /// Wakes up to `count` threads that wait at `word`; returns how many, or an
    /// error code.
    ///
    /// # Errors
    /// As for [`Team::wait`].
    pub fn unpark(&self, word: &AtomicU32, count: u32) -> Result<i32, Failure> {
        Ok(self.perform(unpark(self.park, word, count))?.result)
    }

    /// Lets other threads run, until `condition` holds.
    pub fn until(&self, mut condition: impl FnMut() -> bool) {
        while !condition() {
            // An entry that takes nothing: the thread goes to the end of its
            // queue when its time is over, not before.
            hint::spin_loop();
        }
    }
}

/// The code in `join`'s result.
///
/// # Errors
/// There is none.
pub fn joined(result: &[u8]) -> Result<i64, Failure> {
    let word = result.get(16..24).and_then(|word| word.try_into().ok());
    word.map(i64::from_le_bytes)
        .ok_or(Failure::new("join: no code"))
}

/// The same entry, for one thread alone.
pub const fn owned(sqe: CapSqe, tid: u32) -> CapSqe {
    CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: tid,
        ..sqe
    }
}

/// PARK.
pub fn park(cap: u32, tid: u32, word: &AtomicU32, expected: u32, timeout_ns: u64) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr: word.as_ptr() as u64,
        len: expected,
        pipeline_dep: timeout_ns,
        ..owned(entry(CAP_OP_PARK), tid)
    }
}

/// UNPARK.
pub fn unpark(cap: u32, word: &AtomicU32, count: u32) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr: word.as_ptr() as u64,
        len: count,
        ..entry(CAP_OP_UNPARK)
    }
}
