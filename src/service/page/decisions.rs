//! Recent decisions, what a search finds, and the page that tells why.

use maud::{Markup, html};

use super::access::Reader;
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

/// What was done, and why, without the kind of the message, which stands beside it.
fn did(decision: &StoredDecision) -> String {
    in_words("recipient", &decision.found, &decision.action, &decision.reason)
}

/// The answer to a search.
pub(super) struct Answer<'a> {
    /// What was searched for; empty: nothing.
    pub asked: &'a str,
    /// What was found, or why not, in words.
    pub found: &'a Result<Vec<Numbered>, String>,
    /// Whether there is more than was found.
    pub is_cut: bool,
}

/// The section with decisions.
pub(super) fn section(answer: &Answer<'_>, reader: Reader, now: Timestamp, view: &str) -> Markup {
    html! {
        section #decisions aria-labelledby="decisions-title" {
            div.head {
                h2 #decisions-title { @if answer.asked.is_empty() { "Last decisions" } @else { "What is known of " (answer.asked) } }
                form method="get" action="/" role="search" {
                    @if !view.is_empty() { input type="hidden" name="time" value=(view); }
                    label for="q" { "Where is my bounce?" }
                    input #q name="q" type="search" value=(answer.asked) placeholder="ann@our.example" size="26"
                        aria-describedby="q-help" autocomplete="off" spellcheck="false";
                    button { "Search" }
                    @if !answer.asked.is_empty() { a href={ "/?time=" (view) } { "all" } }
                }
            }
            p #q-help .quiet { "An address, a client's IP address, or a Message-ID in <>." }
            @match answer.found {
                Err(why) => p role="alert" { (why) },
                Ok(list) if list.is_empty() => p { (nothing(answer.asked)) },
                Ok(list) => {
                    @if !answer.asked.is_empty() { p { (summary(list, answer.is_cut)) } }
                    (table(list, reader, now))
                }
            }
        }
    }
}

fn nothing(asked: &str) -> String {
    if asked.is_empty() {
        return "No bounce, and nothing to a signed address, has come yet.".to_owned();
    }
    format!(
        "No bounce and nothing to a signed address about {asked} has come in the last 14 days. If one was expected: look \
         whether the message left (the mail server's log), and whether it left through Countersign (outbound lines of its \
         log). Mail that no rule is about is not listed here."
    )
}

fn summary(list: &[Numbered], is_cut: bool) -> String {
    let count =
        |actions: &[&str]| list.iter().filter(|(_, decision)| actions.contains(&decision.action.as_str())).count();
    let (delivered, refused) = (count(&["deliver", "rescue", "mark"]), count(&["reject", "discard"]));
    let others = list.len() - delivered - refused;
    let first = if is_cut { "The newest " } else { "" };
    let others = if others == 0 { String::new() } else { format!(", {others} deferred or set aside") };
    format!("{first}{}: {delivered} delivered, {refused} refused{others}.", list.len())
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
        let is_shown = |line: &&String| reader == Reader::WithToken || !StoredDecision::is_personal(line);
        lines.iter().filter(is_shown).cloned().collect()
    };
    let (header, original) = (lines(&decision.header), lines(&decision.original));
    let hidden = header.len() + original.len() < decision.header.len() + decision.original.len();
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
            @if hidden { p.quiet { "Addresses and the subject are shown to those who " a href="/full" { "know the token" } "." } }
            @if !explained.if_genuine.is_empty() && outcome(&decision.action) != "calm" {
                h3 { "Should it have come?" }
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
        None => "the original carries no evidence header, as all mail that leaves through here does".to_owned(),
        Some(worth) => format!("the original carries an evidence header: {worth}"),
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
            "carries no evidence",
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
