//! Text for a terminal, which control characters from a server must not reach.

use amp_token::sanitize::is_unprintable;
use zeroize::Zeroizing;

/// Lines of text, with control characters replaced. They may contain a new token.
pub fn lines(text: &[u8]) -> Zeroizing<String> {
    // A byte becomes a character of three bytes at most.
    let mut lines = Zeroizing::new(String::with_capacity(text.len() * 3));
    for chunk in text.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' if chars.peek() == Some(&'\n') => {}
                '\n' | '\t' => lines.push(c),
                c if is_unprintable(c) => lines.push(char::REPLACEMENT_CHARACTER),
                c => lines.push(c),
            }
        }
        if !chunk.invalid().is_empty() {
            lines.push(char::REPLACEMENT_CHARACTER);
        }
    }
    lines
}
