//! How each mail server is told of Countersign: the code blocks of `docs/mta/*.md`, which are the one place where they
//! are written.
//!
//! `countersign init` prints them and the end-to-end tests run them, so neither can say something else than the
//! documents.

use std::fmt;

/// A mail server that a recipe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mta {
    /// Postfix, by docs/mta/postfix.md.
    Postfix,
    /// Exim, by docs/mta/exim.md.
    Exim,
    /// Sendmail, by docs/mta/sendmail.md.
    Sendmail,
    /// OpenSMTPD.
    Opensmtpd,
    /// Microsoft Exchange.
    Exchange,
}

impl Mta {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Postfix, Self::Exim, Self::Sendmail, Self::Opensmtpd, Self::Exchange];

    /// The word on the command line, which is the document's name, too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
            Self::Sendmail => "sendmail",
            Self::Opensmtpd => "opensmtpd",
            Self::Exchange => "exchange",
        }
    }

    fn document(self) -> &'static str {
        match self {
            Self::Postfix => include_str!("../docs/mta/postfix.md"),
            Self::Exim => include_str!("../docs/mta/exim.md"),
            Self::Sendmail => include_str!("../docs/mta/sendmail.md"),
            Self::Opensmtpd => include_str!("../docs/mta/opensmtpd.md"),
            Self::Exchange => include_str!("../docs/mta/exchange.md"),
        }
    }

    /// The methods that this program offers: one that was built without milters has fewer.
    #[must_use]
    pub fn built_methods(self) -> Vec<&'static str> {
        self.methods().into_iter().filter(|method| cfg!(feature = "milter") || *method != "milter").collect()
    }

    /// The methods by which it can ask Countersign, the usual one first.
    #[must_use]
    pub fn methods(self) -> Vec<&'static str> {
        let mut methods = Vec::new();
        for (method, _) in self.blocks().flat_map(|block| block.methods()) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        methods
    }

    /// What one method needs, by file, in the document's order; with SRS or without.
    #[must_use]
    pub fn recipe(self, method: &str, srs: bool) -> Vec<RecipePiece> {
        let mut pieces: Vec<RecipePiece> = Vec::new();
        let wanted = |block: &Block<'_>| block.methods().any(|(name, only_srs)| name == method && (srs || !only_srs));
        for block in self.blocks().filter(wanted) {
            match pieces.iter_mut().find(|piece| piece.file == block.file) {
                Some(piece) => piece.append(&format!("{}\n", block.text)),
                None => pieces.push(RecipePiece { file: block.file, text: format!("{}\n", block.text) }),
            }
        }
        pieces
    }

    fn blocks(self) -> impl Iterator<Item = Block<'static>> {
        blocks(self.document())
    }
}

impl fmt::Display for Mta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What goes into one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipePiece {
    /// Its name, as the document says it.
    pub file: &'static str,
    /// The lines that belong into the file.
    pub text: String,
}

impl RecipePiece {
    /// Adds the lines of another block for the same file.
    fn append(&mut self, text: &str) {
        if self.file.ends_with("main.cf") || self.file.ends_with("/main") {
            // Postfix takes the last of two settings, and complains; Exim refuses them.
            let set_again = |line: &str| line.split_once(" =").is_some_and(|(key, _)| sets(text, key));
            let kept: String = self.text.split_inclusive('\n').filter(|line| !set_again(line)).collect();
            self.text = kept + text;
        } else if self.file.ends_with(".toml") {
            // Single settings come before the first table, or they would belong to it.
            let ((head, tables), (settings, more)) = (at_first_table(&self.text), at_first_table(text));
            let parts = [format!("{}\n{settings}", head.trim_end()), tables.to_owned(), more.to_owned()];
            let parts = parts.iter().map(|part| part.trim_matches('\n')).filter(|part| !part.is_empty());
            self.text = parts.collect::<Vec<_>>().join("\n\n") + "\n";
        } else {
            self.text.push_str(text);
        }
    }
}

fn sets(text: &str, key: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" =")))
}

fn at_first_table(text: &str) -> (&str, &str) {
    let at = if text.starts_with('[') { Some(0) } else { text.find("\n[").map(|at| at + 1) };
    text.split_at_checked(at.unwrap_or(text.len())).unwrap_or((text, ""))
}

/// A code block with the name of a file: ```` ```ini milter,proxy+srs main.cf ````.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block<'a> {
    /// Whom it is for, as typed.
    whom: &'a str,
    file: &'a str,
    text: &'a str,
}

impl<'a> Block<'a> {
    /// The methods that it is for, and whether with SRS only.
    fn methods(&self) -> impl Iterator<Item = (&'a str, bool)> + use<'a> {
        self.whom.split(',').map(|method| match method.strip_suffix("+srs") {
            Some(method) => (method, true),
            None => (method, false),
        })
    }
}

/// The line break before the closing fence is not part of the text.
fn blocks(document: &str) -> impl Iterator<Item = Block<'_>> {
    document.split("\n```").skip(1).filter_map(|piece| {
        // Ends of blocks have nothing behind their fence.
        let (head, text) = piece.split_once('\n')?;
        let mut words = head.split_whitespace().skip(1);
        let (whom, file) = (words.next()?, words.next()?);
        Some(Block { whom, file, text })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn blocks_are_found() {
        let document = "# A\n\n```toml milter,proxy+srs a.toml\nx = 1\n\n[a]\n```\ntext\n```\nnothing\n```\n\n```ini proxy b\ny\n```\n";
        let found: Vec<_> = blocks(document).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Block { whom: "milter,proxy+srs", file: "a.toml", text: "x = 1\n\n[a]" });
        assert_eq!(found[0].methods().collect::<Vec<_>>(), [("milter", false), ("proxy", true)]);
    }

    #[test]
    fn settings_stay_above_the_tables() {
        let mut piece = RecipePiece { file: "a.toml", text: "x = 1\n\n[a]\nb = 2\n".into() };
        piece.append("y = 3\n");
        assert_eq!(piece.text, "x = 1\ny = 3\n\n[a]\nb = 2\n");
        piece.append("[c]\nd = 4\n");
        assert_eq!(piece.text, "x = 1\ny = 3\n\n[a]\nb = 2\n\n[c]\nd = 4\n");
    }

    #[test]
    fn the_later_setting_of_postfix_replaces_the_earlier() {
        let mut piece = RecipePiece { file: "postfix-out/main.cf", text: "a_maps = x\na = y\n".into() };
        piece.append("a_maps = z\n");
        assert_eq!(piece.text, "a = y\na_maps = z\n");
    }

    /// Every recipe's config is a good one.
    #[test]
    fn configs_are_good() {
        for mta in Mta::ALL {
            assert!(!mta.methods().is_empty(), "{mta}");
            for (method, srs) in mta.built_methods().into_iter().flat_map(|method| [(method, false), (method, true)]) {
                let pieces = mta.recipe(method, srs);
                let config = pieces.iter().find(|piece| piece.file == "countersign.toml").unwrap();
                assert!(pieces.len() > 1, "{mta} {method}: nothing for the mail server");
                let parsed = Config::parse(Path::new("countersign.toml"), &config.text);
                let parsed = parsed.unwrap_or_else(|error| panic!("{mta} {method}: {error}\n{}", config.text));
                assert!(parsed.policy.domains.local.contains("our.example"));
                assert_eq!(!parsed.policy.domains.srs.is_empty(), srs, "{mta} {method}:\n{}", config.text);
            }
        }
    }
}
