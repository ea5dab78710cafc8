//! What a terminal shows, as an SVG picture and as text.
//!
//! A terminal emulator interprets the bytes, so both show what a person would
//! see, whatever was overwritten or erased on the way.

use std::fmt::Write as _;
use std::num::NonZeroU16;

use vt100::{Cell, Color, Parser};

/// Columns of the screen.
const COLUMNS: NonZeroU16 = NonZeroU16::new(80).expect("not zero");
/// Rows that are kept; those beyond are scrolled off at the top.
const ROWS: NonZeroU16 = NonZeroU16::new(1000).expect("not zero");
/// Width of a character cell in pixels.
const CELL_WIDTH: f32 = 8.4;
/// Height of a row.
const CELL_HEIGHT: f32 = 18.0;
const FONT_SIZE: f32 = 14.0;
/// Room around the text.
const MARGIN: f32 = 16.0;
/// Height of the title bar.
const TITLE_HEIGHT: f32 = 28.0;
const FOREGROUND: &str = "#d8dee9";
const BACKGROUND: &str = "#1e222a";
const TITLE: &str = "#8a93a6";
/// The sixteen colours of a terminal.
const PALETTE: [&str; 16] = [
    "#3b4252", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8dee9",
    "#5c6370", "#ef8791", "#b1d694", "#f0d399", "#82c2f5", "#d69ae6", "#7acbd4", "#ffffff",
];

/// What the screen shows at the end.
pub struct Recording {
    screen: Parser,
    rows: u16,
}

impl Recording {
    /// Shows `bytes` on an empty screen.
    pub fn of(bytes: &[u8]) -> Self {
        let mut screen = Parser::new(ROWS, COLUMNS, 0);
        screen.process(bytes);
        let rows = screen.screen().rows(0, COLUMNS.get());
        let last = rows.zip(1..).filter(|(row, _)| !row.trim_end().is_empty());
        Self {
            rows: last.map(|(_, number)| number).last().unwrap_or(0),
            screen,
        }
    }

    /// The rows as text, without blanks at their ends.
    pub fn text(&self) -> String {
        let rows = self.screen.screen().rows(0, COLUMNS.get());
        let mut text = String::new();
        for row in rows.take(self.rows.into()) {
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }

    /// The picture, under `title`.
    pub fn svg(&self, title: &str) -> String {
        let width = f32::from(COLUMNS.get()) * CELL_WIDTH + 2.0 * MARGIN;
        let height = f32::from(self.rows) * CELL_HEIGHT + 2.0 * MARGIN + TITLE_HEIGHT;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n\
             <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
             <text x=\"{middle:.0}\" y=\"20\" text-anchor=\"middle\" fill=\"{TITLE}\" \
             font-family=\"sans-serif\" font-size=\"13\">{title}</text>\n\
             <g font-family=\"ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace\" \
             font-size=\"{FONT_SIZE}\" xml:space=\"preserve\" style=\"white-space:pre\">\n",
            title = escaped(title),
            middle = width / 2.0,
        );
        for row in 0..self.rows {
            self.draw_row(&mut svg, row);
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }

    /// Draws one row: a text element for each run of cells that look alike.
    fn draw_row(&self, svg: &mut String, row: u16) {
        let mut run: Option<Run> = None;
        for column in 0..COLUMNS.get() {
            let Some(cell) = self.screen.screen().cell(row, column) else {
                continue;
            };
            if cell.is_wide_continuation() {
                continue;
            }
            let look = Look::of(cell);
            let text = if cell.has_contents() {
                cell.contents()
            } else {
                " "
            };
            match &mut run {
                Some(run) if run.look == look => run.push(text, cell),
                _ => {
                    if let Some(run) = run.take() {
                        run.draw(svg, row);
                    }
                    let mut next = Run::new(column, look);
                    next.push(text, cell);
                    run = Some(next);
                }
            }
        }
        if let Some(run) = run {
            run.draw(svg, row);
        }
    }
}

/// How a cell looks.
#[derive(Clone, PartialEq)]
struct Look {
    foreground: String,
    background: Option<String>,
    bold: bool,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let (foreground, background) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
        let (foreground, background) = match cell.inverse() {
            true => (
                Some(background.unwrap_or_else(|| BACKGROUND.into())),
                Some(foreground.unwrap_or_else(|| FOREGROUND.into())),
            ),
            false => (foreground, background),
        };
        Self {
            foreground: foreground.unwrap_or_else(|| FOREGROUND.into()),
            background,
            bold: cell.bold(),
        }
    }
}

/// Cells beside each other that look alike.
struct Run {
    column: u16,
    columns: u16,
    look: Look,
    text: String,
}

impl Run {
    const fn new(column: u16, look: Look) -> Self {
        Self {
            column,
            columns: 0,
            look,
            text: String::new(),
        }
    }

    fn push(&mut self, text: &str, cell: &Cell) {
        self.text.push_str(text);
        self.columns += 1 + u16::from(cell.is_wide());
    }

    fn draw(&self, svg: &mut String, row: u16) {
        let x = MARGIN + f32::from(self.column) * CELL_WIDTH;
        let top = MARGIN + TITLE_HEIGHT + f32::from(row) * CELL_HEIGHT;
        if let Some(background) = &self.look.background {
            let width = f32::from(self.columns) * CELL_WIDTH;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                 height=\"{CELL_HEIGHT}\" fill=\"{background}\"/>"
            );
        }
        let text = self.text.trim_end();
        if text.is_empty() {
            return;
        }
        // Blanks at the end are not drawn, so they are not counted either.
        let shown = self.columns - (self.text.len() - text.len()) as u16;
        let weight = if self.look.bold {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\"{weight} \
             textLength=\"{length:.1}\">{text}</text>",
            y = top + FONT_SIZE,
            fill = self.look.foreground,
            length = f32::from(shown) * CELL_WIDTH,
            text = escaped(text),
        );
    }
}

/// A colour as SVG writes it; nothing for the terminal's own.
fn colour(colour: Color) -> Option<String> {
    /// The levels of the 6x6x6 colour cube.
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let rgb = |red: u8, green: u8, blue: u8| format!("#{red:02x}{green:02x}{blue:02x}");
    match colour {
        Color::Default => None,
        Color::Rgb(red, green, blue) => Some(rgb(red, green, blue)),
        Color::Idx(index @ 0..16) => Some(PALETTE[usize::from(index)].into()),
        Color::Idx(index @ 16..232) => {
            let level = |step: u8| LEVELS[usize::from((index - 16) / step % 6)];
            Some(rgb(level(36), level(6), level(1)))
        }
        Color::Idx(index) => {
            let grey = 8 + (index - 232) * 10;
            Some(rgb(grey, grey, grey))
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_is_seen() {
        let recording = Recording::of(b"gone\x1b[H\x1b[2Jlogin: me\r\nabx\x08c  \r\n\r\n$ \r\n");
        assert_eq!(recording.text(), "login: me\nabc\n\n$\n");
        assert_eq!(Recording::of(b"").text(), "");
    }

    #[test]
    fn a_line_that_is_too_long_takes_two_rows() {
        let line = "x".repeat(usize::from(COLUMNS.get()) + 1);
        let text = Recording::of(format!("{line}\r\n$ \r\n").as_bytes()).text();
        assert_eq!(text.lines().last(), Some("$"));
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn rows_beyond_the_screen_are_scrolled_off() {
        let bytes: String = (0..1500).map(|line| format!("line {line}\r\n")).collect();
        let text = Recording::of(bytes.as_bytes()).text();
        assert!(text.ends_with("line 1499\n"));
        assert_eq!(text.lines().count(), 999, "the cursor's row is empty");
    }

    #[test]
    fn the_picture_is_well_formed_and_shows_colours() {
        let svg = Recording::of(b"<a> & \x1b[1;32mgreen\x1b[0m \x1b[7minverse\x1b[0m\r\n")
            .svg("a <title>");
        let document = roxmltree::Document::parse(&svg).expect("XML");
        let texts = document
            .descendants()
            .filter(|node| node.has_tag_name("text"));
        let texts: Vec<_> = texts.collect();
        let shown: Vec<&str> = texts.iter().filter_map(|node| node.text()).collect();
        assert_eq!(shown, ["a <title>", "<a> &", "green", "inverse"]);
        assert_eq!(texts[2].attribute("fill"), Some(PALETTE[2]));
        assert_eq!(texts[2].attribute("font-weight"), Some("bold"));
        assert_eq!(texts[3].attribute("fill"), Some(BACKGROUND));
        assert_eq!(texts[2].attribute("textLength"), Some("42.0"));
        let rectangles = document
            .descendants()
            .filter(|node| node.has_tag_name("rect"));
        assert_eq!(rectangles.count(), 2, "the window and one background");
    }
}
