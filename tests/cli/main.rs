//! The command `amp-token`, run as a process against the emulator.

#![cfg(all(feature = "cli", unix))]

mod completion;
mod directories;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod pipelines;
mod requests;
#[cfg(feature = "serve")]
mod serve;
#[path = "../support/mod.rs"]
mod shared;
mod store;
mod support;

use amp_emulator::Fault;
use amp_token::config::settings::{SETTINGS, ValueType};
use amp_token::config::sources::SOURCES;
use serde_json::Value;
use shared::require_tool;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use support::{AMP_TOKEN, CommandResult, SECRET, TestEnv};

const COMMANDS: &[&str] =
    &["get", "header", "curl-config", "exec", "status", "invalidate", "config", "doctor", "completions", "man"];

#[test]
fn a_token_is_printed_in_three_forms() {
    let env = TestEnv::new();
    let token = env.run(&["get"]).stdout_ok();
    let token = token.strip_suffix('\n').unwrap();
    assert!(token.starts_with("eyJ") && token.bytes().all(|byte| byte.is_ascii_graphic()), "{token}");
    let header = env.run(&["header"]).stdout_ok();
    assert!(header.starts_with("Authorization: Bearer eyJ") && header.ends_with('\n'), "{header}");
    let config = env.run(&["curl-config"]).stdout_ok();
    assert!(config.starts_with("header = \"Authorization: Bearer eyJ") && config.ends_with("\"\n"), "{config}");
}

#[test]
fn a_token_is_printed_for_shells_and_programs() {
    let env = TestEnv::new();
    let token = env.run(&["get"]).stdout_ok();
    let token = token.trim();
    let format = |name: &str| env.run(&["get", "--format", name]).stdout_ok();
    assert_eq!(format("plain"), format!("{token}\n"));
    assert_eq!(format("header"), env.run(&["header"]).stdout_ok());
    let json: Value = serde_json::from_str(&format("json")).unwrap();
    assert_eq!((&json["access_token"], &json["token_type"]), (&token.into(), &"Bearer".into()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now..=now + 300).contains(&json["expires_at"].as_u64().unwrap()), "{json}");
    assert!((200..=300).contains(&json["expires_in"].as_u64().unwrap()), "{json}");
    let credential: Value = serde_json::from_str(&format("exec-credential")).unwrap();
    assert_eq!(credential["kind"], "ExecCredential");
    assert_eq!(credential["status"]["token"], token);
    assert!(credential["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'), "{credential}");
    assert_eq!(format("fish"), format!("set -gx AMPLIENCE_ACCESS_TOKEN '{token}'\n"));
    assert_eq!(format("powershell"), format!("$Env:AMPLIENCE_ACCESS_TOKEN = '{token}'\n"));
    assert_eq!(format("cmd"), format!("set \"AMPLIENCE_ACCESS_TOKEN={token}\"\n"));
    env.run(&["get", "--format", "yaml"]).assert_failed(2, "exec-credential");
    // What a shell makes of it, with a token of all characters that a shell gives a meaning.
    let odd = r#"amp_pat_a"b\c'd$(e)`f`!g#h%i;j&k|l<m>n*o?p~q"#;
    let mut shells = vec![("sh", r#"eval "$(amp-token -q get --format env)"; printf %s "$AMPLIENCE_ACCESS_TOKEN""#)];
    let in_fish = r#"amp-token -q get --format fish | source; printf %s "$AMPLIENCE_ACCESS_TOKEN""#;
    shells.extend(require_tool("fish").then_some(("fish", in_fish)));
    for (shell, line) in shells {
        let mut command = env.shell(&format!("exec {shell} -c \"$0\""));
        command
            .arg(line)
            .env_remove("AMPLIENCE_CLIENT_ID")
            .env_remove("AMPLIENCE_CLIENT_SECRET")
            .env("AMPLIENCE_PAT", odd);
        assert_eq!(CommandResult::of(&mut command).stdout_ok(), odd, "{shell}");
    }
}

#[test]
fn verbose_says_where_a_token_is_from() {
    let env = TestEnv::new();
    let line = |arguments: &[&str]| env.run(&[&["-v"], arguments].concat()).stderr;
    assert!(line(&["get"]).contains("info: the token was requested just now, and is valid for "));
    assert!(line(&["header"]).contains("info: the token is from the store, and valid for "));
    assert!(line(&["get", "--store", "none"]).contains("requested just now"));
    assert_eq!(env.run(&["get"]).stderr, "");
}

#[test]
fn curl_takes_the_header_from_standard_input() {
    if !require_tool("curl") {
        return;
    }
    let env = TestEnv::new();
    let url = format!("{}/v2/content/hubs", env.emulator.url());
    for (line, requests) in [
        (format!("amp-token header | curl -sS -f -H @- {url}"), 1),
        (format!("amp-token curl-config | curl -sS -f -K - {url}"), 2),
    ] {
        let hubs: Value = serde_json::from_str(&CommandResult::of(&mut env.shell(&line)).stdout_ok()).unwrap();
        assert!(hubs.pointer("/_embedded/hubs/0/id").is_some());
        assert_eq!(env.emulator.stats().api_requests, requests);
    }
}

#[test]
fn curl_reads_a_quoted_token() {
    if !require_tool("curl") {
        return;
    }
    // A personal access token may hold any visible character; the emulator records what arrives.
    let env = TestEnv::new();
    let token = r#"amp_pat_a"b\c\\"d'$(e)"#;
    let mut shell = env.shell(&format!("amp-token curl-config | curl -sS -K - {}/v2/x", env.emulator.url()));
    shell.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_PAT", token);
    shell.output().unwrap();
    let requests = env.emulator.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), Some(format!("Bearer {token}").as_str()));
}

#[test]
fn a_token_is_valid_for_at_least_min_validity() {
    let env = TestEnv::new();
    env.run(&["get", "--min-validity", "200"]).stdout_ok();
    let output = env.run(&["get", "--min-validity", "400"]);
    output.assert_failed(2, "min_validity of 400 s is longer than the lifetime of a token, 300 s");
    let output = env.run(&["get", "--min-validity-ms", "400500"]);
    output.assert_failed(2, "min_validity of 400500 ms is longer than the lifetime of a token, 300 s");
    env.run(&["get", "--min-validity", "soon"]).assert_failed(2, "soon");
}

#[test]
fn exec_replaces_itself_with_the_command() {
    let env = TestEnv::new();
    let exec = |arguments: &[&str]| env.command().arg("exec").args(arguments).output().unwrap();
    let script =
        "printf %.3s.%s.%s \"$AMPLIENCE_ACCESS_TOKEN\" \"$AMPLIENCE_CLIENT_ID\" \"${AMPLIENCE_CLIENT_SECRET:+kept}\"";
    let output = exec(&["--", "sh", "-c", script]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "eyJ.the-id.kept");
    let output = exec(&["--clean", "sh", "-c", script]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "eyJ.the-id.");
    // Options after the name of the command are not parsed.
    let output = exec(&["--", "printf", "%s", "--clean"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--clean");
    assert_eq!(exec(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(exec(&["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    // The command runs in the same process: no parent waits for it.
    let mut child = env.command().args(["exec", "sh", "-c", "echo $$"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    child.stdout.take().unwrap().read_to_string(&mut pid).unwrap();
    assert_eq!(pid.trim(), child.id().to_string());
    child.wait().unwrap();
}

#[test]
fn exec_removes_what_leads_to_secrets_if_asked() {
    let env = TestEnv::new();
    let secret = env.home.join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let variables = |option: &[&str]| {
        let mut command = env.command();
        command.env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_CLIENT_SECRET_FILE", &secret);
        command.env("AMPLIENCE_PROXY", "none").env("HTTPS_PROXY", "http://proxy.example");
        CommandResult::of(command.arg("exec").args(option).args(["--", "env"])).stdout_ok()
    };
    let (all, clean) = (variables(&[]), variables(&["--clean"]));
    for name in ["AMPLIENCE_CLIENT_SECRET_FILE=", "AMPLIENCE_PROXY="] {
        assert!(all.contains(name) && !clean.contains(name), "{clean}");
    }
    for name in ["AMPLIENCE_CLIENT_ID=", "HTTPS_PROXY=", "AMPLIENCE_ACCESS_TOKEN="] {
        assert!(clean.contains(name), "{clean}");
    }
}

#[test]
fn exec_keeps_ignored_signals() {
    let env = TestEnv::new();
    // The signals that a process ignores are bits; SIGPIPE has number 13, SIGABRT 6.
    const PIPE: u64 = 1 << 12;
    const ABRT: u64 = 1 << 5;
    for (trap, ignored) in [("trap '' PIPE;", PIPE), ("trap '' ABRT;", ABRT), ("", 0)] {
        let mut shell = env.shell(&format!("{trap} exec amp-token exec -- cat /proc/self/status"));
        let status = CommandResult::of(&mut shell).stdout_ok();
        let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        assert_eq!(u64::from_str_radix(bits.trim(), 16).unwrap() & (PIPE | ABRT), ignored, "{bits}");
    }
}

#[test]
fn exec_fails_as_shells_do() {
    let env = TestEnv::new();
    env.run(&["exec", "--", "no-such-program"]).assert_failed(127, "cannot run no-such-program");
    let file = env.home.join("no-program");
    File::create(&file).unwrap();
    env.run(&["exec", "--", file.to_str().unwrap()]).assert_failed(126, "Permission denied");
    env.run(&["exec"]).assert_failed(2, "COMMAND");
}

#[test]
fn rejected_credentials_are_reported_without_the_secret() {
    let env = TestEnv::new();
    env.emulator.set_credentials("the-id", "another");
    env.emulator.fault(
        Fault::status(400)
            .body(serde_json::json!({"error": "invalid_client", "error_description": "no: {client_secret}"})),
    );
    for arguments in [&["get", "-vv"][..], &["get"]] {
        env.run(arguments).assert_failed(3, "rejected the client id and secret");
    }
}

#[test]
fn each_class_of_failure_has_its_status() {
    let mut env = TestEnv::new();
    let nothing = CommandResult::of(env.bare(AMP_TOKEN).arg("get"));
    nothing.assert_failed(3, "AMPLIENCE_CLIENT_ID and AMPLIENCE_CLIENT_SECRET");
    // With a store, a command would believe the failure of the one before it.
    env.emulator.fault(Fault::status(503));
    env.run(&["get", "--store", "none"]).assert_failed(5, "HTTP 503");
    env.emulator.fault(Fault::not_json());
    env.run(&["get", "--store", "none"]).assert_failed(5, "a web page instead of a JSON object");
    env.run(&["get", "--timeout-ms", "never"]).assert_failed(2, "timeout_ms");
    env.run(&["get", "--client-certificate", "x"]).assert_failed(2, "client_key");
    env.run(&["get", "--personal-access-token-file", "x"]).assert_failed(6, "cannot read personal_access_token_file x");
    env.emulator.stop();
    env.run(&["get", "--store", "none"]).assert_failed(4, "cannot connect to");
}

/// Work that needs threads is done in a process of its own. The system may end it, or this one, as when memory runs out.
#[cfg(target_os = "linux")]
#[test]
fn the_end_of_the_process_that_does_the_work_is_reported() {
    for (is_worker, signal, status, says) in [
        (
            true,
            libc::SIGKILL,
            6,
            "the process that does the work was ended by signal 9; check that there is enough memory",
        ),
        (
            true,
            libc::SIGABRT,
            6,
            "the process that does the work was ended by signal 6; check that there is enough memory",
        ),
        (true, libc::SIGFPE, 1, "the process that does the work was ended by signal 8"),
        (false, libc::SIGABRT, 6, "aborted; check that there is enough memory"),
    ] {
        let env = TestEnv::new();
        env.emulator.fault(Fault::silent());
        let command = env.command().arg("get").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", command.id());
        while env.emulator.stats().in_flight_token_requests_max == 0 {
            std::thread::yield_now();
        }
        let worker: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let process = if is_worker { worker } else { command.id().try_into().unwrap() };
        // SAFETY: kill takes two numbers. The process is a child of one that has not waited for it.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
        let output = command.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let expected = format!("amp-token: {says}");
        assert!(stderr.starts_with(&expected) && output.stdout.is_empty(), "{stderr}");
        assert_eq!(output.status.code(), Some(status), "{stderr}");
    }
}

#[test]
fn settings_can_be_given_before_and_after_the_command() {
    let env = TestEnv::new();
    let url = env.emulator.url();
    for arguments in [
        &["--auth-url", &url, "get"][..],
        &["get", "--auth-url", &url],
        &["--auth-url", "https://x", "get", "--auth-url", &url],
    ] {
        CommandResult::of(env.command().env_remove("AMPLIENCE_AUTH_URL").args(arguments)).stdout_ok();
    }
}

#[test]
fn wrong_arguments_are_explained() {
    let env = TestEnv::new();
    env.run(&["get", "--timout-ms", "5"]).assert_failed(2, "--timeout-ms");
    env.run(&["fetch"]).assert_failed(2, "fetch");
    env.run(&["-q", "-v", "get"]).assert_failed(2, "--quiet");
    let nothing = env.run(&[]);
    assert_eq!((nothing.status, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.contains("Usage: amp-token"));
}

#[test]
fn a_secret_is_not_taken_from_an_argument() {
    let env = TestEnv::new();
    for arguments in [
        &["get", "--client-secret", SECRET][..],
        &["--client-secret", SECRET, "get"],
        &["get", &format!("--client-secret={SECRET}")],
        &["status", "--personal-access-token", SECRET],
        &["get", "--proxy", &format!("http://user:{SECRET}@127.0.0.1:1")],
        &["get", "--store", &format!("redis://:{SECRET}@127.0.0.1:1")],
    ] {
        env.run(arguments).assert_failed(2, "is visible to all users in ps; use AMPLIENCE_");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let env = TestEnv::new();
    for arguments in [&["get"][..], &["config"], &["--help"], &["doctor"], &["man"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = CommandResult::of(env.command().args(arguments).stdout(full));
        output.assert_failed(6, "cannot write to standard output");
        // The reader has closed the pipe: that is no message, only a status.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = CommandResult::of(env.command().args(arguments).stdout(writer));
        assert_eq!((output.status, output.stderr.as_str()), (Some(141), ""));
    }
}

#[test]
fn nothing_is_requested_for_an_output_that_cannot_be_written() {
    let env = TestEnv::new();
    let pat = "pat create ci --organization o";
    for command in
        ["get", "header", "curl-config", "hubs", "request GET /v2/content/hubs", "graphql {x}", pat, "doctor"]
    {
        for (redirection, says) in
            [(">&-", "Bad file descriptor"), ("1</dev/null", "Bad file descriptor"), (">/dev/full", "No space left")]
        {
            let output = CommandResult::of(&mut env.shell(&format!("amp-token {command} {redirection}")));
            output.assert_failed(6, &format!("cannot write to standard output: {says}"));
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut shell = env.shell(&format!("exec amp-token {command}"));
        assert_eq!(CommandResult::of(shell.stdout(writer)).status, Some(141), "{command}");
    }
    env.run(&["--version"]).stdout_ok();
    let mut version = env.shell("amp-token --version >&-");
    CommandResult::of(&mut version).assert_failed(6, "Bad file descriptor");
    assert_eq!(env.emulator.stats().connections, 0);
    // What can be written, even if nobody reads it, and the output of another program.
    for line in ["get >/dev/null", "get 1<>/dev/null", "get >>/dev/null", "exec -- true >&-", "get | :"] {
        let result = CommandResult::of(&mut env.shell(&format!("amp-token {line}")));
        assert_eq!((result.status, result.stderr.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn a_line_on_standard_error_is_written_at_once() {
    let env = TestEnv::new();
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut command = env.command();
    command.args(["-vv", "get"]).env("AMPLIENCE_STORE_DIR", "/proc/nowhere");
    command.stderr(std::os::fd::OwnedFd::from(theirs)).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let mut lines = 0;
    let mut buffer = [0; 4096];
    // Each write arrives as one datagram.
    while let Ok(length) = ours.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with("amp-token: ") && text.ends_with('\n'), "{text:?}");
        lines += 1;
    }
    assert!(lines >= 2);
}

#[test]
fn status_sends_no_request() {
    let env = TestEnv::new();
    let status: Value = serde_json::from_str(&env.run(&["status", "--json"]).stdout_ok()).unwrap();
    assert_eq!(status["credentials"]["kind"], "client");
    assert_eq!(status["credentials"]["client_id"], "the-id");
    assert_eq!(status["credentials"]["from"], "AMPLIENCE_CLIENT_SECRET");
    assert!(status["store"].as_str().unwrap().starts_with(env.home.to_str().unwrap()), "{status}");
    assert_eq!(status["token"], Value::Null);
    let text = env.run(&["status"]).stdout_ok();
    assert!(text.contains("the-id") && text.contains("none stored"), "{text}");
    let text = env.run(&["status", "--store", "none"]).stdout_ok();
    assert!(text.contains("store        none"), "{text}");
    #[cfg(feature = "redis")]
    {
        let mut command = env.command();
        let text =
            CommandResult::of(command.env("AMPLIENCE_STORE", "redis://:hidden@127.0.0.1:1").args(["-q", "status"]))
                .stdout_ok();
        assert!(text.contains("redis://127.0.0.1:1\n") && !text.contains("hidden"), "{text}");
    }
    assert_eq!(env.emulator.stats().connections, 0);
}

#[test]
fn status_without_credentials_shows_the_rest_and_fails() {
    let env = TestEnv::new();
    let run = |arguments: &[&str]| {
        let mut command = env.bare(AMP_TOKEN);
        CommandResult::of(command.env("AMPLIENCE_AUTH_URL", env.emulator.url()).arg("status").args(arguments))
    };
    let (text, json) = (run(&[]), run(&["--json"]));
    let server = format!("credentials  none\nserver       {}/oauth/token\n", env.emulator.url());
    assert_eq!((text.status, text.stdout), (Some(3), server));
    assert!(text.stderr.contains("no credentials were found"), "{}", text.stderr);
    let status: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.status, &status["credentials"], &status["store"]), (Some(3), &Value::Null, &Value::Null));
    assert_eq!(status["token_url"], format!("{}/oauth/token", env.emulator.url()));
}

#[test]
fn status_shows_a_personal_access_token_and_its_file() {
    let env = TestEnv::new();
    let file = env.home.join("pat");
    File::create(&file).unwrap().write_all(b"amp_pat_0123456789abcdefghijkl.x\n").unwrap();
    let mut command = env.bare(AMP_TOKEN);
    command.args(["-q", "status", "--personal-access-token-file", file.to_str().unwrap()]);
    let text = CommandResult::of(&mut command).stdout_ok();
    assert!(text.contains("a personal access token, from") && text.contains(file.to_str().unwrap()), "{text}");
    assert!(text.contains("does not expire") && !text.contains("amp_pat_"), "{text}");
}

#[test]
fn options_come_before_the_credentials_of_the_environment() {
    let env = TestEnv::new();
    let file = env.home.join("hubs.json");
    fs::write(&file, r#"{"clientId":"of-the-file","clientSecret":"a secret that is long enough"}"#).unwrap();
    let file = file.to_str().unwrap();
    let status = |arguments: &[&str]| env.run(&[&["-q", "status", "--json"], arguments].concat());
    let json: Value = serde_json::from_str(&status(&["--config-file", file]).stdout_ok()).unwrap();
    assert_eq!(json["credentials"]["client_id"], "of-the-file");
    assert_eq!(json["credentials"]["from"], file);
    // The secret of the environment belongs to another client.
    let output = env.run(&["get", "--client-id", "another"]);
    output.assert_failed(3, "there is no secret for client_id another");
    assert!(output.stderr.contains("AMPLIENCE_CLIENT_SECRET is not used: it belongs to AMPLIENCE_CLIENT_ID"));
    assert!(!env.run(&["-q", "get", "--client-id", "another"]).stderr.contains("is not used"));
    assert_eq!(env.emulator.stats().token_requests, 0);
    env.run(&["get", "--client-id", "the-id"]).stdout_ok();
}

#[test]
fn a_secret_from_a_pipe_is_read_once() {
    if !require_tool("bash") {
        return;
    }
    let env = TestEnv::new();
    for command in ["status", "get", "doctor"] {
        let line = format!("amp-token {command} --client-secret-file <(printf %s \"$SECRET\")");
        let mut shell = env.shell("exec bash -c \"$0\"");
        shell.arg(line).env("SECRET", SECRET).env_remove("AMPLIENCE_CLIENT_SECRET");
        CommandResult::of(&mut shell).stdout_ok();
    }
}

#[test]
fn a_world_readable_file_with_a_secret_causes_a_warning() {
    let env = TestEnv::new();
    // Whatever the umask: in a directory of one user, no other reads it.
    fs::set_permissions(&env.home, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = env.home.join("secret");
    fs::write(&file, SECRET).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = env.command();
        command.env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_CLIENT_SECRET_FILE", &file);
        CommandResult::of(command.arg("status").args(arguments))
    };
    let output = run(&[]);
    assert!(output.stderr.starts_with("amp-token: warning: "), "{}", output.stderr);
    assert_eq!(output.status, Some(0));
    run(&["--quiet"]).stdout_ok();
}

#[test]
fn config_shows_the_origin_of_each_setting_and_no_secret() {
    let env = TestEnv::new();
    let mut command = env.command();
    command
        .env("AMPLIENCE_PROXY", "http://user:hidden@proxy.example")
        .env("AMPLIENCE_STORE", "rediss://:hidden@redis.example")
        .args(["config", "--timeout-ms", "1234"]);
    let text = CommandResult::of(&mut command).stdout_ok();
    assert!(!text.contains("hidden"), "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("client_secret"), ["[secret]", "AMPLIENCE_CLIENT_SECRET"]);
    assert_eq!(row("proxy"), ["[secret]", "AMPLIENCE_PROXY"]);
    assert_eq!(row("store"), ["[secret]", "AMPLIENCE_STORE"]);
    assert_eq!(row("timeout_ms"), ["1234", "option"]);
    assert_eq!(row("connect_timeout_ms"), ["5000", "default"]);
    let (settings, sources) = text.split_once("\n\n").unwrap();
    assert_eq!(settings.lines().count(), SETTINGS.len());
    assert_eq!(sources.lines().count(), 1 + SOURCES.len(), "{sources}");
    assert!(sources.contains("\n5. dc-cli: config_file, else ~/.amplience/dc-cli-config.json"), "{sources}");
    let json: Value = serde_json::from_str(&env.run(&["config", "--json"]).stdout_ok()).unwrap();
    assert_eq!(json["store"], serde_json::json!({"value": "file", "from": "default"}));
    assert_eq!(json["ca_file"]["value"], Value::Null);
    assert_eq!(json.as_object().unwrap().len(), SETTINGS.len());
}

#[test]
fn misspelled_variables_are_reported() {
    let env = TestEnv::new();
    let with_typos = |arguments: &[&str]| {
        let mut command = env.command();
        command.env("AMPLIENCE_CLIENTID", SECRET).env("AMPLIENCE_TIMEOUT", "5").env("AMPLIENCE_HUB", "");
        CommandResult::of(command.args(arguments))
    };
    for arguments in [&["config"][..], &["config", "--json"]] {
        let output = with_typos(arguments);
        assert_eq!((output.status, output.stdout), (Some(0), env.run(arguments).stdout_ok()));
        assert_eq!(
            output.stderr,
            "amp-token: warning: AMPLIENCE_CLIENTID is not a setting; did you mean AMPLIENCE_CLIENT_ID?\n\
             amp-token: warning: AMPLIENCE_TIMEOUT is not a setting; did you mean AMPLIENCE_TIMEOUT_MS?\n"
        );
    }
    assert_eq!(with_typos(&["-q", "config"]).stderr, "");
    // The doctor reports them first. They do not change its exit status.
    let report = with_typos(&["doctor"]).stdout_ok();
    let lines: Vec<Vec<_>> = report.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let sees = |line: usize, name, meant| {
        let says = ["warning", "environment", name, "is", "not", "a", "setting;", "did", "you", "mean", meant];
        assert_eq!(lines[line], says, "{report}");
    };
    sees(0, "AMPLIENCE_CLIENTID", "AMPLIENCE_CLIENT_ID?");
    sees(1, "AMPLIENCE_TIMEOUT", "AMPLIENCE_TIMEOUT_MS?");
    assert_eq!(lines[2][..2], ["ok", "credentials"], "{report}");
    // They are also reported if they are the reason for a failure.
    let mut command = env.command();
    command.env_remove("AMPLIENCE_CLIENT_ID").env("AMPLIENCE_CLIENT_IT", "the-id").arg("doctor");
    let output = CommandResult::of(&mut command);
    assert_eq!(output.status, Some(3));
    assert!(output.stdout.contains("did you mean AMPLIENCE_CLIENT_ID?"), "{}", output.stdout);
}

#[test]
fn the_markdown_table_contains_every_setting() {
    let env = TestEnv::new();
    let table = env.run(&["config", "--markdown"]).stdout_ok();
    // The former spelling.
    assert_eq!(env.run(&["config", "--table"]).stdout_ok(), table);
    assert!(!env.run(&["config", "--help"]).stdout_ok().contains("--table"));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), SETTINGS.len() + 2);
    for (line, setting) in lines[2..].iter().zip(SETTINGS) {
        assert!(line.starts_with(&format!("| `{}` | ", setting.name)), "{line}");
        assert_eq!(line.matches(" | ").count(), 3, "{line}");
    }
}

#[test]
fn help_mentions_every_command_setting_and_status() {
    let env = TestEnv::new();
    let help = env.run(&["--help"]).stdout_ok();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let own = env.run(&[command, "--help"]).stdout_ok();
        assert!(own.contains("Example"), "{own}");
        // After an option all commands are built, not only the one that runs.
        assert_eq!(env.run(&["-q", command, "--help"]).stdout_ok(), own);
    }
    for setting in SETTINGS.iter().filter(|setting| setting.value_type != ValueType::Secret) {
        assert!(help.contains(&format!("--{} <", setting.name.replace('_', "-"))), "{}", setting.name);
    }
    assert!(!help.contains("--client-secret <") && !help.contains("generate"));
    for status in ["\n    0  ", "\n    3  ", "\n  141  "] {
        assert!(help.contains(status), "{help}");
    }
    assert_eq!(env.run(&["--version"]).stdout_ok(), concat!("amp-token ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_help_of_a_command_only_names_the_settings() {
    let env = TestEnv::new();
    for (arguments, in_seconds) in
        [(&["get", "--help"][..], true), (&["exec", "--help"], true), (&["pat", "create", "--help"], false)]
    {
        let help = env.run(arguments).stdout_ok();
        assert!(help.lines().count() < 55, "{help}");
        for setting in SETTINGS.iter().filter(|setting| setting.value_type != ValueType::Secret) {
            let named = help.split_whitespace().any(|word| word == format!("--{}", setting.name.replace('_', "-")));
            assert_eq!(named, !(in_seconds && setting.name == "min_validity_ms"), "{}: {help}", setting.name);
            assert!(!help.contains(setting.description), "{}: {help}", setting.name);
        }
    }
    // It is still accepted.
    env.run(&["get", "--min-validity-ms", "1000"]).stdout_ok();
}

#[test]
fn help_fits_into_the_terminal() {
    let env = TestEnv::new();
    let help = |columns: &str, arguments: &[&str]| {
        let mut command = env.command();
        CommandResult::of(command.env("COLUMNS", columns).args(arguments)).stdout_ok()
    };
    for command in COMMANDS.iter().chain(&["request", "graphql", "hubs", "pat", "emulator"]) {
        for option in ["-h", "--help"] {
            // The examples are command lines, which are not broken.
            let text = help("80", &[command, option]);
            let long = text.lines().find(|line| line.chars().count() > 80 && !line.starts_with("  amp-token"));
            assert_eq!(long, None, "{command} {option}");
        }
    }
    assert!(help("80", &["--help"]).lines().all(|line| line.chars().count() <= 80));
    assert!(help("300", &["get", "--help"]).lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_manual_page_is_complete() {
    let env = TestEnv::new();
    let manual = env.run(&["man"]).stdout_ok();
    let text = manual.replace("\\-", "-");
    for command in COMMANDS {
        assert!(text.contains(&format!("\n.SS {command}\n")), "{command}");
    }
    for setting in SETTINGS {
        assert!(text.contains(setting.environment[0]) && text.contains(setting.description), "{}", setting.name);
    }
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "SETTINGS", "ENVIRONMENT", "FILES", "EXIT STATUS"] {
        assert!(text.contains(&format!("\n.SH {section}\n")), "{section}");
    }
    // The synopsis is one paragraph.
    assert!(text.contains("\n.SH SYNOPSIS\n.B amp-token\n[settings] command [options]\n.SH "), "{text}");
    assert!(text.contains("$XDG_CACHE_HOME/amp-token") && text.contains("\ncurl(1), "), "{text}");
    // No text is taken for a request to the formatter.
    let requests: BTreeSet<_> =
        manual.lines().filter(|line| line.starts_with(['.', '\''])).map(|line| &line[..line.len().min(3)]).collect();
    assert_eq!(requests, [".B ", ".EE", ".EX", ".PP", ".SH", ".SS", ".TH", ".TP"].into());
}

#[test]
fn completions_are_made_for_three_shells() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = env.run(&["completions", shell]).stdout_ok();
        assert!(script.contains("curl-config") && script.contains("min-validity"), "{shell}");
        assert!(!script.contains("--client-secret ") && !script.contains("generate"), "{shell}");
        // The former spelling.
        assert_eq!(env.run(&["generate", shell]).stdout_ok(), script);
    }
    assert_eq!(env.run(&["-q", "generate", "man"]).stdout_ok(), env.run(&["man"]).stdout_ok());
    env.run(&["completions", "sh"]).assert_failed(2, "bash, zsh, fish");
    env.run(&["--timeout-ms", "5", "man"]).assert_failed(2, "--timeout-ms");
}

#[test]
fn bash_completes_commands_and_the_options_of_each_command() {
    let env = TestEnv::new();
    let script = env.home.join("completion");
    fs::write(&script, env.run(&["completions", "bash"]).stdout_ok()).unwrap();
    // What bash does if the tab key is pressed after these words.
    let complete = |words: &str| {
        let line = format!(
            ". '{}'; set -- $(complete -p amp-token); while [ \"$1\" != -F ]; do shift; done; \
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             $2 amp-token \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo ${{COMPREPLY[*]}}",
            script.display()
        );
        CommandResult::of(env.bare("bash").args(["-c", &line])).stdout_ok()
    };
    for (words, completions) in [
        ("amp-token doc", "doctor"),
        ("amp-token get --st", "--store --store-dir"),
        ("amp-token curl-config --min-validity-", "--min-validity-ms"),
        (
            "amp-token -q exec --cl",
            "--client-id --client-secret-file --client-id-file --client-certificate --client-key --clean",
        ),
        ("amp-token pat c", "create"),
        ("amp-token pat create --org", "--organization"),
        ("amp-token get --client-sec", "--client-secret-file"),
    ] {
        assert_eq!(complete(words), format!("{completions}\n"), "{words}");
    }
}
