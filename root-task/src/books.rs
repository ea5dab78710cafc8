//! What is in use each time the first process is alone again, in the log.
//!
//! Whether programs that ended left something behind can be told only while
//! nothing else goes on, and a program must not be able to ask: what others use
//! is none of its business. So the root task compares by itself, on systems
//! whose manifest sets `logLevel` to `debug`, and tells the log.
//!
//! The first reading is what the others are compared with, once the broker
//! has given back what it only kept at hand.

use cap_broker::{Broker, Usage};
use ring_server_core::{Books, Server};

use crate::log;
use crate::message;
use crate::world::World;

/// What is in use: in the server, and in the broker.
type Reading = (Books, Usage);

/// The comparison over the life of a system.
#[derive(Debug, Default)]
pub struct Comparison {
    readings: u32,
    changes: u32,
    last: Option<Reading>,
}

impl Comparison {
    /// Takes a reading and compares it with the one before.
    pub fn read(&mut self, broker: &mut Broker, server: &Server<World>) {
        let trimmed = message::preserve(|| broker.trim());
        if let Err(error) = trimmed {
            log!("books: caches cannot be emptied: {error}");
        }
        let now = (server.books(), broker.usage());
        self.readings += 1;
        match &self.last {
            None => log!("books: first {now:?}"),
            Some(last) if *last == now => {}
            Some(_) => {
                self.changes += 1;
                log!("books: reading {} {now:?}", self.readings);
            }
        }
        self.last = Some(now);
    }

    /// Says how it went.
    pub fn report(&self) {
        if let Some(last) = &self.last {
            let (readings, changes) = (self.readings, self.changes);
            log!("books: last {last:?}");
            log!("books: {readings} readings, {changes} changes");
        }
    }
}
