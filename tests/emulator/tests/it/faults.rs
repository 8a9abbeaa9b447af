//! Each fault once, from the point of view of a client.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant, SystemTime};

use amp_emulator::{Emulator, Fault, http_date};
use serde_json::json;

use crate::client::{FORM, connect, exchange, fetch_token, get, send, token, token_request};

/// Starts an emulator with one fault. The quotes in the secret show whether JSON responses escape it.
fn with(fault: Fault) -> Emulator {
    let emulator = Emulator::builder().client("id", "the \"secret\"").start().unwrap();
    emulator.fault(fault);
    emulator
}

fn raw(emulator: &Emulator) -> io::Result<Vec<u8>> {
    exchange(connect(emulator), &token_request(emulator))
}

#[test]
fn latency() {
    let emulator = with(Fault::latency_ms(50));
    let before = Instant::now();
    assert_eq!(fetch_token(&emulator).status, 200);
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[test]
fn status_with_headers() {
    let date = http_date(SystemTime::UNIX_EPOCH);
    let emulator = with(
        Fault::status(503).retry_after(&date).header("x-request-id", "abc").body("busy").content_type("text/plain"),
    );
    let response = fetch_token(&emulator);
    assert_eq!(
        (response.status, response.body.as_str(), response.header("retry-after")),
        (503, "busy", Some(date.as_str()))
    );
    assert_eq!((response.header("x-request-id"), response.header("content-type")), (Some("abc"), Some("text/plain")));
    assert_eq!(fetch_token(&emulator).status, 200, "the default is once");
    emulator.faults([Fault::status(302).header("Location", "http://127.0.0.1:1/"), Fault::status(429).retry_after(7)]);
    assert_eq!(fetch_token(&emulator).header("location"), Some("http://127.0.0.1:1/"));
    assert_eq!(fetch_token(&emulator).header("retry-after"), Some("7"));
    let stats = emulator.stats();
    assert_eq!((stats.token_requests, stats.tokens_issued, stats.token_failures), (4, 1, 3));
}

#[test]
fn reset() {
    let emulator = with(Fault::reset());
    assert_eq!(raw(&emulator).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(emulator.stats().token_failures, 1);
}

#[test]
fn close() {
    assert_eq!(raw(&with(Fault::close())).unwrap(), b"");
}

#[test]
fn truncate() {
    let response = String::from_utf8(raw(&with(Fault::truncate())).unwrap()).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let promised = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(body.len(), promised.parse::<usize>().unwrap() / 2);
    assert!(body.starts_with(r#"{"access_token":"#));
}

#[test]
fn oversized() {
    let response = fetch_token(&with(Fault::oversized(100_000)));
    assert_eq!((response.body.len(), response.json()["expires_in"].as_u64()), (100_000, Some(300)));
}

#[test]
fn slow() {
    let emulator = with(Fault::slow(1).body("0123456789"));
    let before = Instant::now();
    assert_eq!(fetch_token(&emulator).body, "0123456789");
    assert!(before.elapsed() >= Duration::from_millis(10));
}

#[test]
fn slow_headers() {
    let emulator = with(Fault::slow_headers(1));
    let mut stream = connect(&emulator);
    stream.write_all(token_request(&emulator).as_bytes()).unwrap();
    let mut head = [0; 200];
    stream.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\nX-"));
    assert!(!head.windows(4).any(|bytes| bytes == b"\r\n\r\n"));
}

#[test]
fn silent() {
    let emulator = with(Fault::silent());
    let mut stream = connect(&emulator);
    stream.write_all(token_request(&emulator).as_bytes()).unwrap();
    assert!(emulator.wait_for_token_requests(1, Duration::from_secs(20)));
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
}

#[test]
fn not_json() {
    let response = fetch_token(&with(Fault::not_json()));
    assert_eq!((response.status, response.header("content-type")), (200, Some("text/html")));
    assert!(response.body.starts_with("<html>"));
}

#[test]
fn invalid_responses() {
    let emulator =
        with(Fault::response(json!({"access_token": "{access_token}", "expires_in": "-1", "token_type": "mac"})));
    let response = fetch_token(&emulator).json();
    assert_eq!(get(&emulator, "/v2/content/hubs", response["access_token"].as_str().unwrap()).status, 200);
    emulator
        .fault(Fault::status(400).body(json!({"error": "invalid_client", "error_description": "not {client_secret}"})));
    assert_eq!(fetch_token(&emulator).json()["error_description"], "not the \"secret\"");
    emulator.fault(Fault::response(r#"{"access_token":"a b","expires_in":1e999}"#));
    assert_eq!(fetch_token(&emulator).body, r#"{"access_token":"a b","expires_in":1e999}"#);
    emulator.fault(Fault::response("{request_body}"));
    assert!(fetch_token(&emulator).body.starts_with("client_id=id&"));
}

#[test]
fn same_token() {
    let emulator = with(Fault::latency_ms(0));
    let first = token(&emulator);
    emulator.fault(Fault::same_token());
    assert_eq!(token(&emulator), first);
    assert_ne!(token(&emulator), first);
}

#[test]
fn expires_in() {
    let emulator = with(Fault::expires_in(2));
    let response = fetch_token(&emulator).json();
    assert_eq!(response["expires_in"], 2);
    emulator.advance(Duration::from_secs(2));
    assert_eq!(get(&emulator, "/v2/content/hubs", response["access_token"].as_str().unwrap()).status, 403);
    emulator.fault(Fault::expires_in(u64::MAX));
    assert_eq!(fetch_token(&emulator).json()["expires_in"], u64::MAX);
}

#[test]
fn date_skew() {
    let emulator = with(Fault::date_skew_s(-3_000_000_000));
    let date = fetch_token(&emulator).header("date").unwrap().to_owned();
    assert!(date.ends_with(" GMT") && date.contains(" 19"), "{date}");
}

#[test]
fn faults_of_the_api() {
    let emulator = with(Fault::status(401).for_path("/v2/").forever());
    let token = token(&emulator);
    for _ in 0..2 {
        assert_eq!(get(&emulator, "/v2/content/hubs", &token).status, 401);
    }
    assert_eq!(emulator.stats().rejected, 2);
    emulator.clear_faults();
    assert_eq!(get(&emulator, "/v2/content/hubs", &token).status, 200);
}

#[test]
fn json_form() {
    let emulator = with(Fault::silent());
    let faults = json!([
        {"status": 503, "retry_after": 2, "times": 2},
        {"kind": "oversized", "size": 5000},
        {"path": "/graphql", "status": 400, "times": "forever", "probability": 1.0, "seed": 1},
    ]);
    assert_eq!(send(&emulator, "POST", "/_emulator/faults", "", &faults.to_string()).status, 200);
    let (first, second, third) = (fetch_token(&emulator), fetch_token(&emulator), fetch_token(&emulator));
    assert_eq!((first.status, first.header("retry-after"), second.status), (503, Some("2"), 503));
    assert_eq!((third.status, third.body.len()), (200, 5000));
    assert_eq!(send(&emulator, "POST", "/graphql", "", "").status, 400);
    let misspelt = send(&emulator, "POST", "/_emulator/faults", "", r#"{"statuss": 503}"#);
    assert!(misspelt.status == 400 && misspelt.body.contains("statuss"), "{misspelt:?}");
    assert_eq!(send(&emulator, "POST", "/_emulator/faults", "", "[]").status, 200);
    assert_eq!(send(&emulator, "POST", "/graphql", FORM, "").status, 401);
}

/// README.md shows every kind of fault; each example must be accepted.
#[test]
fn the_faults_in_the_readme_are_accepted() {
    let readme = include_str!("../../README.md");
    let examples: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `{")?.split("}` |").next()).collect();
    assert!(examples.len() >= 20, "{}", examples.len());
    let emulator = with(Fault::latency_ms(0));
    for fault in examples {
        let response = send(&emulator, "POST", "/_emulator/faults", "", &format!("{{{fault}}}"));
        assert_eq!(response.status, 200, "{fault}: {}", response.body);
    }
}
