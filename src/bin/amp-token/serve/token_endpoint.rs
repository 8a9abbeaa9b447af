//! `POST /oauth/token`, as Amplience documents it: a form with any `client_id` and the ticket as `client_secret`.
//!
//! The response has the members that Amplience's has, and `expires_in` is what is really left. A client that sends its
//! credentials as HTTP Basic, as Go's library tries first, is understood too (RFC 6749, 2.3.1).

use super::answer::{self, failure, failure_with, upstream_failure};
use super::body::AnyBody;
use super::{Caller, Server};
use crate::commands::format::json_escaped;
use amp_token::net::url::form_decode;
use amp_token::token::Token;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The longest form: a ticket, an id and two words.
const LONGEST_FORM: usize = 64 * 1024;

/// The time that a client has for sending it.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// The lifetime that is stated for a personal access token, in seconds: as long as that of other tokens, so that a client
/// soon notices that another one has been set.
const PERSONAL_LIFETIME: i64 = 300;

/// Answers a request for a token.
pub async fn respond(server: &Server, caller: Caller, request: Request<Incoming>) -> Response<AnyBody> {
    if request.method() != Method::POST {
        let allow = (ALLOW, "POST");
        return failure_with(allow, StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "use POST");
    }
    let invalid = |status, description: &str| failure(status, "invalid_request", description);
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let basic = request.headers().get(AUTHORIZATION).and_then(|value| basic_password(value.as_bytes()));
    let body = timeout(FORM_TIMEOUT, Limited::new(request.into_body(), LONGEST_FORM).collect()).await;
    let form = match body {
        Ok(Ok(body)) => Zeroizing::new(Vec::from(body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return invalid(StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 65536 bytes");
        }
        Ok(Err(_)) => return invalid(StatusCode::BAD_REQUEST, "the body is not complete"),
        Err(_) => return invalid(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s"),
    };
    if kind != "application/x-www-form-urlencoded" {
        let description = "the body is not application/x-www-form-urlencoded";
        return invalid(StatusCode::BAD_REQUEST, description);
    }
    let (grant, secret) = match (parameter(&form, "grant_type"), parameter(&form, "client_secret")) {
        (Ok(grant), Ok(secret)) => (grant, secret),
        _ => return invalid(StatusCode::BAD_REQUEST, "a parameter occurs twice"),
    };
    match grant.as_deref() {
        Some(b"client_credentials") => {}
        Some(_) => {
            let description = "grant_type is not client_credentials";
            return failure(StatusCode::BAD_REQUEST, "unsupported_grant_type", description);
        }
        None => return invalid(StatusCode::BAD_REQUEST, "grant_type is missing"),
    }
    let is_known = match secret.or(basic.map(Cow::Owned)) {
        Some(secret) => server.ticket.is(&secret),
        None => caller == Caller::SameUser,
    };
    if !is_known {
        let description = "client_secret is not the ticket of this amp-token serve; it changes at each start \
                           unless --ticket-file is given";
        return failure(StatusCode::BAD_REQUEST, "invalid_client", description);
    }
    match server.tokens.get().await {
        Ok(token) => {
            server.tokens.record_handed_out(&token);
            answer::response(StatusCode::OK, answer::JSON, body_for(server, &token))
        }
        Err(error) => upstream_failure(&error),
    }
}

fn body_for(server: &Server, token: &Token) -> String {
    let left = match token.is_permanent() {
        true => PERSONAL_LIFETIME,
        false => i64::try_from(server.tokens.left(token).as_secs()).unwrap_or(i64::MAX),
    };
    let value = json_escaped(token.value());
    format!("{{\"access_token\":\"{}\",\"session_expires_in\":0,\"expires_in\":{left}}}", value.as_str())
}

/// The value of a parameter of a form; an error if it occurs twice.
fn parameter<'a>(form: &'a [u8], name: &str) -> Result<Option<Cow<'a, [u8]>>, ()> {
    let mut values = form.split(|byte| *byte == b'&').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        (*decoded(&pair[..at]) == *name.as_bytes()).then(|| decoded(pair.get(at + 1..).unwrap_or_default()))
    });
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(()),
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    match text.iter().any(|byte| b"+%".contains(byte)) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(std::mem::take(&mut *form_decode(text))),
    }
}

/// The password of HTTP Basic, which this grant encodes as a form does.
fn basic_password(header: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = header.split_at_checked("Basic ".len())?;
    let pair =
        scheme.eq_ignore_ascii_case(b"Basic ").then(|| BASE64_STANDARD.decode(credentials.trim_ascii()).ok())??;
    let at = pair.iter().position(|byte| *byte == b':')?;
    Some(decoded(&pair[at + 1..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = b"client_id=a%20b&client_secret=s%2B+1&x&=y&grant%5ftype=client_credentials";
        let value = |name| parameter(form, name).unwrap().map(|value| String::from_utf8(value.into_owned()).unwrap());
        assert_eq!(value("client_id").as_deref(), Some("a b"));
        assert_eq!(value("client_secret").as_deref(), Some("s+ 1"));
        assert_eq!(value("grant_type").as_deref(), Some("client_credentials"));
        assert_eq!((value("x").as_deref(), value("z")), (Some(""), None));
        assert!(parameter(b"a=1&b=2&a=1", "a").is_err());
    }

    #[test]
    fn basic_credentials_are_read() {
        let header = |text: &str| format!("basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(basic_password(header("id:p%3Aq").as_bytes()).unwrap(), b"p:q");
        for other in [header("id").as_str(), "Basic", "Basic !", "Bearer aTpw", "é"] {
            assert_eq!(basic_password(other.as_bytes()), None);
        }
    }
}
