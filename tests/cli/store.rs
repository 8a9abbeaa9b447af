//! What processes share: one token, and its end.

use crate::world::{Ended, SECRET, World};
use amp_emulator::Fault;
use amp_token::config::credentials::Credentials;
use amp_token::config::settings::Config;
use amp_token::store::{self, Entry, LockResult, Store};
use amp_token::sys::clock::Clock;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn processes_share_one_token() {
    let world = World::new();
    let first = world.run(&["get"]).answer();
    assert_eq!(world.run(&["get"]).answer(), first);
    assert_eq!(world.run(&["header"]).answer(), format!("Authorization: Bearer {first}"));
    assert_eq!(world.emulator.stats().connections, 1);
    // Those who want none go their own way.
    assert_ne!(world.run(&["get", "--store", "none"]).answer(), first);
}

/// Opens the store of that world, as another process would.
fn open(world: &World) -> Arc<dyn Store> {
    let folder = world.home.join("amp_token");
    let mut config = Config::new();
    for (name, value) in
        [("auth_url", world.emulator.url().as_str()), ("store", "file"), ("store_dir", folder.to_str().unwrap())]
    {
        config.set(name, Some(value)).unwrap();
    }
    let credentials = Credentials::Client { id: "the-id".to_owned(), secret: SECRET.into() };
    store::open(&config.options().unwrap(), &credentials).unwrap().unwrap()
}

#[test]
fn a_token_that_is_due_is_renewed_by_whoever_comes_by() {
    let world = World::new();
    let store = open(&world);
    // Of its 300 seconds 250 are over: it is due, and still good.
    let start = Clock::System.now().wall - 250 * 1_000_000_000;
    store.save(&Entry { token: "the-old-one".into(), issued: start, expires: start + 300 * 1_000_000_000 });
    let folder = world.home.join("amp_token");
    let get = || world.run(&["get", "--store-dir", folder.to_str().unwrap()]);
    let status = world.run(&["status", "--store-dir", folder.to_str().unwrap()]).answer();
    assert!(status.contains("due: the next command renews it"), "{status}");

    let LockResult::Held(others) = store.lock(Duration::ZERO) else { panic!("nobody else is here") };
    assert_eq!(get().answer(), "the-old-one\n", "somebody else is renewing it");
    assert_eq!(world.emulator.stats().connections, 0);
    drop(others);

    world.emulator.fault(Fault::status(503));
    let ended = get();
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "the-old-one\n"));
    assert!(ended.stderr.contains("warning: the token is due for renewal, which failed"), "{}", ended.stderr);

    let renewed = get().answer();
    assert!(renewed.starts_with("eyJ"), "{renewed}");
    assert_eq!(get().answer(), renewed);
    assert_eq!(world.emulator.stats().token_requests, 2);
}

#[test]
fn status_shows_the_stored_token_without_its_text() {
    let world = World::new();
    let token = world.run(&["get"]).answer();
    let status: Value = serde_json::from_str(&world.run(&["status", "--json"]).answer()).unwrap();
    let seconds = |name: &str| status["token"][name].as_i64().unwrap();
    assert!((1..=300).contains(&seconds("expires_in")) && seconds("renewal_in") < seconds("expires_in"), "{status}");
    assert_eq!(status["token"]["usable"], true);
    let text = world.run(&["status"]).answer();
    assert!(text.contains("good for") && !text.contains(token.trim()), "{text}");
    assert_eq!(world.emulator.stats().connections, 1);
}

#[test]
fn invalidate_drops_the_stored_token() {
    let world = World::new();
    assert_eq!(world.run(&["invalidate"]).answer(), "no token is stored\n");
    let first = world.run(&["get"]).answer();
    assert_eq!(world.run(&["invalidate"]).answer(), "the stored token is dropped\n");
    assert_ne!(world.run(&["get"]).answer(), first);
    assert_eq!(world.emulator.stats().token_requests, 2);
}

#[test]
fn invalidate_leaves_the_successor_of_a_refused_token() {
    let world = World::new();
    let invalidate = |token: &str| {
        let mut command = world.command();
        command.args(["invalidate", "--stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        Ended::from(child.wait_with_output().unwrap())
    };
    let first = world.run(&["get"]).answer();
    assert_eq!(invalidate(&first).answer(), "the stored token is dropped\n");
    let second = world.run(&["get"]).answer();
    assert_eq!(invalidate(first.trim()).answer(), "another token is stored by now, and stays\n");
    assert_eq!(world.run(&["get"]).answer(), second);
    invalidate("  \n").failed(6, "holds no token");
}
