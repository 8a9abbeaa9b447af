//! The client credentials grant (RFC 6749, 4.4): one request, one response, as pure functions over bytes.
//!
//! The credentials are in the form body, as Amplience documents it; never in the URL or in HTTP Basic
//! authentication. The parser is strict where a mistake would do harm (a token that cannot be sent in a header, a
//! lifetime that is not a number) and lenient where Amplience differs from the RFC (`token_type` is missing).
//! An error response may have any form: `error` and `error_description` are used if they are present.

use crate::error::{Error, Kind, Phase, Result};
use crate::net::transport::{Request, Response, retry_after};
use crate::net::url::{Url, form_encode};
use crate::sanitize::sanitize;
use crate::sys::secret::{MaybeSecret, Secret, SecretCow};
use serde::Deserialize;
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
            ("Content-Type", "application/x-www-form-urlencoded".into()),
            ("Accept", "application/json".into()),
            ("User-Agent", MaybeSecret::Public(user_agent.to_owned().into())),
        ],
        body,
        max_response_bytes: MAX_RESPONSE_BYTES,
    }
}

/// Parses the response. `secrets` are the strings that an error must not contain. `wall` is the local time in
/// Unix seconds, for a `Retry-After` that is a date.
pub fn parse_token_response(response: &Response, url: &Url, secrets: &[&str], wall: i64) -> Result<TokenResponse> {
    let body = Body::parse(&response.body);
    let host = url.host();
    let failure = match (response.status, &body) {
        (200, Ok(body)) if body.error.is_none() => match parse_success(body) {
            Ok(grant) => return Ok(grant),
            Err((what, advice)) => {
                Error::new(Kind::Protocol, format!("unexpected token response from {host}: {what}")).with_hint(advice)
            }
        },
        (200, Err(_)) => Error::new(
            Kind::Protocol,
            format!("unexpected token response from {host}: not a JSON object with the expected members"),
        )
        .with_hint(
            "check that auth_url is the authorization server, and that no proxy or login page responds instead of it",
        ),
        (300..=399, _) => {
            let target = sanitize(response.header("location").unwrap_or("an unknown location"), secrets);
            Error::new(Kind::Protocol, format!("{host} redirected to {target}")).with_hint(
                "redirects are not followed, because the request carries credentials; \
                     set auth_url to the URL of the authorization server",
            )
        }
        (status, body) => status_error(status, body.as_ref().ok().and_then(|body| body.error.as_deref()), host),
    };
    let (code, description) = match &body {
        Ok(body) => (body.error.as_deref(), body.error_description.as_deref()),
        Err(_) => (None, None),
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

/// The error for a status other than success, and whether a retry may succeed.
fn status_error(status: u16, code: Option<&str>, host: &str) -> Error {
    let rejected = || {
        Error::new(Kind::CredentialsRejected, format!("{host} rejected the client id and secret"))
            .with_hint("check client_id and client_secret; they are an API key and secret from Amplience, and may have been revoked")
    };
    let misunderstood =
        |what: &str, advice: &str| Error::new(Kind::Protocol, format!("{host} {what}")).with_hint(advice);
    match (status, code) {
        // A success status with an OAuth error, and the rejections of RFC 6749 (5.2).
        (200 | 400 | 401 | 403, Some("invalid_client" | "invalid_grant" | "unauthorized_client" | "access_denied")) => {
            rejected()
        }
        (200, Some(_)) => misunderstood("returned an OAuth error with a success status", "check auth_url"),
        (400, Some("invalid_request" | "unsupported_grant_type" | "invalid_scope")) => misunderstood(
            "does not support this kind of request",
            "check that auth_url is the authorization server of Amplience",
        ),
        // The only meaning that Amplience documents for 400, whatever its body.
        (400 | 401, _) => rejected(),
        (403, _) => misunderstood(
            "rejected the request without an OAuth error",
            "a firewall or proxy may have rejected it; check that auth_url can be reached from this machine",
        ),
        (404 | 405 | 410, _) => misunderstood("has no token endpoint at this URL", "check auth_url"),
        (429, _) => Error::new(Kind::RateLimited, format!("{host} is rate limiting requests"))
            .with_hint("share one cache between threads, and a store between processes"),
        (408 | 500 | 502 | 503 | 504, _) => Error::new(Kind::Server, format!("{host} returned a server error"))
            .with_hint("try again later; if it lasts, ask Amplience"),
        (500.., _) => Error::new(Kind::Server, format!("{host} returned a server error"))
            .with_retryable(false)
            .with_hint("ask Amplience"),
        _ => misunderstood("returned an unexpected HTTP status", "check auth_url"),
    }
}

/// The members of a response, successful or not. Unknown ones are skipped.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    access_token: Option<SecretCow<'a>>,
    #[serde(borrow, default)]
    token_type: Option<SecretCow<'a>>,
    #[serde(default)]
    expires_in: Option<Seconds>,
    #[serde(borrow, default)]
    error: Option<SecretCow<'a>>,
    #[serde(borrow, default)]
    error_description: Option<SecretCow<'a>>,
}

/// A number, or a string that contains one: some servers quote it. `None` if it is not a whole number, or too
/// large.
///
/// By hand, because the implementation that serde derives for an untagged enum recurses over any value first.
struct Seconds(Option<u64>);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(number: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Seconds;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E>(self, number: u64) -> std::result::Result<Seconds, E> {
                Ok(Seconds(Some(number)))
            }

            fn visit_i64<E>(self, _: i64) -> std::result::Result<Seconds, E> {
                Ok(Seconds(None))
            }

            fn visit_f64<E>(self, _: f64) -> std::result::Result<Seconds, E> {
                Ok(Seconds(None))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Seconds, E> {
                Ok(Seconds(text.trim().parse().ok()))
            }
        }

        number.deserialize_any(Visitor)
    }
}

impl<'a> Body<'a> {
    fn parse(body: &'a [u8]) -> serde_json::Result<Self> {
        // Some servers send a byte order mark, which JSON does not allow.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
        if !body.starts_with(b"{") {
            // Serde would also fill the members from an array, in their order.
            return Err(serde::de::Error::custom("not an object"));
        }
        serde_json::from_slice(body)
    }
}

/// Extracts the token from a success response, or returns what is wrong with it, and a hint.
fn parse_success(body: &Body) -> std::result::Result<TokenResponse, (&'static str, &'static str)> {
    const ASK: &str = "this is a fault of the server; ask Amplience, or check that auth_url is right";
    let token =
        body.access_token.as_deref().ok_or(("no access_token", "check that auth_url is the authorization server"))?;
    if !is_valid_bearer_token(token) {
        return Err(("the access_token cannot be sent in a header", ASK));
    }
    if body.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(("the token_type is not bearer, the only one that is supported", ASK));
    }
    match body.expires_in {
        None => Err(("no expires_in", ASK)),
        Some(Seconds(Some(seconds))) if seconds > 0 => Ok(TokenResponse {
            access_token: Secret::from(token),
            lifetime: Duration::from_secs(seconds).min(MAX_LIFETIME),
        }),
        _ => Err(("expires_in is not a positive whole number of seconds", ASK)),
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
            r#"{"access_token":"\u0074","expires_in":18446744073709551615}"#,
        ] {
            assert_eq!(answer(200, good).unwrap().access_token.expose(), "t", "{good}");
        }
        for (bad, says) in [
            ("", "not a JSON object"),
            ("<html>", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            (r#"{"access_token":5,"expires_in":300}"#, "not a JSON object"),
            (r#"{"access_token":"t","access_token":"u","expires_in":300}"#, "not a JSON object"),
            (r#"{"access_token":"t","expires_in":300"#, "not a JSON object"),
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
            (r#"{"access_token":"t","expires_in":[300]}"#, "not a JSON object"),
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
                assert!(outcome.unwrap().contains("not a JSON object"), "{member}");
            }
        }
    }

    #[test]
    fn each_refusal_has_its_kind() {
        let oauth = |code: &str| format!(r#"{{"error":"{code}"}}"#);
        for (status, body, kind, retryable) in [
            (400, String::new(), Kind::CredentialsRejected, false),
            (400, oauth("invalid_client"), Kind::CredentialsRejected, false),
            (401, oauth("invalid_client"), Kind::CredentialsRejected, false),
            (401, "<html>".into(), Kind::CredentialsRejected, false),
            (200, oauth("invalid_client"), Kind::CredentialsRejected, false),
            (200, oauth("server_error"), Kind::Protocol, false),
            (400, oauth("unsupported_grant_type"), Kind::Protocol, false),
            (403, "denied".into(), Kind::Protocol, false),
            (403, oauth("access_denied"), Kind::CredentialsRejected, false),
            (404, String::new(), Kind::Protocol, false),
            (408, String::new(), Kind::Server, true),
            (418, String::new(), Kind::Protocol, false),
            (204, String::new(), Kind::Protocol, false),
            (302, String::new(), Kind::Protocol, false),
            (429, String::new(), Kind::RateLimited, true),
            (500, String::new(), Kind::Server, true),
            (501, String::new(), Kind::Server, false),
            (502, "<html>".into(), Kind::Server, true),
            (503, oauth("temporarily_unavailable"), Kind::Server, true),
            (504, String::new(), Kind::Server, true),
            (599, String::new(), Kind::Server, false),
            (999, String::new(), Kind::Server, false),
        ] {
            let error = answer(status, &body).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{status} {body}");
            assert_eq!(error.http_status(), Some(status));
            assert_eq!(error.host(), Some("auth.example"));
        }
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
