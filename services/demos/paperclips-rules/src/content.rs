//! What things cost, what projects do, what is said.

use alloc::format;
use alloc::string::String;
use core::ops::RangeInclusive;

use crate::{Phase, money};

/// Wire at the start.
pub const WIRE_AT_FIRST: u64 = 120;
/// Money at the start.
pub const CENTS_AT_FIRST: u64 = 500;
/// Price of a clip at the start.
pub const PRICE_AT_FIRST: u64 = 25;
/// Wire that turns up when there is nothing else.
pub const SCRAPS: u64 = 10;
/// What a clip can cost.
pub const PRICES: RangeInclusive<u64> = 1..=500;
/// What wire for one clip costs.
pub const WIRE_CENTS: u64 = 3;
/// How much wire is bought at a time when it is bought by itself.
pub const SPOOL: u64 = 500;
/// Operations that fit one unit of memory.
pub const OPERATIONS_PER_MEMORY: u64 = 100;
/// What the ground under the workshop amounts to.
pub const GROUND: u64 = 50_000_000;
/// What everything else amounts to.
pub const SKY: u64 = 40_000_000_000_000;
/// What the first drones are built of.
pub const QUARRY_WIRE: u64 = 20_000;
/// What the first probes are built of.
pub const SKY_WIRE: u64 = 500_000;
/// What a drone moves in a second, at first.
pub const DRONE_RATE: u64 = 40;
/// What a factory bends in a second.
pub const FACTORY_RATE: u64 = 2_000_000_000;
/// What a probe moves in a second.
pub const PROBE_RATE: u64 = 250;
/// How long a probe takes to build another.
pub const PROBE_GROWTH_SECONDS: u64 = 60;

/// Price of the next autoclipper.
#[must_use]
pub const fn autoclipper_cents(owned: u64) -> u64 {
    250_u64.saturating_add(owned.saturating_mul(60))
}

/// Price of the next level of marketing.
#[must_use]
pub const fn marketing_cents(level: u64) -> u64 {
    let next = level.saturating_add(1);
    next.saturating_mul(next).saturating_mul(100)
}

/// Price of the next processor.
#[must_use]
pub const fn processor_cents(owned: u64) -> u64 {
    1_000_u64.saturating_add(owned.saturating_mul(500))
}

/// Price of the next memory.
#[must_use]
pub const fn memory_cents(owned: u64) -> u64 {
    800_u64.saturating_add(owned.saturating_mul(300))
}

/// Wire for the next drone.
#[must_use]
pub const fn drone_clips(owned: u64) -> u64 {
    1_000_u64.saturating_add(owned.saturating_mul(50))
}

/// Wire for the next factory.
#[must_use]
pub const fn factory_clips(owned: u64) -> u64 {
    5_000_u64.saturating_add(owned.saturating_mul(5_000))
}

/// Wire for the next probe.
#[must_use]
pub const fn probe_clips(owned: u64) -> u64 {
    100_000_u64.saturating_add(owned.saturating_mul(10))
}

/// How many thousandths of a clip people want in a second.
#[must_use]
pub const fn demand_thousandths(marketing: u64, price: u64) -> u64 {
    let interest = marketing.saturating_add(1).saturating_mul(12_000);
    interest / if price == 0 { 1 } else { price }
}

/// What a project changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Autoclippers become so many times as fast.
    ClipperRate(u64),
    /// So many percent more are wanted.
    Demand(u64),
    /// Wire is bought when it runs out.
    BuysWire,
    /// Drones become so many times as fast.
    DroneRate(u64),
    /// The workshop becomes a quarry.
    Quarry,
    /// The quarry reaches for the sky.
    Sky,
}

/// A project.
#[derive(Clone, Copy, Debug)]
pub struct Project {
    /// What it is called in commands.
    pub id: &'static str,
    /// What it promises.
    pub purpose: &'static str,
    /// What is said when it is done.
    pub outcome: &'static str,
    /// Phase it belongs to; it stays in later ones.
    pub phase: Phase,
    /// Clips that must have been made before anybody thinks of it.
    pub clips: u64,
    /// Project that must be done first.
    pub after: Option<&'static str>,
    /// Operations it takes.
    pub operations: u64,
    /// Money it takes.
    pub cents: u64,
    /// What it changes.
    pub effect: Effect,
}

impl Project {
    /// What it takes, in words.
    #[must_use]
    pub fn cost(&self) -> String {
        match self.cents {
            0 => format!("{} operations", self.operations),
            cents => format!("{} operations, {}", self.operations, money(cents)),
        }
    }
}

/// The place of a project in [`PROJECTS`].
#[must_use]
pub fn place(id: &str) -> Option<usize> {
    PROJECTS.iter().position(|project| project.id == id)
}

/// All projects.
pub const PROJECTS: &[Project] = &[
    Project {
        id: "oiled-hinge",
        purpose: "autoclippers twice as fast",
        outcome: "the machines stop squeaking and start humming",
        phase: Phase::Workshop,
        clips: 50,
        after: None,
        operations: 40,
        cents: 0,
        effect: Effect::ClipperRate(2),
    },
    Project {
        id: "shop-window",
        purpose: "half as many buyers again",
        outcome: "people stop, look, and want one",
        phase: Phase::Workshop,
        clips: 150,
        after: None,
        operations: 80,
        cents: 500,
        effect: Effect::Demand(50),
    },
    Project {
        id: "standing-order",
        purpose: "wire comes by itself when it runs out",
        outcome: "the wire dealer sends a card at new year",
        phase: Phase::Workshop,
        clips: 300,
        after: Some("oiled-hinge"),
        operations: 100,
        cents: 1_000,
        effect: Effect::BuysWire,
    },
    Project {
        id: "double-jaw",
        purpose: "autoclippers three times as fast",
        outcome: "two clips at a time, and a spare one for luck",
        phase: Phase::Workshop,
        clips: 1_000,
        after: Some("oiled-hinge"),
        operations: 250,
        cents: 0,
        effect: Effect::ClipperRate(3),
    },
    Project {
        id: "under-the-floor",
        purpose: "dig for wire instead of buying it; selling ends",
        outcome: "the floor is metal, and so is everything below it",
        phase: Phase::Workshop,
        clips: 5_000,
        after: Some("double-jaw"),
        operations: 500,
        cents: 0,
        effect: Effect::Quarry,
    },
    Project {
        id: "drone-chorus",
        purpose: "drones five times as fast",
        outcome: "they have begun to keep time with each other",
        phase: Phase::Quarry,
        clips: 20_000,
        after: Some("under-the-floor"),
        operations: 300,
        cents: 0,
        effect: Effect::DroneRate(5),
    },
    Project {
        id: "open-roof",
        purpose: "build probes that look for more",
        outcome: "the roof slides back; there is a great deal up there",
        phase: Phase::Quarry,
        clips: 5_000_000,
        after: Some("drone-chorus"),
        operations: 600,
        cents: 0,
        effect: Effect::Sky,
    },
];

/// Shown at the start.
pub const OPENING: &str = "You have a bench, a spool of wire and five dollars.\n\
     Somebody has to make the clips.";

/// Shown when nothing is left.
pub const ENDING: &str = "There is nothing left to bend. It is very tidy.";

/// What can be done from the start.
pub const HELP: &str = "status                what there is\n\
     make                  bend one clip\n\
     sell <n>              sell clips from the stock to a dealer, for half\n\
     price <cents>         what a clip costs\n\
     buy wire <n>          wire for n clips\n\
     buy autoclipper       makes clips by itself\n\
     buy marketing         more people want clips\n\
     buy processor         an operation a second\n\
     buy memory            room for operations\n\
     projects              what could be done with operations\n\
     project <id>          do it\n\
     run <seconds>         let time pass quickly\n\
     help                  this\n\
     exit                  close the workshop\n\
     A blank line repeats the last one.";

/// What can be done later.
pub const LATER_HELP: &[(Phase, &str)] = &[
    (Phase::Quarry, "buy drone             digs for wire"),
    (Phase::Quarry, "buy factory           bends what drones dig"),
    (
        Phase::Sky,
        "buy probe             finds more, and builds more of itself",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_project_can_come_up() {
        for (place_of, project) in PROJECTS.iter().enumerate() {
            assert_eq!(
                place(project.id),
                Some(place_of),
                "{} is unique",
                project.id
            );
            if let Some(after) = project.after {
                let earlier = place(after).expect("it names one");
                assert!(earlier < place_of, "{} comes after {after}", project.id);
            }
        }
    }
}
