//! Log records: the threshold, the cursor, the filter, what is overwritten, and
//! texts that are too long or would like to be lines.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;

use capos::prelude::*;
use capos::{
    ExceptionType, LogReadResult, LogReaderClient, LogSeverity, LogSinkClient, RuntimeRingClient,
};
use raw_ring::proof::{self, Failure, Proof, equal, that};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
/// Records the service keeps, and gives at a time.
const KEPT: u64 = 256;
const READ_MAX: usize = 16;
const WRITTEN: u64 = KEPT + 44;
const PID: u32 = 77;

struct Tester<'a, 'b> {
    ring: &'a mut RuntimeRingClient<'b>,
    sink: LogSinkClient,
    reader: LogReaderClient,
}

impl Tester<'_, '_> {
    fn write(&mut self, level: LogSeverity, component: &str, text: &str) -> Result<bool, Failure> {
        let written = self
            .sink
            .write_wait(self.ring, level, component, PID, text, FOREVER);
        written.map_err(|error| Failure::new(format!("write: {error:?}")))
    }

    fn read(&mut self, cursor: u64, count: u32, prefix: &str) -> Result<LogReadResult, Failure> {
        let level = LogSeverity::Debug;
        let read = self
            .reader
            .read_wait(self.ring, cursor, count, level, prefix, FOREVER);
        read.map_err(|error| Failure::new(format!("read: {error:?}")))
    }

    fn threshold(&mut self) -> Proof {
        for (level, kept) in [
            (LogSeverity::Debug, false),
            (LogSeverity::Info, false),
            (LogSeverity::Warn, true),
            (LogSeverity::Error, true),
        ] {
            let accepted = self.write(level, "threshold", "x")?;
            equal("accepted", accepted, kept)?;
        }
        let read = self.read(0, 16, "")?;
        equal("kept", read.records.len(), 2)?;
        equal("next", read.next_cursor, 3)?;
        equal("pid", read.records[0].pid, PID)?;
        let none = self.read(0, 0, "")?;
        equal(
            "nothing asked",
            (none.records.len(), none.next_cursor),
            (0, 1),
        )
    }

    fn hostile_texts(&mut self) -> Proof {
        self.write(
            LogSeverity::Error,
            "a\nb",
            "line\nlog: error fake: \u{1b}[2J",
        )?;
        let long = "y".repeat(30_000);
        self.write(LogSeverity::Error, &long, &long)?;
        let read = self.read(4, 16, "")?;
        let cut = &read.records[0];
        equal("component", cut.component.len(), 32)?;
        equal("message", cut.message.len(), 256)
    }

    fn overwritten(&mut self) -> Proof {
        let long = "z".repeat(256);
        for index in 0..WRITTEN {
            let component = if index % 2 == 0 { "even" } else { "odd" };
            that(self.write(LogSeverity::Warn, component, &long)?, "accepted")?;
        }
        let total = 4 + WRITTEN;
        let (mut cursor, mut seen, mut even) = (0, 0, 0);
        loop {
            let read = self.read(cursor, u32::MAX, "")?;
            equal("dropped", read.dropped, total - KEPT)?;
            that(read.records.len() <= READ_MAX, "records at a time")?;
            let in_order = read
                .records
                .windows(2)
                .all(|two| two[0].tick <= two[1].tick);
            that(in_order, "records in order")?;
            if read.records.is_empty() {
                break;
            }
            seen += read.records.len() as u64;
            even += read
                .records
                .iter()
                .filter(|r| r.component == "even")
                .count();
            cursor = read.next_cursor;
        }
        equal("seen", seen, KEPT)?;
        equal("the end", cursor, total + 1)?;
        let (mut cursor, mut filtered) = (0, 0);
        loop {
            let read = self.read(cursor, 16, "ev")?;
            if read.records.is_empty() {
                break;
            }
            filtered += read.records.len();
            cursor = read.next_cursor;
        }
        equal("filtered", filtered, even)?;
        let beyond = self.read(u64::MAX, 16, "")?;
        equal(
            "beyond the end",
            (beyond.records.len(), beyond.next_cursor),
            (0, total + 1),
        )
    }

    fn malformed(&mut self) -> Proof {
        let (sink, reader) = (
            self.sink.capability().cap_id(),
            self.reader.capability().cap_id(),
        );
        let cases = [
            (0, ExceptionType::InvalidArgument),
            (1, ExceptionType::Unimplemented),
            (u16::MAX, ExceptionType::Unimplemented),
        ];
        for cap_id in [sink, reader] {
            for (method, expected) in cases {
                for params in [&[][..], &[0xff; 64], &[0x41; 4096]] {
                    let room: Box<[u8]> = vec![0; 512].into();
                    let call = self.ring.submit_call(cap_id, method, params.into(), room);
                    let completed = call.and_then(|call| self.ring.wait(call, FOREVER));
                    let completed =
                        completed.map_err(|error| Failure::new(format!("call: {error:?}")))?;
                    let refused = match capos::decode_completed_call(&completed) {
                        Err(ClientError::Application(exception)) => {
                            Some(exception.exception_type())
                        }
                        _ => None,
                    };
                    equal("malformed", refused, Some(expected))?;
                }
            }
        }
        Ok(())
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let missing = |_| Failure::new("a capability is missing");
    let capset = runtime.capset();
    let sink = capset.get_client(b"log_sink").map_err(missing)?;
    let reader = capset.get_client(b"log_reader").map_err(missing)?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let mut tester = Tester {
        ring: &mut ring,
        sink,
        reader,
    };
    tester.malformed()?;
    tester.threshold()?;
    tester.hostile_texts()?;
    tester.overwritten()
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "log-records", prove)
}

entry_point!(main);
