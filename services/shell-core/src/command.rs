//! What a line means.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::LineError;
use crate::token::{self, Kind, Token};

/// How deep lists and structures may stand in each other.
const NESTING_MAX: usize = 8;
/// Most capabilities one program can be granted: what a spawn takes.
pub const GRANTS_MAX: usize = 64;

/// A capability or a process of this shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `@name`
    Capability(String),
    /// `$name`
    Process(String),
}

/// How a capability gets to a program that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantMode {
    /// `name: @cap`: as it is.
    Raw,
    /// `name: client @cap`: the calling side of an endpoint, as it is.
    Client,
}

/// One capability for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the program calls it.
    pub name: String,
    /// How it gets there.
    pub mode: GrantMode,
    /// Which of the shell's capabilities it is.
    pub source: String,
    /// Column of the source.
    pub column: usize,
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name among the programs of the system.
    pub binary: String,
    /// Exactly what it gets.
    pub grants: Vec<Grant>,
}

/// A value as typed. What it stands for depends on the type that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, `true`, `false`, or the name of an enumerant.
    Word(String),
    /// Text; also bytes, where bytes are wanted.
    Text(String),
    /// Bytes, from `hex "..."`.
    Bytes(Vec<u8>),
    /// The local number of a capability, for methods that take one.
    Capability(String),
    /// `[a, b]`
    List(Vec<Located>),
    /// `{name: value, ...}`
    Struct(Vec<Field>),
}

/// A value and its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Column of its first token.
    pub column: usize,
    /// The value.
    pub value: Value,
}

/// A named value and the column of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the field.
    pub name: String,
    /// Column of the name.
    pub column: usize,
    /// The value.
    pub value: Located,
}

/// What a method is given: values in order, then values by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// In the order the schema declares the parameters.
    pub positional: Vec<Located>,
    /// By name, after those.
    pub named: Vec<Field>,
}

/// A call by interface and method name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The capability to call.
    pub capability: String,
    /// Column of it.
    pub column: usize,
    /// `Interface` of `Interface.method`, for an endpoint that could speak any.
    pub interface: Option<String>,
    /// The method.
    pub method: String,
    /// Column of interface and method.
    pub method_column: usize,
    /// What it is given.
    pub arguments: Arguments,
}

/// A page of the manual, or a search in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manual {
    /// `man [section] page`; section 0 is the first that has such a page.
    Page {
        /// Name of the page.
        name: String,
        /// Section, or 0.
        section: u8,
    },
    /// `man -k word`
    Keyword(String),
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `help [command]`
    Help(Option<String>),
    /// `caps`
    Caps,
    /// `inspect @name|$name`
    Inspect(Target),
    /// `session`
    Session,
    /// `login [name]`
    Login(Option<String>),
    /// `setup`
    Setup,
    /// `logout`
    Logout,
    /// `run "program" [with {...}]`
    Run(Launch),
    /// `spawn "program" [with {...}] -> $name`
    Spawn(Launch, String),
    /// `wait $name`
    Wait(String),
    /// `stop $name`
    Stop(String),
    /// `release @name|$name`
    Release(Target),
    /// `call @name [Interface.]method values...`
    Call(Box<Call>),
    /// `typed-call @name number`
    TypedCall {
        /// The capability to call.
        capability: String,
        /// Number of the method.
        method: u16,
    },
    /// `ps`
    Ps,
    /// `motd`
    Motd,
    /// `man ...`
    Man(Manual),
    /// `history`
    History,
    /// `clear`
    Clear,
    /// `exit`
    Exit,
}

/// A command as `help` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The word it starts with.
    pub name: &'static str,
    /// How it is written.
    pub form: &'static str,
    /// What it does, in a line.
    pub purpose: &'static str,
    /// More about it; may be empty.
    pub details: &'static str,
}

/// All commands, in the order `help` shows them.
pub const COMMANDS: &[Usage] = &[
    usage("help", "help [command]", "what can be typed", ""),
    usage("caps", "caps", "the capabilities this shell holds", ""),
    usage(
        "inspect",
        "inspect @name | $name",
        "interface, origin and methods of a capability",
        "",
    ),
    usage(
        "session",
        "session",
        "whose session this is, and until when",
        "",
    ),
    usage(
        "login",
        "login [name]",
        "prove who you are; the bundle is exchanged in place",
        "The password is asked for without echo. What an earlier session had is released.",
    ),
    usage(
        "setup",
        "setup",
        "choose the console password of this boot, then log in",
        "Only where none is configured. It is kept in memory and gone after a reboot.",
    ),
    usage(
        "logout",
        "logout",
        "end the session; programs it started lose their capabilities",
        "",
    ),
    usage(
        "run",
        "run \"program\" with { name: @cap, name: client @cap }",
        "start a program and serve its terminal until it ends",
        "It gets exactly what is named. `client @cap` passes on the calling side of an \
         endpoint; its identity is kept and cannot be chosen.",
    ),
    usage(
        "spawn",
        "spawn \"program\" with { ... } -> $name",
        "start a program and go on",
        "",
    ),
    usage(
        "wait",
        "wait $name",
        "wait for a spawned program, serving its terminal",
        "",
    ),
    usage("stop", "stop $name", "end a spawned program", ""),
    usage(
        "release",
        "release @name | $name",
        "give up a capability or a process handle",
        "A process is released when it has ended: `wait` for it or `stop` it first.",
    ),
    usage(
        "call",
        "call @cap [Interface.]method value... name: value...",
        "call a method; `inspect @cap` lists them",
        "Values: 12, 0x1f, true, \"text\", hex \"00ff\", enumerant, [list], {field: value}, \
         @cap for the local number of a capability.",
    ),
    usage(
        "typed-call",
        "typed-call @cap number",
        "call a method by number, without parameters",
        "",
    ),
    usage("ps", "ps", "programs this shell started", ""),
    usage("motd", "motd", "the message of the day", ""),
    usage(
        "man",
        "man [section] page | man -k word",
        "a page of the manual, or pages about a word",
        "",
    ),
    usage("history", "history", "earlier lines", ""),
    usage("clear", "clear", "clear the screen", ""),
    usage("exit", "exit", "end this shell", ""),
];

const fn usage(
    name: &'static str,
    form: &'static str,
    purpose: &'static str,
    details: &'static str,
) -> Usage {
    Usage {
        name,
        form,
        purpose,
        details,
    }
}

/// What `help` says of a command, or of all; nothing if there is no such.
#[must_use]
pub fn help(command: Option<&str>) -> Option<String> {
    let Some(name) = command else {
        let width = COMMANDS.iter().map(|usage| usage.name.len()).max();
        let width = width.unwrap_or_default();
        let line = |usage: &Usage| format!("{:width$}  {}\n", usage.name, usage.purpose);
        let mut text: String = COMMANDS.iter().map(line).collect();
        text.push_str("`help command` shows how one is written.");
        return Some(text);
    };
    let usage = COMMANDS.iter().find(|usage| usage.name == name)?;
    let mut text = format!("{}\n    {}", usage.form, usage.purpose);
    if !usage.details.is_empty() {
        text.push_str("\n    ");
        text.push_str(usage.details);
    }
    Some(text)
}

/// The command of a line; none if the line is blank.
///
/// # Errors
/// The first thing in it that cannot be meant, with its column.
pub fn parse(line: &str) -> Result<Option<Command>, LineError> {
    let tokens = token::tokens(line)?;
    let end = line.trim_end().chars().count();
    let mut parser = Parser {
        tokens: &tokens,
        end,
    };
    let Some(first) = parser.next() else {
        return Ok(None);
    };
    let Kind::Word(name) = &first.kind else {
        let reason = format!(
            "a line starts with a command, not {}",
            first.kind.describe()
        );
        return Err(LineError::new(first.column, reason));
    };
    let command = parser.command(name, first.column)?;
    parser.finish()?;
    Ok(Some(command))
}

/// The command names that are close to `word`.
fn suggestion(word: &str) -> Option<&'static str> {
    let close = |name: &str| {
        let same_start = name.chars().zip(word.chars()).take_while(|(a, b)| a == b);
        let shared = same_start.count();
        shared >= 2 && name.len().abs_diff(word.len()) <= 2
    };
    let mut names = COMMANDS.iter().map(|usage| usage.name);
    names.find(|name| close(name))
}

struct Parser<'a> {
    tokens: &'a [Token],
    /// Column after the last token.
    end: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn peek(&self) -> Option<&'a Kind> {
        self.tokens.first().map(|token| &token.kind)
    }

    /// Column of what comes next.
    fn column(&self) -> usize {
        self.tokens.first().map_or(self.end, |token| token.column)
    }

    /// An error at what comes next, saying what should be there.
    fn wanted<T>(&self, what: &str) -> Result<T, LineError> {
        let found = self.peek().map_or_else(
            || String::from("the line ends"),
            |kind| format!("there is {}", kind.describe()),
        );
        let reason = format!("here should be {what}; {found}");
        Err(LineError::new(self.column(), reason))
    }

    fn finish(&self) -> Result<(), LineError> {
        match self.peek() {
            None => Ok(()),
            Some(kind) => {
                let reason = format!("the command is complete before {}", kind.describe());
                Err(LineError::new(self.column(), reason))
            }
        }
    }

    fn take_mark(&mut self, mark: char) -> bool {
        let is_it = self.peek() == Some(&Kind::Mark(mark));
        if is_it {
            self.next();
        }
        is_it
    }

    fn mark(&mut self, mark: char) -> Result<(), LineError> {
        if self.take_mark(mark) {
            return Ok(());
        }
        self.wanted(&format!("`{mark}`"))
    }

    fn word(&mut self, what: &str) -> Result<&'a str, LineError> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.next();
                Ok(word)
            }
            _ => self.wanted(what),
        }
    }

    fn optional_word(&mut self) -> Option<&'a str> {
        match self.peek() {
            Some(Kind::Word(word) | Kind::Quoted(word)) => {
                self.next();
                Some(word)
            }
            _ => None,
        }
    }

    fn capability(&mut self) -> Result<String, LineError> {
        match self.peek() {
            Some(Kind::Capability(name)) => {
                self.next();
                Ok(name.clone())
            }
            _ => self.wanted("a capability, as `@name`"),
        }
    }

    fn process(&mut self) -> Result<String, LineError> {
        match self.peek() {
            Some(Kind::Process(name)) => {
                self.next();
                Ok(name.clone())
            }
            _ => self.wanted("a process, as `$name`"),
        }
    }

    fn target(&mut self) -> Result<Target, LineError> {
        match self.peek() {
            Some(Kind::Capability(_)) => self.capability().map(Target::Capability),
            Some(Kind::Process(_)) => self.process().map(Target::Process),
            _ => self.wanted("`@name` or `$name`"),
        }
    }

    fn command(&mut self, name: &str, column: usize) -> Result<Command, LineError> {
        Ok(match name {
            "help" => Command::Help(self.optional_word().map(String::from)),
            "caps" => Command::Caps,
            "inspect" => Command::Inspect(self.target()?),
            "session" => Command::Session,
            "login" => Command::Login(self.optional_word().map(String::from)),
            "setup" => Command::Setup,
            "logout" => Command::Logout,
            "run" => Command::Run(self.launch()?),
            "spawn" => self.spawn()?,
            "wait" => Command::Wait(self.process()?),
            "stop" => Command::Stop(self.process()?),
            "release" => Command::Release(self.target()?),
            "call" => Command::Call(Box::new(self.call()?)),
            "typed-call" => self.typed_call()?,
            "ps" => Command::Ps,
            "motd" => Command::Motd,
            "man" => Command::Man(self.manual()?),
            "history" => Command::History,
            "clear" => Command::Clear,
            "exit" => Command::Exit,
            unknown => {
                let advice = suggestion(unknown).map_or_else(
                    || String::from("`help` lists them"),
                    |name| format!("did you mean `{name}`?"),
                );
                let reason = format!("there is no command `{unknown}`; {advice}");
                return Err(LineError::new(column, reason));
            }
        })
    }

    fn spawn(&mut self) -> Result<Command, LineError> {
        let launch = self.launch()?;
        match self.peek() {
            Some(Kind::Arrow) => self.next(),
            _ => return self.wanted("`-> $name`"),
        };
        Ok(Command::Spawn(launch, self.process()?))
    }

    fn launch(&mut self) -> Result<Launch, LineError> {
        let Some(binary) = self.optional_word() else {
            return self.wanted("the name of a program");
        };
        let grants = match self.peek() {
            Some(Kind::Word(word)) if word == "with" => {
                self.next();
                self.grants()?
            }
            _ => Vec::new(),
        };
        let binary = String::from(binary);
        Ok(Launch { binary, grants })
    }

    fn grants(&mut self) -> Result<Vec<Grant>, LineError> {
        self.mark('{')?;
        let mut grants: Vec<Grant> = Vec::new();
        while !self.take_mark('}') {
            let column = self.column();
            let grant = self.grant()?;
            if grants.iter().any(|other| other.name == grant.name) {
                let reason = format!("`{}` is granted twice", grant.name);
                return Err(LineError::new(column, reason));
            }
            if grants.len() == GRANTS_MAX {
                let reason = format!("a program takes at most {GRANTS_MAX} capabilities");
                return Err(LineError::new(column, reason));
            }
            grants.push(grant);
            if !self.take_mark(',') && self.peek() != Some(&Kind::Mark('}')) {
                return self.wanted("`,` or `}`");
            }
        }
        Ok(grants)
    }

    fn grant(&mut self) -> Result<Grant, LineError> {
        let column = self.column();
        let Some(name) = self.optional_word() else {
            return self.wanted("what the program calls the capability");
        };
        if name.is_empty() || name.len() > token::NAME_BYTES_MAX {
            let reason = format!("names have 1 to {} bytes", token::NAME_BYTES_MAX);
            return Err(LineError::new(column, reason));
        }
        self.mark(':')?;
        let mode = match self.peek() {
            Some(Kind::Word(word)) if word == "client" => {
                self.next();
                GrantMode::Client
            }
            _ => GrantMode::Raw,
        };
        let column = self.column();
        let source = self.capability()?;
        self.refuse_labels()?;
        Ok(Grant {
            name: name.to_string(),
            mode,
            source,
            column,
        })
    }

    /// A delegated capability keeps the identity its maker gave it. Whoever
    /// could choose another would speak for somebody else.
    fn refuse_labels(&self) -> Result<(), LineError> {
        let Some(Kind::Word(word)) = self.peek() else {
            return Ok(());
        };
        let label = match word.as_str() {
            "badge" | "cookie" => "badge",
            "interface" | "as" => "interface",
            _ => return Ok(()),
        };
        let reason = format!(
            "endpoint relabel rejected: a grant keeps the {label} of its source; leave `{word}` out"
        );
        Err(LineError::new(self.column(), reason))
    }

    fn call(&mut self) -> Result<Call, LineError> {
        let column = self.column();
        let capability = self.capability()?;
        let method_column = self.column();
        let word = self.word("a method")?;
        let (interface, method) = match word.split_once('.') {
            Some((interface, method)) => (Some(String::from(interface)), method),
            None => (None, word),
        };
        let method = String::from(method);
        Ok(Call {
            capability,
            column,
            interface,
            method,
            method_column,
            arguments: self.arguments()?,
        })
    }

    fn typed_call(&mut self) -> Result<Command, LineError> {
        let capability = self.capability()?;
        let column = self.column();
        let word = self.word("the number of a method")?;
        let method = unsigned(word).and_then(|number| u16::try_from(number).ok());
        let Some(method) = method else {
            let reason = format!("`{word}` is no method number; they are 0 to 65535");
            return Err(LineError::new(column, reason));
        };
        Ok(Command::TypedCall { capability, method })
    }

    fn manual(&mut self) -> Result<Manual, LineError> {
        let column = self.column();
        let Some(first) = self.optional_word() else {
            return self.wanted("the name of a page");
        };
        if first == "-k" {
            return match self.optional_word() {
                Some(word) => Ok(Manual::Keyword(String::from(word))),
                None => self.wanted("a word to look for"),
            };
        }
        let Some(name) = self.optional_word() else {
            let (name, section) = (String::from(first), 0);
            return Ok(Manual::Page { name, section });
        };
        match first.parse() {
            Ok(section @ 1..=9) => Ok(Manual::Page {
                name: String::from(name),
                section,
            }),
            _ => {
                let reason = format!("`{first}` is no section; they are 1 to 9");
                Err(LineError::new(column, reason))
            }
        }
    }

    fn arguments(&mut self) -> Result<Arguments, LineError> {
        let mut arguments = Arguments::default();
        while self.peek().is_some() {
            let names_one = matches!(
                self.tokens,
                [
                    Token {
                        kind: Kind::Word(_),
                        ..
                    },
                    Token {
                        kind: Kind::Mark(':' | '='),
                        ..
                    },
                    ..
                ]
            );
            if names_one {
                arguments.named.push(self.field(NESTING_MAX)?);
            } else if arguments.named.is_empty() {
                arguments.positional.push(self.value(NESTING_MAX)?);
            } else {
                return self.wanted("`name: value`, as before it");
            }
            self.take_mark(',');
        }
        Ok(arguments)
    }

    fn field(&mut self, depth: usize) -> Result<Field, LineError> {
        let column = self.column();
        let name = String::from(self.word("the name of a field")?);
        if !self.take_mark('=') {
            self.mark(':')?;
        }
        let value = self.value(depth)?;
        Ok(Field {
            name,
            column,
            value,
        })
    }

    fn value(&mut self, depth: usize) -> Result<Located, LineError> {
        let column = self.column();
        let Some(inner) = depth.checked_sub(1) else {
            return Err(LineError::new(column, "too deep"));
        };
        let value = match self.peek() {
            Some(Kind::Word(word)) if word == "hex" && self.is_before_quotes() => {
                self.next();
                self.bytes()?
            }
            Some(Kind::Word(word)) => {
                self.next();
                Value::Word(word.clone())
            }
            Some(Kind::Quoted(text)) => {
                self.next();
                Value::Text(text.clone())
            }
            Some(Kind::Capability(name)) => {
                self.next();
                Value::Capability(name.clone())
            }
            Some(Kind::Mark('[')) => {
                Value::List(self.list('[', ']', |parser| parser.value(inner))?)
            }
            Some(Kind::Mark('{')) => {
                Value::Struct(self.list('{', '}', |parser| parser.field(inner))?)
            }
            _ => return self.wanted("a value"),
        };
        Ok(Located { column, value })
    }

    fn is_before_quotes(&self) -> bool {
        let after = self.tokens.get(1).map(|token| &token.kind);
        matches!(after, Some(Kind::Quoted(_)))
    }

    fn bytes(&mut self) -> Result<Value, LineError> {
        let column = self.column();
        let digits = self.optional_word().unwrap_or_default();
        let nibbles: Option<Vec<u8>> = digits
            .chars()
            .filter(|character| *character != ' ')
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect();
        match nibbles {
            Some(nibbles) if nibbles.len().is_multiple_of(2) => {
                let pairs = nibbles.chunks_exact(2);
                Ok(Value::Bytes(
                    pairs.map(|pair| pair[0] << 4 | pair[1]).collect(),
                ))
            }
            _ => Err(LineError::new(
                column,
                "bytes are pairs of hexadecimal digits",
            )),
        }
    }

    fn list<T>(
        &mut self,
        open: char,
        close: char,
        element: impl Fn(&mut Self) -> Result<T, LineError>,
    ) -> Result<Vec<T>, LineError> {
        self.mark(open)?;
        let mut elements = Vec::new();
        while !self.take_mark(close) {
            elements.push(element(self)?);
            if !self.take_mark(',') && self.peek() != Some(&Kind::Mark(close)) {
                return self.wanted(&format!("`,` or `{close}`"));
            }
        }
        Ok(elements)
    }
}

/// A number as it may be typed: decimal, or hexadecimal after `0x`.
pub(crate) fn unsigned(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(line: &str) -> Command {
        parse(line).expect(line).expect("it is not blank")
    }

    fn refused(line: &str) -> LineError {
        parse(line).expect_err(line)
    }

    #[test]
    fn the_books_lines_mean_what_they_say() {
        let Command::Run(launch) =
            parsed(r#"run "chat-client" with { stdio: client @stdio, chat: client @chat }"#)
        else {
            panic!("it is a run");
        };
        assert_eq!(launch.binary, "chat-client");
        let grants: Vec<(&str, GrantMode, &str)> = launch
            .grants
            .iter()
            .map(|grant| (grant.name.as_str(), grant.mode, grant.source.as_str()))
            .collect();
        assert_eq!(
            grants,
            [
                ("stdio", GrantMode::Client, "stdio"),
                ("chat", GrantMode::Client, "chat")
            ]
        );
        let spawn =
            parsed(r#"spawn "chat-server" with { console: @console, chat: @chat } -> $chat"#);
        assert!(matches!(spawn, Command::Spawn(launch, name)
            if launch.grants[0].mode == GrantMode::Raw && name == "chat"));
        let timer = parsed(r#"run "paperclips" with { stdio: client @stdio, timer: @timer }"#);
        assert!(matches!(timer, Command::Run(_)));
    }

    #[test]
    fn relabelling_is_refused_where_it_stands() {
        for (line, column) in [
            (
                r#"run "chat-client" with { chat: client @chat badge 7 }"#,
                44,
            ),
            (
                r#"run "chat-client" with { chat: client @chat badge 0 }"#,
                44,
            ),
            (r#"spawn x with { chat: @chat interface 5 } -> $x"#, 27),
            (r#"run x with { chat: client @chat as StdIO }"#, 32),
        ] {
            let error = refused(line);
            assert_eq!(error.column, column, "{line}");
            assert!(error.reason.starts_with("endpoint relabel rejected"));
        }
    }

    #[test]
    fn every_listed_command_is_one() {
        for usage in COMMANDS {
            let outcome = parse(usage.name);
            let unknown = outcome.is_err_and(|error| error.reason.contains("no command"));
            assert!(!unknown, "{}", usage.name);
            let help = help(Some(usage.name)).expect("it has help");
            assert!(help.starts_with(usage.name), "{help}");
        }
        assert_eq!(help(Some("sudo")), None);
    }

    #[test]
    fn a_call_has_values_in_order_and_by_name() {
        let Command::Call(call) = parsed(r##"call @chat Chat.send "#lobby" text: "a, b: [c]""##)
        else {
            panic!("it is a call");
        };
        assert_eq!(call.interface.as_deref(), Some("Chat"));
        assert_eq!(call.method, "send");
        assert_eq!(call.arguments.positional.len(), 1);
        assert_eq!(call.arguments.named[0].name, "text");
        let Command::Call(call) =
            parsed(r#"call @x read {prompt: "p", n: [1, {a: 0x2}], d: hex "00 fF"}"#)
        else {
            panic!("it is a call");
        };
        let Value::Struct(fields) = &call.arguments.positional[0].value else {
            panic!("it is a structure");
        };
        assert_eq!(fields.len(), 3);
        assert_eq!(fields[2].value.value, Value::Bytes([0, 255].into()));
    }

    #[test]
    fn errors_point_at_the_first_thing_that_cannot_be_meant() {
        for (line, column, part) in [
            ("frobnicate", 0, "no command `frobnicate`"),
            ("inspec @a", 0, "did you mean `inspect`?"),
            ("@caps", 0, "starts with a command"),
            ("caps now", 5, "complete before `now`"),
            ("inspect", 7, "`@name` or `$name`; the line ends"),
            ("wait @chat", 5, "a process, as `$name`"),
            ("spawn x", 7, "`-> $name`"),
            ("spawn x -> @y", 11, "a process"),
            ("run x with { a @b }", 15, "here should be `:`"),
            ("run x with { a: @b c: @d }", 19, "`,` or `}`"),
            ("run x with { a: @b, a: @c }", 20, "granted twice"),
            ("run x with { a: @b", 18, "`,` or `}`; the line ends"),
            ("typed-call @launcher 70000", 21, "no method number"),
            ("typed-call @launcher many", 21, "no method number"),
            ("call @a b c: 1 2", 15, "`name: value`"),
            ("call @a b [[[[[[[[[1]]]]]]]]]", 18, "too deep"),
            ("call @a b hex \"abc\"", 14, "pairs"),
            ("man 12 console", 4, "no section"),
            ("man -k", 6, "a word"),
        ] {
            let error = refused(line);
            assert_eq!(error.column, column, "{line}: {error}");
            assert!(error.reason.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn the_caret_is_below_the_mistake() {
        let error = refused("caps now");
        assert_eq!(
            error.pointing(2),
            "       ^\nerror: the command is complete before `now`"
        );
    }

    /// Lines made of what lines are made of.
    fn likely_line() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(
            &[
                "run",
                "spawn",
                "call",
                "typed-call",
                "with",
                "client",
                "badge",
                "man",
                "-k",
                "->",
                "@a",
                "$b",
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "=",
                "\"x\"",
                "\"",
                "\\",
                "12",
                "0x1",
                "hex",
                "login",
                "wait",
                "inspect",
                "\u{0}",
                "\u{1b}[2J",
                "é",
                " ",
                "@",
                "$",
                "-",
            ][..],
        );
        proptest::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.join(" "))
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in any::<String>()) {
            if let Err(error) = parse(&line) {
                prop_assert!(error.column <= line.chars().count());
            }
        }

        #[test]
        fn no_likely_line_makes_it_panic(line in likely_line()) {
            if let Err(error) = parse(&line) {
                prop_assert!(error.column <= line.chars().count());
            }
        }

        #[test]
        fn no_launch_carries_a_label(line in likely_line()) {
            if let Ok(Some(Command::Run(launch) | Command::Spawn(launch, _))) = parse(&line) {
                prop_assert!(launch.grants.len() <= GRANTS_MAX);
                prop_assert!(!line.contains("badge") || launch.binary == "badge"
                    || launch.grants.iter().any(|grant| grant.name == "badge"));
            }
        }
    }
}
