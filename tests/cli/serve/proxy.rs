//! The proxy.

use super::*;
use crate::shared::net::{RawServer, read_head};
use crate::support::SECRET;
use amp_emulator::{Emulator, Fault};
use std::sync::{Arc, Mutex};

/// A server whose API is this one.
fn with_api(env: &TestEnv, url: &str, options: &[&str]) -> Serve {
    Serve::run(env.command().env("AMPLIENCE_API_URL", url).arg("serve").args(options))
}

/// An API that keeps what it receives and answers with this.
fn recording(response: &'static str) -> (RawServer, Arc<Mutex<Vec<String>>>, String) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let api = RawServer::start({
        let seen = Arc::clone(&seen);
        move |mut stream| {
            let head = read_head(&mut stream)?;
            seen.lock().unwrap().push(head);
            stream.write_all(response.as_bytes())
        }
    });
    let url = api.url().replace("/oauth/token", "");
    (api, seen, url)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[test]
fn a_caller_needs_the_ticket_or_a_token_of_this_server() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    assert_eq!(serve.api("/v2/content/hubs").status, 200);
    let token = serve.token().access_token();
    for (headers, status) in [
        (format!("Authorization: Bearer {token}\r\n"), 200),
        (format!("Authorization: bearer {}\r\n", serve.ticket()), 200),
        (String::new(), 401),
        ("Authorization: Bearer x\r\n".to_owned(), 401),
        (format!("Authorization: Bearer {token}x\r\n"), 401),
        (format!("Authorization: {}\r\n", serve.ticket()), 401),
        (format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"), 401),
    ] {
        assert_eq!(serve.get("/v2/content/hubs", &headers).status, status, "{headers}");
    }
    let query = r#"{"query":"{ __typename }"}"#;
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", serve.ticket());
    assert_eq!(serve.post("/graphql", &headers, query).status, 200);
    serve.get("/graphql", &headers).assert_error(405, "invalid_request");
    serve.get("/v2/other", &headers).assert_error(404, "not_found");
    serve
        .raw(&format!("TRACE /v2/content/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", serve.host()))
        .assert_error(405, "invalid_request");
    serve.api("/v2/content/../../oauth/token").assert_error(400, "invalid_request");
    assert_eq!(serve.metric("amp_token_serve_proxied_total{class=\"2xx\"}"), 4.0);
}

#[test]
fn headers_of_the_connection_stay_here_and_all_others_pass() {
    let env = TestEnv::new();
    let (_api, seen, url) = recording(
        "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nX-Theirs: 2\r\n\
         Keep-Alive: timeout=5\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n",
    );
    let serve = with_api(&env, &url, &[]);
    let ticket = serve.ticket();
    let answer = serve.get(
        "/v2/content/x?a=%20b",
        &format!(
            "Authorization: Bearer {ticket}\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\
             Proxy-Authorization: Basic x\r\nExpect: nothing\r\nX-Kept: yes\r\nIf-Match: \"1\"\r\n"
        ),
    );
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://elsewhere.example/")));
    assert_eq!((answer.header("x-theirs"), answer.header("x-mine")), (Some("2"), None));
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("keep-alive")), (None, None));
    let seen = seen.lock().unwrap();
    let head = seen[0].to_ascii_lowercase();
    assert!(head.starts_with("get /v2/content/x?a=%20b http/1.1\r\n"), "{head}");
    for kept in ["x-kept: yes", "if-match: \"1\"", "authorization: bearer eyj", "via: 1.1 amp-token"] {
        assert!(head.contains(kept), "{kept}: {head}");
    }
    for dropped in ["x-hop", "te:", "upgrade", "proxy-authorization", "expect", &ticket.to_ascii_lowercase()] {
        assert!(!head.contains(dropped), "{dropped}: {head}");
    }
    assert_eq!(seen.len(), 1, "no redirect is followed");
}

/// A token that the API rejects is replaced, and the request sent again, with its body.
#[test]
fn a_rejected_token_is_replaced_once() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", serve.ticket());
    let path = format!("/v2/content/content-repositories/{}/content-items", Emulator::repository_id());
    env.emulator.revoke_all();
    let body = r#"{"body":{"_meta":{"schema":"x"}},"label":"a"}"#;
    let answer = serve.post(&path, &headers, body);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(serve.metric("amp_token_serve_repeated_total"), 1.0);
    assert_eq!(env.emulator.stats().token_requests, 2);
    // A missing permission is no reason.
    env.emulator.fault(
        Fault::status(403)
            .for_path("/v2/content")
            .body(serde_json::json!({"errors": [{"code": "FORBIDDEN", "message": "no"}]})),
    );
    assert_eq!(serve.api("/v2/content/hubs").status, 403);
    assert_eq!(env.emulator.stats().token_requests, 2);
}

/// What is always rejected is repeated once, and its response passed on with its body.
#[test]
fn a_request_is_not_repeated_for_ever() {
    let env = TestEnv::new();
    let expired = r#"{"errors":[{"level":"ERROR","code":"FORBIDDEN","message":"Authorization required."}]}"#;
    let serve = Serve::start(&env, &[]);
    env.emulator.fault(
        Fault::status(403).for_path("/v2/content").body(serde_json::from_str::<Value>(expired).unwrap()).forever(),
    );
    let before = env.emulator.stats().api_requests;
    let answer = serve.api("/v2/content/hubs");
    assert_eq!((answer.status, answer.json()), (403, serde_json::from_str(expired).unwrap()));
    assert!(env.emulator.stats().api_requests - before <= 2);
}

#[test]
fn bodies_are_streamed_both_ways() {
    let env = TestEnv::new();
    // Answers the first piece of the body before the second is sent, and ends after it.
    let api = RawServer::start(|mut stream| {
        read_head(&mut stream)?;
        let mut piece = [0; 64];
        let mut text = String::new();
        while !text.contains("one") {
            let count = stream.read(&mut piece)?;
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nONE\r\n")?;
        while !text.contains("two") {
            let count = stream.read(&mut piece)?;
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        stream.write_all(b"3\r\nTWO\r\n0\r\n\r\n")
    });
    let serve = with_api(&env, &api.url().replace("/oauth/token", ""), &[]);
    let mut stream = serve.connect();
    let (host, ticket) = (serve.host(), serve.ticket());
    let head = format!(
        "PUT /v2/content/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ticket}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = String::new();
    while !seen.contains("ONE") {
        let mut piece = [0; 256];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
    stream.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("TWO"), "{seen}");
}

#[test]
fn links_lead_to_the_proxy_on_request() {
    let env = TestEnv::new();
    let plain = Serve::start(&env, &[]);
    let body = plain.api("/v2/content/hubs").body;
    assert!(body.contains(&format!("\"href\":\"{}/v2/content/hubs/", env.emulator.url())), "{body}");
    let serve = Serve::start(&env, &["--rewrite-links"]);
    let rewritten = serve.api("/v2/content/hubs").body;
    assert_eq!(rewritten, body.replace(&env.emulator.url(), &format!("http://{}", serve.host())));
    // The name by which the client calls it is the one of the links.
    let port = serve.host().rsplit_once(':').unwrap().1;
    let answer = serve.raw(&format!(
        "GET /v2/content/hubs HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        serve.ticket()
    ));
    assert!(answer.body.contains(&format!("http://localhost:{port}/v2/content/hubs/")), "{answer:?}");
}

/// The certificates are those of the library, and so is the message if they are missing.
#[test]
fn the_api_is_reached_over_tls() {
    let env = TestEnv::with_tls();
    let ca = env.emulator.ca_file().to_str().unwrap().to_owned();
    let serve = Serve::start(&env, &["--ca-file", &ca]);
    assert_eq!(serve.api("/v2/content/hubs").status, 200);
    // A large body, which does not fit into the buffers of TLS.
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", serve.ticket());
    let path = format!("/v2/content/content-repositories/{}/content-items", Emulator::repository_id());
    let item = serde_json::json!({"label": "a", "body": {"text": "x".repeat(900_000)}}).to_string();
    let answer = serve.post(&path, &headers, &item);
    assert_eq!(answer.status, 201, "{} {}", answer.status, answer.head);
    let other = TestEnv::new();
    let mut command = other.command();
    let serve = Serve::run(command.env("AMPLIENCE_API_URL", env.emulator.url()).arg("serve"));
    let answer = serve.api("/v2/content/hubs");
    answer.assert_error(502, "temporarily_unavailable");
    assert!(answer.json()["error_description"].as_str().unwrap().contains("certificate"), "{answer:?}");
}

#[test]
fn failures_on_the_way_to_the_api_have_a_status() {
    let env = TestEnv::new();
    let closed = crate::shared::net::ClosedPort::new();
    let serve = with_api(&env, &format!("http://{}", closed.address()), &[]);
    let answer = serve.api("/v2/content/hubs");
    answer.assert_error(502, "temporarily_unavailable");
    assert!(answer.body.contains("connection refused"), "{answer:?}");
    assert_eq!(serve.metric("amp_token_serve_proxied_total{class=\"error\"}"), 1.0);
    let silent = RawServer::start(|mut stream| crate::shared::net::read_until_eof(&mut stream));
    let serve = with_api(&env, &silent.url().replace("/oauth/token", ""), &["--timeout-ms", "500"]);
    std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..8).map(|_| scope.spawn(|| serve.api("/v2/content/hubs"))).collect();
        // Nothing of it stops the others.
        assert_eq!((serve.token().status, serve.get("/healthz", "").status), (200, 200));
        for answer in hanging {
            answer.join().unwrap().assert_error(504, "temporarily_unavailable");
        }
    });
    let (_api, _, url) = recording(OK);
    assert_eq!(with_api(&env, &url, &[]).api("/v2/content/hubs").body, "ok");
}

/// A client of the OAuth flow and the API, both here, while tokens last for 2 seconds.
#[test]
fn many_requests_with_short_tokens_never_fail() {
    let env = TestEnv::with(Emulator::builder().expires_in(2).client("the-id", SECRET).start().unwrap());
    let serve = Serve::start(&env, &[]);
    let start = env.emulator.stats().token_requests;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while env.emulator.stats().token_requests < start + 3 {
                    let answer = serve.api("/v2/content/hubs");
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
}

/// A connection that the API closes while a request is on its way: the request is sent again, unless it may have been
/// executed.
#[test]
fn a_closed_connection_is_replaced_where_that_is_safe() {
    let env = TestEnv::new();
    let count = Arc::new(Mutex::new(0));
    let api = RawServer::start({
        let count = Arc::clone(&count);
        move |mut stream| {
            // Every second request gets no response.
            read_head(&mut stream)?;
            let number = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count
            };
            if number % 2 == 0 { stream.write_all(OK.as_bytes()) } else { Ok(()) }
        }
    });
    let serve = with_api(&env, &api.url().replace("/oauth/token", ""), &[]);
    assert_eq!(serve.api("/v2/content/x").status, 200);
    assert_eq!(*count.lock().unwrap(), 2);
    let headers = format!("Authorization: Bearer {}\r\n", serve.ticket());
    serve.post("/v2/content/x", &headers, "{}").assert_error(502, "temporarily_unavailable");
    assert_eq!(*count.lock().unwrap(), 3);
}
