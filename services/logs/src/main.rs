//! Keeps the most recent log records, and writes them to the console: `LogSink`
//! and `LogReader` as a service, each at an endpoint of its own.
//!
//! The threshold is the manifest's `logLevel`. What a record says of its writer
//! is the writer's word; when it was accepted is this service's.
//!
//! Holds: `log_sink` and `log_reader` (the endpoints it serves), `console`,
//! `boot_package`, `timer`.
#![no_std]
#![no_main]

extern crate alloc;

use capos::capos_capnp::{LogLevel, log_reader, log_sink};
use capos::prelude::*;
use capos::{BootPackage, Endpoint, RuntimeRingClient};
use policy::journal::{Filter, Journal, Level, Record, escaped};
use service::{Call, FOREVER, Refusal, Reply, Server, Service, empty_message, serve};

const RECEIVES: usize = 4;
/// A record within bounds, and its framing.
const PARAMS_BYTES: usize = 512;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_MANIFEST: i64 = 4;

/// Which endpoint is the sink; the other is the reader.
const SINK: usize = 0;
/// Each interface has this method alone.
const ONLY_METHOD: u16 = 0;

struct Logs {
    journal: Journal,
    console: ConsoleClient,
    timer: TimerClient,
}

const fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
    }
}

const fn schema_level(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    }
}

impl Logs {
    fn write(&mut self, ring: &mut RuntimeRingClient<'_>, call: &Call) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: log_sink::write_params::Reader<'_> = message.get_root()?;
        let record = params.get_record()?;
        let severity = level(record.get_level()?);
        let (component, text) = (
            record.get_component()?.to_str()?,
            record.get_message()?.to_str()?,
        );
        let tick = self.timer.now_wait(ring, FOREVER);
        let accepted = self.journal.write(Record {
            tick: tick.map_or(0, |now| now.tick),
            level: severity,
            component: component.into(),
            pid: record.get_pid(),
            message: text.into(),
        });
        if accepted {
            self.forward(ring);
        }
        let mut result = empty_message();
        let mut results: log_sink::write_results::Builder<'_> = result.init_root();
        results.set_accepted(accepted);
        Ok(Reply::message(&result))
    }

    /// Writes the newest record to the console. A line that cannot be written
    /// is still kept.
    fn forward(&mut self, ring: &mut RuntimeRingClient<'_>) {
        let Some(newest) = self.journal.newest() else {
            return;
        };
        let line = alloc::format!(
            "log: {} {}: {}",
            newest.level.name(),
            escaped(&newest.component),
            escaped(&newest.message)
        );
        let _ = self.console.write_line_wait(ring, &line, FOREVER);
    }

    fn read(&self, call: &Call) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: log_reader::read_params::Reader<'_> = message.get_root()?;
        let filter = params.get_filter()?;
        let filter = Filter {
            level: level(filter.get_min_level()?),
            component: filter.get_component_prefix()?.to_str()?,
        };
        let count = usize::try_from(params.get_max_records()).unwrap_or(usize::MAX);
        let read = self.journal.read(params.get_cursor(), count, filter);
        let mut result = empty_message();
        let mut results: log_reader::read_results::Builder<'_> = result.init_root();
        results.set_next_cursor(read.next);
        results.set_dropped(read.dropped);
        let mut list = results.init_records(read.records.len() as u32);
        for (index, record) in read.records.iter().enumerate() {
            let mut out = list.reborrow().get(index as u32);
            out.set_tick(record.tick);
            out.set_level(schema_level(record.level));
            out.set_component(&record.component);
            out.set_pid(record.pid);
            out.set_message(&record.message);
        }
        Ok(Reply::message(&result))
    }
}

impl Service for Logs {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method == ONLY_METHOD
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        match call.endpoint {
            SINK => self.write(ring, call),
            _ => self.read(call),
        }
    }
}

const fn threshold(level: capos_config::LogLevel) -> Level {
    match level {
        capos_config::LogLevel::Debug => Level::Debug,
        capos_config::LogLevel::Info => Level::Info,
        capos_config::LogLevel::Warn => Level::Warn,
        capos_config::LogLevel::Error => Level::Error,
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(sink), Ok(reader), Ok(console), Ok(package), Ok(timer)) = (
        capset.get_typed::<Endpoint>(b"log_sink"),
        capset.get_typed::<Endpoint>(b"log_reader"),
        capset.get_client::<ConsoleClient>(b"console"),
        capset.get_typed::<BootPackage>(b"boot_package"),
        capset.get_client::<TimerClient>(b"timer"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(config) = service::boot::read_config(&mut ring, package) else {
        return EXIT_MANIFEST;
    };
    let level = config.map_or(Level::Info, |config| threshold(config.log_level));
    let endpoints = [sink, reader];
    let Ok(server) = Server::new(&mut ring, &endpoints, RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let mut logs = Logs {
        journal: Journal::new(level),
        console,
        timer,
    };
    let Err(_) = serve(&mut ring, server, &mut logs);
    EXIT_SERVING
}

entry_point!(main);
