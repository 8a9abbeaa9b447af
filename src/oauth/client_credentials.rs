//! The client credentials grant (RFC 6749, 4.4): one request, one response, as pure functions over bytes.
//!
//! The credentials are in the form body, as Amplience documents it; never in the URL or in HTTP Basic
//! authentication. The parser is strict where a mistake would do harm (a token that cannot be sent in a header, a
//! lifetime that is not a number) and lenient where Amplience differs from the RFC (`token_type` is missing).
//! An error response may have any form. The module `failure` decides whose fault it is.

use super::failure;
use super::token_body::{self, OauthError, Seconds, TokenBody};
use crate::error::{Error, Kind, Phase, Result};
use crate::net::transport::{Request, Response, retry_after};
use crate::net::url::{Url, form_encode};
use crate::sanitize::sanitize;
use crate::sys::secret::{MaybeSecret, Secret};
use std::time::Duration;
use zeroize::Zeroizing;

/// The maximum size of a response. A token has about 1.1 KB, and an error page may be larger.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// The maximum length of a token in bytes: half of the header section that common servers accept.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The maximum lifetime; a longer one counts as this, so that nothing overflows.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A successful token response.
#[derive(Debug)]
pub struct TokenResponse {
    /// The access token: visible ASCII.
    pub access_token: Secret,
    /// Its lifetime, counted from before the request was sent.
    pub lifetime: Duration,
}

/// Builds the token request.
pub fn token_request(token_url: &Url, client_id: &str, client_secret: &Secret, user_agent: &str) -> Request {
    let secret = Zeroizing::new(form_encode(client_secret.expose()));
    let id = form_encode(client_id);
    let parts = ["client_id=", &id, "&client_secret=", &secret, "&grant_type=client_credentials"];
    // Allocated once: a buffer that grows leaves a copy of the secret behind.
    let mut body = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        body.extend_from_slice(part.as_bytes());
    }
    Request {
        method: "POST".to_owned(),
        url: token_url.clone(),
        headers: vec![
            ("Content-Type".into(), "application/x-www-form-urlencoded".into()),
            ("Accept".into(), "application/json".into()),
            ("User-Agent".into(), MaybeSecret::Public(user_agent.to_owned().into())),
        ],
        body,
        max_response_bytes: MAX_RESPONSE_BYTES,
    }
}

/// Parses the response. `secrets` are the strings that an error must not contain. `wall` is the local time in
/// Unix seconds, for a `Retry-After` that is a date.
pub fn parse_token_response(response: &Response, url: &Url, secrets: &[&str], wall: i64) -> Result<TokenResponse> {
    let text = token_body::text(&response.body);
    let body = TokenBody::parse(&text);
    let host = url.host();
    let failure = match (response.status, &body) {
        (200..=299, Some(body)) if body.error() == OauthError::None => match parse_success(body) {
            Ok(grant) => return Ok(grant),
            Err((what, advice)) => {
                Error::new(Kind::Protocol, format!("unexpected token response from {host}: {what}")).with_hint(advice)
            }
        },
        (200..=299, None) => {
            let what = failure::describe_body(response, &text, false, secrets);
            let message = format!("unexpected token response from {host}: {what} instead of a JSON object");
            Error::new(Kind::Protocol, message).with_hint(failure::INTERMEDIARY)
        }
        (300..=399, _) => {
            let target = sanitize(response.header("location").unwrap_or("an unknown location"), secrets);
            Error::new(Kind::Protocol, format!("{host} redirected to {target}")).with_hint(
                "redirects are not followed, because the request carries credentials; \
                     set auth_url to the URL of the authorization server",
            )
        }
        (_, body) => failure::describe(response, &text, body.as_ref(), host, secrets),
    };
    let (code, description) = match &body {
        Some(body) => (body.error_code(), body.error_description.as_deref()),
        None => (None, None),
    };
    let shown = |text: Option<&str>| text.map(|text| sanitize(text, secrets)).filter(|text| !text.is_empty());
    Err(failure
        .with_phase(Phase::Parse)
        .with_host(host)
        .with_http_status(response.status)
        .with_oauth_error(shown(code), shown(description))
        .with_request_id(shown(REQUEST_ID_HEADERS.iter().find_map(|name| response.header(name))))
        .with_retry_after(retry_after(response, wall)))
}

/// The headers in which servers and their front ends send the id of a request.
const REQUEST_ID_HEADERS: [&str; 4] = ["x-request-id", "x-amzn-requestid", "x-correlation-id", "cf-ray"];

/// Extracts the token from a success response, or returns what is wrong with it, and a hint.
fn parse_success(body: &TokenBody) -> std::result::Result<TokenResponse, (&'static str, &'static str)> {
    const ASK: &str = "this is a fault of the server; ask Amplience, or check that auth_url is right";
    let token = match &body.access_token {
        Some(token) => token,
        None if body.has_other_token => return Err(("the access_token is not a string", ASK)),
        None => return Err(("no access_token", "check that auth_url is the authorization server")),
    };
    if !is_valid_bearer_token(token) {
        return Err(("the access_token cannot be sent in a header", ASK));
    }
    if body.token_type.as_deref().is_some_and(|kind| !kind.trim().eq_ignore_ascii_case("bearer")) {
        return Err(("the token_type is not bearer, the only one that is supported", ASK));
    }
    match body.expires_in {
        Seconds::Missing => Err(("no expires_in", ASK)),
        Seconds::Invalid => Err(("expires_in is not a positive whole number of seconds", ASK)),
        Seconds::Valid(seconds) => Ok(TokenResponse {
            access_token: Secret::from(&**token),
            lifetime: Duration::from_secs(seconds).min(MAX_LIFETIME),
        }),
    }
}

/// Whether a string can be sent as a bearer token: visible ASCII, not empty, and within the maximum length.
pub fn is_valid_bearer_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN_BYTES && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://auth.example/oauth/token";

    fn url() -> Url {
        Url::parse(URL).unwrap()
    }

    fn answer(status: u16, body: &str) -> Result<TokenResponse> {
        answer_with(status, body, &[])
    }

    fn answer_with(status: u16, body: &str, headers: &[(&str, &str)]) -> Result<TokenResponse> {
        let response = Response {
            status,
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        parse_token_response(&response, &url(), &["s3cret&"], 1_700_000_000)
    }

    #[test]
    fn the_request_is_the_documented_one() {
        let request = token_request(&url(), "id", &Secret::from("a+secret/with=chars &%~é"), "me");
        assert_eq!(request.method, "POST");
        assert_eq!(request.url.as_str(), URL);
        assert_eq!(
            std::str::from_utf8(&request.body).unwrap(),
            "client_id=id&client_secret=a%2Bsecret%2Fwith%3Dchars+%26%25%7E%C3%A9&grant_type=client_credentials"
        );
        assert_eq!(request.body.len(), request.body.capacity());
        assert!(!format!("{request:?}").contains("secret/with"));
    }

    #[test]
    fn amplience_s_reply_is_accepted() {
        let grant = answer(200, r#"{"access_token":"eyJ.a.b","session_expires_in":0,"expires_in":300}"#).unwrap();
        assert_eq!(grant.access_token.expose(), "eyJ.a.b");
        assert_eq!(grant.lifetime, Duration::from_secs(300));
    }

    #[test]
    fn success_replies_are_read_strictly_where_it_matters() {
        for good in [
            r#"{"access_token":"t","expires_in":"300"}"#,
            r#"{"access_token":"t","expires_in":300,"token_type":"BEARER"}"#,
            r#"{"access_token":"t","expires_in":300,"other":{"deep":[1,null]},"error":null}"#,
            "\u{feff}{\"access_token\":\"t\",\"expires_in\":300}",
            r#"{"access_token":"t","expires_in":300.0,"error":"","error_description":[],"token_type":""}"#,
            r#"{"access_token":"t","expires_in":"3e2","error":false,"error_description":{},"token_type":null}"#,
            r#"{"access_token":"t","expires_in":1e400,"error":0,"token_type":" bearer "}"#,
            r#"{"access_token":"\u0074","expires_in":18446744073709551615}"#,
        ] {
            assert_eq!(answer(200, good).unwrap().access_token.expose(), "t", "{good}");
        }
        for (bad, says) in [
            ("", "an empty body instead of a JSON object"),
            ("<html>", "a web page instead of a JSON object"),
            ("[]", "a body of another form instead of a JSON object"),
            ("null", "a body of another form"),
            (r#"{"access_token":5,"expires_in":300}"#, "the access_token is not a string"),
            (r#"{"access_token":"t","access_token":"u","expires_in":300}"#, "invalid JSON"),
            (r#"{"access_token":"t","expires_in":300"#, "invalid JSON"),
            (r#"{"access_token":"t","expires_in":300,"error":{"code":5}}"#, "an error with a success status"),
            (r#"{"expires_in":300}"#, "no access_token"),
            (r#"{"access_token":null,"expires_in":300}"#, "no access_token"),
            (r#"{"access_token":"","expires_in":300}"#, "cannot be sent"),
            (r#"{"access_token":"a b","expires_in":300}"#, "cannot be sent"),
            (r#"{"access_token":"a\r\nX: y","expires_in":300}"#, "cannot be sent"),
            (r#"{"access_token":"é","expires_in":300}"#, "cannot be sent"),
            (r#"{"access_token":"t"}"#, "no expires_in"),
            (r#"{"access_token":"t","expires_in":0}"#, "positive whole number"),
            (r#"{"access_token":"t","expires_in":-5}"#, "positive whole number"),
            (r#"{"access_token":"t","expires_in":1.5}"#, "positive whole number"),
            (r#"{"access_token":"t","expires_in":"soon"}"#, "positive whole number"),
            (r#"{"access_token":"t","expires_in":[300]}"#, "positive whole number"),
            (r#"{"access_token":"t","expires_in":300,"token_type":"mac"}"#, "token_type"),
        ] {
            let error = answer(200, bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol, "{bad}");
            assert!(!error.is_retryable());
            assert!(error.to_string().contains(says), "{bad}: {error}");
        }
        assert!(
            answer(200, &format!(r#"{{"access_token":"{}","expires_in":1}}"#, "t".repeat(MAX_TOKEN_BYTES + 1)))
                .is_err()
        );
    }

    /// A thread may have a small stack, and a server must not be able to exhaust it.
    #[test]
    fn deep_nesting_needs_no_stack() {
        for open in ["[", "{\"a\":"] {
            for member in ["access_token", "token_type", "expires_in", "error", "error_description", "other"] {
                let body = format!("{{\"{member}\":{}", open.repeat(MAX_RESPONSE_BYTES / open.len()));
                let small = std::thread::Builder::new().stack_size(64 * 1024);
                let outcome = small.spawn(move || answer(200, &body).unwrap_err().to_string()).unwrap().join();
                assert!(outcome.unwrap().contains("invalid JSON"), "{member}");
            }
        }
    }

    #[test]
    fn each_rejection_has_its_kind() {
        let oauth = |code: &str| format!(r#"{{"error":"{code}"}}"#);
        for (status, body, kind, retryable) in [
            (302, String::new(), Kind::Protocol, false),
            (404, String::new(), Kind::Protocol, false),
            (407, String::new(), Kind::Proxy, false),
            (408, String::new(), Kind::Server, true),
            (418, String::new(), Kind::Protocol, false),
            (429, String::new(), Kind::RateLimited, true),
            (429, oauth("invalid_client"), Kind::RateLimited, true),
            (400, oauth("slow_down"), Kind::RateLimited, true),
            (204, String::new(), Kind::Protocol, false),
            (200, oauth("unknown_code"), Kind::Protocol, false),
        ] {
            let error = answer(status, &body).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{status} {body}");
            assert_eq!(error.http_status(), Some(status));
            assert_eq!(error.host(), Some("auth.example"));
        }
        assert_eq!(answer(201, r#"{"access_token":"t","expires_in":300}"#).unwrap().access_token.expose(), "t");
    }

    /// Only the credentials' own errors stop a program for good.
    #[test]
    fn only_an_error_that_names_the_client_rejects_the_credentials() {
        let oauth = |code: &str| format!(r#"{{"error":"{code}","error_description":["x"]}}"#);
        for status in [200, 400, 401, 403, 422] {
            for code in ["invalid_client", "invalid_grant", "unauthorized_client", "access_denied"] {
                let error = answer(status, &oauth(code)).unwrap_err();
                assert_eq!(error.kind(), Kind::CredentialsRejected, "{status} {code}: {error}");
                assert_eq!(error.oauth_code(), Some(code));
            }
            for code in ["server_error", "temporarily_unavailable"] {
                let error = answer(status, &oauth(code)).unwrap_err();
                assert_eq!((error.kind(), error.is_retryable()), (Kind::Server, true), "{status} {code}: {error}");
            }
            for code in ["invalid_request", "unsupported_grant_type", "invalid_scope", "Unauthorized", "x"] {
                let error = answer(status, &oauth(code)).unwrap_err();
                assert_eq!((error.kind(), error.is_retryable()), (Kind::Protocol, false), "{status} {code}: {error}");
            }
        }
        for status in [400, 401] {
            for empty in ["", " ", "\r\n"] {
                assert_eq!(answer(status, empty).unwrap_err().kind(), Kind::CredentialsRejected, "{empty:?}");
            }
            for (body, says) in [
                (
                    "<html><head><TITLE>Access &amp; more\n</title>",
                    "returned a web page (\"Access &amp; more\") instead of",
                ),
                ("<!doctype html>", "returned a web page instead of an OAuth error"),
                ("Bad Request", "returned a body of another form instead of an OAuth error"),
                (r#"{"message":"Unauthorized"}"#, "returned a JSON object of another form instead of"),
                (r#"{"error":{"code":"unsupported_grant_type"}}"#, "a JSON object of another form"),
                (r#"{"error":{"code":"invalid_client"}}"#, "a JSON object of another form"),
                (r#"{"error":"","x":1}"#, "a JSON object of another form"),
                (r#"{"error":"invalid_client""#, "returned invalid JSON"),
                ("[]", "a body of another form"),
                (
                    "<title>400 No required SSL certificate was sent</title>",
                    "requires a client certificate, and received none",
                ),
                ("<title>400 The SSL certificate error</title>", "requires a client certificate, and rejected the one"),
                ("<title>400 The plain HTTP request was sent to HTTPS port</title>", "expects https at this port"),
                ("Client sent an HTTP request to an HTTPS server.\n", "expects https at this port"),
            ] {
                let error = answer(status, body).unwrap_err();
                assert_eq!((error.kind(), error.is_retryable()), (Kind::Protocol, false), "{body}");
                assert!(error.to_string().contains(says), "{error}");
            }
        }
        let error = answer(403, "<html><title>Blocked</title>").unwrap_err();
        assert!(error.kind() == Kind::Protocol && error.to_string().contains("a firewall or proxy"), "{error}");
    }

    #[test]
    fn every_5xx_is_retried_but_what_stays_as_it_is() {
        for status in (500..=599).chain([600, 999]) {
            for body in ["", "<html>", r#"{"error":"invalid_client"}"#] {
                let error = answer(status, body).unwrap_err();
                assert_eq!(error.kind(), Kind::Server, "{status}");
                assert_eq!(error.is_retryable(), !matches!(status, 501 | 505), "{status}");
            }
        }
        for status in [407, 511] {
            let error = answer(status, "<html><title>Log in</title>").unwrap_err();
            assert!(error.to_string().contains("requires a login"), "{error}");
        }
        for status in [495, 496] {
            let error = answer(status, "").unwrap_err();
            assert!(error.kind() == Kind::Protocol && error.to_string().contains("client certificate"), "{error}");
        }
    }

    #[test]
    fn a_compressed_body_is_named() {
        for (headers, body) in [
            (&[("Content-Encoding", "gzip")][..], "\u{1f}x"),
            (&[("Transfer-Encoding", "gzip, chunked")], "\u{1f}x"),
            (&[("content-encoding", "identity"), ("transfer-encoding", "gzip")], "\u{1f}x"),
        ] {
            for status in [200, 400] {
                let error = answer_with(status, body, headers).unwrap_err();
                assert!(error.to_string().contains("a compressed body (gzip), which was not requested"), "{error}");
            }
        }
        let response = Response { status: 200, headers: vec![], body: Zeroizing::new(b"\x1f\x8b\x08\x00".to_vec()) };
        let error = parse_token_response(&response, &url(), &[], 0).unwrap_err();
        assert!(error.to_string().contains("(gzip)"), "{error}");
        // The header of a proxy that decompressed the body and left the header as it was.
        let body = r#"{"access_token":"t","expires_in":300}"#;
        assert!(answer_with(200, body, &[("Content-Encoding", "gzip")]).is_ok());
    }

    #[test]
    fn an_error_reply_is_quoted_without_what_it_echoes() {
        let error = answer_with(
            400,
            r#"{"error":"invalid_client","error_description":"secret s3cret& or s3cret%26\r\nis wrong"}"#,
            &[("X-Request-Id", "r-1\u{7}")],
        )
        .unwrap_err();
        assert_eq!(error.oauth_code(), Some("invalid_client"));
        assert_eq!(error.oauth_description(), Some("secret [redacted] or [redacted] is wrong"));
        assert_eq!(error.request_id(), Some("r-1"));
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn a_redirect_is_refused_by_name() {
        let error =
            answer_with(307, "", &[("Location", "https://elsewhere.example/?client_secret=s3cret%26")]).unwrap_err();
        assert!(
            error.to_string().contains("redirected to https://elsewhere.example/?client_secret=[redacted] (HTTP 307)"),
            "{error}"
        );
    }

    /// Whatever bytes come, with whatever status, the parser ends with a grant that can be used or
    /// an error that repeats nothing secret.
    #[test]
    fn no_reply_breaks_the_parser() {
        let seeds: [&[u8]; 4] = [
            br#"{"access_token":"eyJ.a.b","session_expires_in":0,"expires_in":300}"#,
            br#"{"error":"invalid_client","error_description":"s3cret& is wrong"}"#,
            br#"{"access_token":"t","expires_in":"300","token_type":"Bearer","x":[{"y":"\u00e9\ud83d\ude00"}]}"#,
            b"<html>s3cret&</html>",
        ];
        let dice = crate::sys::clock::Clock::Manual(crate::sys::clock::ManualClock::new(42));
        let pick = |n: usize| dice.random_below(Duration::from_nanos(n as u64)).as_nanos() as usize;
        for round in 0..20_000 {
            let mut body = seeds[pick(seeds.len())].to_vec();
            for _ in 0..pick(6) {
                let at = pick(body.len().max(1));
                match pick(4) {
                    0 if !body.is_empty() => body[at] = pick(256) as u8,
                    1 => body.truncate(at),
                    2 => body.insert(at, pick(256) as u8),
                    _ => body.extend_from_slice(seeds[pick(seeds.len())]),
                }
            }
            let status = [200, 200, 400, 401, 429, 503, pick(1000) as u16][pick(7)];
            let response = Response { status, headers: vec![], body: Zeroizing::new(body) };
            match parse_token_response(&response, &url(), &["s3cret&"], 0) {
                Ok(grant) => {
                    assert!(is_valid_bearer_token(grant.access_token.expose()) && grant.lifetime > Duration::ZERO)
                }
                Err(error) => assert!(!format!("{error} {error:?}").contains("s3cret&"), "round {round}: {error}"),
            }
        }
    }
}
