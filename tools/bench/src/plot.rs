//! Plots as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

/// One line of a plot.
pub struct Line {
    /// What it shows.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// The plot, and beside it what its lines show.
const SIZE: (u32, u32) = (900, 420);
const LEGEND_FROM: u32 = 650;
/// Between two lines of the legend, and from its top to the first.
const LEGEND_STEP: i32 = 22;
const LEGEND_TOP: i32 = 56;
const SAMPLE_LENGTH: i32 = 20;
/// Room above the highest point.
const HEADROOM: f64 = 1.1;
/// Lines with more points are drawn without a mark at each.
const MARKED_MAX: usize = 20;
/// Colours that can be told apart on white, by those who see red and green
/// alike as well.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(160, 80, 140),
    RGBColor(0, 0, 0),
    RGBColor(86, 180, 233),
];

/// A plot with these lines; both axes begin at zero unless `from` says where
/// the horizontal one does.
///
/// # Errors
/// What the backend says.
pub fn lines(title: &str, axes: [&str; 2], from: f64, lines: &[Line]) -> Result<String, String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|&(x, _)| x).fold(from, f64::max);
    let top = points().map(|&(_, y)| y).fold(1.0, f64::max) * HEADROOM;
    let mut svg = String::new();
    draw(&mut svg, title, axes, (from..right, 0.0..top), lines)
        .map_err(|error| error.to_string())?;
    Ok(svg)
}

type Area = (std::ops::Range<f64>, std::ops::Range<f64>);
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(svg: &mut String, title: &str, axes: [&str; 2], area: Area, lines: &[Line]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(LEGEND_FROM);
    chart(&left, title, axes, area, lines)?;
    legend(&right, lines)?;
    root.present()?;
    Ok(())
}

fn chart(canvas: &Canvas<'_>, title: &str, [x, y]: [&str; 2], area: Area, lines: &[Line]) -> Drawn {
    let mut chart = ChartBuilder::on(canvas)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(area.0, area.1)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&grouped)
        .y_label_formatter(&grouped)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
        let mark = if line.points.len() > MARKED_MAX { 0 } else { 3 };
        chart.draw_series(series.point_size(mark))?;
    }
    Ok(())
}

fn legend(canvas: &Canvas<'_>, lines: &[Line]) -> Drawn {
    let mut y = LEGEND_TOP;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let sample = [(0, y), (SAMPLE_LENGTH, y)];
        canvas.draw(&PathElement::new(sample, colour.stroke_width(3)))?;
        let at = (SAMPLE_LENGTH + 8, y - 6);
        let label = Text::new(line.label.as_str(), at, ("sans-serif", 13));
        canvas.draw(&label)?;
        y += LEGEND_STEP;
    }
    Ok(())
}

/// Without a fraction, in groups of three digits.
fn grouped(number: &f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        let numbers = [0.0, 7.4, 999.0, 1000.0, 123_456.0, 1_234_567.0];
        let texts = numbers.map(|number| grouped(&number));
        assert_eq!(texts, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn a_legend_covers_no_line() {
        let line = Line {
            label: "what it shows".into(),
            points: vec![(0.0, 100.0), (10.0, 100.0)],
        };
        let svg = lines("t", ["x", "y"], 0.0, &[line]).expect("drawn");
        let label = svg
            .split("<text")
            .find(|text| text.contains("what it shows"));
        let x = label.and_then(|text| text.split("x=\"").nth(1)?.split('"').next());
        let x: u32 = x.and_then(|x| x.parse().ok()).expect("its place");
        assert!(x > LEGEND_FROM, "{x}");
    }
}
