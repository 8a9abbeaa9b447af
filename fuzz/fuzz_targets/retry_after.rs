//! `Retry-After` and `Date`: the delay is within bounds, or there is none.
#![no_main]
use amp_token::net::transport::{Response, parse_http_date, retry_after};
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: (String, Option<String>, i64)| on_small_stack(move || run(input)));

fn run(input: (String, Option<String>, i64)) {
    let (text, date, now) = input;
    let mut headers = vec![("Retry-After".to_owned(), text.clone())];
    headers.extend(date.map(|date| ("Date".to_owned(), date)));
    let response = Response { status: 503, headers, body: Vec::new().into() };
    if let Some(delay) = retry_after(&response, now) {
        assert!(delay <= Duration::from_secs(24 * 60 * 60));
    }
    let _ = parse_http_date(&text);
}
