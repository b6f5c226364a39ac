//! Bars as SVG.

use std::error::Error;

use plotters::prelude::*;

use crate::hit_rates::Rates;

/// One group of bars for each row, one bar for each policy.
pub(crate) fn bars(rows: &[Rates], path: &str) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (1100, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let policies = rows.first().map_or(0, |row| row.rates.len());
    let width = (policies + 2) as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption("Hit rates, 1 million requests", ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..rows.len() as f64 * width, 0.0..100.0)?;
    let title = |x: &f64| {
        let row = rows.get((x / width) as usize);
        row.map(|row| row.title.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len())
        .x_label_formatter(&title)
        .y_desc("%")
        .draw()?;
    for policy in 0..policies {
        let colour = HSLColor(policy as f64 / policies as f64, 0.6, 0.5);
        let bar = |(at, row): (usize, &Rates)| {
            let left = at as f64 * width + policy as f64 + 1.0;
            let rate = row.rates[policy].1 * 100.0;
            Rectangle::new([(left, 0.0), (left + 0.9, rate)], colour.filled())
        };
        chart
            .draw_series(rows.iter().enumerate().map(bar))?
            .label(rows[0].rates[policy].0)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
