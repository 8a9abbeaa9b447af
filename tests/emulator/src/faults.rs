//! Faults: failures that tests and demos inject into responses.
//!
//! A [`Fault`] selects requests (`path`, `times`, `probability`), changes the response (its other fields) and
//! determines how the response is sent (`kind`). The JSON form, for `POST /_emulator/faults`, has the same
//! names; README.md shows each once. An unknown field is an error, so that a test cannot pass because its
//! fault was misspelt.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::http::Response;

/// How a response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Completely; only the fields of the fault change it.
    #[default]
    Normal,
    /// The connection is reset (TCP RST) instead.
    Reset,
    /// The connection is closed instead.
    Close,
    /// Nothing is sent; the connection stays open.
    Silent,
    /// `Content-Length` announces the whole body; half of it is sent, then the connection is closed.
    Truncate,
    /// The body is valid, but padded with spaces to `size` bytes.
    Oversized,
    /// The body is sent one byte per `interval_ms`.
    Slow,
    /// Header lines are sent one per `interval_ms`, without end.
    SlowHeaders,
    /// The body is an HTML page, with status 200.
    NotJson,
    /// The response holds the last issued token again.
    SameToken,
}

impl Kind {
    /// Whether a response is sent at all.
    pub fn has_response(self) -> bool {
        !matches!(self, Kind::Reset | Kind::Close | Kind::Silent | Kind::SlowHeaders)
    }
}

/// One fault. A constructor makes it, methods refine it:
///
/// ```
/// use amp_emulator::Fault;
/// let unavailable = Fault::status(503).retry_after(2).times(3);
/// let flaky_api = Fault::reset().for_path("/v2/").forever().probability(0.2, 42);
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    pub(crate) kind: Kind,
    path: String,
    /// The number of requests that it still applies to; `None`: all.
    #[serde(deserialize_with = "count_or_forever")]
    times: Option<u64>,
    probability: Option<f64>,
    /// The state of the random number generator: the same seed gives the same sequence.
    seed: u64,
    latency_ms: u64,
    pub(crate) date_skew_s: i64,
    pub(crate) expires_in: Option<u64>,
    status: Option<u16>,
    body: Option<Value>,
    content_type: Option<String>,
    #[serde(deserialize_with = "number_or_string")]
    retry_after: Option<String>,
    headers: BTreeMap<String, String>,
    interval_ms: u64,
    size: usize,
}

impl Default for Fault {
    fn default() -> Fault {
        Fault {
            kind: Kind::Normal,
            path: "/oauth/token".to_owned(),
            times: Some(1),
            probability: None,
            seed: 0,
            latency_ms: 0,
            date_skew_s: 0,
            expires_in: None,
            status: None,
            body: None,
            content_type: None,
            retry_after: None,
            headers: BTreeMap::new(),
            interval_ms: 1000,
            size: 1 << 20,
        }
    }
}

/// Constructors: what goes wrong.
impl Fault {
    fn with_kind(kind: Kind) -> Fault {
        Fault { kind, ..Fault::default() }
    }

    /// A valid response, sent this many milliseconds late.
    #[must_use]
    pub fn latency_ms(milliseconds: u64) -> Fault {
        Fault::default().delayed_by_ms(milliseconds)
    }

    /// A response with this status, and an empty body unless [`Fault::body`] sets one.
    #[must_use]
    pub fn status(status: u16) -> Fault {
        Fault { status: Some(status), ..Fault::default() }
    }

    /// A response with status 200 and this body: see [`Fault::body`].
    #[must_use]
    pub fn response(body: impl Into<Value>) -> Fault {
        Fault::default().body(body)
    }

    /// Resets the connection (TCP RST) instead of sending a response.
    #[must_use]
    pub fn reset() -> Fault {
        Fault::with_kind(Kind::Reset)
    }

    /// Closes the connection instead of sending a response.
    #[must_use]
    pub fn close() -> Fault {
        Fault::with_kind(Kind::Close)
    }

    /// Sends no response and keeps the connection open.
    #[must_use]
    pub fn silent() -> Fault {
        Fault::with_kind(Kind::Silent)
    }

    /// Sends half of the announced body, then closes the connection.
    #[must_use]
    pub fn truncate() -> Fault {
        Fault::with_kind(Kind::Truncate)
    }

    /// A valid response whose body is padded with spaces to this many bytes.
    #[must_use]
    pub fn oversized(size: usize) -> Fault {
        Fault { size, ..Fault::with_kind(Kind::Oversized) }
    }

    /// A valid response whose body is sent one byte per this many milliseconds.
    #[must_use]
    pub fn slow(interval_ms: u64) -> Fault {
        Fault { interval_ms, ..Fault::with_kind(Kind::Slow) }
    }

    /// Sends one header line per this many milliseconds, without end.
    #[must_use]
    pub fn slow_headers(interval_ms: u64) -> Fault {
        Fault { interval_ms, ..Fault::with_kind(Kind::SlowHeaders) }
    }

    /// An HTML page with status 200, as a captive portal sends it.
    #[must_use]
    pub fn not_json() -> Fault {
        Fault::with_kind(Kind::NotJson)
    }

    /// A response with the last issued token (a new one if there was none).
    #[must_use]
    pub fn same_token() -> Fault {
        Fault::with_kind(Kind::SameToken)
    }

    /// A token that is valid for this many seconds.
    #[must_use]
    pub fn expires_in(seconds: u64) -> Fault {
        Fault { expires_in: Some(seconds), ..Fault::default() }
    }

    /// A valid response whose `Date` header is off by this many seconds.
    #[must_use]
    pub fn date_skew_s(seconds: i64) -> Fault {
        Fault { date_skew_s: seconds, ..Fault::default() }
    }
}

/// Which requests the fault applies to, and further changes of the response.
impl Fault {
    /// Applies to requests whose path starts with `path`. Default: `/oauth/token`.
    #[must_use]
    pub fn for_path(self, path: impl Into<String>) -> Fault {
        Fault { path: path.into(), ..self }
    }

    /// Applies to this many requests. Default: 1.
    #[must_use]
    pub fn times(self, times: u64) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Applies to all requests until the faults are cleared.
    #[must_use]
    pub fn forever(self) -> Fault {
        Fault { times: None, ..self }
    }

    /// Applies to each request with this probability (0 to 1). The same seed gives the same sequence.
    #[must_use]
    pub fn probability(self, probability: f64, seed: u64) -> Fault {
        Fault { probability: Some(probability), seed, ..self }
    }

    /// Also delays the response by this many milliseconds.
    #[must_use]
    pub fn delayed_by_ms(self, milliseconds: u64) -> Fault {
        Fault { latency_ms: milliseconds, ..self }
    }

    /// Replaces the body. A JSON string is sent as the raw text that it holds, any other JSON value as JSON.
    /// In its strings `{client_id}`, `{client_secret}` and `{request_body}` are replaced by the values of the
    /// request, and `{access_token}` by a new, valid token.
    #[must_use]
    pub fn body(self, body: impl Into<Value>) -> Fault {
        Fault { body: Some(body.into()), ..self }
    }

    /// Sets `Content-Type`.
    #[must_use]
    pub fn content_type(self, content_type: impl Into<String>) -> Fault {
        Fault { content_type: Some(content_type.into()), ..self }
    }

    /// Sets `Retry-After`: seconds, or a date as [`crate::http_date`] formats it.
    #[must_use]
    pub fn retry_after(self, retry_after: impl ToString) -> Fault {
        Fault { retry_after: Some(retry_after.to_string()), ..self }
    }

    /// Sets a header, which replaces any other of that name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Fault {
        self.headers.insert(name.into(), value.into());
        self
    }
}

impl Fault {
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// Returns the response that replaces the regular one, if this fault has a status or body.
    /// `placeholder` returns the value of a name in braces.
    pub(crate) fn override_response(&self, placeholder: &dyn Fn(&str) -> String) -> Option<Response> {
        let (body, content_type) = match &self.body {
            _ if self.kind == Kind::NotJson => ("<html><body>Please sign in</body></html>".into(), "text/html"),
            None if self.status.is_none() => return None,
            None => (Vec::new(), "text/plain"),
            Some(Value::String(text)) => (expand(text, placeholder).into_bytes(), "application/json"),
            Some(json) => (expand_json(json, placeholder).to_string().into_bytes(), "application/json"),
        };
        let response = Response { body, ..Response::empty(self.status.unwrap_or(200)) };
        Some(response.with("Content-Type", content_type))
    }

    /// Applies the other changes of this fault to a response, regular or overridden.
    pub(crate) fn apply_to(&self, mut response: Response) -> Response {
        let fixed = [("Content-Type", &self.content_type), ("Retry-After", &self.retry_after)];
        let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let others = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        response = fixed.chain(others).fold(response, |response, (name, value)| response.with(name, value));
        if self.kind == Kind::Oversized && response.body.len() < self.size {
            response.body.resize(self.size, b' ');
        }
        response
    }

    /// Decides by the fault's probability, if it has one (splitmix64, by Sebastiano Vigna, in the public domain).
    fn applies(&mut self) -> bool {
        let Some(probability) = self.probability else { return true };
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.seed;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

const PLACEHOLDERS: [&str; 4] = ["client_id", "client_secret", "request_body", "access_token"];

fn expand(text: &str, placeholder: &dyn Fn(&str) -> String) -> String {
    PLACEHOLDERS.iter().fold(text.to_owned(), |text, name| {
        let braced = format!("{{{name}}}");
        if text.contains(&braced) { text.replace(&braced, &placeholder(name)) } else { text }
    })
}

fn expand_json(json: &Value, placeholder: &dyn Fn(&str) -> String) -> Value {
    match json {
        Value::String(text) => Value::String(expand(text, placeholder)),
        Value::Array(items) => items.iter().map(|item| expand_json(item, placeholder)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), expand_json(value, placeholder))).collect()
        }
        other => other.clone(),
    }
}

/// The pending faults, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue(VecDeque<Fault>);

impl Queue {
    /// Adds a fault at the end, unless its `times` is 0.
    pub fn push(&mut self, fault: Fault) {
        if fault.times != Some(0) {
            self.0.push_back(fault);
        }
    }

    /// Returns the fault for a request with this path: the first that matches and applies.
    pub fn next_for(&mut self, path: &str) -> Option<Fault> {
        let matches = |fault: &mut Fault| path.starts_with(&fault.path) && fault.applies();
        let index = self.0.iter_mut().position(matches)?;
        let fault = self.0[index].clone();
        if let Some(times) = &mut self.0[index].times {
            *times -= 1;
            if *times == 0 {
                self.0.remove(index);
            }
        }
        Some(fault)
    }
}

impl FromIterator<Fault> for Queue {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Queue {
        let mut queue = Queue::default();
        faults.into_iter().for_each(|fault| queue.push(fault));
        queue
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrString {
    Number(u64),
    String(String),
}

fn count_or_forever<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    match NumberOrString::deserialize(input)? {
        NumberOrString::Number(times) => Ok(Some(times)),
        NumberOrString::String(text) if text == "forever" => Ok(None),
        NumberOrString::String(_) => Err(serde::de::Error::custom("`times` must be a number or \"forever\"")),
    }
}

fn number_or_string<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(Some(match NumberOrString::deserialize(input)? {
        NumberOrString::Number(number) => number.to_string(),
        NumberOrString::String(text) => text,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_apply_in_order_and_as_often_as_requested() {
        let mut queue: Queue = [
            Fault::status(503).times(2),
            Fault::reset().for_path("/v2/").forever(),
            Fault::close().times(0),
            Fault::silent(),
        ]
        .into_iter()
        .collect();
        let mut kind = |path| queue.next_for(path).map(|fault| (fault.kind, fault.status));
        assert_eq!(kind("/v2/content/hubs"), Some((Kind::Reset, None)));
        assert_eq!(kind("/oauth/token"), Some((Kind::Normal, Some(503))));
        assert_eq!(kind("/oauth/token"), Some((Kind::Normal, Some(503))));
        assert_eq!(kind("/oauth/token"), Some((Kind::Silent, None)));
        assert_eq!(kind("/oauth/token"), None);
        assert_eq!(kind("/v2/content/hubs"), Some((Kind::Reset, None)));
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let sequence = || {
            let mut queue: Queue = [Fault::reset().forever().probability(0.2, 7)].into_iter().collect();
            (0..1000).map(|_| queue.next_for("/oauth/token").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(sequence(), sequence());
        assert!((150..250).contains(&sequence().iter().filter(|applied| **applied).count()));
        assert!(!Fault::reset().probability(0.0, 1).applies());
        assert!(Fault::reset().probability(1.0, 1).applies());
    }

    #[test]
    fn unknown_names_in_json_are_errors() {
        let fault: Fault =
            serde_json::from_value(json!({"status": 429, "retry_after": 3, "times": "forever"})).unwrap();
        assert_eq!((fault.retry_after.as_deref(), fault.times), (Some("3"), None));
        assert!(serde_json::from_value::<Fault>(json!({"retry-after": 3})).is_err());
        assert!(serde_json::from_value::<Fault>(json!({"kind": "explode"})).is_err());
        assert!(serde_json::from_value::<Fault>(json!({"times": "often"})).is_err());
    }

    #[test]
    fn placeholders_are_expanded_and_escaped_in_json() {
        let value = |name: &str| format!("<\"{name}\">");
        let response = Fault::response(json!({"error": ["no {client_secret}"]})).override_response(&value).unwrap();
        assert_eq!(response.body, br#"{"error":["no <\"client_secret\">"]}"#);
        let response = Fault::response("{other} {client_id}").override_response(&value).unwrap();
        assert_eq!(response.body, br#"{other} <"client_id">"#);
    }
}
