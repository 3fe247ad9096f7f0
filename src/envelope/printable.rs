//! Text that a stranger may have written, for terminals, logs and files.

use std::borrow::Cow;

/// Whether a terminal might obey a character, or show the text around it in another order.
pub(crate) fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with `?` in place of dangerous characters.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_dangerous) { Cow::Owned(text.replace(is_dangerous, "?")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        assert_eq!(printable("a\u{1b}[2J\r\n\u{9b}\u{202e}b"), "a?[2J????b");
        assert_eq!(printable("Jürgen@our.example"), "Jürgen@our.example");
    }
}
