//! The token endpoint: `POST /oauth/token` with the client credentials grant (RFC 6749, 4.4 and 5.2).
//!
//! Every rejection has status 400, as Amplience documents it, and an error code of the RFC. Credentials
//! must be in the body: a request with a secret in its URL is rejected, whatever else it contains.

use serde::Serialize;
use serde_json::json;

use crate::faults::{Fault, Kind};
use crate::http::{Request, Response};
use crate::state::Shared;

pub(crate) const PATH: &str = "/oauth/token";

/// An access token response with the members that Amplience sends, in the same order.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    session_expires_in: u64,
    expires_in: u64,
}

pub(crate) fn handle(shared: &Shared, request: &Request, fault: &Fault) -> Response {
    if request.method != "POST" {
        return Response::empty(405).with("Allow", "POST");
    }
    if let Err((error, error_description)) = check_request(shared, request) {
        return Response::json(400, &json!({"error": error, "error_description": error_description}));
    }
    let expires_in = fault.expires_in.unwrap_or_else(|| shared.state().expires_in);
    let latest = if fault.kind == Kind::SameToken { shared.state().tokens.latest() } else { None };
    let access_token = latest.unwrap_or_else(|| issue(shared, expires_in));
    Response::json(200, &TokenResponse { access_token: &access_token, session_expires_in: 0, expires_in })
}

/// Issues a token, which is valid from now on.
pub(crate) fn issue(shared: &Shared, expires_in: u64) -> String {
    let (now, client_id) = (shared.now(), shared.state().client_id.clone());
    // Signing is slow: it happens without the lock.
    let token = crate::tokens::AccessToken::sign(&client_id, now, expires_in);
    let mut state = shared.state();
    state.tokens.add(&token, now);
    state.stats.tokens_issued += 1;
    token.value
}

fn check_request(shared: &Shared, request: &Request) -> Result<(), (&'static str, &'static str)> {
    if request.query_parameter("client_secret").is_some() {
        return Err(("invalid_request", "A secret must not be part of the URL"));
    }
    let content_type = request.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(("invalid_request", "The body must be application/x-www-form-urlencoded"));
    }
    let grant_type = form_parameter(&request.body, "grant_type")?;
    if grant_type != "client_credentials" {
        return Err(("unsupported_grant_type", "The grant type must be client_credentials"));
    }
    let (client_id, client_secret) =
        (form_parameter(&request.body, "client_id")?, form_parameter(&request.body, "client_secret")?);
    let state = shared.state();
    if (client_id, client_secret) != (state.client_id.clone(), state.client_secret.clone()) {
        return Err(("invalid_client", "The client id or secret is not valid"));
    }
    Ok(())
}

/// Returns the value of a required form parameter. RFC 6749 forbids repeated parameters.
fn form_parameter(form: &[u8], name: &str) -> Result<String, (&'static str, &'static str)> {
    let mut values = form_urlencoded::parse(form).filter(|(key, value)| key == name && !value.is_empty());
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Ok(value.into_owned()),
        (None, _) => Err(("invalid_request", "A parameter is missing")),
        (Some(_), Some(_)) => Err(("invalid_request", "A parameter is repeated")),
    }
}

/// Returns the value of a form parameter, or an empty string; for responses that echo it.
pub(crate) fn form_value(form: &[u8], name: &str) -> String {
    form_parameter(form, name).unwrap_or_default()
}
