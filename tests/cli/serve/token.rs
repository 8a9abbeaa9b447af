//! The token endpoint, and the renewal of the token.

use super::*;
use crate::support::SECRET;
use amp_emulator::{Emulator, Fault};

#[test]
fn a_token_is_served_as_the_service_does() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let answer = serve.token();
    let json = answer.json();
    let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "expires_in", "session_expires_in"]);
    assert!((200..=300).contains(&json["expires_in"].as_i64().unwrap()), "{json}");
    assert_eq!(
        (answer.header("content-type"), answer.header("cache-control")),
        (Some("application/json"), Some("no-store"))
    );
    assert_eq!(serve.token().access_token(), answer.access_token());
    let basic = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(format!("any:{}", serve.ticket()))
    };
    let headers = format!("Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Basic {basic}\r\n");
    assert_eq!(serve.post("/oauth/token", &headers, "grant_type=client_credentials").status, 200);
    assert_eq!(env.emulator.stats().token_requests, 1);
    let (status, said) = serve.end();
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn each_mistake_of_a_client_has_its_answer() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let good = format!("client_secret={}&grant_type=client_credentials", serve.ticket());
    let post = |headers: &str, body: &str| serve.post("/oauth/token", headers, body);
    serve.token_with("wrong").assert_error(400, "invalid_client");
    serve.token_with(&format!("{}x", serve.ticket())).assert_error(400, "invalid_client");
    serve.token_with(&serve.ticket()[1..]).assert_error(400, "invalid_client");
    post(form, "grant_type=client_credentials").assert_error(400, "invalid_client");
    post(form, &good.replace("client_credentials", "password")).assert_error(400, "unsupported_grant_type");
    post(form, "client_secret=x").assert_error(400, "invalid_request");
    post(form, &format!("{good}&client_secret=x")).assert_error(400, "invalid_request");
    post("Content-Type: application/json\r\n", &good).assert_error(400, "invalid_request");
    post(form, &"x".repeat(100_000)).assert_error(413, "invalid_request");
    serve.get("/oauth/token", "").assert_error(405, "invalid_request");
    assert_eq!(serve.get("/oauth/token", "").header("allow"), Some("post"));
    serve.get("/oauth/token/", "").assert_error(404, "not_found");
    assert_eq!(post(form, &good).status, 200);
}

/// An answer of the service passes with its status, code and pause; what is not an answer has a status of its own.
#[test]
fn failures_of_the_service_come_through() {
    let env = TestEnv::new();
    env.emulator.fault(Fault::status(429).retry_after(30));
    let serve = Serve::start(&env, &["--retries", "0"]);
    let limited = serve.token();
    limited.assert_error(429, "temporarily_unavailable");
    assert!((20..=30).contains(&limited.header("retry-after").unwrap().parse::<u32>().unwrap()), "{limited:?}");
    assert_eq!(serve.get("/readyz", "").status, 503);
    assert_eq!(serve.get("/healthz", "").status, 200);
    assert_eq!(serve.metric("amp_token_refresh_failures_total{status=\"AMP_RATE_LIMITED\"}"), 1.0);
    assert_eq!(env.emulator.stats().token_requests, 1);
}

#[test]
fn what_is_final_ends_the_server() {
    let env = TestEnv::new();
    let mut command = env.command();
    command.env("AMPLIENCE_CLIENT_SECRET", "wrong-wrong-wrong").arg("serve");
    CommandResult::of(&mut command).assert_failed(3, "rejected the client id and secret");
    let mut command = env.bare(crate::support::AMP_TOKEN);
    CommandResult::of(command.arg("serve")).assert_failed(3, "no credentials");
}

#[test]
fn revoked_credentials_are_reported_while_it_runs() {
    let env = TestEnv::with(Emulator::builder().expires_in(2).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &[]);
    env.emulator.set_credentials("the-id", "another-secret-0123456789");
    env.emulator.revoke_all();
    wait_until("the failure is passed on", || serve.token().status == 400);
    let answer = serve.token();
    answer.assert_error(400, "invalid_client");
    assert!(!answer.body.contains(SECRET));
    env.emulator.set_credentials("the-id", SECRET);
    wait_until("it recovers", || serve.token().status == 200);
}

/// Half of the lifetime is left whenever a token is handed out, or 90 seconds: clients that throw tokens away some time
/// before they expire can use it. The library alone would renew it when a fifth is left.
#[test]
fn a_token_is_renewed_before_clients_would_throw_it_away() {
    let env = TestEnv::with(Emulator::builder().expires_in(12).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &[]);
    let mut tokens = std::collections::BTreeSet::new();
    while tokens.len() < 2 {
        let json = serve.token().json();
        // 6 but for the rounding and the time that the renewal takes.
        assert!(json["expires_in"].as_i64().unwrap() >= 4, "{json}");
        tokens.insert(json["access_token"].to_string());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A token of the store that was fetched by another process is used while it is good for long.
#[test]
fn a_token_of_the_store_is_served() {
    let env = TestEnv::new();
    let stored = env.run(&["get"]).stdout_ok();
    let serve = Serve::start(&env, &[]);
    assert_eq!(serve.token().access_token(), stored.trim());
    assert_eq!(env.emulator.stats().token_requests, 1);
}

/// Tokens of 2 seconds: each client always gets one that is valid, and one request is in flight.
#[test]
fn short_tokens_are_always_there() {
    let env = TestEnv::with(Emulator::builder().expires_in(2).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &[]);
    let mut tokens = std::collections::BTreeSet::new();
    while tokens.len() < 4 {
        let token = serve.token().access_token();
        let response = serve.get("/v2/content/hubs", &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(response.status, 200, "{response:?}");
        tokens.insert(token);
    }
    let stats = env.emulator.stats();
    assert_eq!((stats.in_flight_token_requests_max, stats.token_failures), (1, 0), "{stats:?}");
    assert!(stats.token_requests <= 7, "{stats:?}");
}

/// A server that nobody uses sends nothing.
#[test]
fn an_idle_server_requests_no_tokens() {
    let env = TestEnv::with(Emulator::builder().expires_in(1).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &[]);
    wait_until("the token expires", || serve.metric("amp_token_seconds_left") <= 0.0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(env.emulator.stats().token_requests, 1);
    assert_eq!(serve.token().status, 200);
}

#[test]
fn a_personal_access_token_is_served_for_300_seconds() {
    let env = TestEnv::new();
    let pat = format!("amp_pat_{}.abc", "a".repeat(22));
    let mut command = env.bare(crate::support::AMP_TOKEN);
    command.env("AMPLIENCE_PAT", &pat).arg("serve");
    let serve = Serve::run(&mut command);
    let json = serve.token().json();
    assert_eq!((&json["access_token"], &json["expires_in"]), (&pat.as_str().into(), &300.into()));
    assert_eq!(serve.get("/readyz", "").status, 200);
    assert_eq!(serve.metric("amp_token_seconds_left"), f64::INFINITY);
}

/// A service that never answers: those that need no new token are served, and those that do get an answer in time.
#[test]
fn a_service_that_hangs_stops_nobody_else() {
    let env = TestEnv::with(Emulator::builder().expires_in(4).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &["--timeout-ms", "3000", "--retries", "0"]);
    let first = serve.token().access_token();
    env.emulator.fault(Fault::silent().forever());
    // It is due, and a renewal hangs; the token is valid and is handed out.
    wait_until("a renewal hangs", || env.emulator.stats().token_requests > 1);
    assert_eq!(serve.get("/healthz", "").status, 200);
    assert_eq!(serve.get("/metrics", "").status, 200);
    assert_eq!(serve.token().access_token(), first);
    wait_until("it has expired", || serve.token().status != 200);
    serve.token().assert_error(504, "temporarily_unavailable");
    assert_eq!(serve.get("/readyz", "").status, 503);
    assert_eq!(serve.get("/healthz", "").status, 200);
}
