//! The manual: its pages, and how they are found.
//!
//! Prose is in `docs/man`, one file for each page. A page for every command of
//! the shell and for every interface a shell knows is made from the tables the
//! shell works with, so that it cannot say anything else.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod page;
mod sources;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use sha2::{Digest, Sha256};
use shell_core::command::{COMMANDS as SHELL_COMMANDS, Usage};
use shell_core::interface::{INTERFACES, Interface};

pub use page::{Malformed, Origin, Page, Reference};

/// Longest name or word that is looked for, in bytes.
pub const QUERY_BYTES_MAX: usize = 64;
/// Section of the shell's commands.
const COMMANDS: u8 = 1;
/// Section of interfaces.
const INTERFACE_PAGES: u8 = 2;

/// All pages, by section and name.
#[derive(Debug)]
pub struct Corpus {
    pages: Vec<Page>,
    build: String,
}

impl Corpus {
    /// The manual of this system.
    ///
    /// # Errors
    /// A page of `docs/man` is not of the form that is expected.
    pub fn new() -> Result<Self, Malformed> {
        let prose = sources::SOURCES.iter().map(|source| Page::parse(source));
        let mut pages = prose.collect::<Result<Vec<_>, _>>()?;
        pages.extend(SHELL_COMMANDS.iter().map(command_page));
        pages.extend(INTERFACES.iter().map(interface_page));
        pages.sort_by(|a, b| (a.section, &a.name).cmp(&(b.section, &b.name)));
        let build = digest(&pages);
        Ok(Self { pages, build })
    }

    /// Names the text of all pages: their SHA-256 digest.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.build
    }

    /// The page with this name, of a section or of the first that has one.
    #[must_use]
    pub fn page(&self, name: &str, section: u8) -> Option<&Page> {
        let wanted = |page: &&Page| section == 0 || page.section == section;
        let mut pages = self.pages.iter().filter(wanted);
        pages.find(|page| is_same(&page.name, name))
    }

    /// Pages whose name, title or topics have `word` in them.
    pub fn about(&self, word: &str) -> impl Iterator<Item = &Page> {
        let word = word.to_lowercase();
        self.pages.iter().filter(move |page| {
            let has = |text: &String| !word.is_empty() && text.to_lowercase().contains(&word);
            has(&page.name) || has(&page.title) || page.topics.iter().any(has)
        })
    }

    /// The pages of a section.
    pub fn section(&self, section: u8) -> impl Iterator<Item = &Page> {
        self.pages
            .iter()
            .filter(move |page| page.section == section)
    }

    /// Topics, and the pages of each.
    #[must_use]
    pub fn topics(&self) -> BTreeMap<&str, Vec<&Page>> {
        let mut topics: BTreeMap<&str, Vec<&Page>> = BTreeMap::new();
        for page in &self.pages {
            for topic in &page.topics {
                topics.entry(topic).or_default().push(page);
            }
        }
        topics
    }

    /// The page of an interface.
    #[must_use]
    pub fn interface(&self, id: u64) -> Option<&Page> {
        let interface = INTERFACES.iter().find(|interface| interface.id == id)?;
        self.page(&page_name(interface.name), INTERFACE_PAGES)
    }
}

/// Whether two names are one: `TerminalSession` is `terminal-session`.
fn is_same(name: &str, asked: &str) -> bool {
    let letters = |text: &str| -> String {
        let kept = text.chars().filter(|c| !matches!(c, '-' | '_'));
        kept.flat_map(char::to_lowercase).collect()
    };
    letters(name) == letters(asked)
}

/// How the page of an interface is called: `TerminalSession` is
/// `terminal-session`.
fn page_name(interface: &str) -> String {
    let mut name = String::new();
    let mut was_lower = false;
    for character in interface.chars() {
        if character.is_uppercase() && was_lower {
            name.push('-');
        }
        was_lower = character.is_lowercase();
        name.extend(character.to_lowercase());
    }
    name
}

fn command_page(command: &Usage) -> Page {
    let (name, title) = (command.name, command.purpose);
    let mut body = format!(
        "NAME\n    {name} - {title}\n\nSYNOPSIS\n    {}\n",
        command.form
    );
    if !command.details.is_empty() {
        body.push_str("\nDESCRIPTION\n    ");
        body.push_str(command.details);
        body.push('\n');
    }
    Page {
        name: name.to_string(),
        section: COMMANDS,
        title: title.to_string(),
        topics: Vec::from([String::from("shell")]),
        body,
        see_also: Vec::from([Reference::new("shell", COMMANDS)]),
        examples: Vec::new(),
        origin: Origin::Prose,
    }
}

fn interface_page(interface: &Interface) -> Page {
    let name = page_name(interface.name);
    let title = format!("the interface {}", interface.name);
    let mut body = format!(
        "NAME\n    {name} - {title}\n\nSYNOPSIS\n    interface {:#018x}\n",
        interface.id
    );
    for (number, method) in interface.methods.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(body, "    {number}  {}", method.signature());
    }
    Page {
        name,
        section: INTERFACE_PAGES,
        title,
        topics: Vec::from([String::from("interfaces")]),
        body,
        see_also: Vec::from([Reference::new("capabilities", 7)]),
        examples: Vec::new(),
        origin: Origin::Schema,
    }
}

fn digest(pages: &[Page]) -> String {
    let mut hash = Sha256::new();
    for page in pages {
        hash.update(page.name.as_bytes());
        hash.update([0, page.section]);
        hash.update(page.body.as_bytes());
    }
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn corpus() -> Corpus {
        Corpus::new().expect("every page is of the right form")
    }

    #[test]
    fn every_file_is_a_page_under_its_name() {
        let corpus = corpus();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man");
        let mut files = 0;
        for file in fs::read_dir(directory).expect("docs/man") {
            let path = file.expect("a file").path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let (name, section) = name.and_then(|name| name.rsplit_once('.')).expect("a.7.md");
            let section = section.parse().expect("a section");
            let page = corpus.page(name, section);
            assert_eq!(page.map(|page| &*page.name), Some(name), "{path:?}");
            files += 1;
        }
        assert_eq!(files, sources::SOURCES.len());
    }

    #[test]
    fn references_lead_somewhere() {
        let corpus = corpus();
        for page in &corpus.pages {
            for to in &page.see_also {
                let target = corpus.page(&to.name, to.section);
                assert!(
                    target.is_some(),
                    "{}: {}({})",
                    page.name,
                    to.name,
                    to.section
                );
            }
        }
    }

    #[test]
    fn no_two_pages_have_one_name() {
        let corpus = corpus();
        for (place, page) in corpus.pages.iter().enumerate() {
            for other in &corpus.pages[..place] {
                let is_twin = page.section == other.section && is_same(&page.name, &other.name);
                assert!(!is_twin, "{}({})", page.name, page.section);
            }
        }
    }

    #[test]
    fn a_page_is_found_by_section_and_by_any_spelling() {
        let corpus = corpus();
        let found = |name, section| corpus.page(name, section).map(|page| page.section);
        assert_eq!(found("console", 0), Some(2));
        assert_eq!(found("TerminalSession", 2), Some(2));
        assert_eq!(found("terminal_session", 0), Some(2));
        assert_eq!(found("run", 0), Some(1));
        assert_eq!(found("run", 2), None);
        assert_eq!(found("", 0), None);
        let console = corpus.interface(0x913a_e022_0246_3262).expect("Console");
        assert!(console.body.contains("0  write(data: Data) -> ()"));
        assert!(corpus.interface(7).is_none());
    }

    #[test]
    fn a_word_is_looked_for_outside_of_bodies() {
        let corpus = corpus();
        let names = |word: &str| -> Vec<String> {
            corpus.about(word).map(|page| page.name.clone()).collect()
        };
        assert!(names("TERMINAL").contains(&String::from("terminal-session")));
        assert_eq!(names("").len(), 0);
        assert_eq!(names("no such word").len(), 0);
        assert!(corpus.topics()["interfaces"].len() > 10);
        assert_eq!(corpus.section(9).count(), 0);
    }

    #[test]
    fn every_page_is_shown_on_a_terminal() {
        for page in &corpus().pages {
            // Results of 24 KiB are what clients have room for.
            assert!(page.body.len() < 4096, "{}", page.name);
            for line in page.body.lines().filter(|_| page.section > INTERFACE_PAGES) {
                assert!(line.chars().count() < 90, "{}: {line}", page.name);
            }
        }
    }
}
