//! Drawings of experiments as SVG: points with intervals, lines through some of them. Colours tell
//! series apart, and so do their names beside the plot.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

/// Points of one method.
pub struct Series {
    pub name: String,
    /// x, y, and the ends of y's interval.
    pub points: Vec<[f64; 4]>,
    /// Whether a line joins them, from left to right.
    pub joined: bool,
}

/// What the axes are of.
pub struct Axes<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

const SIZE: (u32, u32) = (900, 560);

/// Colours that people with colour-blindness tell apart too (Okabe and Ito), then plotters' own.
fn colour(index: usize) -> RGBColor {
    const COLOURS: [RGBColor; 7] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(230, 159, 0),
        RGBColor(86, 180, 233),
        RGBColor(0, 0, 0),
    ];
    COLOURS.get(index).copied().unwrap_or_else(|| {
        let (r, g, b) = Palette99::pick(index).to_rgba().rgb();
        RGBColor(r, g, b)
    })
}

/// The least and the largest of some values, with air at both ends.
fn range(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if !low.is_finite() || !high.is_finite() {
        return 0.0..1.0;
    }
    let air = ((high - low) * 0.08).max(high.abs() * 0.01).max(1e-6);
    low - air..high + air
}

/// Draws series of points; files are written whole or not at all.
pub fn scatter(path: &Path, axes: &Axes<'_>, series: &[Series]) -> Result<()> {
    let mut text = String::new();
    draw(&mut text, axes, series).map_err(|e| anyhow!("cannot draw {}: {e}", path.display()))?;
    crate::run::write_whole(path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw(
    text: &mut String,
    axes: &Axes<'_>,
    series: &[Series],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let all = || series.iter().flat_map(|s| &s.points);
    let mut chart = ChartBuilder::on(&root)
        .caption(axes.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .right_y_label_area_size(8)
        .build_cartesian_2d(
            range(all().map(|p| p[0])),
            range(all().flat_map(|p| [p[1], p[2], p[3]])),
        )?;
    chart.configure_mesh().x_desc(axes.x).y_desc(axes.y).light_line_style(WHITE).draw()?;
    for (index, one) in series.iter().enumerate() {
        let colour = colour(index);
        let mut points = one.points.clone();
        points.sort_by(|a, b| a[0].total_cmp(&b[0]));
        if one.joined {
            let line = points.iter().map(|p| (p[0], p[1]));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
        let bars = points.iter().filter(|p| p[2] < p[3]).map(|p| {
            PathElement::new(vec![(p[0], p[2]), (p[0], p[3])], colour.mix(0.6).stroke_width(1))
        });
        chart.draw_series(bars)?;
        chart
            .draw_series(points.iter().map(|p| Circle::new((p[0], p[1]), 4, colour.filled())))?
            .label(&one.name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_drawn_and_named() {
        let series = |name: &str, joined| Series {
            name: name.to_owned(),
            points: vec![[2.0, 0.8, 0.7, 0.9], [1.0, 0.5, 0.5, 0.5]],
            joined,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.svg");
        let axes = Axes { title: "of both", x: "work", y: "accuracy" };
        scatter(&path, &axes, &[series("co-search", true), series("random", false)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for word in ["of both", "work", "accuracy", "co-search", "random", "#0072B2", "#D55E00"] {
            assert!(text.contains(word), "{word}");
        }
        // Two points and a legend's entry each, one line, one interval each.
        assert_eq!(text.matches("<circle").count(), 6);
        scatter(&path, &axes, &[]).unwrap();
    }
}
