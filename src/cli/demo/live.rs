//! What passes the running demo, as it passes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::colours::{DIM, GREEN, YELLOW};
use crate::envelope::printable::printable;
use crate::service::decision_words::in_words;

/// Shows each decision from now on.
pub(super) fn begin() {
    // A second subscriber cannot be set, and then another one shows the same.
    let _ = tracing_subscriber::registry().with(Live).try_init();
}

struct Live;

impl<S: Subscriber> Layer<S> for Live {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(line) = fields.line() {
            anstream::println!("{line}");
        }
    }
}

/// The fields of a log line.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The line for people; `None`: it is not about a message.
    fn line(&self) -> Option<String> {
        let path = |name: &str| match self.get(name) {
            "" | "<>" => "<>".to_owned(),
            address => printable(address).into_owned(),
        };
        let (action, reason) = (self.get("action"), self.get("reason"));
        let arrow = |direction: &str, text: String| format!("   {DIM}{direction:>14}{DIM:#}  {text}");
        let is_good = matches!(action, "deliver" | "rescue" | "sign" | "rewrite");
        let colour = if is_good { GREEN } else { YELLOW };
        match self.get("event") {
            "sender" => {
                let did = match action {
                    "sign" => "signed".to_owned(),
                    "rewrite" => "rewritten (SRS)".to_owned(),
                    "reject" => format!("refused ({reason})"),
                    _ => format!("passes as it is ({reason})"),
                };
                Some(arrow("leaves", format!("{}  {colour}{did}{colour:#}", path("from"))))
            }
            // The content decides, in a line of its own.
            "recipient" if action == "content" => None,
            event @ ("recipient" | "content") => {
                let found = if event == "content" { self.get("kind") } else { self.get("verdict") };
                let did = in_words(event, found, action, reason);
                let from = if event == "content" { "<>".to_owned() } else { path("from") };
                Some(arrow("comes in", format!("{from} to {}  {colour}{did}{colour:#}", path("to"))))
            }
            "message" => Some(arrow("answer", format!("{DIM}{}{DIM:#}", printable(self.get("reply"))))),
            "next-hop" => Some(arrow("refused", format!("by the next hop: {}", printable(self.get("reply"))))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fields: &[(&'static str, &str)]) -> Option<String> {
        let fields = Fields(fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        fields.line().map(|line| anstream::adapter::strip_str(&line).to_string())
    }

    #[test]
    fn lines_for_people() {
        let ann = ("from", "ann@our.example");
        assert_eq!(
            line(&[("event", "sender"), ann, ("action", "sign"), ("reason", "signed")]).unwrap(),
            "           leaves  ann@our.example  signed"
        );
        let refused =
            [("event", "recipient"), ("from", ""), ("to", "prvs=1000~=ann@our.example"), ("action", "reject")];
        assert_eq!(
            line(&[&refused[..], &[("verdict", "forged"), ("reason", "forged")]].concat()).unwrap(),
            "         comes in  <> to prvs=1000~=ann@our.example  refused: the tag was not made here"
        );
        assert_eq!(line(&[("event", "recipient"), ("action", "content")]), None);
        assert_eq!(line(&[("message", "listening")]), None);
        assert_eq!(line(&[("event", "message"), ("reply", "250 \u{1b}ok")]).unwrap(), "           answer  250 ?ok");
    }
}
