//! The line editor against a slow obvious model: a vector of characters, and a
//! screen of one row.

use proptest::prelude::*;
use proptest::sample::select;
use ring_server_core::editor::{History, LineEcho, LineEditor, LineEvent};

const MAX_BYTES: usize = 24;
const HISTORY: [&str; 4] = [
    "ls",
    "a line that is longer than the longest",
    "",
    "grüße an alle",
];

/// A key, as a person means it.
#[derive(Clone, Copy, Debug)]
enum Key {
    Char(char),
    Left,
    Right,
    Home,
    End,
    Delete,
    Backspace,
    KillEnd,
    KillStart,
    KillWord,
    Up,
    Down,
    Clear,
    /// Bytes that mean nothing.
    Noise(&'static [u8]),
}

impl Key {
    fn bytes(self) -> Vec<u8> {
        let fixed: &[u8] = match self {
            Self::Char(character) => return character.to_string().into_bytes(),
            Self::Noise(bytes) => bytes,
            Self::Left => b"\x1b[D",
            Self::Right => b"\x06",
            Self::Home => b"\x1b[H",
            Self::End => b"\x05",
            Self::Delete => b"\x1b[3~",
            Self::Backspace => b"\x7f",
            Self::KillEnd => b"\x0b",
            Self::KillStart => b"\x15",
            Self::KillWord => b"\x17",
            Self::Up => b"\x1b[A",
            Self::Down => b"\x1bOB",
            Self::Clear => b"\x0c",
        };
        fixed.to_vec()
    }
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    let characters = select(vec!['a', 'b', ' ', 'ü', '€', '🦀', '~', '[']);
    let commands = select(vec![
        Key::Left,
        Key::Right,
        Key::Home,
        Key::End,
        Key::Delete,
        Key::Backspace,
        Key::KillEnd,
        Key::KillStart,
        Key::KillWord,
        Key::Up,
        Key::Down,
        Key::Clear,
        Key::Noise(b"\0"),
        Key::Noise(b"\xff\xfe"),
        Key::Noise(b"\xe2\x82"),
        Key::Noise(b"\x1b[?2004h"),
        Key::Noise(b"\x1b[12;1R"),
        Key::Noise(b"\xc2\x9b"),
    ]);
    let key = prop_oneof![3 => characters.prop_map(Key::Char), 2 => commands];
    prop::collection::vec(key, 0..60)
}

/// The line as a vector of characters.
#[derive(Default)]
struct Model {
    line: Vec<char>,
    cursor: usize,
    draft: Vec<char>,
    /// Steps back in history.
    recalled: usize,
}

impl Model {
    fn text(&self) -> String {
        self.line.iter().collect()
    }

    fn press(&mut self, key: Key) {
        match key {
            Key::Char(character) => {
                if self.text().len() + character.len_utf8() <= MAX_BYTES {
                    self.line.insert(self.cursor, character);
                    self.cursor += 1;
                }
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.line.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.line.len(),
            Key::Delete => {
                if self.cursor < self.line.len() {
                    self.line.remove(self.cursor);
                }
            }
            Key::Backspace => {
                if self.cursor > 0 {
                    self.cursor -= 1;
                    self.line.remove(self.cursor);
                }
            }
            Key::KillEnd => self.line.truncate(self.cursor),
            Key::KillStart => {
                self.line.drain(..self.cursor);
                self.cursor = 0;
            }
            Key::KillWord => {
                let is_space = |model: &Self| model.line[model.cursor - 1] == ' ';
                while self.cursor > 0 && is_space(self) {
                    self.press(Key::Backspace);
                }
                while self.cursor > 0 && !is_space(self) {
                    self.press(Key::Backspace);
                }
            }
            Key::Up => self.recall(self.recalled + 1),
            Key::Down => {
                if self.recalled > 0 {
                    self.recall(self.recalled - 1);
                }
            }
            Key::Clear | Key::Noise(_) => {}
        }
    }

    fn recall(&mut self, step: usize) {
        let wanted: Option<Vec<char>> = match step {
            0 => Some(self.draft.clone()),
            step => HISTORY
                .iter()
                .rev()
                .nth(step - 1)
                .filter(|line| line.len() <= MAX_BYTES)
                .map(|line| line.chars().collect()),
        };
        let Some(wanted) = wanted else { return };
        if self.recalled == 0 {
            self.draft = self.line.clone();
        }
        (self.recalled, self.cursor) = (step, wanted.len());
        self.line = wanted;
    }
}

/// A terminal of one row, told what the editor emits.
#[derive(Default)]
struct Row {
    cells: Vec<char>,
    cursor: usize,
}

impl Row {
    fn take(&mut self, bytes: &[u8]) {
        if bytes == b"\x1b[H\x1b[2J" {
            *self = Self::default();
            return;
        }
        for character in core::str::from_utf8(bytes).expect("UTF-8").chars() {
            match character {
                '\u{8}' => self.cursor = self.cursor.checked_sub(1).expect("on the row"),
                '\u{7}' => {}
                shown => {
                    assert!(!shown.is_control(), "{shown:?} was shown");
                    self.cells
                        .resize(self.cells.len().max(self.cursor + 1), ' ');
                    self.cells[self.cursor] = shown;
                    self.cursor += 1;
                }
            }
        }
    }

    fn text(&self) -> String {
        self.cells.iter().collect()
    }
}

fn history() -> History {
    let mut history = History::new();
    for line in HISTORY {
        assert!(history.push(line));
    }
    history
}

/// Steps the editor, and draws what a host of it would.
fn press(editor: &mut LineEditor, history: &History, row: &mut Row, bytes: &[u8]) -> LineEvent {
    let mut event = LineEvent::Pending;
    for &byte in bytes {
        event = editor.step(byte, history, |bytes| row.take(bytes));
        if event == LineEvent::Redraw {
            editor.redraw(|bytes| row.take(bytes));
        }
    }
    event
}

fn assert_shown(editor: &LineEditor, row: &Row) {
    let line = core::str::from_utf8(editor.line()).expect("a line is UTF-8");
    let shown = row.text();
    let rest = shown
        .strip_prefix(line)
        .unwrap_or_else(|| panic!("{shown:?} for {line:?}"));
    assert!(
        rest.bytes().all(|byte| byte == b' '),
        "{shown:?} for {line:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn keys_do_what_the_model_says_and_the_screen_shows_it(keys in keys()) {
        let (history, mut model, mut row) = (history(), Model::default(), Row::default());
        let mut editor = LineEditor::IDLE;
        editor.begin(LineEcho::Visible, true, MAX_BYTES);
        for key in keys {
            model.press(key);
            press(&mut editor, &history, &mut row, &key.bytes());
            prop_assert_eq!(editor.line().to_vec(), model.text().into_bytes());
            prop_assert_eq!(row.cursor, model.cursor);
            assert_shown(&editor, &row);
        }
        let event = editor.step(b'\r', &history, |_| {});
        prop_assert_eq!(event, LineEvent::Submitted);
    }

    #[test]
    fn any_bytes_leave_a_line_that_is_text_and_shown(bytes: Vec<u8>) {
        let (history, mut row) = (history(), Row::default());
        let mut editor = LineEditor::IDLE;
        editor.begin(LineEcho::Visible, true, MAX_BYTES);
        for byte in bytes {
            // These end the line: the tests of the terminal have them.
            if !b"\r\n\x03\x04".contains(&byte) {
                let event = press(&mut editor, &history, &mut row, &[byte]);
                prop_assert!(matches!(event, LineEvent::Pending | LineEvent::Redraw));
            }
            prop_assert!(editor.line().len() <= MAX_BYTES);
            assert_shown(&editor, &row);
        }
    }

    #[test]
    fn a_hidden_line_shows_nothing_whatever_is_typed(bytes: Vec<u8>) {
        let history = history();
        let mut editor = LineEditor::IDLE;
        editor.begin(LineEcho::Hidden, true, MAX_BYTES);
        let mut shown = Vec::new();
        for byte in bytes {
            if !b"\r\n\x03\x04".contains(&byte) {
                editor.step(byte, &history, |bytes| shown.extend_from_slice(bytes));
            }
            prop_assert!(core::str::from_utf8(editor.line()).is_ok());
        }
        prop_assert_eq!(shown, b"");
    }
}
