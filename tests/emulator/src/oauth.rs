//! The token endpoint: `POST /oauth/token` with the client credentials grant (RFC 6749, 4.4 and 5.2).
//!
//! Every refusal is status 400, as Amplience documents it, with the error codes of the RFC. Credentials
//! count only in the body; a request with a secret in its address is refused, whatever else it holds.

use serde::Serialize;
use serde_json::json;

use crate::faults::{Fault, Kind};
use crate::http::{Reply, Request};
use crate::state::Shared;

pub(crate) const PATH: &str = "/oauth/token";

/// A reply in Amplience's order, and with nothing that Amplience does not send.
#[derive(Serialize)]
struct TokenReply<'a> {
    access_token: &'a str,
    session_expires_in: u64,
    expires_in: u64,
}

pub(crate) fn answer(shared: &Shared, request: &Request, fault: &Fault) -> Reply {
    if request.method != "POST" {
        return Reply::empty(405).with("Allow", "POST");
    }
    if let Err((error, error_description)) = check(shared, request) {
        return Reply::json(400, &json!({"error": error, "error_description": error_description}));
    }
    let expires_in = fault.expires_in.unwrap_or_else(|| shared.state().expires_in);
    let latest = if fault.kind == Kind::SameToken { shared.state().tokens.latest() } else { None };
    let access_token = latest.unwrap_or_else(|| issue(shared, expires_in));
    Reply::json(200, &TokenReply { access_token: &access_token, session_expires_in: 0, expires_in })
}

/// Makes a token that is honoured from now on.
pub(crate) fn issue(shared: &Shared, expires_in: u64) -> String {
    let (now, client_id) = (shared.now(), shared.state().client_id.clone());
    // Signing is slow enough to keep the lock out of it.
    let token = crate::tokens::AccessToken::sign(&client_id, now, expires_in);
    let mut state = shared.state();
    state.tokens.add(&token, now);
    state.stats.tokens_issued += 1;
    token.text
}

fn check(shared: &Shared, request: &Request) -> Result<(), (&'static str, &'static str)> {
    if request.query_parameter("client_secret").is_some() {
        return Err(("invalid_request", "A secret must not be part of the address"));
    }
    let content_type = request.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(("invalid_request", "The body must be application/x-www-form-urlencoded"));
    }
    let grant_type = parameter(&request.body, "grant_type")?;
    if grant_type != "client_credentials" {
        return Err(("unsupported_grant_type", "The grant type must be client_credentials"));
    }
    let (client_id, client_secret) =
        (parameter(&request.body, "client_id")?, parameter(&request.body, "client_secret")?);
    let state = shared.state();
    if (client_id, client_secret) != (state.client_id.clone(), state.client_secret.clone()) {
        return Err(("invalid_client", "The client id or secret is not valid"));
    }
    Ok(())
}

/// The one value of a parameter of the form: RFC 6749 allows neither none nor several.
fn parameter(form: &[u8], name: &str) -> Result<String, (&'static str, &'static str)> {
    let mut values = form_urlencoded::parse(form).filter(|(key, value)| key == name && !value.is_empty());
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Ok(value.into_owned()),
        (None, _) => Err(("invalid_request", "A parameter is missing")),
        (Some(_), Some(_)) => Err(("invalid_request", "A parameter is repeated")),
    }
}

/// What a parameter of the form holds, if anything: for replies that echo it.
pub(crate) fn form_value(form: &[u8], name: &str) -> String {
    parameter(form, name).unwrap_or_default()
}
