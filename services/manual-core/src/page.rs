//! A page, and how one is written.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Where a page comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The published schema.
    Schema,
    /// Somebody wrote it.
    Prose,
}

/// The name of another page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its section.
    pub section: u8,
}

impl Reference {
    pub(crate) fn new(name: &str, section: u8) -> Self {
        let name = name.to_string();
        Self { name, section }
    }

    /// What `name(7)` stands for.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.trim().split_once('(')?;
        let section = rest.strip_suffix(')')?.parse().ok()?;
        (!name.is_empty()).then(|| Self::new(name, section))
    }
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name.
    pub name: String,
    /// Its section: 1 commands, 2 interfaces, 7 concepts, 8 operation.
    pub section: u8,
    /// What it is about, in a few words.
    pub title: String,
    /// Words it is found by.
    pub topics: Vec<String>,
    /// Its text, in sections.
    pub body: String,
    /// Pages it leads to.
    pub see_also: Vec<Reference>,
    /// What can be typed.
    pub examples: Vec<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A page that is not of the form expected: its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl Page {
    /// Reads a page as it is written in `docs/man`:
    ///
    /// ```text
    /// # name(7): what it is about
    ///
    /// topics: one, another
    ///
    /// ## DESCRIPTION
    ///
    /// ...
    ///
    /// ## SEE ALSO
    ///
    /// other(1), another(7)
    /// ```
    ///
    /// Indented lines below `## EXAMPLES` are its examples.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn parse(source: &str) -> Result<Self, Malformed> {
        let first = source.lines().next().unwrap_or_default();
        Self::read(source).ok_or_else(|| Malformed(first.to_string()))
    }

    fn read(source: &str) -> Option<Self> {
        let (head, rest) = source.split_once("\n\n")?;
        let (reference, title) = head.strip_prefix("# ")?.split_once(": ")?;
        let Reference { name, section } = Reference::parse(reference)?;
        let (topics, text) = rest.split_once("\n\n")?;
        let topics = topics.strip_prefix("topics: ")?.split(", ");
        let mut body = format!("NAME\n    {name} - {title}\n");
        let (mut see_also, mut examples) = (Vec::new(), Vec::new());
        let mut heading = "";
        for line in text.lines() {
            if let Some(next) = line.strip_prefix("## ") {
                heading = next;
                body.push_str(&format!("\n{next}\n"));
                continue;
            }
            if line.is_empty() {
                continue;
            }
            match heading {
                "" => return None,
                "SEE ALSO" => see_also.extend(
                    line.split(',')
                        .filter(|text| !text.trim().is_empty())
                        .map(Reference::parse)
                        .collect::<Option<Vec<_>>>()?,
                ),
                "EXAMPLES" => examples.extend(line.strip_prefix("    ").map(String::from)),
                _ => {}
            }
            body.push_str(&format!("    {line}\n"));
        }
        Some(Self {
            name,
            section,
            title: title.to_string(),
            topics: topics.map(String::from).collect(),
            body,
            see_also,
            examples,
            origin: Origin::Prose,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# grants(7): what a program gets\n\ntopics: programs, grants\n\n\
        ## DESCRIPTION\n\nWhat is named.\n\n## EXAMPLES\n\nLike this:\n\n    run \"a\"\n\n\
        ## SEE ALSO\n\nrun(1), intro(7)\n";

    #[test]
    fn a_page_is_read() {
        let page = Page::parse(PAGE).expect("a page");
        assert_eq!((&*page.name, page.section), ("grants", 7));
        assert_eq!(page.title, "what a program gets");
        assert_eq!(page.topics, ["programs", "grants"]);
        assert_eq!(page.examples, ["run \"a\""]);
        let to = [Reference::new("run", 1), Reference::new("intro", 7)];
        assert_eq!(page.see_also, to);
        assert_eq!(
            page.body,
            "NAME\n    grants - what a program gets\n\nDESCRIPTION\n    What is named.\n\n\
             EXAMPLES\n    Like this:\n        run \"a\"\n\nSEE ALSO\n    run(1), intro(7)\n"
        );
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (from, to) in [
            ("# grants", "grants"),
            ("(7):", "(seven):"),
            ("(7):", ":"),
            ("topics: ", "about: "),
            ("run(1)", "run"),
            ("## DESCRIPTION\n", ""),
        ] {
            let page = Page::parse(&PAGE.replacen(from, to, 1));
            assert!(page.is_err(), "{from} as {to}");
        }
        assert_eq!(Page::parse(""), Err(Malformed(String::new())));
    }
}
