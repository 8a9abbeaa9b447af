//! The program that is run: its end, its children, its descriptors, and applications that ignore SIGCHLD.

use crate::{Home, ID, SECRET, support};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{C_FLAGS, compile, library_dir, require_tool, root};

/// The processes that have an argument.
fn with_argument(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = fs::read(entry.path().join("cmdline"))
            && line.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes())
        {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

/// Waits until a condition holds, as long as it takes on a slow machine.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// Neither the program, nor what it has started, nor what has ignored a polite signal.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_hangs_is_ended_at_the_deadline_with_its_children() {
    let home = Home::new();
    let marker = format!("1000.{}", std::process::id());
    let script = format!(
        "trap '' TERM INT HUP\nsleep {marker} &\n(sleep {marker}; :) &\necho 'waiting for a finger' >&2\nsleep {marker}"
    );
    home.program("x", &script);
    for arguments in [&["get", "--timeout-ms", "700"][..], &["doctor", "--timeout-ms", "700"]] {
        let mut command = home.amp_token(arguments);
        command.env("AMPLIENCE_CLIENT_ID", ID).env("AMPLIENCE_CREDENTIAL_COMMAND", "x");
        let (status, stdout, stderr) = home.result(&mut command);
        assert_eq!(status, Some(4), "{stdout}{stderr}");
        let printed = if arguments[0] == "get" { &stderr } else { &stdout };
        let (_, message) = printed.split_once("credential_command x did not end within ").unwrap();
        let (left, message) = message.split_once(" ms: ").unwrap();
        // A slow machine has used some of the time before it starts the program.
        assert!((1..=700).contains(&left.parse().unwrap()), "{stdout}{stderr}");
        let expected =
            "waiting for a finger; it cannot ask questions: unlock what it reads from first; or raise timeout_ms";
        assert_eq!(message.lines().next(), Some(expected), "{stdout}{stderr}");
        // Killed, but perhaps not collected yet.
        wait_until(&format!("{:?}", with_argument(&marker)), || with_argument(&marker).is_empty());
    }
}

/// At a terminal, only the process group of amp-token gets the signal.
#[cfg(target_os = "linux")]
#[test]
fn a_command_ends_with_amp_token() {
    assert_that_a_command_ends_with_amp_token(&Home::new(), "3000", &[]);
}

/// A signal may come when the command runs already, and the thread that has started it does not know yet.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_was_just_started_ends_with_amp_token() {
    if !require_tool("cc") {
        return;
    }
    let home = Home::new();
    let slow = home.path("slow_spawn.so");
    let source = root().join("tests/credentials/slow_spawn.c");
    support::run(
        Command::new("cc").args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&slow).arg(source).arg("-ldl"),
    );
    assert_that_a_command_ends_with_amp_token(&home, "4000", &[("LD_PRELOAD", &slow)]);
}

/// The command sleeps for `seconds`, a number that no other test has.
#[cfg(target_os = "linux")]
fn assert_that_a_command_ends_with_amp_token(home: &Home, seconds: &str, environment: &[(&str, &Path)]) {
    let marker = format!("{seconds}.{}", std::process::id());
    home.program("x", &format!("sleep {marker} &\nsleep {marker}"));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let mut command = home.amp_token(&["get"]);
        command.env("AMPLIENCE_CLIENT_ID", ID).env("AMPLIENCE_CREDENTIAL_COMMAND", "x");
        let mut process = command.envs(environment.iter().copied()).spawn().unwrap();
        wait_until("it starts", || with_argument(&marker).len() >= 2);
        // SAFETY: it sends a signal to a child that was not waited for.
        unsafe { libc::kill(i32::try_from(process.id()).unwrap(), signal) };
        assert!(!process.wait().unwrap().success());
        wait_until(&format!("{:?}", with_argument(&marker)), || with_argument(&marker).is_empty());
    }
}

/// It ends, but what it has started has its output.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_leaves_children_behind_is_not_waited_for() {
    let home = Home::new();
    let secret = home.file("secret", SECRET);
    let marker = format!("2000.{}", std::process::id());
    home.program("x", &format!("sleep {marker} &\ncat '{secret}'"));
    let mut command = home.amp_token(&["get", "--store", "none"]);
    command.env("AMPLIENCE_CLIENT_ID", ID).env("AMPLIENCE_CREDENTIAL_COMMAND", "x");
    assert!(home.succeeds(&mut command).starts_with("eyJ"));
    wait_until(&format!("{:?}", with_argument(&marker)), || with_argument(&marker).is_empty());
}

/// The command is run for a token, and not for what needs none; and once for a cache.
#[test]
fn it_is_run_only_for_a_token() {
    let home = Home::new();
    let secret = home.file("secret", SECRET);
    home.program("x", &format!("echo run >> \"$HOME/runs\"\ncat '{secret}'"));
    let runs = || fs::read_to_string(home.path("runs")).unwrap_or_default().lines().count();
    home.config(&format!("[p]\nclient_id = '{ID}'\ncredential_command = 'x'\n"));
    let run = |arguments: &[&str]| home.succeeds(&mut home.amp_token(&[&["--profile", "p"], arguments].concat()));
    let status = run(&["status"]);
    assert!(status.starts_with(&format!("credentials  API key {ID}, from credential_command x\n")), "{status}");
    assert!(status.contains("\nstore        file\n"), "{status}");
    assert!(status.contains("token        not known: it is encrypted with the secret"), "{status}");
    let json: serde_json::Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    assert_eq!(
        json["credentials"],
        serde_json::json!({"kind": "command", "client_id": ID, "from": "credential_command x"})
    );
    assert_eq!((&json["profile"], &json["token"]), (&"p".into(), &serde_json::Value::Null));
    let shown = run(&["config"]);
    assert!(shown.contains("credential_command          x"), "{shown}");
    assert!(run(&["profiles"]).contains("credential_command"));
    assert_eq!(runs(), 0);
    // The stored token is encrypted with the secret.
    let token = run(&["get"]);
    assert_eq!((run(&["get"]), runs()), (token, 2));
    assert_eq!(home.emulator.stats().token_requests, 1);
    assert_eq!(run(&["invalidate"]), "the stored token is removed\n");
    assert_eq!(runs(), 3);
}

/// A program needs its own variables, and no secrets of ours.
#[test]
fn it_gets_the_environment_without_secrets() {
    let home = Home::new();
    home.file("secret", SECRET);
    home.program("x", "env > ~/seen; cat ~/secret");
    let mut command = home.amp_token(&["get", "--store", "none", "--client-id", ID, "--credential-command", "x"]);
    command.env("AMPLIENCE_CLIENT_SECRET", "hush-1").env("AMPLIENCE_PROXY", "http://user:hush-2@127.0.0.1:1");
    command.env("AMPLIENCE_PAT", "hush-3").env("VAULT_ADDR", "https://vault.example");
    assert!(home.succeeds(&mut command).starts_with("eyJ"));
    let seen = fs::read_to_string(home.path("seen")).unwrap();
    assert!(seen.contains("VAULT_ADDR=https://vault.example\n") && !seen.contains("hush"), "{seen}");
}

/// tests/c/credential_command.c
#[test]
fn an_application_that_ignores_its_children_gets_a_token() {
    if !require_tool("cc") {
        return;
    }
    let home = Home::new();
    let secret = home.file("secret", SECRET);
    let good = home.program("good", &format!("cat '{secret}'"));
    let bad = home.program("bad", "exit 1");
    let program = home.path("program");
    compile("cc", C_FLAGS, &root().join("tests/c/credential_command.c"), &program, &[]);
    for sigchld in ["default", "ignored", "handled"] {
        for (command, expected) in [(&good, "AMP_OK"), (&bad, "AMP_NO_CREDENTIALS")] {
            let mut run = home.run(&program);
            run.env("LD_LIBRARY_PATH", library_dir()).args([sigchld, ID, command, &home.emulator.url()]);
            let printed = home.succeeds(&mut run);
            assert_eq!(
                printed,
                format!("{expected}\nno child, no descriptor\n"),
                "{sigchld} {}",
                Path::new(command).display()
            );
        }
    }
}
