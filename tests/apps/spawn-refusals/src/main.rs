//! Asks for children it must not have: unknown programs, capabilities that are
//! not its own, labels that are not its to give, names and counts that do not
//! fit. Each is refused with an exception, nothing is left behind, and an
//! honest spawn works between all of them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{
    CapabilityRef, CapabilityType, Endpoint, KernelCapSource, ProcessSpawnerClient, SpawnGrant,
    SpawnGrantMode, SpawnGrantSource,
};
use raw_ring::PATIENCE_NS;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal};

/// Exit code of the honest child.
const SEVEN: i64 = 7;
const PROGRAM: &str = "exit-seven";
/// Low bits of a capability number: its slot.
const SLOT_MASK: u32 = (1 << 24) - 1;

const fn held(name: &str, capability: CapabilityRef, mode: SpawnGrantMode) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode,
        badge: 0,
    }
}

struct Suite {
    console: CapabilityRef,
    endpoint: CapabilityRef,
    spawner: CapabilityRef,
    /// Slots of handle and manager of an honest spawn.
    slots: Option<[u32; 2]>,
}

impl Suite {
    /// Spawns, waits and gives everything back; the slots must stay the same.
    fn honest(&mut self, runtime: &mut Runtime) -> Proof {
        let child = family::spawn(runtime, PROGRAM, &[])?;
        equal("exit code", child.wait(runtime)?, SEVEN)?;
        let mut slots = child.result_ids().map(|id| id & SLOT_MASK);
        slots.sort_unstable();
        let expected = *self.slots.get_or_insert(slots);
        equal("slots of the results", slots, expected)?;
        drop(child);
        let flushed = runtime.flush_releases();
        flushed.map_err(|error| Failure::new(format!("releases: {error:?}")))
    }

    fn refused(
        &mut self,
        runtime: &mut Runtime,
        what: &str,
        program: &str,
        grants: &[SpawnGrant<'_>],
    ) -> Proof {
        let capset = runtime.capset();
        let mut spawner = capset
            .get_client::<ProcessSpawnerClient>(b"spawner")
            .map_err(|_| Failure::new("no spawner"))?;
        let mut ring = runtime
            .ring_client()
            .map_err(|_| Failure::new("no ring client"))?;
        let spawned = spawner.spawn_wait(&mut ring, "child", program, grants, PATIENCE_NS);
        drop(ring);
        match spawned {
            Ok(_) => return Err(Failure::new(format!("{what}: was spawned"))),
            Err(capos::ClientError::Application(_)) => {}
            Err(error) => return Err(Failure::new(format!("{what}: {error:?}"))),
        }
        self.honest(runtime)
            .map_err(|failure| failure.within(&format!("after {what}")))
    }

    fn programs(&mut self, runtime: &mut Runtime) -> Proof {
        let long: String = core::iter::repeat_n('x', 2000).collect();
        for program in [
            "",
            "no-such-program",
            "manifest.bin",
            "../exit-seven",
            &long,
        ] {
            self.refused(runtime, "an unknown program", program, &[])?;
        }
        Ok(())
    }

    fn sources(&mut self, runtime: &mut Runtime) -> Proof {
        let forged = |cap_id, interface_id| CapabilityRef::new(cap_id, interface_id);
        let console = Console::INTERFACE_ID;
        use SpawnGrantMode::{ClientEndpoint, Move, Raw, ServiceObject};
        let cases = [
            ("a forged slot", forged(200, console), Raw),
            ("a forged generation", forged(0x4200_0000, console), Raw),
            ("a forged move", forged(u32::MAX, console), Move),
            (
                "a forged facet",
                forged(u32::MAX, Endpoint::INTERFACE_ID),
                ClientEndpoint,
            ),
            (
                "a relabelled console",
                forged(self.console.cap_id(), Timer::INTERFACE_ID),
                Raw,
            ),
            ("a facet of a console", self.console, ClientEndpoint),
            ("a moved owner", self.endpoint, Move),
            ("a moved spawner", self.spawner, Move),
            ("a service object", self.endpoint, ServiceObject),
        ];
        for (what, capability, mode) in cases {
            // Behind a good grant, which must not be left behind.
            let good = held("good", self.console, Raw);
            let bad = held("bad", capability, mode);
            self.refused(runtime, what, PROGRAM, &[good, bad])?;
        }
        let badged = SpawnGrant {
            badge: 5,
            ..held("badged", self.console, Raw)
        };
        self.refused(runtime, "a badged console", PROGRAM, &[badged])
    }

    fn capsets(&mut self, runtime: &mut Runtime) -> Proof {
        let console = held("console", self.console, SpawnGrantMode::Raw);
        let long: String = core::iter::repeat_n('n', 33).collect();
        let named = SpawnGrant {
            name: &long,
            ..console
        };
        self.refused(runtime, "a long name", PROGRAM, &[named])?;
        let many: Vec<_> = core::iter::repeat_n(console, 86).collect();
        self.refused(runtime, "many grants", PROGRAM, &many)?;
        let endpoint = family::fresh("e", KernelCapSource::Endpoint);
        let many: Vec<_> = core::iter::repeat_n(endpoint, 15).collect();
        self.refused(runtime, "many results", PROGRAM, &many)
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let mut suite = Suite {
        console: family::held(runtime, "console")?,
        endpoint: family::held(runtime, "endpoint")?,
        spawner: family::held(runtime, "spawner")?,
        slots: None,
    };
    suite.honest(runtime)?;
    suite.programs(runtime)?;
    suite.sources(runtime)?;
    suite.capsets(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "spawn-refusals", prove)
}

entry_point!(main);
