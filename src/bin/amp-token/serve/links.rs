//! Rewrites the absolute links of HAL resources to this server, for clients that follow them (`--rewrite-links`).
//!
//! Only `href` members below `_links` are changed, and `_links` counts only where HAL defines it: in the resource itself
//! and in those of its `_embedded`. A content item may have a member of the same name in its body, and a client that
//! writes back what it has read would write a URL of this machine into the content. Everything else passes unchanged,
//! byte for byte: numbers keep their digits, and white space stays.
//!
//! By hand, because a JSON library reads a whole document and writes another one. This is a scanner that sees each byte
//! once, holds back at most the beginning of one string, and neither recurses nor grows with the depth of its input.

/// The deepest nesting of resources that is looked into. Deeper levels pass unchanged.
const DEEPEST: usize = 64;

/// The longest member name that matters is `_embedded`; of longer ones only so much is kept.
const LONGEST_NAME: usize = 16;

/// What a value is, by its place in the document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A resource, or an array of resources.
    Resource,
    /// The value of `_embedded`: its members are resources.
    Embedded,
    /// The value of `_links`, one of its members, or an array of links.
    Links,
    /// The value of `href` in a link.
    Href,
    Other,
}

/// An object or array that is open.
struct Level {
    place: Place,
    is_object: bool,
}

enum State {
    /// Between tokens. In an object, whether the next string is a name.
    Between,
    /// In a string that passes, after a backslash or not.
    Text { is_name: bool, is_escaped: bool },
    /// At the beginning of the value of `href`, of which this much equals the prefix.
    Prefix { matched: usize, is_escaped: bool },
}

/// A rewriter for one document.
pub struct Rewriter {
    /// What is replaced: the URL of the API, without a slash at its end.
    from: Vec<u8>,
    to: Vec<u8>,
    levels: Vec<Level>,
    /// Levels that are open and not looked into.
    skipped: usize,
    state: State,
    expects_name: bool,
    /// The name of the member whose value follows.
    name: Vec<u8>,
    /// What is held back of a value that may begin with the prefix.
    held: Vec<u8>,
}

impl Rewriter {
    pub fn new(from: &str, to: &str) -> Self {
        Rewriter {
            from: from.as_bytes().to_vec(),
            to: to.as_bytes().to_vec(),
            levels: Vec::new(),
            skipped: 0,
            state: State::Between,
            expects_name: false,
            name: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Passes on a part of the document.
    pub fn write(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for &byte in input {
            self.byte(byte, output);
        }
    }

    /// Passes on what is held back at the end of a document that is not complete.
    pub fn finish(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.held);
    }

    fn byte(&mut self, byte: u8, output: &mut Vec<u8>) {
        match self.state {
            State::Prefix { matched, is_escaped } => return self.prefix(byte, matched, is_escaped, output),
            State::Text { is_name, is_escaped } => {
                self.state = match (is_escaped, byte) {
                    (false, b'"') => State::Between,
                    (false, b'\\') => State::Text { is_name, is_escaped: true },
                    _ => State::Text { is_name, is_escaped: false },
                };
                let is_inside = matches!(self.state, State::Text { .. });
                if is_name && is_inside && self.name.len() < LONGEST_NAME {
                    self.name.push(byte);
                }
            }
            State::Between => self.between(byte),
        }
        output.push(byte);
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'"' if self.expects_name => {
                self.name.clear();
                self.expects_name = false;
                self.state = State::Text { is_name: true, is_escaped: false };
            }
            b'"' if self.place_of_value() == Place::Href => {
                self.state = State::Prefix { matched: 0, is_escaped: false };
            }
            b'"' => self.state = State::Text { is_name: false, is_escaped: false },
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => {
                if self.skipped > 0 {
                    self.skipped -= 1;
                } else {
                    self.levels.pop();
                }
                self.expects_name = false;
            }
            b',' => self.expects_name = self.skipped == 0 && self.levels.last().is_some_and(|level| level.is_object),
            _ => {}
        }
    }

    fn open(&mut self, is_object: bool) {
        let place = self.place_of_value();
        if self.skipped > 0 || matches!(place, Place::Other | Place::Href) || self.levels.len() == DEEPEST {
            self.skipped += 1;
            self.expects_name = false;
            return;
        }
        self.levels.push(Level { place, is_object });
        self.expects_name = is_object;
    }

    fn place_of_value(&self) -> Place {
        if self.skipped > 0 {
            return Place::Other;
        }
        let Some(level) = self.levels.last() else { return Place::Resource };
        if !level.is_object {
            return level.place;
        }
        match (level.place, self.name.as_slice()) {
            (Place::Resource, b"_links") | (Place::Links, _) if self.name != b"href" => Place::Links,
            (Place::Links, _) => Place::Href,
            (Place::Resource, b"_embedded") => Place::Embedded,
            (Place::Embedded, _) => Place::Resource,
            _ => Place::Other,
        }
    }

    /// Compares a value with the prefix. A slash may be written as `\/`.
    fn prefix(&mut self, byte: u8, matched: usize, is_escaped: bool, output: &mut Vec<u8>) {
        if matched == self.from.len() && (is_escaped || byte != b'\\') {
            // `https://api.example` is not the beginning of `https://api.example.org`.
            if byte == b'/' || !is_escaped && matches!(byte, b'?' | b'#' | b'"' | b'{') {
                self.held.clear();
                output.extend_from_slice(&self.to);
                output.extend(is_escaped.then_some(b'\\'));
            }
            return self.pass_on(byte, is_escaped, output);
        }
        match byte {
            b'\\' if !is_escaped => {
                self.held.push(byte);
                self.state = State::Prefix { matched, is_escaped: true };
            }
            _ if self.from.get(matched).is_some_and(|next| *next == byte) && (!is_escaped || byte == b'/') => {
                self.held.push(byte);
                self.state = State::Prefix { matched: matched + 1, is_escaped: false };
            }
            _ => self.pass_on(byte, is_escaped, output),
        }
    }

    /// The rest of the value is as any other string.
    fn pass_on(&mut self, byte: u8, is_escaped: bool, output: &mut Vec<u8>) {
        output.append(&mut self.held);
        self.state = State::Text { is_name: false, is_escaped };
        self.byte(byte, output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "https://api.example";
    const TO: &str = "http://127.0.0.1:1";

    /// The document, in pieces of each size.
    fn rewritten(document: &str) -> String {
        let mut results = (1..=document.len().clamp(1, 40)).map(|size| {
            let (mut rewriter, mut output) = (Rewriter::new(FROM, TO), Vec::new());
            document.as_bytes().chunks(size).for_each(|piece| rewriter.write(piece, &mut output));
            rewriter.finish(&mut output);
            String::from_utf8(output).unwrap()
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first));
        first
    }

    #[test]
    fn links_of_resources_are_rewritten() {
        for (document, expected) in [
            (
                r#"{"_links":{"self":{"href":"https://api.example/v2"}}}"#,
                r#"{"_links":{"self":{"href":"http://127.0.0.1:1/v2"}}}"#,
            ),
            (
                r#"{ "a" : [1.50, "x\"y"], "_links" : { "self" : { "templated": true, "href" : "https:\/\/api.example\/v2{?page}" } } }"#,
                r#"{ "a" : [1.50, "x\"y"], "_links" : { "self" : { "templated": true, "href" : "http://127.0.0.1:1\/v2{?page}" } } }"#,
            ),
            (
                r#"{"_embedded":{"hubs":[{"_links":{"c":[{"href":"https://api.example{?x}"},{"href":"https://api.example"}]}}]}}"#,
                r#"{"_embedded":{"hubs":[{"_links":{"c":[{"href":"http://127.0.0.1:1{?x}"},{"href":"http://127.0.0.1:1"}]}}]}}"#,
            ),
            (
                r#"[{"_embedded":{"one":{"_links":{"s":{"href":"https://api.example/"}}}},"z":0}]"#,
                r#"[{"_embedded":{"one":{"_links":{"s":{"href":"http://127.0.0.1:1/"}}}},"z":0}]"#,
            ),
        ] {
            assert_eq!(rewritten(document), expected);
        }
    }

    #[test]
    fn all_else_passes_unchanged() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let resources = format!("{}{{\"_links\":{{}}}}{}", r#"{"_embedded":{"a":"#.repeat(500), "}}".repeat(500));
        for document in [
            r#"{"body":{"_links":{"self":{"href":"https://api.example/v2"}}}}"#,
            r#"{"href":"https://api.example/v2","_embedded":"https://api.example"}"#,
            r#"{"_links":{"self":{"href":"https://api.example.org/"},"o":{"href":"https://api.exampl"}}}"#,
            r#"{"_links":{"self":{"href":"https://other.example/?u=https://api.example/"}}}"#,
            r#"{"_links":{"self":{"href":"https://api\u002eexample/"}}}"#,
            r#"{"_links":{"self":{"href":"https://api.example\u0041/"}}}"#,
            r#"{"_links":{"self":{"title":"https://api.example/"}}}"#,
            r#"{"_links":{"self":{"href":{"href":"https://api.example/"}}}}"#,
            r#"{"\u005flinks":{"self":{"href":"https://api.example/"}}}"#,
            r#"{"_links":{"self":{"href":"https:\/\n"#,
            r#"{"a":"\\","b":"{\"_links\":{\"self\":{\"href\":\"https://api.example/\"}}}"}"#,
            r#"}]}"_links":{"self":{"href":"#,
            "",
            "<html>",
            &deep,
            &resources,
        ] {
            assert_eq!(rewritten(document), document);
        }
    }

    /// What another parser reads afterwards is the same, links aside.
    #[test]
    fn numbers_and_order_are_kept() {
        let document =
            r#"{"n":12345678901234567890123,"f":1.10,"_links":{"a":{"href":"https://api.example/x"}},"é":"\u00e9"}"#;
        let output = rewritten(document);
        assert_eq!(output, document.replace(FROM, TO));
        assert!(serde_json::from_str::<serde_json::Value>(&output).is_ok());
    }
}
