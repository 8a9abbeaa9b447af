//! The commands that send requests to the APIs.

use crate::support::{AMP_TOKEN, CommandResult, TestEnv};
use amp_emulator::Fault;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn hubs_are_listed_as_a_table_and_as_json() {
    let env = TestEnv::new();
    let table = env.run(&["hubs"]).stdout_ok();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("id") && lines[0].contains("label"), "{table}");
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[1].contains("ACTIVE"), "{table}");
    let hubs: Value = serde_json::from_str(&env.run(&["hubs", "--json"]).stdout_ok()).unwrap();
    assert_eq!(hubs.as_array().unwrap().len(), 2);
    assert!(table.contains(hubs[1]["id"].as_str().unwrap()));
}

#[test]
fn request_prints_the_body_of_the_response() {
    let env = TestEnv::new();
    let hubs: Value = serde_json::from_str(&env.run(&["request", "get", "/v2/content/hubs"]).stdout_ok()).unwrap();
    assert_eq!(hubs["page"]["totalElements"], 2);
    let repositories = "/v2/content/content-repositories/000000000000000000000000/content-items";
    let item = env.home.join("item.json");
    fs::write(&item, r#"{"label":"from a file"}"#).unwrap();
    let data = format!("@{}", item.display());
    let first: Value = serde_json::from_str(
        &env.run(&[
            "request",
            "GET",
            hubs["_embedded"]["hubs"][0]["_links"]["content-repositories"]["href"]
                .as_str()
                .unwrap()
                .split('{')
                .next()
                .unwrap(),
        ])
        .stdout_ok(),
    )
    .unwrap();
    let id = first["_embedded"]["content-repositories"][0]["id"].as_str().unwrap();
    let path = repositories.replace("000000000000000000000000", id);
    let made: Value = serde_json::from_str(&env.run(&["request", "POST", &path, "-d", &data]).stdout_ok()).unwrap();
    assert_eq!(made["label"], "from a file");
    assert!(made["id"].is_string());
}

#[test]
fn a_body_may_begin_with_a_hyphen() {
    let env = TestEnv::new();
    env.run(&["-q", "-q", "request", "POST", "/v2/x", "-d", "-5"]);
    env.run(&["request", "POST", "/v2/x", "--data", "-5", "--content-type", "text/plain"]);
    let bodies: Vec<_> =
        env.emulator.requests().into_iter().filter(|it| it.path == "/v2/x").map(|it| it.body).collect();
    assert_eq!(bodies, [b"-5", b"-5"]);
}

#[test]
fn an_http_error_is_reported_and_its_body_printed() {
    let env = TestEnv::new();
    env.emulator.fault(Fault::status(404).body("gone").for_path("/v2"));
    let output = env.run(&["request", "GET", "/v2/content/x"]);
    assert_eq!((output.status, output.stdout.as_str()), (Some(5), "gone"), "{}", output.stderr);
    assert!(output.stderr.contains("HTTP 404"), "{}", output.stderr);
    env.emulator.fault(Fault::status(403).body("no").for_path("/v2"));
    assert_eq!(env.run(&["hubs"]).status, Some(3));
    let output = env.run(&["request", "GET", "https://elsewhere.invalid/v2"]);
    assert_eq!(output.status, Some(2));
    assert!(output.stderr.contains("the token is only sent to"), "{}", output.stderr);
    let output = env.run(&["request", "POST", "/v2", "-d", "@/nonexistent"]);
    assert_eq!(output.status, Some(6));
}

#[test]
fn graphql_and_a_personal_access_token() {
    let env = TestEnv::new();
    let reply: Value =
        serde_json::from_str(&env.run(&["graphql", "{ __typename }", "--variables", "{\"a\":1}"]).stdout_ok()).unwrap();
    assert_eq!(reply["data"]["__typename"], "Query");
    assert_eq!(env.run(&["graphql", "{ a }", "--variables", "[]"]).status, Some(2));
    let token = env.run(&["pat", "create", "build server", "--organization", "T3JnOjE="]).stdout_ok();
    assert!(token.starts_with("amp_pat_") && token.lines().count() == 1, "{token}");
    let file = env.home.join("token");
    fs::write(&file, &token).unwrap();
    let mut command = env.bare(crate::support::AMP_TOKEN);
    command.args(["hubs", "--api-url", &env.emulator.url(), "--personal-access-token-file"]).arg(&file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn pages_end_whatever_the_server_says() {
    let env = TestEnv::new();
    // Each response is page 0 of 2.
    let page = serde_json::json!({"size": 1, "totalElements": 2, "totalPages": 2, "number": 0});
    let body = serde_json::json!({"_embedded": {"hubs": [{"id": "a"}]}, "page": page});
    env.emulator.fault(Fault::status(200).body(body).for_path("/v2").forever());
    env.run(&["hubs"]).assert_failed(5, "the API returned page 0 of a collection, not page 1");
    assert_eq!(env.emulator.stats().api_requests, 2);
}

#[test]
fn pages_without_end_are_not_listed() {
    // Each response is the page that was requested, and another one follows.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU32::new(0));
    let counter = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            lines.read_line(&mut line).unwrap();
            let head = std::iter::from_fn(|| {
                let mut line = String::new();
                lines.read_line(&mut line).ok().filter(|_| !line.trim().is_empty())
            });
            head.for_each(drop);
            counter.fetch_add(1, Ordering::Relaxed);
            let number =
                line.split_once("page=").map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap());
            let body = format!(r#"{{"page":{{"totalPages":{},"number":{number}}}}}"#, number + 2);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
            write!(stream, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let env = TestEnv::new();
    let mut command = env.bare(AMP_TOKEN);
    command.env("AMPLIENCE_PAT", "amp_pat_0123456789abcdefghijkl.x").env("AMPLIENCE_API_URL", url).arg("hubs");
    CommandResult::of(&mut command).assert_failed(5, "the API lists more than 1000 pages of hubs");
    assert_eq!(requests.load(Ordering::Relaxed), 1000);
}

#[test]
fn graphql_errors_without_data_have_a_status() {
    let env = TestEnv::new();
    for (body, status) in [
        (r#"{"data":null,"errors":[{"message":"no"}]}"#, 7),
        (r#"{"errors":[{"message":"no"}],"extensions":{}}"#, 7),
        (r#"{"errors":["no"]}"#, 7),
        (r#"{"data":{"a":1},"errors":[{"message":"half"}]}"#, 0),
        (r#"{"data":{"a":1},"errors":[]}"#, 0),
        (r#"{"data":{"a":1},"errors":null}"#, 0),
        (r#"{"data":null}"#, 0),
    ] {
        env.emulator.fault(Fault::status(200).body(body).for_path("/graphql"));
        let output = env.run(&["graphql", "{ a }"]);
        assert_eq!((output.status, output.stdout.as_str()), (Some(status), body), "{}", output.stderr);
        assert_eq!(output.stderr.contains("errors and no data"), status == 7, "{}", output.stderr);
    }
}

#[test]
fn a_personal_access_token_is_written_to_a_private_new_file() {
    let env = TestEnv::new();
    let path = env.home.join("token");
    let create = || {
        let line = "umask 0; exec amp-token pat create ci --organization o --output \"$HOME/token\"";
        CommandResult::of(&mut env.shell(line))
    };
    assert_eq!(create().stdout_ok(), "");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let token = fs::read_to_string(&path).unwrap();
    assert!(token.starts_with("amp_pat_") && token.ends_with('\n') && token.lines().count() == 1, "{token}");
    // It is not overwritten, and no other token is created.
    create().assert_failed(6, "/token: File exists");
    assert_eq!(env.emulator.stats().graphql_requests, 1);
    fs::remove_file(&path).unwrap();
    for body in [r#"{"errors":[{"message":"no"}]}"#, r#"{"data":{}}"#] {
        env.emulator.fault(Fault::status(200).body(body).for_path("/graphql"));
        create().assert_failed(5, "");
        assert!(!path.exists());
    }
}

#[test]
fn a_personal_access_token_that_cannot_be_shown_is_named() {
    let env = TestEnv::new();
    // The file may not grow, which is noticed when it is written.
    let line = "trap '' XFSZ; ulimit -f 0; exec amp-token --store none pat create ci --organization o >\"$HOME/out\"";
    let output = CommandResult::of(&mut env.shell(line));
    output.assert_failed(6, "cannot write to standard output: File too large");
    let (_, id) = output.stderr.split_once("; the personal access token ").unwrap();
    let (id, rest) = id.split_once(' ').unwrap();
    assert!(
        id.len() > 4 && rest.starts_with("exists already and cannot be shown again; delete it"),
        "{}",
        output.stderr
    );
}

#[test]
fn organizations_are_listed_and_one_needs_no_name() {
    let env = TestEnv::new();
    let table = "id                    name\nT3JnYW5pemF0aW9uOjE=  Emulated organization\n";
    assert_eq!(env.run(&["organizations"]).stdout_ok(), table);
    let json: Value = serde_json::from_str(&env.run(&["organizations", "--json"]).stdout_ok()).unwrap();
    assert_eq!(json, serde_json::json!([{"id": "T3JnYW5pemF0aW9uOjE=", "name": "Emulated organization"}]));
    assert!(env.run(&["pat", "create", "x"]).stdout_ok().starts_with("amp_pat_"));
    let organizations = |nodes: Value| serde_json::json!({"data": {"viewer": {"organizations": {"edges": nodes}}}});
    let two = serde_json::json!([{"node": {"id": "a", "name": "A"}}, {"node": {"id": "b", "name": "B\u{1b}[2J"}}]);
    for (body, status, message) in [
        (organizations(two), 2, "belong to 2 organizations; choose one with --organization: a (A), b (B[2J)"),
        (organizations(serde_json::json!([])), 2, "belong to no organization; name one with --organization"),
        (serde_json::json!({"data": {"viewer": null}}), 5, "the response of the API contains no organizations"),
        (serde_json::json!({"data": null, "errors": [{"message": "no"}]}), 5, "did not list the organizations: no"),
        (serde_json::json!({"data": {"viewer": {}}}), 5, "unexpected response from the API: a member has another type"),
    ] {
        env.emulator.fault(Fault::status(200).body(body).for_path("/graphql"));
        env.run(&["pat", "create", "x"]).assert_failed(status, message);
    }
}

#[test]
fn a_403_is_explained_by_what_the_token_lists() {
    let env = TestEnv::new();
    let table = env.run(&["permissions"]).stdout_ok();
    assert!(table.starts_with("area     type        object"), "{table}");
    let json: Value = serde_json::from_str(&env.run(&["permissions", "--json"]).stdout_ok()).unwrap();
    let first =
        serde_json::json!({"area": "CONTENT", "type": "FUNCTIONAL", "object": "CONTENT_ITEM", "rights": ["READ"]});
    assert_eq!(json[0], first);
    for (method, path, explained) in [
        ("PATCH", "/v2/content/content-items/1", "; this key may only READ CONTENT_ITEM (amp-token permissions)\n"),
        ("GET", "/v2/content/hubs", "; this key has HUB: READ (amp-token permissions)\n"),
        (
            "GET",
            "/v2/content/content-repositories",
            "; this key has no permission for CONTENT_REPOSITORY (amp-token permissions)\n",
        ),
    ] {
        let body = serde_json::json!({"errors": [{"code": "FORBIDDEN", "message": "Insufficient permissions"}]});
        env.emulator.fault(Fault::status(403).body(body).for_path("/v2/content"));
        let output = env.run(&["request", method, path]);
        assert_eq!(output.status, Some(3));
        assert!(output.stderr.ends_with(explained), "{}", output.stderr);
    }
    let mut command = env.command();
    command.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET");
    command.env("AMPLIENCE_PAT", "amp_pat_0123456789abcdefghijkl.x");
    let says = "a personal access token does not say what it permits: it has the permissions of its user";
    CommandResult::of(command.arg("permissions")).assert_failed(2, says);
    // The three causes that the documentation of Amplience has.
    let mut command = env.command();
    command.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET");
    command.env("AMPLIENCE_PAT", "amp_pat_0123456789abcdefghijkl.x");
    let output = CommandResult::of(command.args(["-q", "request", "GET", "/v2/content/hubs"]));
    let causes =
        "it was deleted, its user was removed from the organization, or an administrator has not approved it yet\n";
    assert!(output.status == Some(3) && output.stderr.ends_with(causes), "{}", output.stderr);
}
