//! Audits of a running system: asking for them, and making files of what the
//! root task's log says about them.
//!
//! The log has one JSON object a line behind `audit: `, from `begin` to `end`
//! for each audit. A record is believed only when it is whole: what follows
//! `begin` and has no `end` is an error, not a pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Entry of the boot archive that asks for audits.
pub const ENTRY: &str = "audit";
/// What a line of the log begins with.
const PREFIX: &str = "audit: ";
/// How names of protection domains begin.
const DOMAIN: &str = "domain_";
/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

/// What to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Milliseconds between audits, besides the ones at boot and at the end.
    pub every_ms: Option<u64>,
    /// What a root task made for tests plants before the first one.
    pub plant: Option<String>,
}

impl Request {
    /// The entry of the boot archive.
    pub fn encode(&self) -> Vec<u8> {
        let every = self.every_ms.map(|ms| format!("every-ms={ms}\n"));
        let plant = self.plant.as_ref().map(|what| format!("plant={what}\n"));
        [every, plant]
            .into_iter()
            .flatten()
            .collect::<String>()
            .into_bytes()
    }
}

/// Why the log has no audit to be believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuditError {
    /// A line is not what the root task writes.
    #[error("`{0}` is no line of an audit: {1}")]
    Line(String, String),
    /// An audit began and did not end.
    #[error("the audit at `{0}` did not end")]
    Unfinished(String),
    /// There was none.
    #[error("the system was not audited: did it boot?")]
    None,
    /// The figures in the last line are not those of the lines.
    #[error("the audit at `{0}` says {1} deviations and lists {2}")]
    Counts(String, u64, usize),
}

/// One line.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Begin {
        when: String,
    },
    Holder {
        holder: String,
        name: String,
        threads: u32,
    },
    Endpoint {
        holder: String,
        slot: u32,
        badge: u64,
    },
    Slot {
        holder: String,
        slot: u32,
        what: String,
    },
    Pages {
        holder: String,
        #[serde(flatten)]
        pages: Pages,
    },
    Ports {
        first: String,
        last: String,
    },
    Irq {
        ioapic: u32,
        pin: u32,
    },
    Deviation {
        holder: Option<String>,
        what: String,
    },
    End {
        #[serde(flatten)]
        end: Counts,
    },
}

/// Pages in a row.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Pages {
    /// First address, hexadecimal.
    pub address: String,
    /// First physical address, hexadecimal.
    pub frame: String,
    /// How many.
    pub count: u64,
    /// Whether they can be written.
    pub write: bool,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Counts {
    /// Whether everything is as it should be.
    pub ok: bool,
    /// Processes.
    pub processes: u64,
    /// Protection domains.
    pub domains: u64,
    /// Slots.
    pub slots: u64,
    /// Places for page tables.
    pub tables: u64,
    /// Mapped pages.
    pub pages: u64,
    /// Deviations.
    pub deviations: u64,
}

/// What one process or domain holds, as the kernel says.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Holder {
    /// Its program, or the domain's name.
    pub name: String,
    /// Its threads.
    pub threads: u32,
    /// Fault endpoints: slot and badge.
    pub endpoints: Vec<(u32, u64)>,
    /// Other capabilities: slot and kind. Of what object they are is not seen.
    pub slots: Vec<(u32, String)>,
    /// Memory.
    pub pages: Vec<Pages>,
}

/// One audit.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Audit {
    /// At which point: `boot`, `running` or `end`.
    pub when: String,
    /// How much was looked at.
    pub counts: Counts,
    /// What is not as it should be.
    pub deviations: Vec<String>,
    /// Processes, as `pid_N`, and protection domains, as `domain_N`.
    pub holders: BTreeMap<String, Holder>,
    /// Port ranges of the root task, hexadecimal.
    pub ports: Vec<(String, String)>,
    /// Interrupt lines of the root task: I/O APIC and pin.
    pub lines: Vec<(u32, u32)>,
}

/// Reads every audit of a log.
///
/// # Errors
/// [`AuditError`]
pub fn read(log: &[String]) -> Result<Vec<Audit>, AuditError> {
    let (mut audits, mut current) = (Vec::new(), None::<Audit>);
    for text in log.iter().filter_map(|line| line.strip_prefix(PREFIX)) {
        let wrong = |reason: String| AuditError::Line(text.into(), reason);
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match (line, current.take()) {
            (Line::Begin { when }, None) => {
                current = Some(Audit {
                    when,
                    ..Audit::default()
                });
            }
            (Line::Begin { .. }, Some(audit)) => return Err(AuditError::Unfinished(audit.when)),
            (Line::End { end }, Some(mut audit)) => {
                audit.counts = end;
                let listed = audit.deviations.len();
                if end.deviations != listed as u64 || end.ok != audit.deviations.is_empty() {
                    return Err(AuditError::Counts(audit.when, end.deviations, listed));
                }
                audits.push(audit);
            }
            (line, Some(mut audit)) => {
                audit.add(line).map_err(wrong)?;
                current = Some(audit);
            }
            (_, None) => return Err(wrong("no audit has begun".into())),
        }
    }
    match current {
        Some(audit) => Err(AuditError::Unfinished(audit.when)),
        None if audits.is_empty() => Err(AuditError::None),
        None => Ok(audits),
    }
}

impl Audit {
    fn add(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Holder {
                holder,
                name,
                threads,
            } => {
                is_name(&holder)?;
                let record = Holder {
                    name,
                    threads,
                    ..Holder::default()
                };
                self.holders.insert(holder, record);
            }
            Line::Endpoint {
                holder,
                slot,
                badge,
            } => self.holder(&holder)?.endpoints.push((slot, badge)),
            Line::Slot { holder, slot, what } => self.holder(&holder)?.slots.push((slot, what)),
            Line::Pages { holder, pages } => {
                hexadecimal(&pages.address)?;
                hexadecimal(&pages.frame)?;
                self.holder(&holder)?.pages.push(pages);
            }
            Line::Ports { first, last } => self.ports.push((first, last)),
            Line::Irq { ioapic, pin } => self.lines.push((ioapic, pin)),
            Line::Deviation { holder, what } => {
                let holder = holder.unwrap_or("root task".into());
                self.deviations.push(format!("{holder}: {what}"));
            }
            Line::Begin { .. } | Line::End { .. } => return Err("it is out of place".into()),
        }
        Ok(())
    }

    fn holder(&mut self, name: &str) -> Result<&mut Holder, String> {
        let holder = self.holders.get_mut(name);
        holder.ok_or_else(|| format!("there is no holder `{name}`"))
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let Counts {
            processes,
            domains,
            slots,
            tables,
            pages,
            deviations,
            ok,
        } = self.counts;
        let word = if ok { "ok" } else { "FAILED" };
        format!(
            "audit at {}: {word}: {processes} processes, {domains} domains, {slots} slots, {tables} \
             places for page tables, {pages} pages, {deviations} deviations",
            self.when
        )
    }

    /// The state as a capDL specification: objects, then capabilities. An
    /// address space's page tables follow from its pages and are left to the
    /// reader; pages name the frames they show.
    pub fn to_capdl(&self) -> Result<String, String> {
        let mut frames = BTreeMap::new();
        for holder in self.holders.values() {
            for run in &holder.pages {
                let first = hexadecimal(&run.frame)?;
                frames.extend((0..run.count).map(|n| (first + n * PAGE_BYTES, ())));
            }
        }
        let mut text = String::from("arch x86_64\n\nobjects {\n");
        self.write_objects(&mut text, frames.keys());
        text += "}\n\ncaps {\n";
        for (name, holder) in &self.holders {
            write_holder(&mut text, name, holder)?;
        }
        self.write_root(&mut text);
        text += "}\n";
        Ok(text)
    }

    fn write_objects<'a>(&self, text: &mut String, frames: impl Iterator<Item = &'a u64>) {
        *text += "faults = ep\n";
        for (index, (first, last)) in self.ports.iter().enumerate() {
            let _ = writeln!(text, "ports_{index} = io_ports (ports: [{first}..{last}])");
        }
        for (ioapic, pin) in &self.lines {
            let _ = writeln!(
                text,
                "irq_{ioapic}_{pin} = irq (ioapic: {ioapic}, pin: {pin})"
            );
        }
        for frame in frames {
            let _ = writeln!(text, "frame_{frame:x} = frame (4k, paddr: {frame:#x})");
        }
        for (name, holder) in &self.holders {
            let _ = writeln!(text, "-- {name}: {}", holder.name);
            let bits = if name.starts_with(DOMAIN) { 9 } else { 4 };
            let _ = writeln!(text, "cspace_{name} = cnode ({bits} bits)");
            let _ = writeln!(text, "vspace_{name} = pml4");
            for thread in 0..holder.threads {
                let _ = writeln!(text, "thread_{name}_{thread} = tcb");
            }
        }
        *text += "root = cnode\n";
    }

    fn write_root(&self, text: &mut String) {
        let ports = (0..self.ports.len()).map(|index| format!("ports_{index}"));
        let lines = self.lines.iter();
        let lines = lines.map(|(ioapic, pin)| format!("irq_{ioapic}_{pin}"));
        let own = std::iter::once("faults (RWG)".to_owned())
            .chain(ports)
            .chain(lines);
        *text += "root {\n";
        for (slot, name) in own.enumerate() {
            let _ = writeln!(text, "  {slot:#x}: {name}");
        }
        *text += "}\n";
    }
}

fn write_holder(text: &mut String, name: &str, holder: &Holder) -> Result<(), String> {
    let _ = writeln!(text, "cspace_{name} {{");
    for (slot, badge) in &holder.endpoints {
        let _ = writeln!(text, "  {slot:#x}: faults (WG, badge: {badge})");
    }
    for (slot, what) in &holder.slots {
        let _ = writeln!(text, "  -- {slot:#x}: {what}");
    }
    let _ = writeln!(text, "}}\nvspace_{name} {{");
    for run in &holder.pages {
        let rights = if run.write { "RW" } else { "R" };
        let (address, frame) = (hexadecimal(&run.address)?, hexadecimal(&run.frame)?);
        for page in (0..run.count).map(|n| n * PAGE_BYTES) {
            let (address, frame) = (address + page, frame + page);
            let _ = writeln!(text, "  {address:#x}: frame_{frame:x} ({rights})");
        }
    }
    *text += "}\n";
    for thread in 0..holder.threads {
        let _ = writeln!(
            text,
            "thread_{name}_{thread} {{\n  cspace: cspace_{name}\n  vspace: vspace_{name}\n}}"
        );
    }
    Ok(())
}

/// The name of a holder becomes part of others, so it is of letters, digits and
/// underscores.
fn is_name(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_good = !text.is_empty() && text.chars().all(good);
    is_good
        .then_some(())
        .ok_or_else(|| format!("`{text}` is no name of a holder"))
}

/// An address of a record: a page's, so that arithmetic on it cannot overflow
/// for any number of pages there is memory for.
fn hexadecimal(text: &str) -> Result<u64, String> {
    const LIMIT: u64 = 1 << 52;
    let digits = text.strip_prefix("0x");
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let value = value.filter(|value| *value < LIMIT);
    value.ok_or_else(|| format!("`{text}` is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[&str] = &[
        "root-task: pid 1 is init",
        r#"audit: {"kind":"begin","when":"boot"}"#,
        r#"audit: {"kind":"ports","first":"0x3f8","last":"0x3ff"}"#,
        r#"audit: {"kind":"irq","ioapic":0,"pin":2}"#,
        r#"audit: {"kind":"holder","holder":"pid_1","name":"init","threads":1}"#,
        r#"audit: {"kind":"endpoint","holder":"pid_1","slot":0,"badge":256}"#,
        r#"audit: {"kind":"slot","holder":"pid_1","slot":10,"what":"an endpoint"}"#,
        r#"audit: {"kind":"pages","holder":"pid_1","address":"0x200000","frame":"0x1f0000","count":2,"write":false}"#,
        r#"audit: {"kind":"end","ok":true,"processes":1,"domains":0,"slots":16,"tables":5,"pages":2,"deviations":0}"#,
    ];

    fn log(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_whole_record_becomes_a_specification() {
        let audits = read(&log(GOOD)).unwrap();
        assert_eq!(audits.len(), 1);
        assert!(audits[0].counts.ok);
        let text = audits[0].to_capdl().unwrap();
        for line in [
            "frame_1f1000 = frame (4k, paddr: 0x1f1000)",
            "  0x0: faults (WG, badge: 256)",
            "  -- 0xa: an endpoint",
            "  0x201000: frame_1f1000 (R)",
            "ports_0 = io_ports (ports: [0x3f8..0x3ff])",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn silence_and_half_a_record_are_no_pass() {
        assert_eq!(read(&log(&["root-task: up"])), Err(AuditError::None));
        let half = read(&log(&GOOD[..GOOD.len() - 1]));
        assert_eq!(half, Err(AuditError::Unfinished("boot".into())));
        let twice = [&GOOD[..3], GOOD].concat();
        assert_eq!(
            read(&log(&twice)),
            Err(AuditError::Unfinished("boot".into()))
        );
    }

    #[test]
    fn a_deviation_is_kept_and_must_be_counted() {
        let deviation =
            r#"audit: {"kind":"deviation","holder":"pid_1","what":"CSpace slot 3 holds a TCB"}"#;
        let end = r#"audit: {"kind":"end","ok":false,"processes":1,"domains":0,"slots":16,"tables":5,"pages":2,"deviations":1}"#;
        let mut lines = GOOD[..GOOD.len() - 1].to_vec();
        lines.extend([deviation, end]);
        let audits = read(&log(&lines)).unwrap();
        assert_eq!(audits[0].deviations, ["pid_1: CSpace slot 3 holds a TCB"]);
        let mut hidden = GOOD.to_vec();
        hidden.insert(GOOD.len() - 1, deviation);
        assert_eq!(
            read(&log(&hidden)),
            Err(AuditError::Counts("boot".into(), 0, 1))
        );
    }

    #[test]
    fn lines_that_nobody_writes_are_refused() {
        for line in [
            "audit: nonsense",
            r#"audit: {"kind":"holder","holder":"pid_1","name":"x","threads":1,"more":1}"#,
            r#"audit: {"kind":"holder","holder":"a b","name":"x","threads":1}"#,
            r#"audit: {"kind":"endpoint","holder":"pid_9","slot":0,"badge":0}"#,
            r#"audit: {"kind":"pages","holder":"pid_1","address":"0xffffffffffffffff","frame":"0x0","count":2,"write":true}"#,
        ] {
            let mut lines = GOOD.to_vec();
            lines.insert(GOOD.len() - 1, line);
            assert!(
                matches!(read(&log(&lines)), Err(AuditError::Line(..))),
                "{line}"
            );
        }
    }

    #[test]
    fn the_request_is_what_the_root_task_reads() {
        let request = Request {
            every_ms: Some(20),
            plant: Some("tcb".into()),
        };
        assert_eq!(request.encode(), b"every-ms=20\nplant=tcb\n");
        assert_eq!(Request::default().encode(), b"");
    }
}
