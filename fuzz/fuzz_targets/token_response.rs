//! A reply of the token endpoint, of any status: a usable grant, or an error that repeats no secret.
#![no_main]
use amp_token::net::transport::Response;
use amp_token::net::url::Url;
use amp_token::oauth::client_credentials;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const SECRET: &str = "hush-hush-hush";

fuzz_target!(|input: (u16, Option<String>, Vec<u8>)| on_small_stack(move || run(input)));

fn run(input: (u16, Option<String>, Vec<u8>)) {
    let (status, retry_after, body) = input;
    let headers = retry_after.map(|text| ("Retry-After".to_owned(), text)).into_iter().collect();
    let response = Response { status, headers, body: body.into() };
    let url = Url::parse("https://auth.example/oauth/token").unwrap();
    match client_credentials::parse_token_response(&response, &url, &[SECRET], 1_700_000_000) {
        Ok(grant) => assert!(
            client_credentials::is_valid_bearer_token(grant.access_token.expose()) && grant.lifetime > Duration::ZERO
        ),
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(!text.contains(SECRET) && !text.contains(['\n', '\r', '\u{1b}']) && text.len() < 8192, "{text}");
        }
    }
}
