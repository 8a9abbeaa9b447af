//! Faults: what is to go wrong, and with which requests. The table that tests and demos fill in.
//!
//! A [`Fault`] says which requests it is for (`path`, `times`, `probability`), what changes about the
//! reply (the fields) and how the reply is carried (`kind`). Its JSON form, for `POST /_emulator/faults`,
//! has the same names; README.md shows each once. A field that is not known is refused, so that a
//! misspelt fault cannot pass for a test.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::http::Reply;

/// How a reply is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// As it should be; the fault is in its fields.
    #[default]
    Normal,
    /// The connection is reset (TCP RST) instead.
    Reset,
    /// The connection is closed instead.
    Close,
    /// Nothing is ever sent; the connection stays open.
    Silent,
    /// The head promises the whole body; half of it is sent, then the connection ends.
    Truncate,
    /// The body is good, but padded with spaces to `size` bytes.
    Oversized,
    /// The body comes one byte per `interval_ms`.
    Slow,
    /// Header lines come one per `interval_ms`, without end.
    SlowHeaders,
    /// The body is a page of HTML, under status 200.
    NotJson,
    /// The token that was issued last is handed out again.
    SameToken,
}

impl Kind {
    /// Whether there is a reply to carry at all.
    pub fn has_reply(self) -> bool {
        !matches!(self, Kind::Reset | Kind::Close | Kind::Silent | Kind::SlowHeaders)
    }
}

/// One row of what is to go wrong. Made by one of the functions, refined by the methods:
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
    /// How many more requests it is for; `None`: all.
    #[serde(deserialize_with = "count_or_forever")]
    times: Option<u64>,
    probability: Option<f64>,
    /// Where the dice stand: the same seed gives the same sequence.
    seed: u64,
    latency_ms: u64,
    pub(crate) date_skew_s: i64,
    pub(crate) expires_in: Option<u64>,
    status: Option<u16>,
    body: Option<Value>,
    content_type: Option<String>,
    #[serde(deserialize_with = "number_or_text")]
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

/// What goes wrong.
impl Fault {
    fn of(kind: Kind) -> Fault {
        Fault { kind, ..Fault::default() }
    }

    /// The reply is good, but this many milliseconds late.
    #[must_use]
    pub fn latency_ms(milliseconds: u64) -> Fault {
        Fault::default().delayed_by_ms(milliseconds)
    }

    /// This status, with an empty body unless [`Fault::body`] gives one.
    #[must_use]
    pub fn status(status: u16) -> Fault {
        Fault { status: Some(status), ..Fault::default() }
    }

    /// This body under status 200: see [`Fault::body`].
    #[must_use]
    pub fn reply(body: impl Into<Value>) -> Fault {
        Fault::default().body(body)
    }

    /// The connection is reset (TCP RST) in place of a reply.
    #[must_use]
    pub fn reset() -> Fault {
        Fault::of(Kind::Reset)
    }

    /// The connection is closed in place of a reply.
    #[must_use]
    pub fn close() -> Fault {
        Fault::of(Kind::Close)
    }

    /// No reply ever comes; the connection stays open.
    #[must_use]
    pub fn silent() -> Fault {
        Fault::of(Kind::Silent)
    }

    /// Half of the promised body comes, then the connection ends.
    #[must_use]
    pub fn truncate() -> Fault {
        Fault::of(Kind::Truncate)
    }

    /// The reply is good, but padded with spaces to this many bytes.
    #[must_use]
    pub fn oversized(size: usize) -> Fault {
        Fault { size, ..Fault::of(Kind::Oversized) }
    }

    /// The reply is good, but its body comes one byte per so many milliseconds.
    #[must_use]
    pub fn slow(interval_ms: u64) -> Fault {
        Fault { interval_ms, ..Fault::of(Kind::Slow) }
    }

    /// Header lines come one per so many milliseconds, without end.
    #[must_use]
    pub fn slow_headers(interval_ms: u64) -> Fault {
        Fault { interval_ms, ..Fault::of(Kind::SlowHeaders) }
    }

    /// A page of HTML under status 200, as a captive portal sends it.
    #[must_use]
    pub fn not_json() -> Fault {
        Fault::of(Kind::NotJson)
    }

    /// The token that was issued last is handed out again (a new one, if there was none).
    #[must_use]
    pub fn same_token() -> Fault {
        Fault::of(Kind::SameToken)
    }

    /// The token of this reply lives for so many seconds.
    #[must_use]
    pub fn expires_in(seconds: u64) -> Fault {
        Fault { expires_in: Some(seconds), ..Fault::default() }
    }

    /// The reply is good, but its `Date` header is off by so many seconds.
    #[must_use]
    pub fn date_skew_s(seconds: i64) -> Fault {
        Fault { date_skew_s: seconds, ..Fault::default() }
    }
}

/// Which requests it is for, and what else is different about the reply.
impl Fault {
    /// For requests whose path starts with this; else for `/oauth/token`.
    #[must_use]
    pub fn for_path(self, path: impl Into<String>) -> Fault {
        Fault { path: path.into(), ..self }
    }

    /// For this many requests; else for one.
    #[must_use]
    pub fn times(self, times: u64) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// For all requests, until the faults are cleared.
    #[must_use]
    pub fn forever(self) -> Fault {
        Fault { times: None, ..self }
    }

    /// For each request with this probability (0 to 1). The same seed gives the same sequence.
    #[must_use]
    pub fn probability(self, probability: f64, seed: u64) -> Fault {
        Fault { probability: Some(probability), seed, ..self }
    }

    /// Comes this many milliseconds late as well.
    #[must_use]
    pub fn delayed_by_ms(self, milliseconds: u64) -> Fault {
        Fault { latency_ms: milliseconds, ..self }
    }

    /// With this body instead of the right one: a JSON string is sent as the raw text that it holds, any
    /// other JSON value as JSON. Within its texts `{client_id}`, `{client_secret}` and `{request_body}`
    /// stand for what the request brought, `{access_token}` for a new, valid token.
    #[must_use]
    pub fn body(self, body: impl Into<Value>) -> Fault {
        Fault { body: Some(body.into()), ..self }
    }

    /// With this `Content-Type`.
    #[must_use]
    pub fn content_type(self, content_type: impl Into<String>) -> Fault {
        Fault { content_type: Some(content_type.into()), ..self }
    }

    /// With a `Retry-After` header: seconds, or what [`crate::http_date`] gives.
    #[must_use]
    pub fn retry_after(self, retry_after: impl ToString) -> Fault {
        Fault { retry_after: Some(retry_after.to_string()), ..self }
    }

    /// With one more header, which replaces any other of that name.
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

    /// The reply to give in place of the right one, if this fault has one. `placeholder` tells what a
    /// name between braces stands for.
    pub(crate) fn override_response(&self, placeholder: &dyn Fn(&str) -> String) -> Option<Reply> {
        let (body, content_type) = match &self.body {
            _ if self.kind == Kind::NotJson => ("<html><body>Please sign in</body></html>".into(), "text/html"),
            None if self.status.is_none() => return None,
            None => (Vec::new(), "text/plain"),
            Some(Value::String(text)) => (fill(text, placeholder).into_bytes(), "application/json"),
            Some(json) => (filled_in(json, placeholder).to_string().into_bytes(), "application/json"),
        };
        let reply = Reply { body, ..Reply::empty(self.status.unwrap_or(200)) };
        Some(reply.with("Content-Type", content_type))
    }

    /// Changes what this fault changes about any reply, be it the right one or a replacement.
    pub(crate) fn apply_to(&self, mut reply: Reply) -> Reply {
        let fixed = [("Content-Type", &self.content_type), ("Retry-After", &self.retry_after)];
        let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let others = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        reply = fixed.chain(others).fold(reply, |reply, (name, value)| reply.with(name, value));
        if self.kind == Kind::Oversized && reply.body.len() < self.size {
            reply.body.resize(self.size, b' ');
        }
        reply
    }

    /// Throws the dice, if there are any (splitmix64, by Sebastiano Vigna, in the public domain).
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

fn fill(text: &str, placeholder: &dyn Fn(&str) -> String) -> String {
    PLACEHOLDERS.iter().fold(text.to_owned(), |text, name| {
        let braced = format!("{{{name}}}");
        if text.contains(&braced) { text.replace(&braced, &placeholder(name)) } else { text }
    })
}

fn filled_in(json: &Value, placeholder: &dyn Fn(&str) -> String) -> Value {
    match json {
        Value::String(text) => Value::String(fill(text, placeholder)),
        Value::Array(items) => items.iter().map(|item| filled_in(item, placeholder)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled_in(value, placeholder))).collect()
        }
        other => other.clone(),
    }
}

/// The faults to come, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue(VecDeque<Fault>);

impl Queue {
    /// Adds one at the end; one that is for no request at all is not kept.
    pub fn push(&mut self, fault: Fault) {
        if fault.times != Some(0) {
            self.0.push_back(fault);
        }
    }

    /// The fault for a request with this path: the first that matches and strikes.
    pub fn take(&mut self, path: &str) -> Option<Fault> {
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
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn count_or_forever<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    match NumberOrText::deserialize(input)? {
        NumberOrText::Number(times) => Ok(Some(times)),
        NumberOrText::Text(text) if text == "forever" => Ok(None),
        NumberOrText::Text(_) => Err(serde::de::Error::custom("`times` is a number or \"forever\"")),
    }
}

fn number_or_text<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    Ok(Some(match NumberOrText::deserialize(input)? {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_strike_in_order_as_often_as_they_should() {
        let mut queue: Queue = [
            Fault::status(503).times(2),
            Fault::reset().for_path("/v2/").forever(),
            Fault::close().times(0),
            Fault::silent(),
        ]
        .into_iter()
        .collect();
        let mut kind = |path| queue.take(path).map(|fault| (fault.kind, fault.status));
        assert_eq!(kind("/v2/content/hubs"), Some((Kind::Reset, None)));
        assert_eq!(kind("/oauth/token"), Some((Kind::Normal, Some(503))));
        assert_eq!(kind("/oauth/token"), Some((Kind::Normal, Some(503))));
        assert_eq!(kind("/oauth/token"), Some((Kind::Silent, None)));
        assert_eq!(kind("/oauth/token"), None);
        assert_eq!(kind("/v2/content/hubs"), Some((Kind::Reset, None)));
    }

    #[test]
    fn the_dice_repeat_themselves() {
        let strikes = || {
            let mut queue: Queue = [Fault::reset().forever().probability(0.2, 7)].into_iter().collect();
            (0..1000).map(|_| queue.take("/oauth/token").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(strikes(), strikes());
        assert!((150..250).contains(&strikes().iter().filter(|strike| **strike).count()));
        assert!(!Fault::reset().probability(0.0, 1).applies());
        assert!(Fault::reset().probability(1.0, 1).applies());
    }

    #[test]
    fn json_is_strict_about_names() {
        let fault: Fault =
            serde_json::from_value(json!({"status": 429, "retry_after": 3, "times": "forever"})).unwrap();
        assert_eq!((fault.retry_after.as_deref(), fault.times), (Some("3"), None));
        assert!(serde_json::from_value::<Fault>(json!({"retry-after": 3})).is_err());
        assert!(serde_json::from_value::<Fault>(json!({"kind": "explode"})).is_err());
        assert!(serde_json::from_value::<Fault>(json!({"times": "often"})).is_err());
    }

    #[test]
    fn placeholders_are_filled_in_and_quoted_where_json_needs_it() {
        let secret = |name: &str| format!("<\"{name}\">");
        let reply = Fault::reply(json!({"error": ["no {client_secret}"]})).override_response(&secret).unwrap();
        assert_eq!(reply.body, br#"{"error":["no <\"client_secret\">"]}"#);
        let reply = Fault::reply("{other} {client_id}").override_response(&secret).unwrap();
        assert_eq!(reply.body, br#"{other} <"client_id">"#);
    }
}
