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
    /// The row itself: where a goal is a time, an instruction stands for a
    /// nanosecond, as QEMU counts.
    Median(&'static str),
    /// One row less another, for so many entries.
    Beyond(&'static str, &'static str, u64),
}

/// Every goal.
pub const GOALS: [Goal; 13] = [
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
        operation: "direct transport call of 4 words, of a raw call",
        formula: Formula::Ratio("direct-call words=4", "raw-call-cross words=4"),
        at_most: 1.15,
        reason: "",
    },
    Goal {
        operation: "direct transport: open a session, which brings a capability",
        formula: Formula::Median("direct-open-session"),
        at_most: 5000.0,
        reason: "",
    },
    Goal {
        operation: "direct transport: 100 frames in one bundle",
        formula: Formula::Median("direct-pre-grant frames=100"),
        at_most: 10000.0,
        reason: "",
    },
    Goal {
        operation: "direct transport: register a queue, with its notification",
        formula: Formula::Median("direct-register-queue"),
        at_most: 5000.0,
        reason: "",
    },
    Goal {
        operation: "signal to another domain and its signal back",
        formula: Formula::Median("raw-signal-round-trip"),
        at_most: 2000.0,
        reason: "",
    },
    Goal {
        operation: "direct transport: kick 8 descriptors and wait for completion",
        formula: Formula::Median("direct-kick-complete descriptors=8"),
        at_most: 50000.0,
        reason: "",
    },
    Goal {
        operation: "direct transport: revoke a session with 500 derived capabilities",
        formula: Formula::Median("direct-revoke derived=500"),
        at_most: 120000.0,
        reason: "",
    },
];

impl Goal {
    /// The figure of a run; nothing where a row is missing.
    #[must_use]
    pub fn measured(&self, run: &Run) -> Option<f64> {
        match self.formula {
            Formula::Ratio(row, base) => Some(run.median(row)? as f64 / run.median(base)? as f64),
            Formula::Median(row) => Some(run.median(row)? as f64),
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
    pub fn rows(&self) -> Vec<&'static str> {
        match *self {
            Self::Median(row) => vec![row],
            Self::Ratio(row, base) | Self::Beyond(row, base, _) => vec![row, base],
        }
    }
}
