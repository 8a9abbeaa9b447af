//! What is removed around a value that people write.

/// What some editors put in front of a text in UTF-8. It is no white space to `str::trim`.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A text without white space and byte order marks around it.
pub(super) fn trim_text(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK)
}
