//! The part of a text that is kept: its beginning, and for the first text part also its end. Of HTML, only visible text
//! is kept.

/// HTML elements that are not shown. `head` includes the title and styles.
const HIDDEN: [&[u8]; 3] = [b"style", b"script", b"head"];
/// Length of the end of the first part that is kept, in octets. Some servers put their notice at the end.
const END: usize = 4 << 10;

/// Text of a part, after its transfer encoding has been decoded.
#[derive(Debug)]
pub(super) struct TextExcerpt {
    pub begin: Vec<u8>,
    /// The end of the text, once the room for the beginning is used up.
    end: Option<Vec<u8>>,
    pub charset: Option<Vec<u8>>,
    pub html: bool,
    hidden: HiddenMarkup,
}

impl TextExcerpt {
    /// `with_end`: whether to keep the end, too.
    pub(super) fn new(charset: Option<Vec<u8>>, html: bool, with_end: bool) -> Self {
        Self { begin: Vec::new(), end: with_end.then(Vec::new), charset, html, hidden: HiddenMarkup::default() }
    }

    /// Adds a piece; at most `room` more octets are added to the beginning.
    pub(super) fn push(&mut self, octets: &[u8], room: usize) {
        if self.html {
            let mut shown = Vec::with_capacity(octets.len());
            self.hidden.push(octets, &mut shown);
            self.keep(&shown, room);
        } else {
            self.keep(octets, room);
        }
    }

    fn keep(&mut self, octets: &[u8], room: usize) {
        let (begin, rest) = octets.split_at_checked(room).unwrap_or((octets, &[]));
        self.begin.extend_from_slice(begin);
        if let Some(end) = &mut self.end {
            end.extend_from_slice(rest);
            // Done only now and then, so that a long part is not moved again and again.
            if end.len() > 4 * END {
                end.drain(..end.len() - END);
            }
        }
    }

    /// The last octets after the beginning.
    pub(super) fn end(&self) -> &[u8] {
        let end = self.end.as_deref().unwrap_or_default();
        end.get(end.len().saturating_sub(END)..).unwrap_or(end)
    }

    /// Whether more text is needed when the room for the beginning is used up.
    pub(super) fn wants_more(&self) -> bool {
        self.end.is_some()
    }
}

/// Removes comments and elements that are not shown, however the text is divided into pieces.
#[derive(Debug, Default)]
struct HiddenMarkup {
    inside: Option<&'static [u8]>,
    comment: Option<Comment>,
    /// The beginning of a possible tag.
    begun: Vec<u8>,
}

/// A comment, up to `-->` (HTML standard, section 13.1.6).
#[derive(Debug)]
struct Comment {
    /// Number of dashes just before this place. Those of `<!--` count: `<!-->` is a comment.
    dashes: usize,
}

impl Comment {
    /// The text after the end of the comment, or `None` if the comment continues.
    fn skip<'a>(&mut self, mut octets: &'a [u8]) -> Option<&'a [u8]> {
        while let Some(at) = memchr::memchr(b'>', octets) {
            let (before, rest) = octets.split_at_checked(at)?;
            self.saw(before);
            octets = rest.get(1..)?;
            if self.dashes >= 2 {
                return Some(octets);
            }
            self.dashes = 0;
        }
        self.saw(octets);
        None
    }

    fn saw(&mut self, octets: &[u8]) {
        let dashes = octets.iter().rev().take_while(|&&octet| octet == b'-').count();
        self.dashes = if dashes == octets.len() { self.dashes.saturating_add(dashes) } else { dashes };
    }
}

impl HiddenMarkup {
    fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while let Some(&octet) = rest.first() {
            if let Some(comment) = &mut self.comment {
                let Some(after) = comment.skip(rest) else { return };
                (self.comment, rest) = (None, after);
                continue;
            }
            if self.begun.is_empty() {
                let at = memchr::memchr(b'<', rest).unwrap_or(rest.len());
                let (before, tag) = rest.split_at_checked(at).unwrap_or((rest, &[]));
                if self.inside.is_none() {
                    out.extend_from_slice(before);
                }
                self.begun.extend(tag.first());
                rest = tag.get(1..).unwrap_or_default();
                continue;
            }
            if (octet.is_ascii_alphabetic() || b"/!-".contains(&octet)) && self.begun.len() < 9 {
                self.begun.push(octet.to_ascii_lowercase());
                rest = rest.get(1..).unwrap_or_default();
                // In a style or script, `<!--` is ordinary text.
                if self.begun == b"<!--" && self.inside.is_none_or(|inside| inside == b"head") {
                    self.begun.clear();
                    self.comment = Some(Comment { dashes: 2 });
                }
                continue;
            }
            self.tag(out);
        }
    }

    /// Handles the complete name of a tag; its attributes follow as text.
    fn tag(&mut self, out: &mut Vec<u8>) {
        let begun = std::mem::take(&mut self.begun);
        let name = begun.get(1..).unwrap_or_default();
        match (self.inside, name.strip_prefix(b"/")) {
            (Some(inside), Some(name)) if name == inside => self.inside = None,
            // The end tag of a head may be omitted (HTML standard, section 13.1.2.4).
            (Some(b"head"), None) if name == b"body" => self.inside = None,
            (Some(_), _) => return,
            (None, _) => self.inside = HIDDEN.into_iter().find(|hidden| *hidden == name),
        }
        if self.inside.is_none() {
            out.extend_from_slice(&begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(html: &str, size: usize) -> String {
        let mut kept = TextExcerpt::new(None, true, false);
        html.as_bytes().chunks(size).for_each(|piece| kept.push(piece, 1000));
        String::from_utf8(kept.begin).unwrap()
    }

    #[test]
    fn what_is_not_shown_is_left_out_wherever_the_pieces_break() {
        let html = "<HTML><Head><title>x</title><style>p > a { }</style></HEAD><header>a</header><STYLE type=x>b</style\n>\
            <p>c<script>if (1 <2) '</styl' <b></script>d < e <stylex>f</p>";
        let want = "<html></head><header>a</header></style\n><p>c</script>d < e <stylex>f</p>";
        for size in 1..html.len() {
            assert_eq!(shown(html, size).to_ascii_lowercase(), want, "{size}");
        }
    }

    #[test]
    fn a_head_without_an_end_ends_where_the_body_begins() {
        let html = "<html><head><meta x><title>x</title><body><p>Not delivered</p></body></html>";
        for size in 1..html.len() {
            assert_eq!(shown(html, size), "<html><body><p>Not delivered</p></body></html>", "{size}");
        }
    }

    #[test]
    fn comments_are_left_out_and_nothing_behind_them() {
        for (html, want) in [
            ("a<!-- <style> -->b", "ab"),
            ("a<!-- <head> <body> --->b<!--x", "ab"),
            ("a<!-->b<!--->c", "abc"),
            ("a<!-- - -> --x> -->b", "ab"),
            ("<!--[if mso]><style>x</style><![endif]--><p>b", "<p>b"),
            ("<!--[if !mso]><!-->b<!--<![endif]-->c", "bc"),
            ("<head><!-- <body> --><title>x</title></head>b", "</head>b"),
            ("<style><!-- p { } --></style>b", "</style>b"),
            ("<!DOCTYPE html>b<-c d", "<!doctype html>b<-c d"),
        ] {
            for size in 1..=html.len() {
                assert_eq!(shown(html, size), want, "{html} {size}");
            }
        }
    }

    #[test]
    fn beginning_and_end_are_kept() {
        let mut kept = TextExcerpt::new(None, false, true);
        for n in 0..10_000 {
            let room = 100usize.saturating_sub(kept.begin.len());
            kept.push(format!("line {n}\n").as_bytes(), room);
        }
        assert!(kept.begin.starts_with(b"line 0\n") && kept.begin.len() == 100);
        assert!(kept.end().ends_with(b"line 9999\n") && kept.end().len() == END);
        assert!(kept.end.as_ref().unwrap().len() <= 4 * END);
    }
}
