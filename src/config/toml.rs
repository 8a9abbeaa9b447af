//! The part of TOML that `config.toml` needs: sections with strings, whole numbers, booleans and arrays of strings.
//!
//! The grammar is that of the `toml_parser` crate, from which the `toml` crate is made. That crate's tree of values is
//! not used: it is large, and nested values would need a stack that a thread of the application may not have. What has
//! no meaning in `config.toml` is valid TOML all the same, and its error says so: nested tables and arrays, dotted keys.

use std::borrow::Cow;
use toml_parser::decoder::{Encoding, IntegerRadix, ScalarKind};
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Expected, ParseError, Raw, Source, Span};
use zeroize::Zeroizing;

/// A table, whose name is in brackets.
pub(super) struct Section {
    pub(super) name: String,
    pub(super) entries: Vec<Entry>,
}

/// A line of a section.
pub(super) struct Entry {
    pub(super) name: String,
    /// The line, from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    /// A string, a whole number, or `true` or `false`.
    Text(Zeroizing<String>),
    /// An array of strings.
    Strings(Zeroizing<Vec<String>>),
    /// A value of another type.
    Other,
}

/// Why a text is not a configuration, and where.
pub(super) struct Invalid {
    pub(super) problem: String,
    /// Both from 1.
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The sections of a text, in its order. Names are unique.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, Invalid> {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut error: Option<ParseError> = None;
    let mut reader = Reader { text, sections: Vec::new(), key: None, place: Place::Line, array: None };
    parse_document(&tokens, &mut reader, &mut error);
    match error {
        None => Ok(reader.sections),
        Some(error) => {
            let at = error.unexpected().or(error.context()).map_or(0, |span| span.start());
            let (line, column) = position(text, at);
            Err(Invalid { problem: describe(&error), line, column })
        }
    }
}

/// What is wrong, and what was expected. Nothing of the text is repeated.
fn describe(error: &ParseError) -> String {
    let mut problem = error.description().to_owned();
    for (number, expected) in error.expected().unwrap_or_default().iter().enumerate() {
        problem.push_str(if number == 0 { ", expected " } else { " or " });
        match expected {
            Expected::Literal("\n") => problem.push_str("a new line"),
            Expected::Literal(literal) => problem.push_str(&format!("`{literal}`")),
            Expected::Description(description) => problem.push_str(description),
            _ => {}
        }
    }
    problem
}

/// The line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// What the parser is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Line,
    Header,
}

/// Takes the events of the parser. After an error, which is the result, it does not matter what it has.
struct Reader<'a> {
    text: &'a str,
    sections: Vec<Section>,
    key: Option<(String, Span)>,
    place: Place,
    array: Option<Value>,
}

impl<'a> Reader<'a> {
    fn raw(&self, span: Span, encoding: Option<Encoding>) -> Raw<'a> {
        Raw::new_unchecked(self.text.get(span.start()..span.end()).unwrap_or_default(), encoding, span)
    }

    fn add(&mut self, value: Value, error: &mut dyn ErrorSink) {
        let Some((name, span)) = self.key.take() else { return };
        let (line, _) = position(self.text, span.start());
        match self.sections.last_mut() {
            None => error.report_error(ParseError::new("a setting outside of a section").with_unexpected(span)),
            Some(section) if section.entries.iter().any(|entry| entry.name == name) => {
                error.report_error(ParseError::new("duplicate key").with_unexpected(span));
            }
            Some(section) => section.entries.push(Entry { name, line, value }),
        }
    }
}

impl EventReceiver for Reader<'_> {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.place = Place::Header;
    }

    fn std_table_close(&mut self, _: Span, error: &mut dyn ErrorSink) {
        self.place = Place::Line;
        let Some((name, span)) = self.key.take() else { return };
        if self.sections.iter().any(|section| section.name == name) {
            error.report_error(ParseError::new("duplicate section").with_unexpected(span));
        }
        self.sections.push(Section { name, entries: Vec::new() });
    }

    fn array_table_open(&mut self, span: Span, error: &mut dyn ErrorSink) {
        error.report_error(ParseError::new("an array of tables has no meaning here").with_unexpected(span));
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut name = String::new();
        self.raw(span, encoding).decode_key(&mut name, error);
        self.key = Some((name, span));
    }

    fn key_sep(&mut self, span: Span, error: &mut dyn ErrorSink) {
        let problem = match self.place {
            Place::Header => "the name of a section has a dot and no quotation marks",
            Place::Line => "a dotted key has no meaning here",
        };
        error.report_error(ParseError::new(problem).with_unexpected(span));
    }

    fn inline_table_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        error.report_error(ParseError::new("an inline table has no meaning here").with_unexpected(span));
        false
    }

    fn array_open(&mut self, span: Span, error: &mut dyn ErrorSink) -> bool {
        if self.array.is_some() {
            error.report_error(ParseError::new("an array in an array has no meaning here").with_unexpected(span));
            return false;
        }
        self.array = Some(Value::Strings(Zeroizing::default()));
        true
    }

    fn array_close(&mut self, _: Span, error: &mut dyn ErrorSink) {
        if let Some(array) = self.array.take() {
            self.add(array, error);
        }
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = Cow::Borrowed("");
        let kind = self.raw(span, encoding).decode_scalar(&mut text, error);
        let text = Zeroizing::new(text.into_owned());
        match (&mut self.array, kind) {
            (Some(Value::Strings(strings)), ScalarKind::String) => strings.push(text.as_str().to_owned()),
            (Some(array), _) => *array = Value::Other,
            (None, ScalarKind::String | ScalarKind::Boolean(_) | ScalarKind::Integer(IntegerRadix::Dec)) => {
                self.add(Value::Text(text), error);
            }
            (None, _) => self.add(Value::Other, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let value = |value: &Value| match value {
            Value::Text(text) => format!("{:?}", text.as_str()),
            Value::Strings(strings) => format!("{:?}", &**strings),
            Value::Other => "other".to_owned(),
        };
        match parse(text) {
            Ok(sections) => sections
                .iter()
                .map(|section| {
                    let entries = section.entries.iter();
                    let entries =
                        entries.map(|entry| format!(" {}:{}={}", entry.line, entry.name, value(&entry.value)));
                    format!("[{}]{}", section.name, entries.collect::<String>())
                })
                .collect(),
            Err(Invalid { problem, line, column }) => format!("{problem} ({line}:{column})"),
        }
    }

    #[test]
    fn sections_have_values_of_three_types() {
        for (text, expected) in [
            ("", ""),
            ("# nothing\n\n", ""),
            ("[a]\n[\"b.c d\"]\n", "[a][b.c d]"),
            ("[a]\r\nx = 'l\\n' # c\r\ny=\"b\\n\\u00e9\"\r\n", r#"[a] 2:x="l\\n" 3:y="b\né""#),
            ("[a]\nx = 5_000\ny = -1\nz = true", r#"[a] 2:x="5000" 3:y="-1" 4:z="true""#),
            ("[a]\nx = ['p', \"q r\",\n  's',\n]\ny = []", r#"[a] 2:x=["p", "q r", "s"] 5:y=[]"#),
            ("[a]\nx = 1.5\ny = 2030-01-01\nz = 0xff\nw = ['a', 1]\n", "[a] 2:x=other 3:y=other 4:z=other 5:w=other"),
            ("[a]\nx = '''\nmulti\nline'''\n", r#"[a] 2:x="multi\nline""#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_invalid_or_has_no_meaning_has_its_place() {
        for (text, expected) in [
            ("x = 1\n", "a setting outside of a section (1:1)"),
            ("[a]\nx = y\n", "string values must be quoted, expected literal string (2:5)"),
            ("[a]\nx = \"hush\n", "invalid basic string, expected `\"` (2:10)"),
            ("[a\n", "unclosed table, expected `]` (1:3)"),
            ("[a]\nx 1\n", "key with no value, expected `=` (2:3)"),
            ("[a]\n[a]\n", "duplicate section (2:2)"),
            ("[a]\nx = 1\n é = 2\nx = 3\n", "invalid unquoted key, expected letters or numbers or `-` or `_` (3:2)"),
            ("[a]\nx = 1\nx = 3\n", "duplicate key (3:1)"),
            ("[a.b]\n", "the name of a section has a dot and no quotation marks (1:3)"),
            ("[a]\nx.y = 1\n", "a dotted key has no meaning here (2:2)"),
            ("[[a]]\n", "an array of tables has no meaning here (1:1)"),
            ("[a]\nx = {y = 1}\n", "an inline table has no meaning here (2:5)"),
            ("[a]\nx = [['y']]\n", "an array in an array has no meaning here (2:6)"),
            ("[a]\nx = '\\' 'hush'\n", "unexpected key or value, expected a new line or `#` (2:9)"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    /// A thread may have a small stack, which no file may exhaust.
    #[test]
    fn deep_nesting_needs_no_stack() {
        for (before, open) in
            [("[p]\na = ", "["), ("[p]\na = ", "{a="), ("[p]\n", "a."), ("[", "a."), ("[p]\na = ", "[{a=["), ("", "[[")]
        {
            let text = format!("{before}{}", open.repeat(64 * 1024 / open.len()));
            let small = std::thread::Builder::new().stack_size(64 * 1024);
            assert!(small.spawn(move || parse(&text).is_err()).unwrap().join().unwrap(), "{open}");
        }
    }
}
