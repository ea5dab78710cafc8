//! Tokens of the command language.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::LineError;

/// Longest name of a capability or process, in bytes: what a CapSet entry has
/// room for.
pub const NAME_BYTES_MAX: usize = 32;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Letters, digits and `_ . - + / *`, also at the start of a number.
    Word(String),
    /// Between quotes, with its escapes replaced.
    Quoted(String),
    /// `@name`: a capability this shell holds.
    Capability(String),
    /// `$name`: a process this shell started.
    Process(String),
    /// `->`
    Arrow,
    /// One of `{ } [ ] ( ) , : =`.
    Mark(char),
}

impl Kind {
    /// The token as an error message names it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(_) => String::from("text in quotes"),
            Self::Capability(name) => format!("`@{name}`"),
            Self::Process(name) => format!("`${name}`"),
            Self::Arrow => String::from("`->`"),
            Self::Mark(mark) => format!("`{mark}`"),
        }
    }
}

/// A token and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Characters of the line before it.
    pub column: usize,
    /// What it is.
    pub kind: Kind,
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_.-+/*".contains(character)
}

struct Scanner {
    characters: Vec<char>,
    position: usize,
}

/// The tokens of a line.
///
/// # Errors
/// A character that means nothing, quotes without end, a name that is empty or
/// too long.
pub fn tokens(line: &str) -> Result<Vec<Token>, LineError> {
    let mut scanner = Scanner {
        characters: line.chars().collect(),
        position: 0,
    };
    let mut tokens = Vec::new();
    loop {
        scanner.take_while(char::is_whitespace);
        let column = scanner.position;
        let Some(first) = scanner.peek() else {
            return Ok(tokens);
        };
        let kind = scanner.token(first)?;
        tokens.push(Token { column, kind });
    }
}

impl Scanner {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.position += 1;
        Some(next)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(character) = self.peek().filter(|&character| wanted(character)) {
            taken.push(character);
            self.position += 1;
        }
        taken
    }

    fn token(&mut self, first: char) -> Result<Kind, LineError> {
        match first {
            '"' => self.quoted().map(Kind::Quoted),
            '@' => self.name("a capability").map(Kind::Capability),
            '$' => self.name("a process").map(Kind::Process),
            '{' | '}' | '[' | ']' | '(' | ')' | ',' | ':' | '=' => {
                self.position += 1;
                Ok(Kind::Mark(first))
            }
            '-' if self.characters.get(self.position + 1) == Some(&'>') => {
                self.position += 2;
                Ok(Kind::Arrow)
            }
            _ if is_word(first) => Ok(Kind::Word(self.word())),
            _ => {
                let reason = format!(
                    "`{}` means nothing here; put text in quotes",
                    first.escape_default()
                );
                Err(LineError::new(self.position, reason))
            }
        }
    }

    /// A word ends where an arrow starts: `a->$b` is three tokens.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(character) = self.peek().filter(|&character| is_word(character)) {
            let follows = self.characters.get(self.position + 1);
            if character == '-' && follows == Some(&'>') {
                break;
            }
            word.push(character);
            self.position += 1;
        }
        word
    }

    fn name(&mut self, of: &str) -> Result<String, LineError> {
        let column = self.position;
        self.position += 1;
        let name = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.word(),
        };
        if name.is_empty() {
            let reason = format!("the name of {of} is missing");
            return Err(LineError::new(column, reason));
        }
        if name.len() > NAME_BYTES_MAX {
            let reason = format!("names have at most {NAME_BYTES_MAX} bytes");
            return Err(LineError::new(column, reason));
        }
        Ok(name)
    }

    fn quoted(&mut self) -> Result<String, LineError> {
        let column = self.position;
        self.position += 1;
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(LineError::new(column, "these quotes have no end")),
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(character) => text.push(character),
            }
        }
    }

    fn escape(&mut self) -> Result<char, LineError> {
        let column = self.position - 1;
        match self.next() {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('0') => Ok('\0'),
            Some(same @ ('"' | '\\')) => Ok(same),
            _ => Err(LineError::new(
                column,
                "escapes are \\n \\r \\t \\0 \\\" \\\\",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(line: &str) -> Vec<Kind> {
        let tokens = tokens(line).expect("it is a line");
        tokens.into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn a_launch_is_cut_where_it_should_be() {
        use Kind::{Arrow, Capability, Mark, Process, Quoted, Word};
        let got = kinds(r#"spawn "chat-server" with {chat: client @chat}->$c"#);
        let want = [
            Word("spawn".into()),
            Quoted("chat-server".into()),
            Word("with".into()),
            Mark('{'),
            Word("chat".into()),
            Mark(':'),
            Word("client".into()),
            Capability("chat".into()),
            Mark('}'),
            Arrow,
            Process("c".into()),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn a_word_ends_at_an_arrow_and_keeps_other_dashes() {
        assert_eq!(
            kinds("a-b->$c -5"),
            [
                Kind::Word("a-b".into()),
                Kind::Arrow,
                Kind::Process("c".into()),
                Kind::Word("-5".into())
            ]
        );
    }

    #[test]
    fn errors_are_where_the_mistake_is() {
        for (line, column) in [
            ("call @", 5),
            (r#"run "open"#, 4),
            (r#"run "a\q""#, 6),
            ("über ~x", 0),
            ("a ; b", 2),
            ("inspect @aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 8),
        ] {
            let error = tokens(line).expect_err(line);
            assert_eq!(error.column, column, "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_much(line in any::<String>()) {
            let length = line.chars().count();
            match tokens(&line) {
                Ok(tokens) => {
                    let columns: Vec<usize> = tokens.iter().map(|token| token.column).collect();
                    prop_assert!(columns.is_sorted());
                    prop_assert!(columns.iter().all(|column| *column < length));
                }
                Err(error) => prop_assert!(error.column < length),
            }
        }

        #[test]
        fn quoting_gives_the_text_back(text in any::<String>()) {
            let mut line = String::from("\"");
            for character in text.chars() {
                match character {
                    '"' | '\\' => line.extend(['\\', character]),
                    _ => line.push(character),
                }
            }
            line.push('"');
            prop_assert_eq!(kinds(&line), [Kind::Quoted(text)]);
        }
    }
}
