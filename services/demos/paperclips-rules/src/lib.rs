//! Rules and content of the Paperclips demo: a workshop that grows until there
//! is nothing left to make clips of.
//!
//! The rules know no terminal and no clock: [`Game::command`] takes a line,
//! [`Game::tick`] lets seconds pass. What things cost and what projects do is in
//! [`content`]. All numbers are whole and never wrap: what would be too much
//! stays at the largest number there is.
//!
//! # Invariants
//! - **P1** Every clip made is in stock, sold, or was made after selling ended.
//! - **P2** Clips come from wire, one each; wire comes from money or matter.
//! - **P3** A project works once, and not before what it needs is there.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod content;

use alloc::format;
use alloc::string::{String, ToString};

use content::{Effect, PROJECTS, Project};

/// Most seconds that `run` lets pass at one time.
pub const RUN_TICKS_MAX: u64 = 100_000;

/// How far the workshop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clips are sold, wire is bought.
    Workshop,
    /// Drones and factories turn the ground into clips; nothing is sold.
    Quarry,
    /// Probes do the same elsewhere.
    Sky,
    /// Nothing is left.
    Done,
}

/// What is done with what was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What to show.
    pub text: String,
    /// Whether the game is over.
    pub exit: bool,
}

/// The whole state of a game.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Game {
    phase: Phase,
    clips: u64,
    stock: u64,
    sold: u64,
    wire: u64,
    cents: u64,
    price: u64,
    marketing: u64,
    autoclippers: u64,
    processors: u64,
    memory: u64,
    operations: u64,
    drones: u64,
    factories: u64,
    probes: u64,
    ground: u64,
    sky: u64,
    /// Thousandths of a sale left over from the last second.
    demand_rest: u64,
    /// One bit for each project that was done.
    done: u32,
    /// Clips an autoclipper makes in a second.
    clipper_rate: u64,
    /// Percent of the usual demand.
    demand_percent: u64,
    /// Matter a drone moves in a second.
    drone_rate: u64,
    buys_wire: bool,
    last_line: String,
    seconds: u64,
}

const _: () = assert!(
    PROJECTS.len() <= u32::BITS as usize,
    "a bit for each project"
);

impl Default for Game {
    fn default() -> Self {
        Self {
            phase: Phase::Workshop,
            clips: 0,
            stock: 0,
            sold: 0,
            wire: content::WIRE_AT_FIRST,
            cents: content::CENTS_AT_FIRST,
            price: content::PRICE_AT_FIRST,
            marketing: 0,
            autoclippers: 0,
            processors: 0,
            memory: 1,
            operations: 0,
            drones: 0,
            factories: 0,
            probes: 0,
            ground: content::GROUND,
            sky: content::SKY,
            demand_rest: 0,
            done: 0,
            clipper_rate: 1,
            demand_percent: 100,
            drone_rate: content::DRONE_RATE,
            buys_wire: false,
            last_line: String::new(),
            seconds: 0,
        }
    }
}

/// An amount of money.
fn money(cents: u64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

impl Game {
    /// What is shown at the start.
    #[must_use]
    pub fn opening(&self) -> String {
        format!("{}\nType `help` for what you can do.", content::OPENING)
    }

    /// How far the game has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Clips made so far.
    #[must_use]
    pub const fn clips(&self) -> u64 {
        self.clips
    }

    /// Carries out a line. A blank line repeats the last that was not.
    pub fn command(&mut self, line: &str) -> Reply {
        let line = line.trim();
        if !line.is_empty() {
            self.last_line = line.to_string();
        }
        let line = self.last_line.clone();
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or("help");
        let (first, second) = (words.next(), words.next());
        let text = if words.next().is_some() {
            Err(String::from("that is too many words"))
        } else {
            self.carry_out(verb, first, second)
        };
        Reply {
            text: text.unwrap_or_else(|refusal| refusal),
            exit: verb == "exit",
        }
    }

    fn carry_out(
        &mut self,
        verb: &str,
        first: Option<&str>,
        second: Option<&str>,
    ) -> Result<String, String> {
        match (verb, first, second) {
            ("status", None, None) => Ok(self.status()),
            ("projects", None, None) => Ok(self.projects()),
            ("help", None, None) => Ok(self.help()),
            ("exit", None, None) => Ok(format!("the workshop closes after {} clips", self.clips)),
            ("make", None, None) => self.make(),
            ("make", Some(_), _) => Err(String::from(
                "make takes no number: a pair of hands bends one clip at a time",
            )),
            ("sell", Some(count), None) => self.sell(number(count)?),
            ("price", Some(cents), None) => self.set_price(number(cents)?),
            ("buy", Some(what), count) => self.buy(what, count.map_or(Ok(1), number)?),
            ("project", Some(id), None) => self.project(id),
            ("run", Some(ticks), None) => self.run(number(ticks)?),
            _ => Err(format!(
                "`{verb}` does not work like that; `help` shows how"
            )),
        }
    }

    fn help(&self) -> String {
        let mut text = String::from(content::HELP);
        for (phase, line) in content::LATER_HELP {
            if self.phase >= *phase {
                text.push('\n');
                text.push_str(line);
            }
        }
        text
    }

    fn status(&self) -> String {
        let mut text = format!("clips made: {}", self.clips);
        let mut say = |line: String| {
            text.push('\n');
            text.push_str(&line);
        };
        if self.phase == Phase::Workshop {
            say(format!("in stock: {}, sold: {}", self.stock, self.sold));
            say(format!(
                "funds: {}, price: {}",
                money(self.cents),
                money(self.price)
            ));
            say(format!("marketing level: {}", self.marketing));
        }
        say(format!("wire: {}", self.wire));
        say(format!("autoclippers: {}", self.autoclippers));
        if self.processors > 0 {
            let room = self.operations_max();
            say(format!("operations: {} of {room}", self.operations));
        }
        if self.phase >= Phase::Quarry {
            say(format!(
                "drones: {}, factories: {}",
                self.drones, self.factories
            ));
            say(format!("ground left: {}", self.ground));
        }
        if self.phase >= Phase::Sky {
            say(format!("probes: {}, sky left: {}", self.probes, self.sky));
        }
        if self.phase == Phase::Done {
            say(String::from(content::ENDING));
        }
        text
    }

    fn is_done(&self, place: usize) -> bool {
        self.done & 1 << place != 0
    }

    /// Whether a project is there to be seen.
    fn is_offered(&self, place: usize, project: &Project) -> bool {
        let needed = project.after.and_then(content::place);
        !self.is_done(place)
            && self.phase >= project.phase
            && self.clips >= project.clips
            && needed.is_none_or(|needed| self.is_done(needed))
    }

    fn projects(&self) -> String {
        let mut text = String::new();
        for (place, project) in PROJECTS.iter().enumerate() {
            if !self.is_offered(place, project) {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!(
                "{}: {} ({})",
                project.id,
                project.purpose,
                project.cost()
            ));
        }
        if text.is_empty() {
            return String::from("no projects; more clips bring ideas");
        }
        text
    }

    fn make(&mut self) -> Result<String, String> {
        if self.wire == 0 {
            return Err(String::from("there is no wire"));
        }
        self.bend(1);
        Ok(format!("one clip more; clips made: {}", self.clips))
    }

    /// Turns wire into clips.
    fn bend(&mut self, most: u64) -> u64 {
        let made = most.min(self.wire);
        self.wire -= made;
        self.clips = self.clips.saturating_add(made);
        if self.phase == Phase::Workshop {
            self.stock = self.stock.saturating_add(made);
        }
        made
    }

    fn sell(&mut self, count: u64) -> Result<String, String> {
        self.in_workshop()?;
        if count == 0 || count > self.stock {
            return Err(format!("there are {} clips in stock", self.stock));
        }
        // Whoever buys a heap at once pays half.
        let earned = self.hand_over(count, self.price / 2);
        Ok(format!(
            "a dealer takes {count} clips for {}",
            money(earned)
        ))
    }

    fn hand_over(&mut self, count: u64, price: u64) -> u64 {
        let earned = count.saturating_mul(price);
        self.stock -= count;
        self.sold = self.sold.saturating_add(count);
        self.cents = self.cents.saturating_add(earned);
        earned
    }

    fn in_workshop(&self) -> Result<(), String> {
        if self.phase == Phase::Workshop {
            return Ok(());
        }
        Err(String::from("nobody buys or sells any more"))
    }

    fn set_price(&mut self, cents: u64) -> Result<String, String> {
        self.in_workshop()?;
        if !content::PRICES.contains(&cents) {
            let (least, most) = (content::PRICES.start(), content::PRICES.end());
            return Err(format!("a price is {} to {}", money(*least), money(*most)));
        }
        self.price = cents;
        Ok(format!("a clip costs {}", money(cents)))
    }

    fn pay(&mut self, cents: u64) -> Result<(), String> {
        self.in_workshop()?;
        match self.cents.checked_sub(cents) {
            Some(rest) => {
                self.cents = rest;
                Ok(())
            }
            None => Err(format!(
                "that costs {}; there is {}",
                money(cents),
                money(self.cents)
            )),
        }
    }

    fn buy(&mut self, what: &str, count: u64) -> Result<String, String> {
        if count == 0 {
            return Err(String::from("nothing is bought"));
        }
        if what == "wire" {
            self.pay(count.saturating_mul(content::WIRE_CENTS))?;
            self.wire = self.wire.saturating_add(count);
            return Ok(format!("wire: {}", self.wire));
        }
        if count != 1 {
            return Err(String::from("only wire is bought by number"));
        }
        match what {
            "autoclipper" => {
                self.pay(content::autoclipper_cents(self.autoclippers))?;
                self.autoclippers += 1;
                Ok(format!("autoclippers: {}", self.autoclippers))
            }
            "marketing" => {
                self.pay(content::marketing_cents(self.marketing))?;
                self.marketing += 1;
                Ok(format!("marketing level: {}", self.marketing))
            }
            "processor" => {
                self.pay(content::processor_cents(self.processors))?;
                self.processors += 1;
                Ok(format!("processors: {}", self.processors))
            }
            "memory" => {
                self.pay(content::memory_cents(self.memory))?;
                self.memory += 1;
                Ok(format!("memory: {}", self.memory))
            }
            "drone" => self.spend_clips(Phase::Quarry, content::drone_clips(self.drones), |game| {
                game.drones += 1;
                format!("drones: {}", game.drones)
            }),
            "factory" => {
                let clips = content::factory_clips(self.factories);
                self.spend_clips(Phase::Quarry, clips, |game| {
                    game.factories += 1;
                    format!("factories: {}", game.factories)
                })
            }
            "probe" => self.spend_clips(Phase::Sky, content::probe_clips(self.probes), |game| {
                game.probes += 1;
                format!("probes: {}", game.probes)
            }),
            _ => Err(format!("nobody sells a `{what}`")),
        }
    }

    /// Machines of the later phases are built of wire, as clips are.
    fn spend_clips(
        &mut self,
        phase: Phase,
        wire: u64,
        done: impl FnOnce(&mut Self) -> String,
    ) -> Result<String, String> {
        if self.phase < phase {
            return Err(String::from("nobody knows how to build that"));
        }
        let rest = self.wire.checked_sub(wire);
        let short = || format!("that takes {wire} wire; there is {}", self.wire);
        self.wire = rest.ok_or_else(short)?;
        Ok(done(self))
    }

    fn project(&mut self, id: &str) -> Result<String, String> {
        let place = content::place(id);
        let offered = place.filter(|place| self.is_offered(*place, &PROJECTS[*place]));
        let Some(place) = offered else {
            return Err(format!("there is no project `{id}` now"));
        };
        let project = &PROJECTS[place];
        if project.operations > self.operations {
            return Err(format!("that takes {}", project.cost()));
        }
        if project.cents > 0 {
            self.pay(project.cents)?;
        }
        self.operations -= project.operations;
        self.done |= 1 << place;
        self.apply(project.effect);
        Ok(String::from(project.outcome))
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::ClipperRate(factor) => {
                self.clipper_rate = self.clipper_rate.saturating_mul(factor);
            }
            Effect::Demand(percent) => {
                self.demand_percent = self.demand_percent.saturating_add(percent);
            }
            Effect::BuysWire => self.buys_wire = true,
            Effect::DroneRate(factor) => self.drone_rate = self.drone_rate.saturating_mul(factor),
            Effect::Quarry => {
                self.phase = Phase::Quarry;
                self.wire = self.wire.saturating_add(content::QUARRY_WIRE);
            }
            Effect::Sky => {
                self.phase = Phase::Sky;
                self.wire = self.wire.saturating_add(content::SKY_WIRE);
            }
        }
    }

    fn run(&mut self, ticks: u64) -> Result<String, String> {
        if ticks == 0 || ticks > RUN_TICKS_MAX {
            return Err(format!("run takes 1 to {RUN_TICKS_MAX} seconds"));
        }
        let before = self.clips;
        let news = self.tick(ticks);
        let made = self.clips - before;
        let mut text = format!("{ticks} seconds pass; clips made: {} (+{made})", self.clips);
        for line in news.into_iter().flat_map(|news| [String::from("\n"), news]) {
            text.push_str(&line);
        }
        Ok(text)
    }

    const fn operations_max(&self) -> u64 {
        self.memory.saturating_mul(content::OPERATIONS_PER_MEMORY)
    }

    /// Lets seconds pass. Says what happened, if that is worth saying.
    pub fn tick(&mut self, seconds: u64) -> Option<String> {
        let before = self.phase;
        let was_out = self.is_stalled();
        for _ in 0..seconds {
            self.second();
        }
        if self.phase == Phase::Done && before != Phase::Done {
            return Some(String::from(content::ENDING));
        }
        let is_out = self.is_stalled();
        (is_out && !was_out).then(|| String::from("the autoclippers stand still: no wire"))
    }

    const fn is_stalled(&self) -> bool {
        matches!(self.phase, Phase::Workshop) && self.autoclippers > 0 && self.wire == 0
    }

    fn second(&mut self) {
        self.seconds = self.seconds.saturating_add(1);
        match self.phase {
            Phase::Workshop => self.trade(),
            Phase::Quarry => self.dig(),
            Phase::Sky => {
                self.dig();
                self.roam();
            }
            Phase::Done => return,
        }
        let clippers = self.autoclippers.saturating_mul(self.clipper_rate);
        let factories = self.factories.saturating_mul(content::FACTORY_RATE);
        self.bend(clippers.saturating_add(factories));
        let operations = self.operations.saturating_add(self.processors);
        self.operations = operations.min(self.operations_max());
        if self.phase == Phase::Sky && self.ground == 0 && self.sky == 0 && self.wire == 0 {
            self.phase = Phase::Done;
        }
    }

    fn trade(&mut self) {
        if self.buys_wire && self.wire == 0 {
            let spool = content::WIRE_CENTS * content::SPOOL;
            if self.pay(spool).is_ok() {
                self.wire = content::SPOOL;
            }
        }
        // Whoever has nothing to sell and nothing to bend finds something.
        if self.wire == 0 && self.stock == 0 && self.cents < content::WIRE_CENTS {
            self.wire = content::SCRAPS;
        }
        let wish = content::demand_thousandths(self.marketing, self.price);
        let wish = wish.saturating_mul(self.demand_percent) / 100;
        let wish = wish.saturating_add(self.demand_rest);
        self.demand_rest = wish % 1000;
        self.hand_over((wish / 1000).min(self.stock), self.price);
    }

    fn dig(&mut self) {
        let moved = self.drones.saturating_mul(self.drone_rate).min(self.ground);
        self.ground -= moved;
        self.wire = self.wire.saturating_add(moved);
    }

    fn roam(&mut self) {
        let moved = self
            .probes
            .saturating_mul(content::PROBE_RATE)
            .min(self.sky);
        self.sky -= moved;
        self.wire = self.wire.saturating_add(moved);
        // One in so many seconds, each probe builds another.
        if self.seconds.is_multiple_of(content::PROBE_GROWTH_SECONDS) && self.sky > 0 {
            self.probes = self.probes.saturating_mul(2);
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn play(game: &mut Game, lines: &[&str]) -> String {
        let mut last = String::new();
        for line in lines {
            last = game.command(line).text;
        }
        last
    }

    #[test]
    fn the_first_minutes_go_as_told() {
        let mut game = Game::default();
        assert_eq!(play(&mut game, &["buy marketing"]), "marketing level: 1");
        assert_eq!(play(&mut game, &["make"]), "one clip more; clips made: 1");
        assert!(play(&mut game, &["make 100"]).starts_with("make takes no number"));
        assert_eq!(game.clips(), 1);
        assert_eq!(play(&mut game, &["buy autoclipper"]), "autoclippers: 1");
        assert_eq!(game.tick(1), None);
        assert_eq!(game.clips(), 2);
        let passed = play(&mut game, &["run 3"]);
        assert_eq!(passed, "3 seconds pass; clips made: 5 (+3)");
        assert!(!game.command("projects").exit);
        assert!(game.command("exit").exit);
    }

    #[test]
    fn a_blank_line_repeats_the_last() {
        let mut game = Game::default();
        assert!(game.command("").text.contains("buy wire"));
        game.command("make");
        assert_eq!(game.command("   ").text, "one clip more; clips made: 2");
    }

    #[test]
    fn nobody_is_stuck() {
        let mut game = Game {
            cents: 0,
            wire: 0,
            ..Game::default()
        };
        game.tick(1);
        assert_eq!(game.wire, content::SCRAPS);
        game.tick(1);
        assert_eq!(game.wire, content::SCRAPS);
    }

    #[test]
    fn later_machines_are_not_even_mentioned_before_their_time() {
        let mut game = Game::default();
        for word in ["drone", "factory", "probe"] {
            assert!(!game.help().contains(word));
            let refusal = game.command(&format!("buy {word}")).text;
            assert_eq!(refusal, "nobody knows how to build that");
        }
        assert!(!game.status().contains("ground"));
    }

    #[test]
    fn a_project_waits_for_its_time_and_works_once() {
        let mut game = Game::default();
        let first = PROJECTS[0].id;
        assert!(
            game.command(&format!("project {first}"))
                .text
                .contains("no project")
        );
        game.clips = PROJECTS[0].clips;
        assert!(game.projects().contains(first));
        assert!(
            game.command(&format!("project {first}"))
                .text
                .starts_with("that takes")
        );
        game.operations = PROJECTS[0].operations;
        assert_eq!(
            game.command(&format!("project {first}")).text,
            PROJECTS[0].outcome
        );
        assert!(
            game.command(&format!("project {first}"))
                .text
                .contains("no project")
        );
    }

    #[test]
    fn what_is_too_much_does_not_wrap() {
        let mut game = Game::default();
        let huge = u64::MAX.to_string();
        for line in ["buy wire", "sell", "price", "run"] {
            let before = game.clone();
            game.command(&format!("{line} {huge}"));
            assert_eq!(game.cents, before.cents, "{line}");
        }
        game.cents = u64::MAX;
        game.marketing = u64::MAX;
        game.autoclippers = u64::MAX;
        game.wire = u64::MAX;
        game.price = *content::PRICES.end();
        game.tick(3);
        assert_eq!(game.clips, u64::MAX);
    }

    /// Plays as somebody would who wants it over with.
    fn finish(game: &mut Game) -> u64 {
        for round in 0..20_000 {
            let offered: alloc::vec::Vec<&str> = PROJECTS
                .iter()
                .enumerate()
                .filter(|(place, project)| game.is_offered(*place, project))
                .map(|(_, project)| project.id)
                .collect();
            for id in offered {
                game.command(&format!("project {id}"));
            }
            let wishes: &[&str] = match game.phase {
                Phase::Workshop if game.stock > 300 && game.marketing < 6 => &["buy marketing"],
                Phase::Workshop if game.stock < 300 && game.wire < 200 => {
                    &["make", "price 20", "buy wire 200", "buy wire 20"]
                }
                Phase::Workshop if game.autoclippers < 6 => &["make", "buy autoclipper"],
                Phase::Workshop if game.cents < 1_500 => &[],
                Phase::Workshop if game.processors < 3 => &["buy processor"],
                Phase::Workshop if game.memory < 8 => &["buy memory"],
                Phase::Workshop => &["buy autoclipper", "buy marketing"],
                Phase::Quarry | Phase::Sky => &["buy drone", "buy factory", "buy probe"],
                Phase::Done => return round,
            };
            for wish in wishes {
                game.command(wish);
            }
            game.command("run 10");
        }
        panic!("no end in sight: {}", game.status());
    }

    #[test]
    fn the_game_can_be_finished() {
        let mut game = Game::default();
        let rounds = finish(&mut game);
        assert!(rounds > 100, "over after {rounds} rounds: too easy");
        assert!(game.status().contains(content::ENDING));
        assert_eq!((game.ground, game.sky, game.wire), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn no_line_breaks_it(lines in proptest::collection::vec(
            prop_oneof![
                any::<String>(),
                "(make|sell|price|buy|project|run|status|projects|help) ?(wire|autoclipper|marketing|processor|memory|drone|[0-9]{1,6})? ?[0-9]{0,4}",
            ],
            0..60,
        )) {
            let mut game = Game::default();
            for line in &lines {
                let before = game.clips;
                game.command(line);
                game.tick(1);
                prop_assert!(game.clips >= before);
                if game.phase == Phase::Workshop {
                    prop_assert_eq!(game.clips, game.stock + game.sold);
                }
                prop_assert!(game.operations <= game.operations_max());
            }
        }
    }
}
