//! Processes that share a token through the store, and its removal.

use crate::shared::is_root;
use crate::support::{CommandResult, SECRET, TestEnv};
use amp_emulator::Fault;
use amp_token::config::Config;
use amp_token::config::credentials::Credentials;
use amp_token::store::{self, Entry, IoBudget, LockResult, Store};
use amp_token::sys::clock::Clock;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn processes_share_one_token() {
    let env = TestEnv::new();
    let first = env.run(&["get"]).stdout_ok();
    assert_eq!(env.run(&["get"]).stdout_ok(), first);
    assert_eq!(env.run(&["header"]).stdout_ok(), format!("Authorization: Bearer {first}"));
    assert_eq!(env.emulator.stats().connections, 1);
    // Without a store a process requests its own token.
    assert_ne!(env.run(&["get", "--store", "none"]).stdout_ok(), first);
}

/// Opens the store of the environment, as another process would.
fn open(env: &TestEnv) -> (Arc<dyn Store>, IoBudget) {
    let directory = env.home.join("amp_token");
    let mut config = Config::new();
    for (name, value) in
        [("auth_url", env.emulator.url().as_str()), ("store", "file"), ("store_dir", directory.to_str().unwrap())]
    {
        config.set(name, Some(value)).unwrap();
    }
    let credentials = Credentials::Client { id: "the-id".to_owned(), secret: SECRET.into() };
    let options = config.options().unwrap();
    (store::open(&options, &credentials).unwrap().unwrap(), IoBudget::without_deadline(&options))
}

#[test]
fn a_token_that_is_due_is_refreshed_by_the_next_command() {
    let env = TestEnv::new();
    let (store, budget) = open(&env);
    // 250 of its 300 seconds have passed: it is due for refresh, and still valid.
    let issued = Clock::System.now().before(Duration::from_secs(250));
    let old = Entry { token: "the-old-one".into(), issued, lifetime: Duration::from_secs(300) };
    store.save(&old, None, &budget);
    let directory = env.home.join("amp_token");
    let get = || env.run(&["get", "--store-dir", directory.to_str().unwrap()]);
    let status = env.run(&["status", "--store-dir", directory.to_str().unwrap()]).stdout_ok();
    assert!(status.contains("due: the next command refreshes it"), "{status}");

    let LockResult::Held(others) = store.try_lock(&budget) else { panic!("the lock is free") };
    assert_eq!(get().stdout_ok(), "the-old-one\n", "another process is refreshing it");
    assert_eq!(env.emulator.stats().connections, 0);
    drop(others);

    env.emulator.fault(Fault::status(503));
    let output = get();
    assert_eq!((output.status, output.stdout.as_str()), (Some(0), "the-old-one\n"));
    assert!(
        output.stderr.contains("warning: the token is due for refresh, but refreshing it failed"),
        "{}",
        output.stderr
    );

    // The other commands believe the failure for a moment.
    let renewed = loop {
        let output = get();
        assert_eq!(output.status, Some(0));
        if output.stdout != "the-old-one\n" {
            break output.stdout;
        }
    };
    assert!(renewed.starts_with("eyJ"), "{renewed}");
    assert_eq!(get().stdout_ok(), renewed);
    assert_eq!(env.emulator.stats().token_requests, 2);
}

#[test]
fn status_shows_the_times_of_the_stored_token_only() {
    let env = TestEnv::new();
    let token = env.run(&["get"]).stdout_ok();
    let status: Value = serde_json::from_str(&env.run(&["status", "--json"]).stdout_ok()).unwrap();
    let seconds = |name: &str| status["token"][name].as_i64().unwrap();
    assert!((1..=300).contains(&seconds("expires_in")) && seconds("renewal_in") < seconds("expires_in"), "{status}");
    assert_eq!(status["token"]["usable"], true);
    let text = env.run(&["status"]).stdout_ok();
    assert!(text.contains("valid for") && !text.contains(token.trim()), "{text}");
    assert_eq!(env.emulator.stats().connections, 1);
}

#[test]
fn invalidate_removes_the_stored_token() {
    let env = TestEnv::new();
    assert_eq!(env.run(&["invalidate"]).stdout_ok(), "no token is stored\n");
    let first = env.run(&["get"]).stdout_ok();
    assert_eq!(env.run(&["invalidate"]).stdout_ok(), "the stored token is removed\n");
    assert_ne!(env.run(&["get"]).stdout_ok(), first);
    assert_eq!(env.emulator.stats().token_requests, 2);
}

#[test]
fn invalidate_keeps_the_token_that_replaced_a_rejected_one() {
    let env = TestEnv::new();
    let invalidate = |token: &str| {
        let mut command = env.command();
        command.args(["invalidate", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        CommandResult::from(child.wait_with_output().unwrap())
    };
    let first = env.run(&["get"]).stdout_ok();
    assert_eq!(invalidate(&first).stdout_ok(), "the stored token is removed\n");
    let second = env.run(&["get"]).stdout_ok();
    assert_eq!(invalidate(first.trim()).stdout_ok(), "kept: the stored token is a different one\n");
    assert_eq!(env.run(&["get"]).stdout_ok(), second);
    for (text, says) in [("  \n", "contains no token"), ("Bearer \n", "contains no token"), ("a b", "another text")] {
        invalidate(text).assert_failed(6, says);
    }
    // What `amp-token header` prints, and the value of the header.
    assert_eq!(
        invalidate(&format!("Authorization: Bearer {first}")).stdout_ok(),
        "kept: the stored token is a different one\n"
    );
    assert_eq!(invalidate(&format!("Authorization: Bearer {second}")).stdout_ok(), "the stored token is removed\n");
    let third = env.run(&["get"]).stdout_ok();
    assert_eq!(invalidate(&format!("Bearer {}\r\n", third.trim())).stdout_ok(), "the stored token is removed\n");
}

#[test]
fn invalidate_reports_a_token_that_it_cannot_remove() {
    let env = TestEnv::new();
    let directory = env.home.join("amp_token");
    let run_by = |mut command: Command, arguments: &[&str]| {
        command.args(arguments).args(["--timeout-ms", "400", "--store-dir", directory.to_str().unwrap()]);
        command
    };
    let run = |arguments: &[&str]| run_by(env.command(), arguments);
    let first = CommandResult::of(&mut run(&["get"])).stdout_ok();
    let invalidate = || CommandResult::of(&mut run(&["invalidate"]));
    // Another process holds the lock for all that time.
    let (store, budget) = open(&env);
    let LockResult::Held(others) = store.try_lock(&budget) else { panic!("the lock is free") };
    invalidate().assert_failed(6, "amp_token: another process holds its lock; the next command may use it again");
    drop(others);
    assert_eq!(CommandResult::of(&mut run(&["get"])).stdout_ok(), first);

    // A directory that cannot be written, and files that cannot be locked in one.
    for (mode, lock_mode) in [(0o500, 0o600), (0o500, 0o400)] {
        let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        for path in entries.chain([directory.clone(), env.home.clone()]).collect::<Vec<_>>() {
            if is_root() {
                std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            }
            let is_lock = path.extension().is_some_and(|ending| ending == "lock");
            let mode = if path == directory {
                mode
            } else if is_lock {
                lock_mode
            } else {
                0o700
            };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        let as_owner = |arguments: &[&str]| {
            let command = if is_root() { env.command_as(65534) } else { env.command() };
            CommandResult::of(&mut run_by(command, arguments))
        };
        let output = as_owner(&["invalidate"]);
        output.assert_failed(6, "cannot remove the stored token from ");
        assert!(output.stderr.contains(": Permission denied"), "{}", output.stderr);
        assert_eq!(as_owner(&["get"]).stdout_ok(), first);
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    // A store that cannot be asked is not one without a token.
    #[cfg(feature = "redis")]
    {
        let mut command = env.command();
        command.env("AMPLIENCE_STORE", "redis://127.0.0.1:1").arg("invalidate");
        CommandResult::of(&mut command).assert_failed(6, "cannot remove the stored token from redis://127.0.0.1:1: ");
    }
    assert_eq!(env.run(&["invalidate", "--store", "none"]).stdout_ok(), "no token is stored\n");
}

#[test]
fn paths_need_not_be_utf8() {
    let env = TestEnv::new();
    let name = |ending: &[u8]| {
        let path = [env.home.as_os_str().as_bytes(), b"/caf\xe9", ending].concat();
        std::ffi::OsString::from_vec(path)
    };
    fs::write(name(b".secret"), SECRET).unwrap();
    fs::set_permissions(name(b".secret"), Permissions::from_mode(0o600)).unwrap();
    fs::write(name(b".graphql"), "{ __typename }").unwrap();
    let run = |arguments: &[&std::ffi::OsStr], variables: &[(&str, std::ffi::OsString)]| {
        let mut command = env.command();
        command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        CommandResult::of(&mut command).stdout_ok()
    };
    let (get, option) = ("get".as_ref(), "--store-dir".as_ref());
    let first = run(&[get, option, &name(b".store")], &[]);
    assert_eq!(run(&[get], &[("AMPLIENCE_STORE_DIR", name(b".store"))]), first);
    assert!(fs::metadata(name(b".store")).unwrap().is_dir());
    let mut command = env.command();
    command.env_remove("AMPLIENCE_CLIENT_SECRET").arg("get").arg("--client-secret-file").arg(name(b".secret"));
    CommandResult::of(&mut command).stdout_ok();
    let shown = run(&["config".as_ref(), "--json".as_ref(), option, &name(b".store")], &[]);
    assert!(shown.contains("caf\u{fffd}.store"), "{shown}");
    let argument = |ending: &[u8]| std::ffi::OsString::from_vec([b"@", name(ending).as_bytes()].concat());
    run(&["graphql".as_ref(), &argument(b".graphql")], &[]);
    let mut command = env.command();
    command.args(["request", "POST", "/v2/x", "-d"]).arg(argument(b".missing"));
    CommandResult::of(&mut command).assert_failed(6, "caf\u{fffd}.missing: No such file");
}
