//! Whether one program notices what another one does.
//!
//! [`Probe`] is a second program (`latency-probe`) that measures, when asked,
//! how long the system takes to answer it and to wake it. [`isolation`] asks it
//! before, while and after a third program, the hog, takes all it can get, and
//! compares. A hog needs a few lines only:
//!
//! ```ignore
//! let mut hog = Hog::new(process)?;          // its grant `judge`, and `timer`
//! let taken = take_until_refused();
//! hog.full(process, taken)?;                 // the judge measures meanwhile
//! while hog.goes_on(process)? {              // for a fixed time
//!     try_once_more_and_be_refused();
//! }
//! give_back();                               // or just exit
//! ```
//!
//! The judge's package grants the hog's own needs and is granted `console`,
//! `endpoint` and `spawner` itself; `latency-probe` and the hog are programs of
//! its scenario.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::{KernelCapSource, Runtime, SpawnGrant};

use crate::bench::Samples;
use crate::family::{self, Child};
use crate::proof::{Failure, Process, Proof, equal, that};
use crate::timer::Timer;
use crate::{Mailbox, Sqe, call, receive, returns};

/// The program that measures.
pub const PROBE: &str = "latency-probe";
/// The probe's methods.
pub mod method {
    /// Measure and answer.
    pub const MEASURE: u16 = 0;
    /// Answer and exit.
    pub const STOP: u16 = 1;
}
/// The hog's grant that reaches the judge.
const JUDGE: &str = "judge";
/// What a hog may call the judge for.
const FULL: u16 = 0;
/// How long a hog goes on after it was refused: longer than one measurement.
const GOES_ON_NS: u64 = 300_000_000;
/// One time slice of the kernel, in nanoseconds: 5 ticks of 2 ms.
const TIME_SLICE_NS: u64 = 10_000_000;
const NUMBERS: usize = 6;

/// What a program sees of the system's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Median, smallest and largest ticks of a call that is answered at once.
    pub call: [u64; 3],
    /// Median, smallest and largest nanoseconds from the end of a sleep to the
    /// moment the sleeper knows.
    pub wake: [u64; 3],
}

impl Latency {
    /// From the samples.
    pub fn of(call: &Samples, wake: &Samples) -> Self {
        let numbers = |samples: &Samples| [samples.median(), samples.min(), samples.max()];
        Self {
            call: numbers(call),
            wake: numbers(wake),
        }
    }

    /// As the probe answers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.call.iter().chain(&self.wake);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }

    /// The answer of a probe.
    ///
    /// # Errors
    /// It is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let mut numbers = [0; NUMBERS];
        equal("length of a measurement", bytes.len(), NUMBERS * 8)?;
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            let bytes = bytes.try_into().map_err(|_| Failure::new("eight bytes"))?;
            *number = u64::from_le_bytes(bytes);
        }
        let [a, b, c, d, e, f] = numbers;
        Ok(Self {
            call: [a, b, c],
            wake: [d, e, f],
        })
    }

    /// One line for the console.
    pub fn line(&self, name: &str, when: &str) -> String {
        let ([call, _, call_max], [wake, _, wake_max]) = (self.call, self.wake);
        format!(
            "{name}: {when} call median={call} max={call_max} wake median={wake} max={wake_max}"
        )
    }

    /// Says so if a program with this latency noticed something: calls that
    /// took half as long again, or a wake-up that came more than two time
    /// slices later than the latest before.
    ///
    /// Two programs that are ready at the same time take turns, so a time
    /// slice is what one of them may have to wait for the other.
    ///
    /// # Errors
    /// It did.
    pub fn unharmed(&self, before: &Self) -> Proof {
        let ([call, ..], [usual, ..]) = (self.call, before.call);
        if call > usual + usual / 2 {
            return Err(Failure::new(format!("a call took {call} after {usual}")));
        }
        let ([median, _, max], [_, _, usual]) = (self.wake, before.wake);
        let slice = usual + TIME_SLICE_NS;
        that(median <= slice, "the usual wake-up came late")?;
        that(max <= slice + TIME_SLICE_NS, "a wake-up came late")
    }
}

/// A second program that measures when asked.
pub struct Probe {
    child: Child,
    facet: u32,
}

impl Probe {
    /// Starts it; the caller holds `spawner`.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(runtime: &mut Runtime) -> Result<Self, Failure> {
        let grants = [
            family::fresh("endpoint", KernelCapSource::Endpoint),
            family::fresh("timer", KernelCapSource::Timer),
        ];
        let child = family::spawn(runtime, PROBE, &grants)?;
        let facet = child.endpoint(0)?.cap_id();
        Ok(Self { child, facet })
    }

    /// Has it measure, which takes some tens of milliseconds.
    ///
    /// # Errors
    /// It does not answer.
    pub fn measure(&self, runtime: &Runtime) -> Result<Latency, Failure> {
        let mut process = Process::new(runtime);
        let mut answer = Mailbox::new(256);
        let entry = call(self.facet, method::MEASURE).result(answer.bytes_mut());
        let cqe = process.ring.perform(entry)?;
        Latency::from_bytes(answer.written(&cqe)?)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It ends badly.
    pub fn stop(self, runtime: &mut Runtime) -> Proof {
        let entry = call(self.facet, method::STOP);
        Process::new(runtime).ring.expect("STOP", entry, 0)?;
        self.child.succeeds(runtime, PROBE)
    }
}

/// Starts `hog` with `grants` and proves that a second program does not
/// notice, and that a third can still be started; prints what it measured under `name`. Returns how much the hog got.
///
/// # Errors
/// The second program noticed, or the hog was never refused, or failed.
pub fn isolation(
    runtime: &mut Runtime,
    name: &str,
    hog: &str,
    grants: &[SpawnGrant<'_>],
) -> Result<u64, Failure> {
    let endpoint = family::held(runtime, "endpoint")?;
    let probe = Probe::start(runtime)?;
    let before = report(runtime, name, "before", &probe)?;
    let judge = [
        family::facet(JUDGE, endpoint),
        family::fresh("timer", KernelCapSource::Timer),
    ];
    let grants: Vec<_> = grants.iter().chain(&judge).copied().collect();
    let hog = family::spawn(runtime, hog, &grants)?;
    let filling = report(runtime, name, "while it takes", &probe)?;
    let taken = wait_until_full(runtime, endpoint.cap_id())?;
    let full = report(runtime, name, "while it is refused", &probe)?;
    Probe::start(runtime)?.stop(runtime)?;
    hog.succeeds(runtime, "the hog")?;
    let after = report(runtime, name, "after", &probe)?;
    probe.stop(runtime)?;
    for (when, during) in [("filling", filling), ("full", full), ("after", after)] {
        during.unharmed(&before).map_err(|f| f.within(when))?;
    }
    Ok(taken)
}

fn report(runtime: &Runtime, name: &str, when: &str, probe: &Probe) -> Result<Latency, Failure> {
    let latency = probe.measure(runtime)?;
    Process::new(runtime).print(&latency.line(name, when))?;
    Ok(latency)
}

/// Takes the hog's report; how much it says it got.
fn wait_until_full(runtime: &Runtime, endpoint: u32) -> Result<u64, Failure> {
    let mut process = Process::new(runtime);
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    let taken = delivery.params.try_into().map(u64::from_le_bytes);
    let taken = taken.map_err(|_| Failure::new("the hog's report"))?;
    let answer = returns(endpoint, delivery.call_id);
    process.ring.expect("RETURN", answer, 0)?;
    Ok(taken)
}

/// The program that takes all it can get.
pub struct Hog {
    judge: u32,
    timer: Timer,
    /// When it may stop being refused.
    until_ns: u64,
}

impl Hog {
    /// With what [`isolation`] granted.
    ///
    /// # Errors
    /// It was not granted.
    pub fn new(process: &Process) -> Result<Self, Failure> {
        Ok(Self {
            judge: process.cap(JUDGE)?,
            timer: Timer::new(process.cap("timer")?),
            until_ns: 0,
        })
    }

    /// Reports that it was refused, after `taken` times that it was not.
    ///
    /// # Errors
    /// The judge does not listen.
    pub fn full(&mut self, process: &mut Process, taken: u64) -> Proof {
        let taken = taken.to_le_bytes();
        let entry = call(self.judge, FULL).params(&taken);
        process.ring.expect("the report", entry, 0)?;
        self.until_ns = self.timer.now_ns(&mut process.ring)? + GOES_ON_NS;
        Ok(())
    }

    /// Whether it should try again.
    ///
    /// # Errors
    /// The timer fails.
    pub fn goes_on(&mut self, process: &mut Process) -> Result<bool, Failure> {
        Ok(self.timer.now_ns(&mut process.ring)? < self.until_ns)
    }
}
