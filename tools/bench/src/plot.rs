//! Plots as SVG.

use plotters::prelude::*;

/// One line of a plot.
pub struct Line {
    /// What it shows.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (720, 420);
/// Room above the highest point.
const HEADROOM: f64 = 1.1;

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

fn draw(
    svg: &mut String,
    title: &str,
    [x, y]: [&str; 2],
    area: Area,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(area.0, area.1)?;
    chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let series = LineSeries::new(line.points.iter().copied(), colour);
        let drawn = chart.draw_series(series.point_size(3))?;
        drawn
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    root.present()?;
    Ok(())
}
