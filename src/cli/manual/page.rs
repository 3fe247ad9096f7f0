//! A man page from a page of `docs/`.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// The page, in the language of man(7). A table's first column becomes a tag, as man pages list settings.
pub(super) fn from_markdown(name: &str, section: &str, markdown: &str) -> String {
    let mut page = Page::default();
    page.roff.control("TH", [name, section]);
    page.roff.control("SH", ["NAME"]);
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.roff.to_roff()
}

#[derive(Default)]
struct Page {
    roff: Roff,
    /// The text of the block that is being read.
    line: Vec<Inline>,
    is_code: bool,
    is_italic: bool,
    is_title: bool,
    /// The headings of a table's columns, and the cells of its row.
    columns: Vec<Vec<Inline>>,
    cells: Vec<Vec<Inline>>,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.is_code => {
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
            }
            Event::Text(text) if self.is_italic => self.line.push(italic(text.to_string())),
            Event::Text(text) => self.line.push(roman(text.to_string())),
            Event::Code(text) => self.line.push(bold(text.to_string())),
            Event::SoftBreak | Event::HardBreak => self.line.push(roman(" ")),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => self.is_title = *level == HeadingLevel::H1,
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.roff.control("PP", []).control("EX", []);
                self.is_code = true;
            }
            Tag::Emphasis => self.is_italic = true,
            Tag::Item => {
                self.roff.control("IP", ["\\(bu", "2"]);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => self.heading(),
            TagEnd::Paragraph => {
                self.roff.control("PP", []);
                self.flush();
            }
            TagEnd::Item => self.flush(),
            TagEnd::CodeBlock => {
                self.roff.control("EE", []);
                self.is_code = false;
            }
            TagEnd::Emphasis => self.is_italic = false,
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.columns = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    /// Writes the collected text.
    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
    }

    fn heading(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text: String = line.iter().map(words).collect();
        if self.is_title {
            self.roff.text([roman(format!("countersign.toml - {}", text.to_lowercase()))]);
            self.roff.control("SH", ["DESCRIPTION"]);
        } else {
            self.roff.control("SH", [text.as_str()]);
        }
    }

    /// A row: its first cell is the tag, the others follow, each with the heading of its column unless that is the last.
    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter();
        let Some(first) = cells.next() else { return };
        self.roff.control("TP", []);
        self.roff.text(first);
        let rest: Vec<Vec<Inline>> = cells.collect();
        let Some((last, others)) = rest.split_last() else { return };
        let mut text = last.clone();
        for (cell, column) in others.iter().zip(self.columns.iter().skip(1)).filter(|(cell, _)| !cell.is_empty()) {
            let is_none = cell.iter().map(words).collect::<String>() == "-";
            if is_none {
                text.push(roman(" (needed)"));
                continue;
            }
            text.push(roman(" ("));
            text.extend(column.iter().cloned());
            text.push(roman(": "));
            text.extend(cell.iter().cloned());
            text.push(roman(")"));
        }
        self.roff.text(text);
    }
}

fn words(inline: &Inline) -> String {
    match inline {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text.clone(),
        Inline::LineBreak => " ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_sections_tags_and_examples() {
        let page = from_markdown(
            "a",
            "5",
            "# The file\n\nText with `code` and *more*.\n\n## [keys]\n\n| key | default | meaning |\n| --- | --- | --- |\n| `ring` | `x` | the \
             file |\n\n- one\n- two\n\n```toml\na = 1\n```\n",
        );
        for want in [
            ".TH a 5",
            "countersign.toml \\- the file",
            "Text with \\fBcode\\fR and \\fImore\\fR.",
            ".SH [keys]",
            ".TP\n\\fBring\\fR\nthe file (default: \\fBx\\fR)",
            ".IP \\(bu 2\none",
            ".EX\na = 1\n.EE",
        ] {
            assert!(page.contains(want), "`{want}` is not in\n{page}");
        }
    }
}
