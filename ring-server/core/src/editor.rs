//! A line of terminal input under way: editing, echo, and how it ends.
//!
//! Bytes go in one at a time, echo comes out through a closure; nothing here
//! knows where either is connected. The line is UTF-8 whatever is typed: bytes
//! that form no character are dropped. Control sequences are understood or
//! swallowed, never kept and never echoed.
//!
//! Keys of a visible line: Left, Right, Home, End, Delete, Backspace, Up and
//! Down (history), ^A ^B ^E ^F (as Home, Left, End, Right), ^K and ^U (delete to
//! the end, to the start), ^W (a word), ^L (clear the screen). A hidden line
//! knows Backspace and ^U alone, and echoes nothing. ^C cancels, ^D on an empty
//! line closes, in both.
//!
//! The cursor is moved with backspaces, so a line that is longer than the screen
//! is wide is redrawn in its last row only.
//!
//! # Invariants
//! - **Z1** `cursor <= len <= max <= LINE_BYTES_MAX`, and `line[..len]` is
//!   UTF-8 with `cursor` at a character boundary.
//! - **Z2** Nothing of a line is left in memory after [`LineEditor::clear`].

use alloc::boxed::Box;
use alloc::vec;

/// Longest line in bytes.
pub const LINE_BYTES_MAX: usize = 256;
/// Most lines of history of one read.
pub const HISTORY_LINES_MAX: usize = 64;
/// Most bytes of history of one read; older lines than fit are left out.
pub const HISTORY_BYTES_MAX: usize = 4096;

const CANCEL: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BELL: u8 = 0x07;
const BACKSPACE: u8 = 0x08;
const LINE_FEED: u8 = b'\n';
const CARRIAGE_RETURN: u8 = b'\r';
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

const fn control(letter: u8) -> u8 {
    letter & 0x1f
}

/// Whether a line is shown while it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEcho {
    /// Characters are echoed.
    Visible,
    /// Nothing is: for secrets.
    Hidden,
}

/// What a byte did to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// It goes on.
    Pending,
    /// It is complete: [`LineEditor::line`].
    Submitted,
    /// An empty line came where none is wanted: the prompt is due again.
    Reprompt,
    /// The screen was cleared: prompt and [`LineEditor::redraw`] are due.
    Redraw,
    /// It was given up.
    Cancelled,
    /// Input ends here.
    Closed,
}

/// Where in a control sequence the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    None,
    /// After ESC.
    Started,
    /// After ESC `[`; the first parameter, as far as it is one digit.
    Control(u8),
    /// After ESC `O`.
    Single,
}

/// Lines to recall, newest last.
#[derive(Clone, Debug)]
pub struct History {
    bytes: Box<[u8]>,
    ends: [u16; HISTORY_LINES_MAX],
    count: usize,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// No lines. Takes the storage for all there can be.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HISTORY_BYTES_MAX].into_boxed_slice(),
            ends: [0; HISTORY_LINES_MAX],
            count: 0,
        }
    }

    /// Forgets all lines.
    pub fn clear(&mut self) {
        let used = self.used();
        self.bytes[..used].fill(0);
        self.count = 0;
    }

    /// Adds a newer line, if it can be a line and there is room.
    pub fn push(&mut self, line: &str) -> bool {
        let (start, end) = (self.used(), self.used() + line.len());
        let fits = self.count < HISTORY_LINES_MAX && end <= HISTORY_BYTES_MAX;
        let is_line = line.len() <= LINE_BYTES_MAX && !line.chars().any(char::is_control);
        if !fits || !is_line {
            return false;
        }
        self.bytes[start..end].copy_from_slice(line.as_bytes());
        self.ends[self.count] = end as u16;
        self.count += 1;
        true
    }

    fn used(&self) -> usize {
        self.count
            .checked_sub(1)
            .map_or(0, |last| self.ends[last].into())
    }

    /// The line `back` steps ago; 1 is the newest.
    fn get(&self, back: usize) -> Option<&[u8]> {
        let index = self.count.checked_sub(back)?;
        let end = *self.ends[..self.count].get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start.into()..end.into())
    }
}

/// A line under way.
#[derive(Clone, Debug)]
pub struct LineEditor {
    line: [u8; LINE_BYTES_MAX],
    len: usize,
    cursor: usize,
    max: usize,
    echo: LineEcho,
    allow_empty: bool,
    sequence: Sequence,
    /// Bytes of a character that is not complete.
    partial: [u8; 4],
    partial_len: usize,
    /// The line before this one ended with CR: an LF belongs to it.
    after_return: bool,
    /// Steps back in history; 0 is the line itself.
    recalled: usize,
    /// The line itself while history is shown.
    draft: [u8; LINE_BYTES_MAX],
    draft_len: usize,
}

impl LineEditor {
    /// A line that nobody reads.
    pub const IDLE: Self = Self {
        line: [0; LINE_BYTES_MAX],
        len: 0,
        cursor: 0,
        max: 0,
        echo: LineEcho::Hidden,
        allow_empty: false,
        sequence: Sequence::None,
        partial: [0; 4],
        partial_len: 0,
        after_return: false,
        recalled: 0,
        draft: [0; LINE_BYTES_MAX],
        draft_len: 0,
    };

    /// Starts another line of at most `max` bytes (and [`LINE_BYTES_MAX`]).
    pub fn begin(&mut self, echo: LineEcho, allow_empty: bool, max: usize) {
        self.clear();
        self.max = max.min(LINE_BYTES_MAX);
        self.echo = echo;
        self.allow_empty = allow_empty;
    }

    /// Forgets the line; what was read of a sequence or line end stays known.
    pub fn clear(&mut self) {
        self.line.fill(0);
        self.draft.fill(0);
        self.partial.fill(0);
        (self.len, self.cursor, self.draft_len) = (0, 0, 0);
        (self.partial_len, self.recalled) = (0, 0);
    }

    /// The line as it is.
    pub fn line(&self) -> &[u8] {
        &self.line[..self.len]
    }

    /// Takes in a byte; `emit` gets what is to be shown.
    pub fn step(&mut self, byte: u8, history: &History, mut emit: impl FnMut(&[u8])) -> LineEvent {
        let after_return = core::mem::take(&mut self.after_return);
        if self.sequence != Sequence::None {
            if byte >= b' ' || byte == ESCAPE {
                self.step_sequence(byte, history, &mut emit);
                return LineEvent::Pending;
            }
            // Return and the like end a sequence, and mean what they always do.
            self.sequence = Sequence::None;
        }
        if byte >= 0x80 {
            self.step_partial(byte, &mut emit);
            return LineEvent::Pending;
        }
        self.partial_len = 0;
        match byte {
            CARRIAGE_RETURN => {
                self.after_return = true;
                self.end_line(&mut emit)
            }
            LINE_FEED if after_return => LineEvent::Pending,
            LINE_FEED => self.end_line(&mut emit),
            CANCEL => {
                self.clear();
                emit(b"^C\r\n");
                LineEvent::Cancelled
            }
            END_OF_INPUT if self.len == 0 => {
                emit(b"\r\n");
                LineEvent::Closed
            }
            ESCAPE => {
                self.sequence = Sequence::Started;
                LineEvent::Pending
            }
            BACKSPACE | DELETE => {
                self.delete_before(self.previous(self.cursor), &mut emit);
                LineEvent::Pending
            }
            byte if byte == control(b'U') => {
                self.delete_before(0, &mut emit);
                LineEvent::Pending
            }
            0x20..DELETE => {
                self.insert(&[byte], &mut emit);
                LineEvent::Pending
            }
            _ if self.echo == LineEcho::Hidden => LineEvent::Pending,
            byte => self.step_control(byte, &mut emit),
        }
    }

    /// Shows the line again, after a prompt.
    pub fn redraw(&self, mut emit: impl FnMut(&[u8])) {
        if self.echo == LineEcho::Visible {
            emit(self.line());
            self.back(self.cursor, self.len, &mut emit);
        }
    }

    fn end_line(&mut self, emit: &mut impl FnMut(&[u8])) -> LineEvent {
        emit(b"\r\n");
        if self.len == 0 && !self.allow_empty {
            return LineEvent::Reprompt;
        }
        LineEvent::Submitted
    }

    /// Control characters that edit a visible line.
    fn step_control(&mut self, byte: u8, emit: &mut impl FnMut(&[u8])) -> LineEvent {
        const HOME: u8 = control(b'A');
        const LEFT: u8 = control(b'B');
        const END: u8 = control(b'E');
        const RIGHT: u8 = control(b'F');
        const KILL: u8 = control(b'K');
        const CLEAR: u8 = control(b'L');
        const WORD: u8 = control(b'W');
        match byte {
            HOME => self.move_to(0, emit),
            LEFT => self.move_to(self.previous(self.cursor), emit),
            END => self.move_to(self.len, emit),
            RIGHT => self.move_to(self.next(self.cursor), emit),
            KILL => self.delete(self.cursor, self.len, emit),
            WORD => self.delete_before(self.word_start(), emit),
            CLEAR => {
                emit(b"\x1b[H\x1b[2J");
                return LineEvent::Redraw;
            }
            _ => {}
        }
        LineEvent::Pending
    }

    fn step_sequence(&mut self, byte: u8, history: &History, emit: &mut impl FnMut(&[u8])) {
        self.sequence = match (self.sequence, byte) {
            (_, ESCAPE) => Sequence::Started,
            (Sequence::Started, b'[') => Sequence::Control(0),
            (Sequence::Started, b'O') => Sequence::Single,
            // Parameters and intermediate bytes; one digit matters.
            (Sequence::Control(0), b'1'..=b'9') => Sequence::Control(byte),
            (Sequence::Control(_), 0x20..=0x3f) => Sequence::Control(u8::MAX),
            (Sequence::Control(parameter), 0x40..=0x7e) => {
                self.key(parameter, byte, history, emit);
                Sequence::None
            }
            (Sequence::Single, 0x40..=0x7e) => {
                self.key(0, byte, history, emit);
                Sequence::None
            }
            _ => Sequence::None,
        };
    }

    /// A key that came as a control sequence.
    fn key(&mut self, parameter: u8, last: u8, history: &History, emit: &mut impl FnMut(&[u8])) {
        // `ESC [ 3 ~` parses its digit, then `~` ends it.
        if self.echo == LineEcho::Hidden {
            return;
        }
        match (parameter, last) {
            (0, b'A') => self.recall(self.recalled + 1, history, emit),
            (0, b'B') => {
                if let Some(step) = self.recalled.checked_sub(1) {
                    self.recall(step, history, emit);
                }
            }
            (0, b'C') => self.move_to(self.next(self.cursor), emit),
            (0, b'D') => self.move_to(self.previous(self.cursor), emit),
            (0, b'H') | (b'1' | b'7', b'~') => self.move_to(0, emit),
            (0, b'F') | (b'4' | b'8', b'~') => self.move_to(self.len, emit),
            (b'3', b'~') => self.delete(self.cursor, self.next(self.cursor), emit),
            _ => {}
        }
    }

    /// Replaces the line by one of history, or by itself.
    fn recall(&mut self, step: usize, history: &History, emit: &mut impl FnMut(&[u8])) {
        let wanted = match step {
            0 => Some(&self.draft[..self.draft_len]),
            step => history.get(step),
        };
        let Some(wanted) = wanted.filter(|line| line.len() <= self.max) else {
            emit(&[BELL]);
            return;
        };
        let mut line = [0; LINE_BYTES_MAX];
        let len = wanted.len();
        line[..len].copy_from_slice(wanted);
        if self.recalled == 0 {
            self.draft = self.line;
            self.draft_len = self.len;
        }
        self.move_to(0, emit);
        let before = columns(self.line());
        (self.line, self.len, self.cursor) = (line, len, len);
        self.recalled = step;
        emit(self.line());
        let excess = before.saturating_sub(columns(self.line()));
        repeat(b' ', excess, emit);
        repeat(BACKSPACE, excess, emit);
    }

    /// A byte of a character beyond ASCII.
    fn step_partial(&mut self, byte: u8, emit: &mut impl FnMut(&[u8])) {
        if byte & 0xc0 != 0x80 {
            self.partial_len = 0;
        }
        self.partial[self.partial_len] = byte;
        self.partial_len += 1;
        let character = self.partial;
        let bytes = &character[..self.partial_len];
        match core::str::from_utf8(bytes) {
            Ok(text) => {
                let printable = !text.chars().any(char::is_control);
                self.partial_len = 0;
                if printable {
                    self.insert(bytes, emit);
                }
            }
            // More bytes may complete it, unless it is wrong already.
            Err(error) if error.error_len().is_some() => self.partial_len = 0,
            Err(_) => {}
        }
    }

    /// Inserts one character at the cursor.
    fn insert(&mut self, character: &[u8], emit: &mut impl FnMut(&[u8])) {
        if self.len + character.len() > self.max {
            self.show(&[BELL], emit);
            return;
        }
        let end = self.cursor + character.len();
        self.line.copy_within(self.cursor..self.len, end);
        self.line[self.cursor..end].copy_from_slice(character);
        self.len += character.len();
        self.show(&self.line[self.cursor..self.len], emit);
        self.cursor = end;
        self.back(end, self.len, emit);
    }

    /// Deletes from `start` to the cursor.
    fn delete_before(&mut self, start: usize, emit: &mut impl FnMut(&[u8])) {
        let end = self.cursor;
        self.move_to(start, emit);
        self.delete(start, end, emit);
    }

    /// Deletes a range that begins at the cursor.
    fn delete(&mut self, start: usize, end: usize, emit: &mut impl FnMut(&[u8])) {
        if start == end {
            return;
        }
        let gone = columns(&self.line[start..end]);
        self.line.copy_within(end..self.len, start);
        let len = self.len - (end - start);
        self.line[len..self.len].fill(0);
        self.len = len;
        self.show(&self.line[start..len], emit);
        if self.echo == LineEcho::Visible {
            repeat(b' ', gone, emit);
            repeat(BACKSPACE, gone, emit);
        }
        self.back(start, len, emit);
    }

    fn move_to(&mut self, to: usize, emit: &mut impl FnMut(&[u8])) {
        if to < self.cursor {
            self.back(to, self.cursor, emit);
        } else {
            self.show(&self.line[self.cursor..to], emit);
        }
        self.cursor = to;
    }

    /// Moves the terminal's cursor back over a range of the line.
    fn back(&self, from: usize, to: usize, emit: &mut impl FnMut(&[u8])) {
        if self.echo == LineEcho::Visible {
            repeat(BACKSPACE, columns(&self.line[from..to]), emit);
        }
    }

    fn show(&self, bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        if self.echo == LineEcho::Visible && !bytes.is_empty() {
            emit(bytes);
        }
    }

    /// Start of the character before `at`.
    fn previous(&self, at: usize) -> usize {
        let before = self.line[..at].iter().rposition(|&byte| starts(byte));
        before.unwrap_or(0)
    }

    /// Start of the character after the one at `at`.
    fn next(&self, at: usize) -> usize {
        let rest = self.line[at..self.len].iter().skip(1);
        let inside = rest.take_while(|&&byte| !starts(byte)).count();
        (at + 1 + inside).min(self.len)
    }

    /// Start of the word before the cursor.
    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let spaces = before.iter().rev().take_while(|&&byte| byte == b' ');
        let end = self.cursor - spaces.count();
        let word = before[..end].iter().rev().take_while(|&&byte| byte != b' ');
        end - word.count()
    }
}

/// Whether a byte is the first of a character.
const fn starts(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Columns that text takes on the screen, each character counted as one.
fn columns(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| starts(byte)).count()
}

fn repeat(byte: u8, mut count: usize, emit: &mut impl FnMut(&[u8])) {
    let run = [byte; 32];
    while count > 0 {
        let part = count.min(run.len());
        emit(&run[..part]);
        count -= part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    /// A terminal of one row: what an echo makes visible.
    #[derive(Default)]
    struct Row {
        cells: Vec<char>,
        cursor: usize,
        raw: Vec<u8>,
    }

    impl Row {
        fn take(&mut self, bytes: &[u8]) {
            self.raw.extend_from_slice(bytes);
            for character in String::from_utf8_lossy(bytes).chars() {
                match character {
                    '\u{8}' => self.cursor = self.cursor.checked_sub(1).expect("not off the row"),
                    '\u{7}' | '\r' | '\n' => {}
                    shown => {
                        if self.cursor == self.cells.len() {
                            self.cells.push(' ');
                        }
                        self.cells[self.cursor] = shown;
                        self.cursor += 1;
                    }
                }
            }
        }

        fn text(&self) -> String {
            let text: String = self.cells.iter().collect();
            text.trim_end().into()
        }
    }

    /// What typing `keys` into a fresh line leaves: line, event, screen.
    fn typed(echo: LineEcho, history: &History, keys: &[u8]) -> (LineEditor, LineEvent, Row) {
        let mut editor = LineEditor::IDLE;
        editor.begin(echo, true, 16);
        let (mut row, mut event) = (Row::default(), LineEvent::Pending);
        for &key in keys {
            event = editor.step(key, history, |bytes| row.take(bytes));
        }
        (editor, event, row)
    }

    fn visible(keys: &[u8]) -> String {
        let (editor, _, row) = typed(LineEcho::Visible, &History::new(), keys);
        let line = core::str::from_utf8(editor.line()).expect("Z1: UTF-8");
        assert_eq!(row.text(), line.trim_end(), "the screen shows the line");
        assert_eq!(row.cursor, columns(&editor.line[..editor.cursor]), "cursor");
        line.into()
    }

    #[test]
    fn keys_edit_a_visible_line_and_the_screen_shows_it() {
        assert_eq!(visible(b"hello"), "hello");
        assert_eq!(visible(b"helo\x1b[Dl"), "hello");
        assert_eq!(visible(b"ello\x01h"), "hello");
        assert_eq!(visible(b"ello\x1b[1~h\x1b[4~!"), "hello!");
        assert_eq!(visible(b"xhello\x1b[H\x1b[3~"), "hello");
        assert_eq!(visible(b"hello wrld\x17"), "hello ");
        assert_eq!(visible(b"hello\x15"), "");
        assert_eq!(visible(b"hello\x1bOD\x1bOD\x0b"), "hel");
        assert_eq!(visible(b"hellox\x7f"), "hello");
        assert_eq!(visible(b"\x7f\x7f"), "");
        assert_eq!(visible(b"\x02\x06\x1b[C"), "");
    }

    /// Z1: the line stays UTF-8, and the cursor between characters.
    #[test]
    fn characters_beyond_ascii_move_and_vanish_whole() {
        assert_eq!(visible("grüße".as_bytes()), "grüße");
        assert_eq!(visible("grüße\x7f\x7f".as_bytes()), "grü");
        assert_eq!(visible("üa\x1b[D\x1b[Db".as_bytes()), "büa");
        assert_eq!(visible(b"a\xff\xfe\x80b\xc3c"), "abc");
        assert_eq!(visible(b"\xe2\x82"), "");
    }

    #[test]
    fn sequences_that_mean_nothing_leave_nothing() {
        assert_eq!(
            visible(b"a\x1b[?2004hb\x1b[12;5Rc\x1bxd\x1b\x1b[Ce"),
            "abcde"
        );
        assert_eq!(visible(b"\x1b[31mred\x1b[0m"), "red");
    }

    #[test]
    fn a_sequence_that_was_begun_keeps_no_control_character() {
        let event = |keys: &[u8]| typed(LineEcho::Visible, &History::new(), keys).1;
        assert_eq!(event(b"a\x1b\r"), LineEvent::Submitted);
        assert_eq!(event(b"a\x1b[\x03"), LineEvent::Cancelled);
        assert_eq!(event(b"\x1b[12;\x04"), LineEvent::Closed);
        assert_eq!(event(b"\x1bO\n"), LineEvent::Submitted);
        assert_eq!(visible(b"ab\x1b[\x7fc"), "abc");
    }

    #[test]
    fn a_full_line_takes_no_more() {
        assert_eq!(visible(b"0123456789abcdefXYZ"), "0123456789abcdef");
        assert_eq!(visible("0123456789abcdeü".as_bytes()), "0123456789abcde");
    }

    #[test]
    fn hidden_lines_echo_nothing_but_their_end() {
        let keys = b"se\x1b[Acre\x01tx\x7f\x0c\x1b[D!\r";
        let (editor, event, row) = typed(LineEcho::Hidden, &History::new(), keys);
        assert_eq!(
            (editor.line(), event),
            (&b"secret!"[..], LineEvent::Submitted)
        );
        assert_eq!(row.raw, b"\r\n");
    }

    #[test]
    fn history_comes_back_and_so_does_the_line_itself() {
        let mut history = History::new();
        assert!(history.push("first"));
        assert!(history.push("second one"));
        assert!(!history.push("con\u{1b}trol"));
        let up_down = |keys: &[u8]| {
            let (editor, _, row) = typed(LineEcho::Visible, &history, keys);
            let line = core::str::from_utf8(editor.line()).unwrap();
            assert_eq!(row.text(), line);
            String::from(line)
        };
        assert_eq!(up_down(b"mine\x1b[A"), "second one");
        assert_eq!(up_down(b"mine\x1b[A\x1b[A"), "first");
        assert_eq!(up_down(b"mine\x1b[A\x1b[A\x1b[A"), "first");
        assert_eq!(up_down(b"mine\x1b[A\x1b[A\x1b[B"), "second one");
        assert_eq!(up_down(b"mine\x1b[A\x1b[B"), "mine");
        assert_eq!(up_down(b"mine\x1b[B"), "mine");
        assert_eq!(up_down(b"mine\x1b[A\x15x"), "x");
    }

    #[test]
    fn history_is_bounded() {
        let mut history = History::new();
        let line = "x".repeat(LINE_BYTES_MAX);
        let kept = (0..100).filter(|_| history.push(&line)).count();
        assert_eq!(kept, HISTORY_BYTES_MAX / LINE_BYTES_MAX);
        history.clear();
        assert_eq!(
            (0..100).filter(|_| history.push("")).count(),
            HISTORY_LINES_MAX
        );
    }

    #[test]
    fn lines_end_in_every_way() {
        let event = |keys: &[u8]| typed(LineEcho::Visible, &History::new(), keys).1;
        assert_eq!(event(b"a\r"), LineEvent::Submitted);
        assert_eq!(event(b"a\n"), LineEvent::Submitted);
        assert_eq!(event(b"\x04"), LineEvent::Closed);
        assert_eq!(event(b"a\x04"), LineEvent::Pending);
        assert_eq!(event(b"a\x03"), LineEvent::Cancelled);
        assert_eq!(event(b"a\x0c"), LineEvent::Redraw);
        let mut editor = LineEditor::IDLE;
        editor.begin(LineEcho::Visible, false, 8);
        let mut step = |byte| editor.step(byte, &History::new(), |_| {});
        assert_eq!(step(b'\r'), LineEvent::Reprompt);
        assert_eq!(step(b'\n'), LineEvent::Pending, "the LF of a CR LF");
        assert_eq!(step(b'\n'), LineEvent::Reprompt);
    }

    #[test]
    fn nothing_is_left_after_clearing() {
        let mut history = History::new();
        history.push("old");
        let (mut editor, ..) = typed(LineEcho::Visible, &history, "geheim\x1b[A\u{fc}".as_bytes());
        editor.clear();
        assert_eq!(editor.line, [0; LINE_BYTES_MAX], "Z2: the line");
        assert_eq!(editor.draft, [0; LINE_BYTES_MAX]);
        assert_eq!(editor.partial, [0; 4]);
    }
}
