//! What an audit found, as lines of the log: one JSON object each.
//!
//! `sel4-compose audit` makes files of them. Numbers that are addresses are
//! strings in hexadecimal, since JSON has no others.

use core::fmt;

use crate::audit::AuditError;
use crate::client::Client;
use crate::log::line;

/// The findings of one audit, as they are written.
#[derive(Debug)]
pub struct Record {
    holder: Option<Holder>,
    processes: u32,
    domains: u32,
    slots: u32,
    tables: u32,
    pages: u32,
    deviations: u32,
    run: Option<Run>,
}

/// Whose CSpace and address space are looked at.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// A process, by its number.
    Process(u32),
    /// A protection domain, by its place in the description.
    Domain(usize),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "pid_{pid}"),
            Self::Domain(index) => write!(f, "domain_{index}"),
        }
    }
}

/// Pages in a row: in the address space, and in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub address: u64,
    /// First physical address.
    pub frame: u64,
    /// How many pages.
    pub count: u64,
    /// Whether they can be written.
    pub write: bool,
}

/// Text inside a JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' | '\\' => write!(f, "\\{character}"),
            other => write!(f, "{other}"),
        })
    }
}

impl Record {
    /// Starts a record.
    pub fn begin(when: &str) -> Self {
        line(format_args!(
            "audit: {{\"kind\":\"begin\",\"when\":\"{when}\"}}"
        ));
        Self {
            holder: None,
            processes: 0,
            domains: 0,
            slots: 0,
            tables: 0,
            pages: 0,
            deviations: 0,
            run: None,
        }
    }

    /// What follows is about this process.
    pub fn process(&mut self, client: &Client) {
        self.processes += 1;
        let holder = Holder::Process(client.pid.raw());
        self.begin_holder(holder, &client.name, client.thread_count());
    }

    /// What follows is about the domain at `index`.
    pub fn domain(&mut self, index: usize, name: &str) {
        self.domains += 1;
        self.begin_holder(Holder::Domain(index), name, 1);
    }

    fn begin_holder(&mut self, holder: Holder, name: &str, threads: usize) {
        self.holder = Some(holder);
        line(format_args!(
            "audit: {{\"kind\":\"holder\",\"holder\":\"{holder}\",\"name\":\"{}\",\"threads\":{threads}}}",
            Quoted(name),
        ));
    }

    /// What follows is about the root task.
    pub fn root_task(&mut self) {
        self.holder = None;
    }

    fn line_of_holder(&self, rest: fmt::Arguments<'_>) {
        if let Some(holder) = self.holder {
            line(format_args!("audit: {{\"holder\":\"{holder}\",{rest}}}"));
        }
    }

    /// A slot of a CSpace, or of the root CNode, was looked at.
    pub fn count_slot(&mut self) {
        self.slots += 1;
    }

    /// A place for a page table was looked at.
    pub fn count_table(&mut self) {
        self.tables += 1;
    }

    /// The fault endpoint in a CSpace, as it should be.
    pub fn endpoint(&self, slot: usize, badge: u64) {
        self.line_of_holder(format_args!(
            "\"kind\":\"endpoint\",\"slot\":{slot},\"badge\":{badge}"
        ));
    }

    /// Something else in a CSpace, as it should be.
    pub fn slot(&self, slot: usize, what: &str) {
        self.line_of_holder(format_args!(
            "\"kind\":\"slot\",\"slot\":{slot},\"what\":\"{what}\""
        ));
    }

    /// Ports of the root task.
    pub fn ports(&self, first: u16, last: u16) {
        line(format_args!(
            "audit: {{\"kind\":\"ports\",\"first\":\"{first:#x}\",\"last\":\"{last:#x}\"}}"
        ));
    }

    /// An interrupt line of the root task.
    pub fn line(&self, ioapic: u8, pin: u8) {
        line(format_args!(
            "audit: {{\"kind\":\"irq\",\"ioapic\":{ioapic},\"pin\":{pin}}}"
        ));
    }

    /// A page, as it should be; pages in a row share a line.
    pub fn page(&mut self, address: u64, frame: u64, write: bool) {
        const PAGE: u64 = cap_broker::PAGE_BYTES;
        self.pages += 1;
        if let Some(run) = &mut self.run
            && run.write == write
            && run.address + run.count * PAGE == address
            && run.frame + run.count * PAGE == frame
        {
            run.count += 1;
            return;
        }
        self.flush();
        self.run = Some(Run {
            address,
            frame,
            count: 1,
            write,
        });
    }

    /// Writes the pages that still wait for a neighbour.
    pub fn flush(&mut self) {
        if let Some(run) = self.run.take() {
            self.line_of_holder(format_args!(
                "\"kind\":\"pages\",\"address\":\"{:#x}\",\"frame\":\"{:#x}\",\"count\":{},\"write\":{}",
                run.address, run.frame, run.count, run.write
            ));
        }
    }

    /// Something is not as it should be, of whom it is about now.
    pub fn deviation(&mut self, what: fmt::Arguments<'_>) {
        self.deviations += 1;
        match self.holder {
            Some(_) => {
                self.line_of_holder(format_args!("\"kind\":\"deviation\",\"what\":\"{what}\""))
            }
            None => line(format_args!(
                "audit: {{\"kind\":\"deviation\",\"what\":\"{what}\"}}"
            )),
        }
    }

    /// Ends the record.
    pub fn end(mut self, outcome: Result<(), AuditError>) {
        self.flush();
        if let Err(error) = outcome {
            self.deviation(format_args!("the audit is incomplete: {error}"));
        }
        let word = if self.deviations == 0 { "ok" } else { "FAILED" };
        line(format_args!(
            "audit: {{\"kind\":\"end\",\"ok\":{},\"processes\":{},\"domains\":{},\"slots\":{},\"tables\":{},\"pages\":{},\"deviations\":{}}}",
            self.deviations == 0,
            self.processes,
            self.domains,
            self.slots,
            self.tables,
            self.pages,
            self.deviations
        ));
        line(format_args!(
            "root-task: audit {word}: {} processes, {} domains, {} slots, {} places for page tables, {} pages, {} deviations",
            self.processes, self.domains, self.slots, self.tables, self.pages, self.deviations
        ));
    }
}
