//! Requests that carry the token: against the emulator over real sockets, and a night's publishing
//! in virtual time.

use amp_emulator::{Emulator, Fault};
use amp_token::api::{self, ApiRequest, RequestOptions};
use amp_token::config::Config;
use amp_token::error::{Error, Kind};
use amp_token::log::Log;
use amp_token::net::transport::{Request, Response};
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::cache::TokenCache;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    for (name, value) in settings {
        config.set(name, Some(value)).unwrap();
    }
    config
}

fn cache(emulator: &Emulator, more: &[(&str, &str)]) -> TokenCache {
    let (url, id, secret) = (emulator.url(), emulator.client_id(), emulator.client_secret());
    let mut config = config(&[("auth_url", &url), ("api_url", &url), ("client_id", &id), ("client_secret", &secret)]);
    config.set("proxy", Some("none")).unwrap();
    for (name, value) in more {
        config.set(name, Some(value)).unwrap();
    }
    TokenCache::new(&config).unwrap()
}

fn get<'a>(path: &'a str) -> ApiRequest<'a> {
    ApiRequest { method: "GET", path, content_type: None, body: b"" }
}

fn post<'a>(path: &'a str, body: &'a [u8]) -> ApiRequest<'a> {
    ApiRequest { method: "POST", path, content_type: Some("application/json"), body }
}

fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

const HUBS: &str = "/v2/content/hubs";

#[test]
fn collections_are_walked_page_by_page() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    let hubs = json_of(&api::request(&cache, &get(HUBS)).unwrap());
    let first = &hubs["_embedded"]["hubs"][0];
    // A link of the service's own: whole, and of the same origin.
    let link = first["_links"]["content-repositories"]["href"].as_str().unwrap().split('{').next().unwrap();
    let (mut path, mut names) = (Some(format!("{link}?size=10")), Vec::new());
    while let Some(this) = path {
        let response = api::request(&cache, &get(&this)).unwrap();
        assert_eq!(response.status, 200);
        let page = json_of(&response);
        let items = page["_embedded"]["content-repositories"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        path = api::next_page(&this, &response.body).unwrap();
    }
    assert_eq!(names.len(), 45);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 45);
    assert_eq!(emulator.stats().token_requests, 1);
}

#[test]
fn any_status_is_a_response() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    for status in [204, 302, 400, 404, 409, 500, 503] {
        emulator.fault(Fault::status(status).for_path(HUBS));
        assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, status);
    }
    assert_eq!(emulator.stats().api_requests, 7, "none was repeated");
}

#[test]
fn a_rejected_token_is_replaced_once() {
    // Its age makes the emulator answer with the 403 that Amplience answers.
    let emulator = Emulator::builder().expires_in(300).start().unwrap();
    let cache = cache(&emulator, &[]);
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    emulator.fault(Fault::status(401).for_path(HUBS));
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    assert_eq!(emulator.stats().token_requests, 2);
    // Refused again and again: one more token, and then the caller sees it.
    emulator.faults([Fault::status(401).for_path(HUBS).forever()]);
    let before = emulator.stats();
    let seen = api::request(&cache, &get(HUBS)).unwrap();
    let after = emulator.stats();
    // Tokens that are rejected as soon as they are issued make the cache back off; the rejection is still returned.
    assert_eq!(seen.status, 401);
    assert!(after.api_requests - before.api_requests <= 2);
    assert!(after.token_requests - before.token_requests <= 1);
}

#[test]
fn a_revoked_token_is_replaced_however_young_it_is() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    emulator.revoke_all();
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    assert_eq!(emulator.stats().token_requests, 2);
}

#[test]
fn a_403_about_a_permission_costs_no_token() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    let body = json!({"errors": [{"code": "FORBIDDEN", "message": "Not your hub"}]});
    emulator.fault(Fault::status(403).body(body).for_path(HUBS));
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 403);
    assert_eq!(emulator.stats().token_requests, 1);
}

/// The words are those of an expired token, but every token is rejected: the call costs one more token, and only
/// the first time. Calls that are allowed are not affected.
#[test]
fn one_call_that_is_always_rejected_stops_no_other() {
    const FORBIDDEN: &str = "/v2/content/content-repositories/000000000005eed100000001";
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    for status in [401, 403] {
        let body = json!({"errors": [{"code": "FORBIDDEN", "message": "Authorization required."}]});
        emulator.faults([Fault::status(status).body(body).for_path(FORBIDDEN).forever()]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(api::request(&cache, &get(FORBIDDEN)).unwrap().status, status);
                }
            });
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
                    }
                });
            }
        });
    }
    // The pause between replacements is in real time here: at most one in each of the first seconds.
    assert!(emulator.stats().token_requests < 10, "{}", emulator.stats().token_requests);
}

#[test]
fn the_token_reaches_no_other_origin() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let other = format!("http://{}/v2/content/hubs", elsewhere.local_addr().unwrap());
    // A redirect is returned, and not followed.
    for status in [301, 302, 303, 307, 308] {
        emulator.fault(Fault::status(status).header("Location", &other).for_path(HUBS));
        assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, status);
    }
    // A link to another origin is rejected before anything is sent.
    let before = emulator.stats().api_requests;
    let error = api::request(&cache, &get(&other)).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.to_string().contains("the token is only sent to"), "{error}");
    assert_eq!(emulator.stats().api_requests, before);
    assert!(elsewhere.accept().is_err(), "the token was sent to another origin");
}

#[test]
fn only_idempotent_methods_are_retried_after_a_failure() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    let busy = || Fault::status(503).retry_after(0).for_path("/v2");
    emulator.fault(busy());
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    emulator.fault(busy());
    assert_eq!(api::request(&cache, &post("/v2/content/x", b"{}")).unwrap().status, 503);
    // Longer than the call's timeout: the response is returned at once.
    emulator.fault(Fault::status(429).retry_after(3600).for_path("/v2"));
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 429);
}

#[test]
fn a_broken_connection_is_repeated_only_where_that_is_safe() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[]);
    emulator.fault(Fault::reset().for_path("/v2"));
    assert_eq!(api::request(&cache, &get(HUBS)).unwrap().status, 200);
    emulator.fault(Fault::close().for_path("/v2"));
    let error = api::request(&cache, &post("/v2/content/x", b"{}")).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (Kind::Connect, 1));
    assert!(!error.is_retryable(), "the caller must not repeat it blindly either");
}

/// A server in virtual time, whose tokens live for ten seconds, asks for a pause of twenty.
fn after_a_pause(auth_is_down_then: bool) -> (amp_token::error::Result<Response>, Vec<i64>) {
    let clock = ManualClock::new(5);
    let mut settings = config(&[
        ("client_id", "i"),
        ("client_secret", "s"),
        ("api_url", "https://api.example"),
        ("timeout_ms", "60000"),
        ("retries", "1"),
    ]);
    settings.clock = Clock::Manual(clock.clone());
    let (born, ages) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let seen = ages.clone();
    settings.transport = Some(Arc::new(move |request: &Request, _: Duration| {
        let now = clock.now().monotonic / 1_000_000_000;
        let (mut born, mut seen) = (born.lock().unwrap(), seen.lock().unwrap());
        if request.url.as_str().ends_with("/oauth/token") {
            if auth_is_down_then && !seen.is_empty() {
                return Err(Error::new(Kind::Connect, "down"));
            }
            born.push(now);
            let token = format!("{{\"access_token\":\"{}\",\"expires_in\":10}}", born.len() - 1);
            return Ok(Response { status: 200, headers: Vec::new(), body: token.into_bytes().into() });
        }
        let token = request.headers.iter().find(|(name, _)| *name == "Authorization").unwrap().1.expose();
        let token: usize = token.strip_prefix("Bearer ").unwrap().parse().unwrap();
        seen.push(now - born[token]);
        let (status, wait) = if seen.len() == 1 { (503, vec![("retry-after", "20")]) } else { (200, Vec::new()) };
        let headers = wait.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Response { status, headers, body: Vec::new().into() })
    }));
    let cache = TokenCache::new(&settings).unwrap();
    let result = api::request(&cache, &get(HUBS));
    let ages = ages.lock().unwrap().clone();
    (result, ages)
}

#[test]
fn a_repeated_request_carries_a_token_that_is_valid_by_then() {
    let (result, ages) = after_a_pause(false);
    assert_eq!((result.unwrap().status, ages), (200, vec![0, 0]));
    // Without one, nothing is sent, and the API's last response is returned.
    let (result, ages) = after_a_pause(true);
    assert_eq!((result.unwrap().status, ages), (503, vec![0]));
}

/// A cache with a permanent token, and what its transport was given: the headers and the time for each request.
#[expect(clippy::type_complexity, reason = "a list of lists")]
fn recording() -> (TokenCache, Arc<Mutex<Vec<(Vec<(String, String)>, Duration)>>>) {
    let mut settings = config(&[("personal_access_token", "amp_pat_a.b"), ("retries", "0")]);
    settings.clock = Clock::Manual(ManualClock::new(5));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    settings.transport = Some(Arc::new(move |request: &Request, left: Duration| {
        let headers = request.headers.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned()));
        log.lock().unwrap().push((headers.collect(), left));
        Ok(Response { status: 200, headers: Vec::new(), body: Vec::new().into() })
    }));
    (TokenCache::new(&settings).unwrap(), sent)
}

#[test]
fn a_request_may_have_headers_and_a_time_limit_of_its_own() {
    let (cache, sent) = recording();
    let headers = [("If-Match", "\"1\""), ("accept", "text/plain"), ("X-Empty", ""), ("Content-Type", "text/plain")];
    let call = ApiRequest { content_type: Some("text/plain"), ..post("/x", b"y") };
    let timeout = Some(Duration::from_millis(1500));
    api::request_with(&cache, &call, &RequestOptions { headers: &headers, timeout }).unwrap();
    api::request(&cache, &get("/x")).unwrap();
    let sent = sent.lock().unwrap();
    let named = |index: usize, wanted: &str| -> Vec<&str> {
        let headers: &[(String, String)] = &sent[index].0;
        headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| &value[..]).collect()
    };
    assert_eq!((named(0, "if-match"), named(0, "x-empty")), (vec!["\"1\""], vec![""]));
    assert_eq!((named(0, "accept"), named(0, "content-type")), (vec!["text/plain"], vec!["text/plain"]));
    assert_eq!((named(0, "authorization"), named(0, "user-agent").len()), (vec!["Bearer amp_pat_a.b"], 1));
    assert!(named(1, "accept")[0].starts_with("application/json") && named(1, "if-match").is_empty());
    assert_eq!((sent[0].1, sent[1].1), (Duration::from_millis(1500), Duration::from_secs(30)));
}

#[test]
fn headers_that_must_not_be_sent_are_rejected() {
    let (cache, sent) = recording();
    let long = "x".repeat(17_000);
    for (name, value) in [
        ("", "x"),
        ("A:", "x"),
        ("A B", "x"),
        ("X\r\nY", "x"),
        ("Ä", "x"),
        ("X-A", "x\r\nAuthorization: y"),
        ("X-A", "S3cret\0"),
        ("X-A", "ü"),
        ("X-A", long.as_str()),
        ("authorization", "Bearer S3cret"),
        ("Host", "elsewhere.example"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive"),
        ("Expect", "100-continue"),
    ] {
        let options = RequestOptions { headers: &[("X-Good", "x"), (name, value)], timeout: None };
        let error = api::request_with(&cache, &get("/x"), &options).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{name:?}");
        assert!(!error.to_string().contains("S3cret") && error.to_string().len() < 200, "{error}");
    }
    let many = [("X-A", "b"); 65];
    let options = |headers| RequestOptions { headers, timeout: None };
    assert!(api::request_with(&cache, &get("/x"), &options(&many)).is_err());
    assert!(sent.lock().unwrap().is_empty());
    assert!(api::request_with(&cache, &get("/x"), &options(&many[..64])).is_ok());
}

#[test]
fn graphql_and_personal_access_tokens() {
    let emulator = Emulator::builder().start().unwrap();
    let with_key = cache(&emulator, &[]);
    let response = api::graphql(&with_key, "query { __typename }", Some(r#"{"a": 1}"#)).unwrap();
    assert_eq!(json_of(&response)["data"]["__typename"], "Query");
    for bad in ["[1]", "{", "1"] {
        assert_eq!(api::graphql(&with_key, "query { a }", Some(bad)).unwrap_err().kind(), Kind::InvalidArgument);
    }
    let name = "a \"name\" \\ with { signs }";
    let made = json_of(&api::create_personal_access_token(&with_key, name, "T3JnOjE=").unwrap());
    let made = &made["data"]["createPersonalAccessToken"];
    assert_eq!(made["name"], name);
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("amp_pat_"), "{made}");

    let lines = Arc::new(Mutex::new(Vec::new()));
    let (url, sink) = (emulator.url(), lines.clone());
    let mut settings =
        config(&[("auth_url", &url), ("api_url", &url), ("personal_access_token", token), ("proxy", "none")]);
    settings.log = Log::new(move |_, line| sink.lock().unwrap().push(line.to_owned()));
    let with_token = TokenCache::new(&settings).unwrap();
    let before = emulator.stats().token_requests;
    assert_eq!(api::request(&with_token, &get(HUBS)).unwrap().status, 200);
    emulator.revoke(token);
    assert_eq!(api::request(&with_token, &get(HUBS)).unwrap().status, 403);
    let lines = lines.lock().unwrap().join("\n");
    assert!(lines.contains("it was deleted, its user was removed") && !lines.contains(token), "{lines}");
    assert_eq!(emulator.stats().token_requests, before, "a personal access token asks the auth service nothing");
}

/// Variables come from the application's own users, and a thread may have a small stack.
#[test]
fn deep_variables_of_graphql_need_no_stack() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = Arc::new(cache(&emulator, &[]));
    for text in ["[", "{\"a\":"] {
        let (cache, deep) = (cache.clone(), text.repeat(10_000));
        let send = move || api::graphql(&cache, "query { __typename }", Some(&deep)).unwrap_err();
        let small = std::thread::Builder::new().stack_size(64 * 1024).spawn(send).unwrap();
        assert_eq!(small.join().unwrap().kind(), Kind::InvalidArgument);
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    assert_eq!(api::graphql(&cache, "query { __typename }", Some(&deep)).unwrap().status, 200);
}

#[test]
fn a_response_has_a_limit() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[("max_response_bytes", "100000")]);
    emulator.fault(Fault::oversized(1 << 20).for_path(HUBS));
    let error = api::request(&cache, &get(HUBS)).unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
}

#[test]
fn a_download_of_any_size_goes_to_its_sink() {
    let emulator = Emulator::builder().start().unwrap();
    let cache = cache(&emulator, &[("max_response_bytes", "1000")]);
    const SIZE: usize = 3_000_000;
    emulator.fault(Fault::oversized(SIZE).for_path(HUBS));
    let (mut length, mut pieces) = (0, 0);
    let response = api::download(&cache, HUBS, &mut |piece| {
        length += piece.len();
        pieces += 1;
        true
    });
    let response = response.unwrap();
    assert_eq!((response.status, response.body.len(), length), (200, 0, SIZE));
    assert!(pieces > 10, "{pieces} pieces");
    // The sink may stop the download, which is then not restarted.
    emulator.fault(Fault::oversized(SIZE).for_path(HUBS));
    let before = emulator.stats().api_requests;
    let error = api::download(&cache, HUBS, &mut |_| false).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Io, false));
    assert_eq!(emulator.stats().api_requests, before + 1);
    // An interrupted download is not restarted, because the sink already has its beginning.
    emulator.fault(Fault::truncate().for_path(HUBS));
    let before = emulator.stats().api_requests;
    let mut taken = 0;
    let error = api::download(&cache, HUBS, &mut |piece| {
        taken += piece.len();
        true
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    assert!(taken > 0 && emulator.stats().api_requests == before + 1);
    // An error response is returned like any other; a rejected token is replaced.
    emulator.fault(Fault::status(404).body("gone").for_path(HUBS));
    let response = api::download(&cache, HUBS, &mut |_| panic!("not a success")).unwrap();
    assert_eq!((response.status, &response.body[..]), (404, &b"gone"[..]));
    emulator.fault(Fault::status(401).for_path(HUBS));
    let mut taken = Vec::new();
    let response = api::download(&cache, HUBS, &mut |piece| {
        taken.extend_from_slice(piece);
        true
    });
    assert_eq!(response.unwrap().status, 200);
    assert!(serde_json::from_slice::<Value>(&taken).is_ok());
}

/// The service of the night: tokens that expire by the virtual clock, an API that rejects expired ones with
/// Amplience's 403, and a record of the published items.
struct Night {
    clock: Arc<ManualClock>,
    auth_is_down: AtomicBool,
    tokens: AtomicU64,
    deaths: Mutex<HashMap<String, i64>>,
    published: Mutex<HashMap<String, u32>>,
    refused: AtomicU64,
}

impl Night {
    fn answer(&self, request: &Request) -> Result<Response, Error> {
        let reply = |status, body: String| Ok(Response { status, headers: Vec::new(), body: body.into_bytes().into() });
        // Each request takes its time; sixteen run side by side.
        self.clock.advance(Duration::from_millis(20));
        if request.url.as_str().ends_with("/oauth/token") {
            if self.auth_is_down.load(Ordering::SeqCst) {
                return Err(Error::new(Kind::Connect, "the auth server is down"));
            }
            let token = format!("token-{}", self.tokens.fetch_add(1, Ordering::SeqCst));
            let death = self.clock.now().wall + 300_000_000_000;
            self.deaths.lock().unwrap().insert(token.clone(), death);
            return reply(200, format!(r#"{{"access_token":"{token}","session_expires_in":0,"expires_in":300}}"#));
        }
        assert!(request.url.as_str().starts_with("https://api.example/"), "a token on its way to {}", request.url);
        let header = request.headers.iter().find(|(name, _)| *name == "Authorization").unwrap().1.expose();
        let token = header.strip_prefix("Bearer ").unwrap();
        if self.clock.now().wall >= self.deaths.lock().unwrap()[token] {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let body = r#"{"errors":[{"level":"ERROR","code":"FORBIDDEN","message":"Authorization required."}]}"#;
            return reply(403, body.to_owned());
        }
        let item = String::from_utf8(request.body.to_vec()).unwrap();
        let mut published = self.published.lock().unwrap();
        *published.entry(item).or_default() += 1;
        // What happens in the night happens under this lock, so that the others cannot run ahead.
        match published.len() {
            // The tokens of the key are revoked, when the current one has been used for a while.
            5_000 => {
                self.clock.advance(Duration::from_secs(100));
                self.deaths.lock().unwrap().values_mut().for_each(|death| *death = 0);
            }
            // And later the auth server is down for most of a window.
            16_000 => self.auth_is_down.store(true, Ordering::SeqCst),
            18_000 => self.auth_is_down.store(false, Ordering::SeqCst),
            _ => {}
        }
        drop(published);
        reply(201, "{}".to_owned())
    }
}

#[test]
fn a_night_of_publishing() {
    const THREADS: usize = 16;
    const ITEMS: usize = 1500;
    let night = Arc::new(Night {
        clock: ManualClock::new(23),
        auth_is_down: AtomicBool::new(false),
        tokens: AtomicU64::new(0),
        deaths: Mutex::default(),
        published: Mutex::default(),
        refused: AtomicU64::new(0),
    });
    let mut settings = config(&[
        ("client_id", "i"),
        ("client_secret", "s"),
        ("api_url", "https://api.example"),
        ("timeout_ms", "600000"),
    ]);
    settings.clock = Clock::Manual(night.clock.clone());
    let service = night.clone();
    settings.transport = Some(Arc::new(move |request: &Request, timeout: Duration| {
        // The others let time pass while this thread does not get to run.
        let start = service.clock.now();
        let answer = service.answer(request);
        let is_late = start.remaining_until(service.clock.now()) > timeout;
        if is_late { Err(Error::new(Kind::Timeout, "too late")) } else { answer }
    }));
    let cache = TokenCache::new(&settings).unwrap();
    let start = night.clock.now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let cache = &cache;
            scope.spawn(move || {
                for item in 0..ITEMS {
                    let body = format!("{{\"item\":\"{thread}-{item}\"}}");
                    let path = "/v2/content/content-repositories/1/content-items";
                    let response = api::request(cache, &post(path, body.as_bytes())).unwrap();
                    assert_eq!(response.status, 201, "item {thread}-{item}");
                    let token = cache.get();
                    assert!(token.is_ok(), "no call fails while the token is usable: {token:?}");
                }
            });
        }
    });
    let published = night.published.lock().unwrap();
    assert_eq!(published.len(), THREADS * ITEMS, "every item was published");
    assert!(published.values().all(|times| *times == 1), "an item was published twice");
    println!(
        "a night: {} items in {:?} of virtual time, {} tokens, {} refused requests recovered",
        published.len(),
        start.remaining_until(night.clock.now()),
        night.tokens.load(Ordering::SeqCst),
        night.refused.load(Ordering::SeqCst)
    );
    assert!(cache.statistic("failures").unwrap() >= 1, "the outage fell into the time of a renewal");
    assert!(night.refused.load(Ordering::SeqCst) >= 1);
    assert!(night.tokens.load(Ordering::SeqCst) >= 3);
}
