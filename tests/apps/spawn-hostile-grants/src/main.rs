//! Asks for children with one thing wrong in each request: every field of a
//! grant, the list, the message itself. Each is refused with an exception or
//! starts a child that is none the worse, this program lives, and an honest
//! spawn works in between.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use capos::CapabilityType;
use capos::capos_capnp::{CapGrantMode, KernelCapSource, cap_grant, process_spawner};
use capos::prelude::*;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::release;
use raw_ring::spawner::{Answer, Spawner, request};

const PROGRAM: &str = "exit-seven";
const SEVEN: i64 = 7;
/// Memory this program may need later, touched before anything is counted.
const HEAP_BYTES: usize = 256 * 1024;
/// Grants that a CapSet page has room for.
const GRANTS_MAX: u32 = 85;
/// Stands in a capability number where a test wants to find the grant again.
const MARK: u32 = 0x5a5a_5a5a;
/// Stands in a name where a test wants to find the text again.
const NAME_MARK: &str = "QQQQQQQQ";
/// Byte offsets in a grant's data, from its capability number.
const MODE_AT: usize = 4;

type Grant<'a> = cap_grant::Builder<'a>;

/// A request for [`PROGRAM`] with `count` grants, each filled in by `fill`.
fn with_grants(count: u32, mut fill: impl FnMut(u32, Grant<'_>)) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_name("child");
    params.set_binary_name(PROGRAM);
    let mut grants = params.init_grants(count);
    for index in 0..count {
        fill(index, grants.reborrow().get(index));
    }
    capnp::serialize::write_message_to_words(&message)
}

/// Replaces the only occurrence of `from` by `to`, at `offset` behind it.
fn patch(mut message: Vec<u8>, from: &[u8], offset: usize, to: &[u8]) -> Result<Vec<u8>, Failure> {
    let at = message.windows(from.len()).position(|bytes| bytes == from);
    let at = at.ok_or(Failure::new("the mark is not in the message"))? + offset;
    let place = message.get_mut(at..at + to.len());
    let place = place.ok_or(Failure::new("the patch does not fit"))?;
    place.copy_from_slice(to);
    Ok(message)
}

struct Suite {
    spawner: Spawner,
    console: u32,
    endpoint: u32,
    refused: usize,
    started: usize,
}

impl Suite {
    fn honest(&mut self, process: &mut Process) -> Proof {
        match self.spawner.ask(process, &request(PROGRAM))? {
            Answer::Started(child) => {
                let code = self.spawner.finish(process, child)?;
                equal("the exit code", code, SEVEN)
            }
            other => Err(Failure::new(format!("an honest spawn: {other:?}"))),
        }
    }

    /// Asks for what must be refused with an exception.
    fn refused(&mut self, process: &mut Process, what: &str, params: &[u8]) -> Proof {
        match self.spawner.ask(process, params)? {
            Answer::Refused(..) => self.refused += 1,
            other => return Err(Failure::new(format!("{what}: {other:?}"))),
        }
        self.honest(process)
            .map_err(|failure| failure.within(&format!("after {what}")))
    }

    /// Asks for what may be granted: then the child runs as it should.
    fn survived(&mut self, process: &mut Process, params: &[u8]) -> Proof {
        match self.spawner.ask(process, params)? {
            Answer::Started(child) => {
                self.started += 1;
                self.spawner.finish(process, child).map(drop)
            }
            Answer::Refused(..) | Answer::Rejected(_) => {
                self.refused += 1;
                Ok(())
            }
        }
    }

    /// What this process holds, passed on as it is.
    fn console_grant(&self, name: &str, mut grant: Grant<'_>) {
        grant.set_name(name);
        grant.set_cap_id(self.console);
        grant.set_interface_id(Console::INTERFACE_ID);
        grant.set_mode(CapGrantMode::Raw);
        grant.init_source().set_capability(());
    }

    /// A good grant and one that `spoil` makes bad, the bad one last.
    fn spoilt(&self, spoil: impl Fn(Grant<'_>)) -> Vec<u8> {
        with_grants(2, |index, mut grant| {
            let name = if index == 0 { "good" } else { "bad" };
            self.console_grant(name, grant.reborrow());
            if index == 1 {
                spoil(grant);
            }
        })
    }

    fn names(&mut self, process: &mut Process) -> Proof {
        let long: String = core::iter::repeat_n('n', 33).collect();
        let huge: String = core::iter::repeat_n('n', 5000).collect();
        for (what, name) in [
            ("an empty name", ""),
            ("a long name", &long),
            ("a huge name", &huge),
            ("a name twice", "good"),
        ] {
            let params = self.spoilt(|mut grant| grant.set_name(name));
            self.refused(process, what, &params)?;
        }
        let marked = self.spoilt(|mut grant| grant.set_name(NAME_MARK));
        for bytes in [
            &b"\xff"[..],
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf8\x88\x80\x80\x80",
        ] {
            let params = patch(marked.clone(), NAME_MARK.as_bytes(), 0, bytes)?;
            self.refused(process, "a name that is no text", &params)?;
        }
        let unterminated = patch(marked, NAME_MARK.as_bytes(), NAME_MARK.len(), b"Q")?;
        self.refused(process, "a name without an end", &unterminated)
    }

    fn capabilities(&mut self, process: &mut Process, stale: u32) -> Proof {
        let forged = [
            200,
            255,
            256,
            0x00ff_ffff,
            0x0100_0000 | self.console,
            u32::MAX,
        ];
        for cap in forged.into_iter().chain([stale]) {
            for mode in [
                CapGrantMode::Raw,
                CapGrantMode::Move,
                CapGrantMode::ClientEndpoint,
                CapGrantMode::ServiceObject,
            ] {
                let params = self.spoilt(|mut grant| {
                    grant.set_cap_id(cap);
                    grant.set_mode(mode);
                });
                self.refused(process, &format!("capability {cap:#x}"), &params)?;
            }
        }
        for interface_id in [0, 1, u64::MAX, Timer::INTERFACE_ID] {
            let params = self.spoilt(|mut grant| grant.set_interface_id(interface_id));
            self.refused(process, "a relabelled console", &params)?;
        }
        for badge in [1, 1 << 63, u64::MAX] {
            let params = self.spoilt(|mut grant| grant.set_badge(badge));
            self.refused(process, "a badged console", &params)?;
        }
        let endpoint = self.endpoint;
        for (what, mode) in [
            ("a moved endpoint", CapGrantMode::Move),
            (
                "a service object without a cookie",
                CapGrantMode::ServiceObject,
            ),
        ] {
            let params = self.spoilt(|mut grant| {
                grant.set_cap_id(endpoint);
                grant.set_interface_id(capos::Endpoint::INTERFACE_ID);
                grant.set_mode(mode);
            });
            self.refused(process, what, &params)?;
        }
        let params = self.spoilt(|mut grant| grant.set_mode(CapGrantMode::ClientEndpoint));
        self.refused(process, "a facet of a console", &params)
    }

    fn modes_and_sources(&mut self, process: &mut Process) -> Proof {
        let marked = self.spoilt(|mut grant| grant.set_cap_id(MARK));
        let console = self.console.to_le_bytes();
        for mode in [4_u16, 5, 255, 256, 0x7fff, 0xffff] {
            let params = patch(
                marked.clone(),
                &MARK.to_le_bytes(),
                MODE_AT,
                &mode.to_le_bytes(),
            )?;
            let params = patch(params, &MARK.to_le_bytes(), 0, &console)?;
            self.refused(process, &format!("mode {mode}"), &params)?;
        }
        for mode in [
            CapGrantMode::Move,
            CapGrantMode::ClientEndpoint,
            CapGrantMode::ServiceObject,
        ] {
            let params = self.spoilt(|mut grant| {
                grant.set_mode(mode);
                grant.init_source().set_kernel(KernelCapSource::Timer);
            });
            self.refused(process, "a kernel source that is not raw", &params)?;
        }
        for source in [
            KernelCapSource::Null,
            KernelCapSource::ParkBench,
            KernelCapSource::NetworkManager,
            KernelCapSource::Nic,
        ] {
            let params = self.spoilt(|grant| grant.init_source().set_kernel(source));
            self.refused(process, "a source that is not provided", &params)?;
        }
        // The source is one word: which of the two, and the kernel's number.
        let word = u64::from(KernelCapSource::ParkBench as u16) << 16 | 1;
        let marked =
            self.spoilt(|grant| grant.init_source().set_kernel(KernelCapSource::ParkBench));
        for wrong in [
            50 << 16 | 1,
            0x7fff << 16 | 1,
            0xffff << 16 | 1,
            2,
            0xffff,
            u64::MAX,
        ] {
            let params = patch(marked.clone(), &word.to_le_bytes(), 0, &wrong.to_le_bytes())?;
            self.refused(process, &format!("source {wrong:#x}"), &params)?;
        }
        Ok(())
    }

    fn lists(&mut self, process: &mut Process) -> Proof {
        let names: Vec<String> = (0..200).map(|index| format!("grant-{index}")).collect();
        for count in [0, 1, 2, GRANTS_MAX - 1, GRANTS_MAX] {
            let params = with_grants(count, |index, grant| {
                self.console_grant(&names[index as usize], grant);
            });
            match self.spawner.ask(process, &params)? {
                Answer::Started(child) => {
                    let code = self.spawner.finish(process, child)?;
                    equal("the exit code", code, SEVEN)?;
                }
                other => return Err(Failure::new(format!("{count} grants: {other:?}"))),
            }
            self.started += 1;
        }
        for count in [GRANTS_MAX + 1, 128, 200] {
            let params = with_grants(count, |index, grant| {
                self.console_grant(&names[index as usize], grant);
            });
            self.refused(process, &format!("{count} grants"), &params)?;
        }
        for count in [15, 40, GRANTS_MAX] {
            let params = with_grants(count, |index, mut grant| {
                grant.set_name(&*names[index as usize]);
                grant.init_source().set_kernel(KernelCapSource::Endpoint);
            });
            self.refused(process, &format!("{count} endpoints"), &params)?;
        }
        Ok(())
    }

    fn programs(&mut self, process: &mut Process) -> Proof {
        let long: String = core::iter::repeat_n('x', 65).collect();
        for program in [
            "",
            "nobody",
            "manifest.bin",
            "bins/exit-seven",
            "../x",
            &long,
        ] {
            self.refused(process, "an unknown program", &request(program))?;
        }
        let params = patch(request(NAME_MARK), NAME_MARK.as_bytes(), 0, b"\xff")?;
        self.refused(process, "a program that is no text", &params)
    }

    /// Every word of a good message set to nonsense in turn, and the message
    /// cut short after every word.
    fn messages(&mut self, process: &mut Process) -> Proof {
        let good = with_grants(2, |index, grant| {
            self.console_grant(if index == 0 { "one" } else { "two" }, grant);
        });
        for word in 0..good.len() / 8 {
            for nonsense in [0, u64::MAX, 1, 0x7fff_ffff, 1 << 63, 0x8000_0000_0000_0003] {
                let mut params = good.clone();
                params[word * 8..word * 8 + 8].copy_from_slice(&u64::to_le_bytes(nonsense));
                self.survived(process, &params)?;
            }
            self.survived(process, &good[..word * 8])?;
            self.survived(process, &good[..word * 8 + 3])?;
        }
        self.honest(process)
    }
}

/// The number of a capability that this process gave back.
fn stale(process: &mut Process) -> Result<u32, Failure> {
    let spare = process.cap("spare")?;
    process.ring.expect("RELEASE", release(spare), 0)?;
    Ok(spare)
}

fn prove(process: &mut Process) -> Proof {
    drop(core::hint::black_box(vec![1_u8; HEAP_BYTES]));
    let stale = stale(process)?;
    let mut suite = Suite {
        spawner: Spawner::new(process)?,
        console: process.cap("console")?,
        endpoint: process.cap("endpoint")?,
        refused: 0,
        started: 0,
    };
    suite.honest(process)?;
    suite.programs(process)?;
    suite.names(process)?;
    suite.capabilities(process, stale)?;
    suite.modes_and_sources(process)?;
    suite.lists(process)?;
    suite.messages(process)?;
    let (refused, started) = (suite.refused, suite.started);
    that(refused > 100, "too few were refused")?;
    let line = format!("spawn-hostile-grants: {refused} refused, {started} started");
    process.print(&line)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "spawn-hostile-grants", prove)
}

entry_point!(main);
