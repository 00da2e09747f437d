//! The numbers behind a figure.

use super::super::scene::{Figure, Item};

/// The numbers behind a figure: one row per point, `panel,series,x,y,low,high`.
pub fn csv(figure: &Figure) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut out = String::from("panel,series,x,y,low,high\n");
    for scene in &figure.panels {
        let panel = quoted(&scene.title);
        let mut row = |series: &str, x: f64, y: Option<f64>, band: Option<(f64, f64)>| {
            let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
            let (low, high) = (number(band.map(|b| b.0)), number(band.map(|b| b.1)));
            out += &format!(
                "{panel},{},{x},{},{low},{high}\n",
                quoted(series),
                number(y)
            );
        };
        for item in &scene.items {
            match item {
                Item::Line(line) => {
                    let mut bands = line.band.iter().peekable();
                    for (x, y) in line.segments.iter().flatten() {
                        let band = bands.next_if(|b| b.0 == *x).map(|b| (b.1, b.2));
                        row(&line.label, *x, Some(*y), band);
                    }
                }
                Item::Area(area) => area
                    .points
                    .iter()
                    .for_each(|(x, low, high)| row(&area.label, *x, None, Some((*low, *high)))),
                Item::Bars(bars) => bars
                    .bars
                    .iter()
                    .enumerate()
                    .for_each(|(i, bar)| row(&bar.label, i as f64, Some(bar.value), None)),
                Item::Heat(heat) => {
                    for (r, name) in heat.rows.iter().enumerate() {
                        for (bits, x) in heat.row(r).iter().zip(&heat.edges) {
                            if let Some(cell) = bits {
                                row(&name.label, *x, Some(heat.shade.value(*cell)), None);
                            }
                        }
                    }
                }
                Item::Label(_) => {}
            }
        }
    }
    out
}
