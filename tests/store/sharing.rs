//! Processes that share a store and a service that is slow, fails or limits them: few requests, and no queue.

use crate::redis::{Redis, has_redis};
use crate::support::*;
use amp_emulator::{Emulator, Fault};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;

/// How many processes ask at the same time.
const ALL: usize = 8;

fn start(settings: &Settings, mode: &str) -> Vec<Process> {
    (0..ALL).map(|_| Process::start(mode, settings)).collect()
}

/// Waits until all processes but the one that holds the lock wait for it, as the kernel reports.
fn wait_until_all_wait(directory: &TempDir) {
    let lock = files(directory, ".lock").remove(0);
    let inode = format!(":{} ", std::fs::metadata(lock).unwrap().ino());
    let waiting = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
    };
    while waiting() < ALL - 1 {
        std::thread::yield_now();
    }
}

/// All processes fail, with one request.
fn all_fail(fault: Fault, settings: &[(&str, &str)], expected: &str) {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let mut all = Settings::of(&emulator).with_file_store(directory.path());
    for (name, value) in settings {
        all = all.with(name, value);
    }
    emulator.fault(fault.times(100));
    let pause = emulator.pause_token_requests();
    let mut processes = start(&all, "get");
    assert!(emulator.wait_for_token_requests(1, LONG));
    wait_until_all_wait(&directory);
    pause.release();
    for process in &mut processes {
        let failure = process.expect_line("failed ");
        assert!(failure.contains(expected), "{failure}");
    }
    assert_eq!(emulator.stats().token_requests, 1);
}

#[test]
fn a_rejection_reaches_all_processes_that_waited() {
    all_fail(Fault::status(400).body(serde_json::json!({"error": "invalid_client"})), &[], "HTTP 400, invalid_client");
}

#[test]
fn a_failure_reaches_all_processes_that_waited() {
    all_fail(Fault::status(503), &[("retries", "0")], "HTTP 503");
}

#[test]
fn a_retry_after_is_obeyed_by_processes_that_come_later() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    emulator.fault(Fault::status(429).retry_after(60));
    for _ in 0..4 {
        let failure = Process::start("get", &settings).expect_line("failed ");
        assert!(failure.contains("HTTP 429"), "{failure}");
        let wait = failure.split_once("next attempt in ").unwrap().1.split(' ').next().unwrap();
        assert!((1..=60).contains(&wait.parse().unwrap()), "{failure}");
    }
    assert_eq!(emulator.stats().token_requests, 1);
}

#[test]
fn no_process_waits_for_one_that_cannot_store_its_token() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    let pause = emulator.pause_token_requests();
    let mut processes = start(&settings, "get, and write nothing");
    // All requests are under way at once.
    assert!(emulator.wait_for_token_requests(ALL as u64, LONG));
    pause.release();
    let tokens: BTreeSet<_> = processes.iter_mut().map(|process| process.expect_line("token ")).collect();
    assert_eq!(tokens.len(), ALL);
    assert_eq!(files(&directory, ".tmp").len(), 0);
}

#[test]
fn a_note_that_was_changed_is_not_believed() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    emulator.fault(Fault::status(429).retry_after(60));
    Process::start("get", &settings).expect_line("failed ");
    let note = files(&directory, ".note").remove(0);
    let sealed = std::fs::read(&note).unwrap();
    for position in [0, 1, 40, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[position] ^= 1;
        std::fs::write(&note, changed).unwrap();
        assert!(settings.store().0.read().note.is_none());
    }
    std::fs::write(&note, &sealed).unwrap();
    assert!(settings.store().0.read().note.is_some());
    // A token removes it.
    std::fs::write(&note, "not a note").unwrap();
    Process::start("get", &settings).expect_line("token ");
    assert!(!note.exists());
}

#[test]
fn a_failure_reaches_all_machines_that_waited() {
    if !has_redis() {
        return;
    }
    let (emulator, redis) = (Emulator::builder().start().unwrap(), Redis::plain());
    let settings = Settings::of(&emulator).with("store", &redis.url()).with("retries", "0");
    emulator.fault(Fault::status(503).times(100));
    let pause = emulator.pause_token_requests();
    let mut processes = start(&settings, "get");
    assert!(emulator.wait_for_token_requests(1, LONG));
    // Each keeps its connection, and the client that asks has one too.
    while redis.command(&["CLIENT", "LIST"]).lines().count() <= ALL {
        std::thread::yield_now();
    }
    pause.release();
    for process in &mut processes {
        let failure = process.expect_line("failed ");
        assert!(failure.contains("HTTP 503"), "{failure}");
    }
    // A machine that was too slow for Redis asks by itself.
    let slow = processes.iter().filter(|process| !process.warnings().is_empty()).count() as u64;
    assert!(emulator.stats().token_requests <= 1 + slow);
}

#[test]
fn a_lock_of_redis_is_prolonged_while_it_is_held() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let store = Settings::dummy().with("store", &redis.url()).store().0;
    let held = store.lock(LONG);
    assert!(is_held(&held));
    let left = || redis.command(&["PTTL", &redis.key("*:lock")]).parse::<i64>().unwrap();
    let mut least = left();
    loop {
        let now = left();
        assert!(now > 0, "it has expired");
        if now > least {
            break;
        }
        least = now;
    }
    drop(held);
    assert_eq!(redis.key("*"), "");
}

#[test]
fn a_value_that_is_too_long_is_replaced() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let (store, lines) = Settings::dummy().with("store", &redis.url()).store();
    store.save(&entry("first"));
    let key = redis.key("*");
    for length in ["20000", "1000000"] {
        redis.command(&["EVAL", "return redis.call('set',KEYS[1],string.rep('x',ARGV[1]))", "1", &key, length]);
        assert_eq!(store.load(), None);
        store.save(&entry("second"));
        assert_eq!(store.token().as_deref(), Some("second"));
    }
    assert_eq!(lines.warnings(), Vec::<String>::new());
}

#[test]
fn a_user_of_redis_needs_the_documented_permissions_only() {
    if !has_redis() {
        return;
    }
    let redis = Redis::plain();
    let settings = |user: &str| {
        let url = format!("redis://{user}:pw@127.0.0.1:{}", redis.port);
        Settings::dummy().with("store", &url)
    };
    let allowed = ["+get", "+set", "+pttl", "+select", "+eval", "+del", "+pexpire", "+time"];
    let create = |user: &str, commands: &[&str]| {
        redis.command(&[&["ACL", "SETUSER", user, "on", ">pw", "~amp-token:*"], commands].concat());
    };
    create("all", &allowed);
    // Those of version 0.1.0: the entry has no time of the server then.
    create("old", &allowed[..6]);
    for user in ["all", "old"] {
        let (store, lines) = settings(user).store();
        let held = store.lock(LONG);
        assert!(is_held(&held), "{user}");
        store.save(&entry(user));
        assert_eq!(store.token().as_deref(), Some(user));
        drop(held);
        assert_eq!(store.remove(user), amp_token::store::Removal::Removed);
        assert_eq!(lines.warnings(), Vec::<String>::new(), "{user}");
        assert_eq!(redis.key("*"), "", "{user}");
    }
}
