//! Foreign text, made fit for an error message, a log line or a terminal.
//!
//! Foreign is what a server, a proxy, a certificate, a file or the environment says. [`sanitize`] makes one
//! short line of it:
//!
//! 1. It cuts the text, so that all further work is bounded.
//! 2. It strips control characters and characters that are invisible.
//! 3. It hides secrets in what is left, and whatever looks like a token.
//! 4. It cuts the result to [`QUOTE_LIMIT`].
//!
//! Nothing here recurses: a text decides how long the work takes, but not how much stack it needs.

/// The longest piece of foreign text that an error or a log line repeats, in characters.
pub const QUOTE_LIMIT: usize = 200;

/// How much of a text is looked at, in bytes: some echoes of a long secret, and the text around them.
const INPUT_LIMIT: usize = 2048;

/// What stands in place of what is hidden.
const REDACTED: &str = "[redacted]";

/// Makes foreign text fit to be shown: one line without control characters, no longer than [`QUOTE_LIMIT`]
/// (and an ellipsis), in which every one of `secrets` and whatever looks like a token is hidden.
pub fn sanitize(text: &str, secrets: &[&str]) -> String {
    let input = first_bytes(text, INPUT_LIMIT);
    let stripped: String = input.chars().filter(|c| c.is_whitespace() || !is_unprintable(*c)).collect();
    let mut line = stripped.split_whitespace().collect::<Vec<_>>().join(" ");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        // A server that echoes a form body echoes the encoded secret.
        for form in [(*secret).to_owned(), crate::oauth::form_encode(secret)] {
            if line.contains(&form) {
                line = line.replace(&form, REDACTED);
            }
        }
    }
    let mut shown = redact_tokens(&line);
    let end = shown.char_indices().nth(QUOTE_LIMIT).map(|(end, _)| end);
    if end.is_some() || input.len() < text.len() {
        shown.truncate(end.unwrap_or(shown.len()));
        shown.push('…');
    }
    shown
}

/// The beginning of a text: so many bytes, or fewer, so that it ends between two characters.
fn first_bytes(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Control characters, and those that reorder or hide text on a terminal.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Replaces what looks like a JSON web token or a personal access token.
fn redact_tokens(text: &str) -> String {
    const MARKS: [&str; 2] = ["eyJ", "amp_pat_"];
    const SHORTEST: usize = 17;
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "._-~+/=".contains(c);
        let token = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let (piece, length) = if !MARKS.iter().any(|mark| rest.starts_with(mark)) {
            (&rest[..c.len_utf8()], c.len_utf8())
        } else if token.len() < SHORTEST {
            (token, token.len())
        } else {
            (REDACTED, token.len())
        };
        shown.push_str(piece);
        rest = &rest[length..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_stripped_and_scrubbed() {
        assert_eq!(sanitize("no\r\nsuch\u{1b}[31m key", &[]), "no such[31m key");
        assert_eq!(sanitize("bad secret p&ss and p%26ss", &["p&ss"]), "bad secret [redacted] and [redacted]");
        assert_eq!(sanitize("got:amp_pat_0123456789abcdefghijkl.zz, sorry", &[]), "got:[redacted], sorry");
        assert_eq!(sanitize("\"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJh.x\"", &[]), "\"[redacted]\"");
        assert_eq!(sanitize(&"x".repeat(5000), &[]).chars().count(), QUOTE_LIMIT + 1);
        assert_eq!(sanitize("\u{202e}abc", &[]), "abc");
    }

    #[test]
    fn every_mark_of_a_token_counts() {
        assert_eq!(sanitize("eyJ,eyJhbGciOiJSUzI1NiJ9", &[]), "eyJ,[redacted]");
        assert_eq!(sanitize("eyJ0,amp_pat_0123456789abcdef", &[]), "eyJ0,[redacted]");
    }

    #[test]
    fn a_secret_is_hidden_where_it_was_interrupted() {
        assert_eq!(sanitize("bad hunter2-\u{200b}hunter2!", &["hunter2-hunter2"]), "bad [redacted]!");
    }

    /// A long text must not need more stack than a short one: threads of 128 KiB and less are common.
    #[test]
    fn long_text_needs_no_more_stack() {
        let text = ["eyJ", &"a".repeat(14), "!"].concat().repeat(3500);
        let shown = std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || sanitize(&text, &["a secret"]))
            .unwrap()
            .join()
            .unwrap();
        assert!(shown.chars().count() <= QUOTE_LIMIT + 1, "{shown}");
    }
}
