//! Retry-After and Date, as texts: a pause within bounds, or none.
#![no_main]
use amp_token::oauth::retry;
use amp_token::net::transport::Response;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|input: (String, Option<String>, i64)| {
    let (retry_after, date, now) = input;
    let mut headers = vec![("Retry-After".to_owned(), retry_after.clone())];
    headers.extend(date.map(|date| ("Date".to_owned(), date)));
    let response = Response { status: 503, headers, body: Vec::new().into() };
    if let Some(wait) = retry::retry_after(&response, now) {
        assert!(wait <= Duration::from_secs(24 * 60 * 60));
    }
    let _ = retry::parse_http_date(&retry_after);
});
