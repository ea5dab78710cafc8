//! The goals, each a figure computed from rows of one run.

use crate::Run;

/// A figure with what it should be at most.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// What is compared.
    pub operation: &'static str,
    /// How the figure is computed, in terms of rows.
    pub formula: Formula,
    /// The most it should be.
    pub at_most: f64,
    /// Why it is missed, where it is known to be.
    pub reason: &'static str,
}

/// How a figure comes from medians.
#[derive(Clone, Copy, Debug)]
pub enum Formula {
    /// One row over another.
    Ratio(&'static str, &'static str),
    /// One row less another, for so many entries.
    Beyond(&'static str, &'static str, u64),
}

/// Every goal.
pub const GOALS: [Goal; 11] = [
    Goal {
        operation: "`cap_enter` with 1 NOP, of a raw fault round trip",
        formula: Formula::Ratio("nop batch=1", "raw-fault-round-trip"),
        at_most: 1.3,
        reason: "",
    },
    Goal {
        operation: "NOP at batch 16, per entry beyond `cap_enter` alone",
        formula: Formula::Beyond("nop batch=16", "cap_enter-empty", 16),
        at_most: 150.0,
        reason: "",
    },
    Goal {
        operation: "CALL to a capability that is not held, per call at batch 16",
        formula: Formula::Beyond("call-not-held batch=16", "cap_enter-empty", 16),
        at_most: 600.0,
        reason: "",
    },
    Goal {
        operation: "endpoint call, receiver waiting, of a raw fault round trip",
        formula: Formula::Ratio("endpoint-call", "raw-fault-round-trip"),
        at_most: 2.6,
        reason: "a call is two traps, one of each program, and both threads are kept waiting, \
                 so both resume by registers. Two `cap_enter-empty`, and twice what \
                 `raw-fault-round-trip-by-registers` takes more than a reply, are 2.5 before \
                 an entry is looked at",
    },
    Goal {
        operation: "move of one capability with a call, beyond the call",
        formula: Formula::Beyond(
            "transfer mode=move caps=1",
            "loopback-call order=recv-first",
            1,
        ),
        at_most: 3500.0,
        reason: "",
    },
    Goal {
        operation: "notification to a waiting program and back, of raw signals",
        formula: Formula::Ratio("notification-round-trip", "raw-signal-round-trip"),
        at_most: 1.5,
        reason: "there and back takes two traps, and two `raw-fault-round-trip` alone are \
                 twice a `raw-signal-round-trip`: a program has no capability of the kernel \
                 to signal with",
    },
    Goal {
        operation: "revoke of an object held 500 times, 252 times in the managed table, of one \
                    held once",
        formula: Formula::Ratio("revoke holds=500", "revoke holds=1"),
        at_most: 1.05,
        reason: "one epoch ends all holds, but a program can hold an object through several, so \
                 the managed program's table is walked: 11 instructions for each of its slots \
                 in use, of which there are 256 at most",
    },
    Goal {
        operation: "revoke of an object held 500 times, per hold, of a raw revoke per capability",
        formula: Formula::Ratio("revoke holds=500", "raw-revoke derived=500"),
        at_most: 1.0,
        reason: "",
    },
    Goal {
        operation: "direct transport call without words, of a raw call",
        formula: Formula::Ratio("direct-call words=0", "raw-call-cross words=0"),
        at_most: 1.15,
        reason: "",
    },
    Goal {
        operation: "direct transport call of 4 words, of a raw call",
        formula: Formula::Ratio("direct-call words=4", "raw-call-cross words=4"),
        at_most: 1.15,
        reason: "",
    },
    Goal {
        operation: "direct transport call of 20 words, of a raw call",
        formula: Formula::Ratio("direct-call words=20", "raw-call-cross words=20"),
        at_most: 1.15,
        reason: "",
    },
];

/// A task of the bridge between two domains, with what its percentiles should
/// be at most. The targets are times; an instruction stands for a nanosecond, as
/// QEMU counts it.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What is done.
    pub operation: &'static str,
    /// The row.
    pub row: &'static str,
    /// The most that the 50th, 95th and 99th percentile should be.
    pub at_most: [u64; 3],
    /// Why it is missed, where it is known to be.
    pub reason: &'static str,
}

/// The percentiles of a task.
pub const PERCENTILES: [u32; 3] = [50, 95, 99];

/// The benchmark of the bridge. Where a target is a range, the median is held to
/// its lower end and the 99th percentile to its upper.
pub const TASKS: [Task; 7] = [
    Task {
        operation: "open a session, which brings a capability",
        row: "direct-open-session",
        at_most: [5000, 6000, 10_000],
        reason: "",
    },
    Task {
        operation: "grant 100 frames, in one CNode",
        row: "direct-pre-grant frames=100",
        at_most: [10_000; 3],
        reason: "",
    },
    Task {
        operation: "the same until the receiver has mapped and written each",
        row: "direct-pre-grant-and-use frames=100",
        at_most: [10_000; 3],
        reason: "a frame is taken out of the CNode and mapped by two invocations, and 100 of \
                 each (`raw-cap-move`, `raw-frame-map`) are 96 % of it",
    },
    Task {
        operation: "register a queue and hand over its notification",
        row: "direct-register-queue",
        at_most: [5000, 6000, 6000],
        reason: "",
    },
    Task {
        operation: "signal and wait",
        row: "raw-signal-and-wait",
        at_most: [1000, 2000, 2000],
        reason: "",
    },
    Task {
        operation: "kick 8 descriptors until their completion",
        row: "direct-kick-complete descriptors=8",
        at_most: [50_000; 3],
        reason: "",
    },
    Task {
        operation: "revoke a session with 500 derived capabilities",
        row: "direct-revoke derived=500",
        at_most: [100_000, 120_000, 120_000],
        reason: "the kernel deletes one capability after the other, some 240 instructions each, \
                 in one invocation that nothing in user space shortens",
    },
];

impl Task {
    /// The percentiles of a run; nothing where the row is missing.
    #[must_use]
    pub fn measured(&self, run: &Run) -> Option<[u64; 3]> {
        let row = run.row(self.row)?;
        Some(PERCENTILES.map(|share| row.quantile(share, 100)))
    }

    /// Whether every percentile is good enough.
    #[must_use]
    pub fn holds(&self, measured: [u64; 3]) -> bool {
        measured
            .iter()
            .zip(self.at_most)
            .all(|(&is, most)| is <= most)
    }
}

impl Goal {
    /// The figure of a run; nothing where a row is missing.
    #[must_use]
    pub fn measured(&self, run: &Run) -> Option<f64> {
        match self.formula {
            Formula::Ratio(row, base) => Some(run.median(row)? as f64 / run.median(base)? as f64),
            Formula::Beyond(row, base, count) => {
                let beyond = run.median(row)? as f64 - run.median(base)? as f64;
                Some(beyond / count as f64)
            }
        }
    }

    /// Whether a figure is good enough.
    #[must_use]
    pub fn holds(&self, measured: f64) -> bool {
        measured <= self.at_most
    }
}

impl Formula {
    /// The rows it names.
    #[must_use]
    pub const fn rows(&self) -> [&'static str; 2] {
        match *self {
            Self::Ratio(row, base) | Self::Beyond(row, base, _) => [row, base],
        }
    }
}
