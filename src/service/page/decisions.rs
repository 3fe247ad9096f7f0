//! Recent decisions, what a search finds, and the page that tells why.

use maud::{Markup, html};

use super::access::Reader;
use super::figures::View;
use super::when::{local, recent};
use crate::config::AddressDetail;
use crate::drive::decisions::mailbox;
use crate::envelope::address::Address;
use crate::envelope::time::Timestamp;
use crate::html::with_code;
use crate::service::decision_log::{Numbered, StoredDecision};
use crate::service::decision_words::{explained, found_in_words, in_words};

/// An address as this reader may see it, without its tag.
pub(super) fn shown(reader: Reader, text: &str) -> String {
    if text.is_empty() {
        return "<>".to_owned();
    }
    let plain = Address::parse(text).map_or_else(|_| text.to_owned(), |address| mailbox(&address));
    match reader {
        // What is no address may be a name.
        Reader::Anyone | Reader::Refused if !plain.contains('@') => "…".to_owned(),
        Reader::WithToken => plain,
        Reader::Anyone | Reader::Refused => AddressDetail::Masked.shown(&plain),
    }
}

/// The class of what was done.
fn outcome(action: &str) -> &'static str {
    match action {
        "deliver" | "rescue" => "calm",
        "reject" | "discard" => "today",
        "defer" | "quarantine" | "mark" => "week",
        _ => "unknown",
    }
}

/// What was done, and why, without the kind of the message, which stands beside it. Whether a message that was passed on
/// was delivered, is known to the mail server.
fn did(decision: &StoredDecision) -> String {
    let words = in_words("recipient", &decision.found, &decision.action, &decision.reason);
    words.strip_prefix("delivered").map_or(words.clone(), |rest| format!("passed on{rest}"))
}

/// The answer to a search.
pub(super) struct Answer<'a> {
    /// What was searched for; empty: nothing.
    pub asked: &'a str,
    /// What was found, or why not, in words.
    pub found: &'a Result<Vec<Numbered>, String>,
    /// Whether there is more than was found.
    pub is_cut: bool,
    /// The time of the oldest decision that is kept, if nothing was found.
    pub oldest: Option<Timestamp>,
    /// How much of addresses is kept.
    pub detail: AddressDetail,
}

/// The section with decisions.
pub(super) fn section(answer: &Answer<'_>, reader: Reader, now: Timestamp, view: View) -> Markup {
    html! {
        section #decisions aria-labelledby="decisions-title" {
            div.head {
                h2 #decisions-title { @if answer.asked.is_empty() { "Last decisions" } @else { "What is known of " (answer.asked) } }
                form method="get" action="/" role="search" {
                    @match view {
                        View::Between(from, to) => {
                            input type="hidden" name="from" value=(from);
                            input type="hidden" name="to" value=(to);
                        }
                        named => { input type="hidden" name="time" value=(named.name()); }
                    }
                    label for="q" { "Where is my bounce?" }
                    input #q name="q" type="search" value=(answer.asked) placeholder="ann@our.example" size="26"
                        aria-describedby="q-help" autocomplete="off" spellcheck="false";
                    button { "Search" }
                    @if !answer.asked.is_empty() { a href={ "/?time=" (view.name()) } { "all" } }
                }
            }
            p #q-help .quiet { "An address (plain or signed), a client's IP address, or the Message-ID of a bounce without a tag, in <>." }
            @match answer.found {
                Err(why) => p role="alert" { (why) },
                Ok(list) if list.is_empty() => p { (nothing(answer)) },
                Ok(list) => {
                    @if !answer.asked.is_empty() { p { (summary(list, answer.is_cut)) } }
                    (table(list, reader, now))
                }
            }
        }
    }
}

fn nothing(answer: &Answer<'_>) -> String {
    let Some(oldest) = answer.oldest else { return "No decision is kept yet.".to_owned() };
    let since = local(oldest, "%a %-d %b %H:%M");
    let asked = answer.asked;
    let masked = match answer.detail {
        AddressDetail::Full => "",
        AddressDetail::Masked | AddressDetail::None => {
            " Addresses are not kept as a whole (state.addresses), so search for the client."
        }
    };
    format!(
        "Nothing about {asked} is kept; the list goes back to {since}.{masked} If a bounce was expected: did the message leave \
         (the mail server's log), and did it leave through Countersign (lines with event=sender in its log)?"
    )
}

fn summary(list: &[Numbered], is_cut: bool) -> String {
    let count =
        |actions: &[&str]| list.iter().filter(|(_, decision)| actions.contains(&decision.action.as_str())).count();
    let (passed, refused) = (count(&["deliver", "rescue", "mark"]), count(&["reject", "discard"]));
    let others = list.len() - passed - refused;
    let first = if is_cut { "The newest " } else { "" };
    let others = if others == 0 { String::new() } else { format!(", {others} deferred or set aside") };
    format!("{first}{}: {passed} passed on, {refused} refused{others}.", list.len())
}

fn table(list: &[Numbered], reader: Reader, now: Timestamp) -> Markup {
    html! {
        table.decisions {
            thead { tr { th scope="col" { "time" } th scope="col" { "client" } th scope="col" { "to" } th scope="col" { "result" } th scope="col" { "what came" } th scope="col" { span.hidden { "details" } } } }
            tbody {
                @for (number, decision) in list {
                    tr class=(outcome(&decision.action)) {
                        td { (recent(Timestamp(decision.at), now)) }
                        td { (decision.client.as_deref().unwrap_or("local")) }
                        td { (shown(reader, &decision.to)) }
                        td.outcome { (did(decision)) }
                        td { (found_in_words(&decision.found)) }
                        td { a href={ "/why/" (number) } aria-label={ "Why, decision " (number) } { "why" } }
                    }
                }
            }
        }
    }
}

/// The page that tells why.
pub(super) fn why(decision: &StoredDecision, reader: Reader) -> Markup {
    let explained = explained(&decision.reason);
    let is_content = decision.event == "content";
    let from = shown(reader, &decision.from);
    let lines = |lines: &[String]| -> Vec<String> {
        let shown = lines.iter().filter_map(|line| match reader {
            Reader::WithToken => Some(line.clone()),
            Reader::Anyone | Reader::Refused => StoredDecision::without_names(line),
        });
        shown.collect()
    };
    let (header, original) = (lines(&decision.header), lines(&decision.original));
    let has_more = reader != Reader::WithToken && decision.header.len() + decision.original.len() > 0;
    html! {
        section class={ "why " (outcome(&decision.action)) } {
            p { a href="/" { "← all decisions" } }
            h2.outcome { (did(decision)) }
            p { (explained.meaning) }
            dl.facts {
                (fact("time", &local(Timestamp(decision.at), "%a %-d %b %Y %H:%M:%S %Z")))
                (fact("client", decision.client.as_deref().unwrap_or("a program on this machine")))
                (fact("sender", if decision.from.is_empty() { "<> (none: a bounce, a receipt or another automatic message)" } else { &from }))
                (fact("recipient", &shown(reader, &decision.to)))
                (fact(if is_content { "what it is" } else { "its tag" }, found_in_words(&decision.found)))
                @if !decision.signs.is_empty() { (fact("by these signs", &decision.signs.join(", "))) }
                @if is_content { (fact("evidence", &evidence(decision))) }
                @if let Some(about) = &decision.final_recipient { (fact("about mail to", &shown(reader, about))) }
                (fact("session", &decision.session))
            }
            @if !header.is_empty() {
                h3 { "Its own header" }
                pre tabindex="0" { (header.join("\n")) }
            }
            @if !original.is_empty() {
                h3 { "The original that it returns" }
                p.quiet { "As the bounce shows it. A stranger could have written this." }
                pre tabindex="0" { (original.join("\n")) }
            }
            @if has_more { p.quiet { "Addresses and the subject are shown to those who " a href="/full" { "know the token" } "." } }
            @if !explained.if_genuine.is_empty() && outcome(&decision.action) != "calm" {
                h3 { "Should it have come?" }
                @if original.is_empty() && is_content { p { "The bounce shows no hosts that its original passed." } }
                p { (with_code(explained.if_genuine)) }
            }
            p.quiet {
                "In the log: " code { "session=" (decision.session) }
                @if let Some(id) = &decision.message_id { @if reader == Reader::WithToken { ", " code { (id) } } }
            }
        }
    }
}

fn evidence(decision: &StoredDecision) -> String {
    match &decision.evidence {
        None if decision.original.is_empty() => "none: no original is returned".to_owned(),
        None => "none: the original has no evidence header, as mail that leaves through here has".to_owned(),
        Some(worth) => format!("the original has an evidence header: {worth}"),
    }
}

fn fact(name: &str, text: &str) -> Markup {
    html! { div { dt { (name) } dd { (text) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked_for_those_without_the_token() {
        for (text, masked, whole) in [
            ("ann@our.example", "a…n@our.example", "ann@our.example"),
            ("prvs=1786~=ann@our.example", "a…n@our.example", "ann@our.example"),
            ("", "<>", "<>"),
        ] {
            assert_eq!(shown(Reader::Anyone, text), masked);
            assert_eq!(shown(Reader::WithToken, text), whole);
        }
    }

    #[test]
    fn a_refusal_is_told_with_the_header_that_shows_it_and_without_names() {
        let decision = StoredDecision {
            event: "content".into(),
            to: "ann@our.example".into(),
            found: "dsn-failed".into(),
            action: "reject".into(),
            reason: "untagged-ndr".into(),
            signs: vec!["delivery status".into()],
            header: vec!["Content-Type: multipart/report".into(), "Subject: <script>".into()],
            original: vec!["From: eve@our.example".into(), "Received: from bot.example".into()],
            ..StoredDecision::default()
        };
        let page = why(&decision, Reader::Anyone).into_string();
        for part in [
            "refused: a bounce without a tag",
            "multipart/report",
            "from bot.example",
            "a…n@our.example",
            "no evidence header",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for part in ["script", "eve@", "ann@our"] {
            assert!(!page.contains(part), "{part}: {page}");
        }
        let page = why(&decision, Reader::WithToken).into_string();
        assert!(page.contains("Subject: &lt;script&gt;") && page.contains("eve@our.example"), "{page}");
    }
}
