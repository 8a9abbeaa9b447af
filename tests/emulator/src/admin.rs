//! The admin API, `/_emulator/…`: the methods of [`crate::Emulator`] for programs that are not written in Rust.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::faults::{Fault, Queue};
use crate::http::{Request, Response};
use crate::state::Shared;
use crate::tls::CertificateKind;

pub(crate) const PATH: &str = "/_emulator/";

pub(crate) fn handle(shared: &Shared, request: &Request) -> Response {
    let command = request.path.strip_prefix(PATH).unwrap_or_default();
    let result = match (request.method.as_str(), command) {
        ("GET", "stats") => return Response::json(200, &shared.state().stats),
        ("POST", "reset") => shared.reset().map_err(|error| error.to_string()),
        ("POST", "revoke") => revoke(shared, &request.body),
        ("POST", "credentials") => set_credentials(shared, &request.body),
        ("POST", "faults") => set_faults(shared, &request.body),
        ("POST", "expires_in") => seconds(&request.body).map(|seconds| shared.state().expires_in = seconds),
        ("POST", "advance") => seconds(&request.body).map(|seconds| shared.advance(seconds)),
        ("POST", "certificate") => set_certificate(shared, &request.body),
        _ => return Response::json(404, &json!({"error": "unknown admin request"})),
    };
    match result {
        Ok(()) => Response::json(200, &json!({})),
        Err(error) => Response::json(400, &json!({"error": error})),
    }
}

fn revoke(shared: &Shared, body: &[u8]) -> Result<(), String> {
    let token = str::from_utf8(body).map_err(|error| error.to_string())?.trim();
    let tokens = &mut shared.state().tokens;
    if token.is_empty() {
        tokens.revoke_all()
    } else {
        tokens.revoke(token)
    }
    Ok(())
}

fn set_credentials(shared: &Shared, body: &[u8]) -> Result<(), String> {
    let json: Value = parse(body)?;
    let string = |name: &str| json[name].as_str().ok_or_else(|| format!("`{name}` is missing")).map(str::to_owned);
    let (client_id, client_secret) = (string("client_id")?, string("client_secret")?);
    shared.set_credentials(client_id, client_secret);
    Ok(())
}

fn set_faults(shared: &Shared, body: &[u8]) -> Result<(), String> {
    // Not an untagged enum: its errors do not name the field that is wrong.
    let faults: Vec<Fault> = match parse(body)? {
        Value::Array(faults) => faults.into_iter().map(serde_json::from_value).collect::<Result<_, _>>(),
        fault => serde_json::from_value(fault).map(|fault| vec![fault]),
    }
    .map_err(|error| error.to_string())?;
    shared.state().faults = faults.into_iter().collect::<Queue>();
    Ok(())
}

fn set_certificate(shared: &Shared, body: &[u8]) -> Result<(), String> {
    let kind: CertificateKind = parse(body).and_then(|json| {
        let json: Value = json;
        serde_json::from_value(json["kind"].clone()).map_err(|error| error.to_string())
    })?;
    shared.set_certificate(kind).map_err(|error| error.to_string())
}

fn seconds(body: &[u8]) -> Result<u64, String> {
    let json: Value = parse(body)?;
    json["seconds"].as_u64().ok_or_else(|| "`seconds` must be an integer of at least 0".to_owned())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
