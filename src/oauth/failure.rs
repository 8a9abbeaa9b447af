//! What a response without a token means, and whose fault it is.
//!
//! Only an OAuth error that names the client, or a 400 or 401 with an empty body, means that the credentials are
//! rejected. Gateways, proxies and web application firewalls send pages of their own with the same statuses. Telling
//! their failures apart matters: a program that believes its credentials to be revoked stops for good.

use super::token_body::{OauthError, TokenBody};
use crate::error::{Error, Kind};
use crate::net::transport::{Response, page_title};
use crate::sanitize::sanitize;
use zeroize::Zeroizing;

/// The hint where another program than the authorization server may have responded.
pub(super) const INTERMEDIARY: &str = "check that auth_url is the authorization server, and that no gateway, proxy or login page \
                            responds instead of it";

/// The hint for a 403, which firewalls send.
const FIREWALL: &str =
    "a firewall or proxy may have rejected the request; check that auth_url can be reached from this machine";

/// The hint for a failure of the server.
const LATER: &str = "try again later; if it lasts, ask Amplience";

/// The error for a response without a token. `text` is its body, and `body` the members of the body, if it is a JSON
/// object.
pub(super) fn describe(
    response: &Response,
    text: &str,
    body: Option<&TokenBody>,
    host: &str,
    secrets: &[&str],
) -> Error {
    let status = response.status;
    match body.map(TokenBody::error) {
        Some(OauthError::Code(code)) if !matches!(status, 429 | 500..) => oauth_error(status, code, host),
        // A success is handled by the caller, except one with an error of another type.
        Some(OauthError::Other) if status < 300 => {
            protocol(host, "returned an error with a success status", INTERMEDIARY)
        }
        _ => status_error(response, text, body.is_some(), host, secrets),
    }
}

fn protocol(host: &str, what: &str, hint: &str) -> Error {
    Error::new(Kind::Protocol, format!("{host} {what}")).with_hint(hint)
}

fn server_error(host: &str) -> Error {
    Error::new(Kind::Server, format!("{host} returned a server error")).with_hint(LATER)
}

fn rate_limited(host: &str) -> Error {
    Error::new(Kind::RateLimited, format!("{host} is rate limiting requests"))
        .with_hint("share one cache between threads, and a store between processes")
}

fn rejected(host: &str) -> Error {
    Error::new(Kind::CredentialsRejected, format!("{host} rejected the client id and secret")).with_hint(
        "check client_id and client_secret; they are an API key and secret from Amplience, and may have been revoked",
    )
}

fn client_certificate(host: &str) -> Error {
    protocol(
        host,
        "requires a client certificate, and accepted none",
        "set client_certificate and client_key, or check that the certificate is still valid and that the server trusts \
         its issuer",
    )
}

/// The error for an OAuth error code (RFC 6749, 5.2), with a status other than 429 and 5xx.
fn oauth_error(status: u16, code: &str, host: &str) -> Error {
    match code {
        "invalid_client" | "invalid_grant" | "unauthorized_client" | "access_denied" => rejected(host),
        "server_error" | "temporarily_unavailable" => server_error(host),
        "slow_down" => rate_limited(host),
        "invalid_request" | "unsupported_grant_type" | "invalid_scope" => protocol(
            host,
            "does not support this kind of request",
            "check that auth_url is the authorization server of Amplience",
        ),
        _ if status < 300 => protocol(host, "returned an OAuth error with a success status", INTERMEDIARY),
        _ => protocol(host, "returned an error code that this library does not know", INTERMEDIARY),
    }
}

/// The error for a status, without an OAuth error.
fn status_error(response: &Response, text: &str, is_object: bool, host: &str, secrets: &[&str]) -> Error {
    match response.status {
        // The only meaning that Amplience documents for 400.
        400 | 401 if response.body.trim_ascii().is_empty() => rejected(host),
        400 | 401 | 403 => match find_reason(text) {
            Some((what, hint)) => protocol(host, what, hint),
            None => {
                let what = describe_body(response, text, is_object, secrets);
                let hint = if response.status == 403 { FIREWALL } else { INTERMEDIARY };
                protocol(host, &format!("returned {what} instead of an OAuth error"), hint)
            }
        },
        404 | 405 | 410 => protocol(host, "has no token endpoint at this URL", "check auth_url"),
        // A proxy that was not set, and that intercepts the connection.
        407 => Error::new(Kind::Proxy, format!("the network between this machine and {host} requires a login"))
            .with_hint("log in to the network, or set proxy to the URL of its proxy with a user name and password"),
        408 => server_error(host),
        429 => rate_limited(host),
        // nginx, where its administrator made them visible.
        495 | 496 => client_certificate(host),
        501 | 505 => server_error(host).with_retryable(false).with_hint("ask Amplience"),
        // RFC 6585, 6: not from the server, but from a proxy that intercepts the connection.
        511 => Error::new(Kind::Server, format!("the network between this machine and {host} requires a login"))
            .with_hint("log in to the network, for instance with a web browser"),
        // Cloudflare's, which other networks use too: the server behind them did not respond.
        520..=530 => server_error(host).with_hint(
            "the network in front of the server could not reach it; try again later; if it lasts, ask Amplience",
        ),
        // A status that is not known means its family, and one of no family a server error (RFC 9110, 15).
        500.. => server_error(host),
        _ => protocol(host, "returned an unexpected HTTP status", "check auth_url"),
    }
}

/// The pages of web servers that say what they want: a phrase in lower case, the message, and the hint.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "no required ssl certificate was sent",
        "requires a client certificate, and received none",
        "set client_certificate and client_key",
    ),
    (
        "the ssl certificate error",
        "requires a client certificate, and rejected the one that it received",
        "check that client_certificate is still valid, that it is for clients, and that the server trusts its issuer",
    ),
    (
        "client certificate",
        "requires a client certificate, and accepted none",
        "set client_certificate and client_key, or check that the certificate is still valid",
    ),
    ("plain http request was sent to https port", PLAIN_HTTP, USE_HTTPS),
    ("speaking plain http to an ssl-enabled server port", PLAIN_HTTP, USE_HTTPS),
    ("client sent an http request to an https server", PLAIN_HTTP, USE_HTTPS),
];
const PLAIN_HTTP: &str = "expects https at this port";
const USE_HTTPS: &str = "use https in auth_url";

/// The reason that a page gives, and a hint.
fn find_reason(text: &str) -> Option<(&'static str, &'static str)> {
    let text = Zeroizing::new(text.to_ascii_lowercase());
    REASONS.iter().find(|(phrase, ..)| text.contains(phrase)).map(|(_, what, hint)| (*what, *hint))
}

/// Says what a body is, if it is not what was expected. `is_object`: it is a JSON object of another form.
pub(super) fn describe_body(response: &Response, text: &str, is_object: bool, secrets: &[&str]) -> String {
    let named = |header| {
        let codings = response.header(header)?.split(',').map(str::trim);
        codings.into_iter().find(|name| !["", "identity", "chunked"].contains(&&*name.to_ascii_lowercase()))
    };
    // What every gzip file begins with.
    let gzip = response.body.starts_with(b"\x1f\x8b").then_some("gzip");
    match text.as_bytes().first() {
        None => "an empty body".to_owned(),
        Some(b'<') => match page_title(text.as_bytes(), secrets) {
            Some(title) => format!("a web page ({title:?})"),
            None => "a web page".to_owned(),
        },
        Some(b'{') if is_object => "a JSON object of another form".to_owned(),
        Some(b'{') => "invalid JSON".to_owned(),
        _ => match gzip.or_else(|| named("content-encoding")).or_else(|| named("transfer-encoding")) {
            Some(name) => format!("a compressed body ({}), which was not requested,", sanitize(name, secrets)),
            None => "a body of another form".to_owned(),
        },
    }
}
