//! `amp-token exec --serve`.

use super::*;
use crate::support::{AMP_TOKEN, SECRET};
use std::os::unix::process::ExitStatusExt;

#[test]
fn a_command_has_tokens_and_no_credentials() {
    let env = TestEnv::new();
    let script = r#"
        env
        curl -sS "$AMPLIENCE_AUTH_URL" -d grant_type=client_credentials -d "client_id=$AMPLIENCE_CLIENT_ID" \
            --data-urlencode "client_secret=$AMPLIENCE_CLIENT_SECRET" -o /dev/null -w 'status=%{http_code}\n'
        echo "$AUTH_URL/oauth/token" | grep -qx "$AMPLIENCE_AUTH_URL" && echo same
        exit 7"#;
    if !crate::shared::require_tool("curl") {
        return;
    }
    let mut command = env.command();
    command
        .env("AMPLIENCE_CONFIG_FILE", "/f")
        .env("AMPLIENCE_ACCESS_TOKEN", "old")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    let result = CommandResult::of(command.args(["exec", "--serve", "--", "sh", "-c", script]));
    assert_eq!((result.status, result.stderr.as_str()), (Some(7), ""), "{}", result.stdout);
    for line in ["status=200", "same", "AMPLIENCE_CLIENT_ID=amp-token", "NO_PROXY=127.0.0.1"] {
        assert!(result.stdout.lines().any(|have| have == line), "{line}: {}", result.stdout);
    }
    for absent in [SECRET, "AMPLIENCE_CONFIG_FILE", "AMPLIENCE_ACCESS_TOKEN", "\nAPI_URL"] {
        assert!(!result.stdout.contains(absent), "{absent}: {}", result.stdout);
    }
    assert_eq!(env.emulator.stats().token_requests, 1);
}

/// Another amp-token, through the token endpoint and the proxy of the first.
#[test]
fn the_apis_are_reached_through_the_server_on_request() {
    let env = TestEnv::new();
    let arguments = ["exec", "--serve", "--rewrite-links", "--", AMP_TOKEN, "hubs", "--store", "none"];
    assert!(env.run(&arguments).stdout_ok().contains("emulated"));
    assert!(env.emulator.requests().iter().any(|request| format!("{request:?}").contains("via")));
    assert_eq!(env.emulator.stats().token_requests, 1);
}

#[test]
fn failures_are_those_of_exec() {
    let env = TestEnv::new();
    env.run(&["exec", "--serve", "--", "/no/such/command"]).assert_failed(127, "cannot run /no/such/command");
    env.run(&["exec", "--serve", "--", "/"]).assert_failed(126, "cannot run /");
    let mut command = env.command();
    command.env("AMPLIENCE_CLIENT_SECRET", "wrong-wrong-wrong");
    CommandResult::of(command.args(["exec", "--serve", "--", "echo", "ran"]))
        .assert_failed(3, "rejected the client id and secret");
    env.run(&["exec", "--rewrite-links", "--", "true"]).assert_failed(2, "--serve");
}

#[test]
fn signals_reach_the_command_and_its_end_is_passed_on() {
    let env = TestEnv::new();
    let script = "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, status, prints) in [(libc::SIGTERM, 9, "term\n"), (libc::SIGUSR2, 128 + libc::SIGUSR2, "")] {
        let mut command = env.command();
        command.args(["exec", "--serve", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // SAFETY: the process is a child that was not waited for, so the number is its own.
        assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
        let ended = child.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(status), None));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, prints);
    }
}
