//! Amplience's endpoints, and the methods and the admin API of the emulator.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use amp_emulator::{Emulator, Stats, http_date};
use serde_json::{Value, json};

use crate::client::{
    FORM, Response, connect, credentials, exchange, fetch_token, get, request, send, token, token_request,
};

const HUBS: &str = "/v2/content/hubs";

fn start() -> Emulator {
    Emulator::builder().start().unwrap()
}

#[test]
fn a_token_response_equals_amplience_s() {
    let emulator = start();
    let response = fetch_token(&emulator);
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    let access_token = response.json()["access_token"].as_str().unwrap().to_owned();
    let expected = format!(r#"{{"access_token":"{access_token}","session_expires_in":0,"expires_in":300}}"#);
    assert_eq!(response.body, expected);
    assert_eq!(get(&emulator, HUBS, &access_token).status, 200);
    assert_eq!(get(&emulator, HUBS, &token(&emulator)).status, 200);
    let requests = emulator.requests();
    assert_eq!((requests.len(), requests[0].body.as_slice()), (4, credentials(&emulator).as_bytes()));
}

#[test]
fn default_credentials_have_the_form_of_amplience_s() {
    let (one, other) = (start(), start());
    assert_eq!((one.client_id().len(), one.client_secret().len()), (36, 64));
    assert_ne!(one.client_secret(), other.client_secret());
}

#[test]
fn secrets_are_decoded() {
    let emulator = Emulator::builder().client("some id", "a+secret/with=chars &%~é").start().unwrap();
    let body =
        "client_id=some+id&client_secret=a%2Bsecret%2Fwith%3Dchars%20%26%25~%C3%A9&grant_type=client_credentials";
    assert_eq!(send(&emulator, "POST", "/oauth/token", FORM, body).status, 200);
    let raw = "client_id=some+id&client_secret=a+secret/with=chars &%~é&grant_type=client_credentials";
    assert_eq!(send(&emulator, "POST", "/oauth/token", FORM, raw).status, 400);
}

#[test]
fn rejections_have_status_400_and_an_error_code() {
    let emulator = Emulator::builder().client("id", "secret").start().unwrap();
    let rejections = [
        ("client_id=id&client_secret=wrong&grant_type=client_credentials", "invalid_client"),
        ("client_id=other&client_secret=secret&grant_type=client_credentials", "invalid_client"),
        ("client_id=id&client_secret=secret&grant_type=password", "unsupported_grant_type"),
        ("client_id=id&client_secret=secret", "invalid_request"),
        ("client_id=id&grant_type=client_credentials", "invalid_request"),
        ("client_id=id&client_id=id&client_secret=secret&grant_type=client_credentials", "invalid_request"),
        ("", "invalid_request"),
    ];
    for (body, code) in rejections {
        let response = send(&emulator, "POST", "/oauth/token", FORM, body);
        assert_eq!((response.status, &response.json()["error"]), (400, &json!(code)), "{body}");
        assert!(response.json()["error_description"].is_string());
    }
    let form = credentials(&emulator);
    let url_with_secret = format!("/oauth/token?{form}");
    for (path, headers, body) in [
        (url_with_secret.as_str(), FORM, ""),
        (url_with_secret.as_str(), FORM, form.as_str()),
        ("/oauth/token", "Content-Type: application/json\r\n", form.as_str()),
    ] {
        let response = send(&emulator, "POST", path, headers, body);
        assert_eq!((response.status, &response.json()["error"]), (400, &json!("invalid_request")));
    }
    assert_eq!(send(&emulator, "GET", "/oauth/token", "", "").status, 405);
    let stats = emulator.stats();
    assert_eq!((stats.token_requests, stats.tokens_issued, stats.token_failures), (11, 0, 11));
}

#[test]
fn the_api_requires_a_valid_token() {
    let emulator = start();
    let response = send(&emulator, "GET", HUBS, "", "");
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")));
    let response = get(&emulator, HUBS, "made-up");
    assert_eq!(response.status, 403);
    let expected = json!({"errors": [{"level": "ERROR", "code": "FORBIDDEN", "message": "Authorization required."}]});
    assert_eq!(response.json(), expected);
    assert_eq!(get(&emulator, "/graphql", "made-up").status, 403);
    let stats = emulator.stats();
    assert_eq!((stats.rejected, stats.api_requests, stats.graphql_requests), (3, 2, 1));
}

#[test]
fn hubs_are_hal_documents() {
    let emulator = start();
    let token = token(&emulator);
    let response = get(&emulator, HUBS, &token);
    assert_eq!(response.header("content-type"), Some("application/hal+json"));
    let hubs = response.json();
    assert_eq!(hubs["page"], json!({"size": 20, "totalElements": 2, "totalPages": 1, "number": 0}));
    assert_eq!(hubs["_links"]["self"]["href"], "http://emulator.test:1/v2/content/hubs");
    let hub = &hubs["_embedded"]["hubs"][0];
    assert_eq!((hub["id"].as_str().unwrap().len(), &hub["status"]), (24, &json!("ACTIVE")));
    let path = |link: &Value| link["href"].as_str().unwrap().replace("http://emulator.test:1", "");
    assert_eq!(&get(&emulator, &path(&hub["_links"]["self"]), &token).json(), hub);
    assert_eq!(get(&emulator, &format!("{HUBS}/{:024x}", 7), &token).status, 403);

    let repositories = path(&hub["_links"]["content-repositories"]).replace("{?page,size,sort}", "");
    let mut ids = Vec::new();
    for (number, length) in [(0, 20), (1, 20), (2, 5), (3, 0)] {
        let page = get(&emulator, &format!("{repositories}?page={number}&size=20"), &token).json();
        let items = page["_embedded"]["content-repositories"].as_array().unwrap().clone();
        assert_eq!(
            (items.len(), &page["page"]["totalPages"], &page["page"]["number"]),
            (length, &json!(3), &json!(number))
        );
        ids.extend(items.into_iter().map(|item| item["id"].as_str().unwrap().to_owned()));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 45);
    assert_eq!(
        get(&emulator, &format!("{HUBS}?size=1&page=1"), &token).json()["_embedded"]["hubs"][0]["name"],
        "emulatedtest"
    );
    assert_eq!(get(&emulator, &format!("{HUBS}?size=0"), &token).status, 400);
    assert_eq!(get(&emulator, "/v2/content/elsewhere", &token).status, 404);

    let headers = format!("Authorization: bearer {token}\r\n");
    let items = format!("/v2/content/content-repositories/{}/content-items", ids[0]);
    let item = send(&emulator, "POST", &items, &headers, r#"{"label":"é","body":{"x":1}}"#);
    assert_eq!((item.status, &item.json()["label"]), (201, &json!("é")));
    assert_eq!(get(&emulator, &path(&item.json()["_links"]["self"]), &token).json(), item.json());
    assert_eq!(send(&emulator, "POST", &items, &headers, "[1]").status, 400);

    let published = send(&emulator, "POST", &path(&item.json()["_links"]["publish"]), &headers, "");
    assert_eq!((published.status, emulator.stats().publications), (204, 1));
    let job = path(&json!({"href": published.header("location").unwrap()}));
    assert_eq!(get(&emulator, &job, &token).json()["state"], "COMPLETED");
    assert_eq!(send(&emulator, "POST", "/v2/content/content-items/none/publish", &headers, "").status, 404);
    assert_eq!(emulator.stats().publications, 1);
}

#[test]
fn graphql_creates_personal_access_tokens() {
    let emulator = start();
    let graphql = |token: &str, body: Value| {
        send(&emulator, "POST", "/graphql", &format!("Authorization: Bearer {token}\r\n"), &body.to_string())
    };
    let access_token = token(&emulator);
    assert_eq!(
        graphql(&access_token, json!({"query": "{ __typename }"})).json(),
        json!({"data": {"__typename": "Query"}})
    );
    assert_eq!(graphql(&access_token, json!([])).status, 400);

    let mutation = "mutation($input: CreateInput!) { createPersonalAccessToken(input: $input) { id token } }";
    let create = json!({"query": mutation, "variables": {"input": {"name": "mine", "organizationId": "o"}}});
    let created = graphql(&access_token, create.clone()).json()["data"]["createPersonalAccessToken"].clone();
    let personal = created["token"].as_str().unwrap();
    assert!(personal.starts_with("amp_pat_") && personal.find('.') == Some(30), "{personal}");
    assert_eq!((&created["name"], &created["lastUsedDate"]), (&json!("mine"), &Value::Null));
    emulator.advance(Duration::from_secs(1_000_000));
    assert_eq!(get(&emulator, HUBS, personal).status, 200);
    for _ in 0..4 {
        assert!(graphql(personal, create.clone()).json()["errors"].is_null());
    }
    assert_eq!(graphql(personal, create).json()["errors"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    let nameless = json!({"query": "mutation { createPersonalAccessToken(input: {}) { id } }"});
    assert_eq!(graphql(personal, nameless).json()["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    emulator.revoke(personal);
    assert_eq!(get(&emulator, HUBS, personal).status, 403);
}

#[test]
fn tokens_expire_by_the_emulator_s_clock() {
    let emulator = Emulator::builder().expires_in(1).start().unwrap();
    let short = token(&emulator);
    emulator.set_expires_in(3600);
    let long = token(&emulator);
    emulator.advance(Duration::from_secs(1));
    assert_eq!((get(&emulator, HUBS, &short).status, get(&emulator, HUBS, &long).status), (403, 200));
    assert_eq!(send(&emulator, "POST", "/_emulator/advance", "", r#"{"seconds":3600}"#).status, 200);
    assert_eq!(get(&emulator, HUBS, &long).status, 403);
}

#[test]
fn tokens_can_be_revoked_and_credentials_replaced() {
    let emulator = start();
    let tokens: Vec<String> = (0..4).map(|_| token(&emulator)).collect();
    let accepted = || tokens.iter().map(|token| get(&emulator, HUBS, token).status == 200).collect::<Vec<_>>();
    emulator.revoke(&tokens[0]);
    assert_eq!(accepted(), [false, true, true, true]);
    send(&emulator, "POST", "/_emulator/revoke", "", &tokens[1]);
    assert_eq!(accepted(), [false, false, true, true]);
    send(&emulator, "POST", "/_emulator/revoke", "", "");
    assert_eq!(accepted(), [false; 4]);

    let before = token_request(&emulator);
    let body = r#"{"client_id":"new","client_secret":"newer"}"#;
    assert_eq!(send(&emulator, "POST", "/_emulator/credentials", "", body).status, 200);
    assert_eq!(Response::parse(&exchange(connect(&emulator), &before).unwrap()).status, 400);
    assert_eq!((emulator.client_id().as_str(), fetch_token(&emulator).status), ("new", 200));
    assert_eq!(send(&emulator, "POST", "/_emulator/credentials", "", "{}").status, 400);
    assert_eq!(send(&emulator, "POST", "/_emulator/nonsense", "", "").status, 404);
}

#[test]
fn paused_token_requests_are_counted_and_wait() {
    let emulator = start();
    thread::scope(|scope| {
        let pause = emulator.pause_token_requests();
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| fetch_token(&emulator).status)).collect();
        assert!(emulator.wait_for_token_requests(5, Duration::from_secs(20)));
        assert!(!emulator.wait_for_token_requests(6, Duration::from_millis(1)));
        let stats = emulator.stats();
        assert_eq!((stats.token_requests, stats.tokens_issued, stats.in_flight_token_requests_max), (5, 0, 5));
        pause.release();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == 200));
    });
    emulator.reset();
    assert_eq!(emulator.stats(), Stats::default());
    for _ in 0..20 {
        fetch_token(&emulator);
    }
    let stats = send(&emulator, "GET", "/_emulator/stats", "", "").json();
    assert_eq!(
        stats,
        json!({
            "token_requests": 20, "tokens_issued": 20, "token_failures": 0, "api_requests": 0, "graphql_requests": 0,
            "connections": 20, "in_flight_token_requests_max": 1, "publications": 0, "rejected": 0,
        })
    );
}

#[test]
fn a_connection_serves_several_requests() {
    let emulator = start();
    let once = token_request(&emulator);
    let many = once.replace("Connection: close\r\n", "").repeat(3) + &once;
    let responses = String::from_utf8(exchange(connect(&emulator), &many).unwrap()).unwrap();
    assert_eq!(responses.matches("HTTP/1.1 200 OK").count(), 4);
    assert_eq!((emulator.stats().connections, emulator.stats().tokens_issued), (1, 4));
    assert_eq!(Response::parse(&exchange(connect(&emulator), "what is this?\r\n\r\n").unwrap()).status, 400);
}

#[test]
fn it_stops_immediately_and_keeps_its_state_on_restart() {
    let mut emulator = start();
    let token = token(&emulator);
    let mut idle = connect(&emulator);
    idle.write_all(b"GET / HT").unwrap();
    let pause = emulator.pause_token_requests();
    let mut held = connect(&emulator);
    held.write_all(token_request(&emulator).as_bytes()).unwrap();
    assert!(emulator.wait_for_token_requests(2, Duration::from_secs(20)));
    let before = Instant::now();
    emulator.stop();
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(std::net::TcpStream::connect(("127.0.0.1", emulator.port())).is_err());
    drop(pause);
    emulator.restart().unwrap();
    assert_eq!(get(&emulator, HUBS, &token).status, 200);
}

#[test]
fn tokens_are_issued_fast_enough_for_a_load_test() {
    let emulator = start();
    let mut stream = connect(&emulator);
    let keep_alive = token_request(&emulator).replace("Connection: close\r\n", "");
    let before = Instant::now();
    stream.write_all(keep_alive.repeat(200).as_bytes()).unwrap();
    let last = request("GET", "/_emulator/stats", "", "");
    assert!(!exchange(stream, &last).unwrap().is_empty());
    assert_eq!(emulator.stats().tokens_issued, 200);
    // Many times the usual duration, because the machine may be busy.
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    println!("200 tokens on one connection: {:?}", before.elapsed());
}

#[test]
fn a_reset_restores_the_start() {
    let emulator = Emulator::builder().expires_in(300).client("id", "secret").start().unwrap();
    let post = |path: &str, body: &str| assert_eq!(send(&emulator, "POST", path, "", body).status, 200, "{path}");
    let first = token(&emulator);
    let request = token_request(&emulator);
    assert_eq!(get(&emulator, HUBS, &first).status, 200);
    post("/_emulator/advance", r#"{"seconds":400}"#);
    post("/_emulator/expires_in", r#"{"seconds":7}"#);
    post("/_emulator/credentials", r#"{"client_id":"a","client_secret":"b"}"#);
    post("/_emulator/faults", r#"{"status":503,"times":"forever"}"#);
    assert_eq!(fetch_token(&emulator).status, 503);

    post("/_emulator/reset", "");
    assert_eq!(emulator.stats(), Stats::default());
    assert!(emulator.requests().is_empty());
    assert_eq!(get(&emulator, HUBS, &first).status, 403, "all tokens are forgotten");
    let response = Response::parse(&exchange(connect(&emulator), &request).unwrap());
    assert_eq!((response.status, response.json()["expires_in"].as_u64()), (200, Some(300)));
    // The clock is that of this machine again. The response was made a moment ago.
    let date = response.header("date").unwrap();
    assert!((0..60).any(|ago| date == http_date(SystemTime::now() - Duration::from_secs(ago))), "{date}");
}
