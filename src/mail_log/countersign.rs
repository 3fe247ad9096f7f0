//! Lines of this program, as text or JSON, behind the time.

use std::borrow::Cow;

use serde::Deserialize;

use super::event::{Decision, DecisionResult, Event};

/// The fields of a line that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    /// Only of JSON.
    #[serde(borrow)]
    pub timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client: Option<Cow<'a, str>>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    command: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reply: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unsigned_host: Option<Cow<'a, str>>,
}

/// Whether a text is a line of this program: `INFO …` behind the time, or `INFO` behind the name of the program.
pub(super) fn is_text(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    if !matches!(text.first(), Some(b'I' | b'W' | b'E' | b'D')) {
        return false;
    }
    [&b"INFO "[..], b"WARN ", b"ERROR ", b"DEBUG "].iter().any(|level| text.starts_with(level))
}

impl<'a> Fields<'a> {
    /// The fields of a line of JSON.
    pub(super) fn of_json(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The fields of a line of text: `session=a-1 client="192.0.2.7" event="recipient" …`.
    pub(super) fn of_text(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        // Most lines are about something else.
        let (_, mut rest) = text.split_once(" event=")?;
        let mut fields = Self::default();
        let client = text.split_once(" client=").map(|(_, rest)| value(rest).0);
        fields.client = client;
        let (event, after) = value(rest);
        (fields.event, rest) = (Some(event), after);
        while let Some((key, text)) = rest.trim_start().split_once('=') {
            let (found, after) = value(text);
            rest = after;
            match key {
                "from" => fields.from = Some(found),
                "to" => fields.to = Some(found),
                "action" => fields.action = Some(found),
                "reason" => fields.reason = Some(found),
                "command" => fields.command = Some(found),
                "reply" => fields.reply = Some(found),
                "unsigned_host" => fields.unsigned_host = Some(found),
                _ => {}
            }
        }
        Some(fields)
    }

    /// What the line says of a recipient.
    pub(super) fn into_event(self) -> Option<Event<'a>> {
        let action = self.action.as_deref().unwrap_or("");
        let reason = self.reason.as_deref().unwrap_or("");
        let result = match self.event.as_deref()? {
            "recipient" | "content" if reason.starts_with("own-bounce") => DecisionResult::Held,
            "recipient" | "content" => match action {
                "reject" | "discard" | "quarantine" => DecisionResult::Refused,
                "defer" => DecisionResult::Deferred,
                "deliver" | "rescue" => DecisionResult::Delivered,
                "mark" if is_of_own_bounce_mark(reason) => DecisionResult::Delivered,
                "mark" => DecisionResult::WouldRefuse,
                // The content decides, in a line of its own.
                _ => return None,
            },
            "next-hop" if self.command.as_deref()? == "RCPT" => DecisionResult::NextHopRefused,
            _ => return None,
        };
        let is_null_sender = match self.from.as_deref() {
            Some(from) => from.is_empty() || from == "<>",
            // A content line is about a message from the null sender, or a daemon.
            None => self.event.as_deref() == Some("content"),
        };
        Some(Event::Decision(Decision {
            client: self.client.as_deref().and_then(|client| client.parse().ok()),
            is_null_sender,
            to: self.to.unwrap_or_default(),
            result,
            reason: self.reason.unwrap_or_default(),
            unsigned_host: self.unsigned_host,
        }))
    }
}

/// Marks for `[outbound.ndr]` refuse nothing.
fn is_of_own_bounce_mark(reason: &str) -> bool {
    matches!(reason, "accepted-bounce" | "srs-bounce")
}

/// A value with or without quotation marks, and what follows it.
fn value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (found, rest) = text.split_at(end);
        return (Cow::Borrowed(found), rest);
    };
    let mut escaped = false;
    for (at, octet) in quoted.bytes().enumerate() {
        match octet {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            b'"' if !escaped => {
                let (found, rest) = quoted.split_at(at);
                let rest = rest.get(1..).unwrap_or("");
                let has_escapes = found.contains('\\');
                let plain = || Cow::Owned(found.replace("\\\"", "\"").replace("\\\\", "\\"));
                return (if has_escapes { plain() } else { Cow::Borrowed(found) }, rest);
            }
            _ => {}
        }
        escaped = false;
    }
    (Cow::Borrowed(quoted), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let text = br#" INFO session=a-1 client="192.0.2.7" event="content" to="ann@our.example" kind="dsn-failed" action="reject" reason="untagged-ndr""#;
        let json = br#"{"timestamp":"2026-11-27T16:14:34Z","session":"a-1","client":"192.0.2.7","event":"content","to":"ann@our.example","kind":"dsn-failed","action":"reject","reason":"untagged-ndr"}"#;
        let (text, json) = (Fields::of_text(text).unwrap(), Fields::of_json(json).unwrap());
        let wanted = Decision {
            client: "192.0.2.7".parse().ok(),
            is_null_sender: true,
            to: "ann@our.example".into(),
            result: DecisionResult::Refused,
            reason: "untagged-ndr".into(),
            unsigned_host: None,
        };
        let (text, json) = (text.into_event(), json.into_event());
        assert_eq!(text, Some(Event::Decision(wanted)));
        assert_eq!(text, json);
    }

    #[test]
    fn results_and_values() {
        let of = |text: &'static str| {
            let fields = Fields::of_text(text.as_bytes())?;
            match fields.into_event() {
                Some(Event::Decision(found)) => Some((found.result, found.is_null_sender, found.to.into_owned())),
                _ => None,
            }
        };
        let ann = || "ann@our.example".to_owned();
        assert_eq!(
            of(
                r#"session=a-1 client="::1" event="recipient" from="" to="ann@our.example" verdict="forged" action="reject" reason="forged""#
            ),
            Some((DecisionResult::Refused, true, ann()))
        );
        assert_eq!(
            of(
                r#"session=a-1 client="::1" event="recipient" from="b@c" to="ann@our.example" action="deliver" reason="not-a-bounce""#
            ),
            Some((DecisionResult::Delivered, false, ann()))
        );
        assert_eq!(
            of(
                r#"session=a-1 client="::1" event="recipient" from="" to="ann@our.example" action="content" reason="candidate""#
            ),
            None
        );
        assert_eq!(
            of(r#"session=a-1 client="::1" event="content" to="ann@our.example" action="mark" reason="untagged-ndr""#),
            Some((DecisionResult::WouldRefuse, true, ann()))
        );
        assert_eq!(
            of(
                r#"session=a-1 client="::1" event="recipient" from="" to="\"a b\"@our.example" action="reject" reason="forged""#
            ),
            Some((DecisionResult::Refused, true, "\"a b\"@our.example".to_owned()))
        );
        assert_eq!(of("listening role=\"inbound\""), None);
    }
}
