//! Bars over time, as SVG.

use std::fmt::Write as _;

use maud::{Markup, html};

/// What is counted, in one colour.
pub(crate) struct Series<'a> {
    /// The class of its colour.
    pub class: &'a str,
    /// The number in each bar.
    pub values: Vec<u64>,
}

/// Where bars are drawn, in units of the picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    /// The left edge of the first bar.
    pub left: f64,
    /// The right edge of the last bar.
    pub right: f64,
    /// The top of the highest bar.
    pub top: f64,
    /// Where the bars stand.
    pub base: f64,
}

/// A count for a picture, which needs no more than 32 bits.
pub(crate) fn as_f64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

/// The highest bar of series that are stacked; at least 1.
pub(crate) fn highest(series: &[Series<'_>]) -> u64 {
    let bars = series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    let height = |n: usize| series.iter().filter_map(|one| one.values.get(n)).sum();
    (0..bars).map(height).max().unwrap_or(0).max(1)
}

/// Series stacked upon each other, the first at the bottom: one path each. `most`: the number of a bar as high as the
/// area.
pub(crate) fn stacked(area: Area, series: &[Series<'_>], most: u64) -> Markup {
    let bars = series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    let mut bases = vec![area.base; bars];
    let paths: Vec<(&str, String)> =
        series.iter().map(|one| (one.class, path(area, &one.values, most, &mut bases))).collect();
    html! { @for (class, path) in paths { @if !path.is_empty() { path class=(class) d=(path) {} } } }
}

/// The rectangles of one series, on top of those below, which it raises.
fn path(area: Area, values: &[u64], most: u64, bases: &mut [f64]) -> String {
    let step = (area.right - area.left) / as_f64(bases.len().max(1) as u64);
    let gap = if step > 4.0 { 1.0 } else { 0.0 };
    let mut path = String::new();
    for (n, (value, base)) in values.iter().zip(bases).enumerate().filter(|(_, (value, _))| **value > 0) {
        // What has happened at all can be seen.
        let height = (as_f64(*value) / as_f64(most.max(1)) * (area.base - area.top)).max(1.5).min(*base - area.top);
        let left = area.left + step * as_f64(n as u64);
        *base -= height;
        // Writing to a string cannot fail.
        let _ = write!(path, "M{left:.1} {:.1}h{:.1}v{height:.1}h-{:.1}z", *base, step - gap, step - gap);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_upon_each_other_and_stay_in_their_area() {
        let area = Area { left: 0.0, right: 20.0, top: 0.0, base: 100.0 };
        let series = [Series { class: "a", values: vec![3, 0] }, Series { class: "b", values: vec![1, 4] }];
        assert_eq!(highest(&series), 4);
        let svg = stacked(area, &series, 4).into_string();
        assert_eq!(
            svg,
            "<path class=\"a\" d=\"M0.0 25.0h9.0v75.0h-9.0z\"></path>\
             <path class=\"b\" d=\"M0.0 0.0h9.0v25.0h-9.0zM10.0 0.0h9.0v100.0h-9.0z\"></path>"
        );
        assert_eq!(highest(&[]), 1);
        assert_eq!(stacked(area, &[Series { class: "a", values: vec![0, 0] }], 1).into_string(), "");
        let many = [Series { class: "a", values: vec![u64::MAX] }, Series { class: "b", values: vec![1] }];
        assert!(stacked(area, &many, u64::MAX).into_string().contains("v0.0"), "no bar above the area");
    }
}
