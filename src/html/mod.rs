//! Pages of HTML: what `report`, `probe` and the status page have in common.

pub(crate) mod chart;

use maud::{Markup, html};

/// The style of all pages.
pub(crate) const STYLE: &str = include_str!("page.css");

/// A text in which commands stand between backticks.
pub(crate) fn with_code(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A bar in a table, for a part of a whole. Its colour is that of the class.
pub(crate) fn bar(class: &str, part: u64, all: u64) -> Markup {
    let width = format!("{:.1}", chart::as_f64(part) / chart::as_f64(all.max(1)) * 100.0);
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class=(class) width=(width) height="10" {}
        }
    }
}
