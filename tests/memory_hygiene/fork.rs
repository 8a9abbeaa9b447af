//! A forked child that frees what it inherited has no secret left, although it must not touch the locks in it.
//! (What another thread of the parent held at the moment of the fork stays in the child: the buffers of its
//! request.)

use crate::peer::{SECRET, text};
use crate::{find, masked};
use amp_emulator::Emulator;
use amp_token::config::Config;
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::sys::secret::Secret;
use amp_token::token::cache::TokenCache;
use std::process::Command;
use std::time::Duration;

const URL: &str = "AMP_TEST_FORK_URL";
const DIRECTORY: &str = "AMP_TEST_FORK_DIRECTORY";

/// The other settings that can hold a secret; there is no server at these addresses.
const OTHERS: [(&str, &str, &str); 2] =
    [("proxy", "http://me:", "@127.0.0.1:9"), ("store", "redis://:", "@127.0.0.1:9")];

/// The parent: gets a token, forks, and lets the child free everything, after it has used it or not.
#[test]
#[ignore = "run by a_forked_child_frees_every_secret"]
fn parent() {
    let (url, directory) = (std::env::var(URL).unwrap(), std::env::var(DIRECTORY).unwrap());
    for (name, store, uses_it) in [("frees", "none", false), ("uses", "none", true), ("uses its store", "file", true)] {
        // With a store, the thread would have more to sleep for.
        let has_thread = store == "none";
        let mut config = Config::new();
        let secret = text("", SECRET, "");
        for (name, value) in [
            ("client_id", "the-id"),
            ("client_secret", &secret),
            ("auth_url", &url),
            ("api_url", &url),
            ("proxy", "none"),
            ("background_refresh", if has_thread { "true" } else { "false" }),
            ("store", store),
            ("store_dir", &directory),
        ] {
            config.set(name, Some(value)).unwrap();
        }
        drop(secret);
        let clock = Clock::Manual(ManualClock::new(1));
        config.clock = clock.clone();
        let cache = TokenCache::new(&config).unwrap();
        let invalidated = cache.get().unwrap();
        cache.invalidate(&invalidated);
        cache.get().unwrap();
        // The background thread, if there is to be one, is started when the token is due.
        clock.sleep(Duration::from_secs(250));
        cache.get().unwrap();
        // Without it, a thread refreshes the token and then ends.
        let settled =
            || if has_thread { thread_states().any(|state| state == 'S') } else { thread_states().count() == 0 };
        while cache.statistic("refreshes") < Some(3) || !settled() {
            std::thread::yield_now();
        }
        let kept = cache.get().unwrap();
        let others: Vec<_> = OTHERS
            .iter()
            .filter(|(name, ..)| *name != "store" || cfg!(feature = "redis"))
            .map(|(name, before, after)| {
                let mut config = config.clone();
                config.set(name, Some(&text(before, SECRET, after))).unwrap();
                TokenCache::new(&config).unwrap()
            })
            .collect();
        let masks = [
            ("client secret", masked(text("", SECRET, "").as_bytes())),
            ("invalidated token", masked(&invalidated.value().as_bytes()[invalidated.value().len() - 48..])),
            ("token", masked(&kept.value().as_bytes()[kept.value().len() - 48..])),
        ];
        drop((kept, invalidated));
        // SAFETY: the child uses the cache, which is made for that, the allocator, which the C library keeps
        // usable, and standard output, which no other thread uses.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            if uses_it {
                let token = cache.get().unwrap();
                cache.invalidate(&token);
                cache.get().unwrap();
            }
            drop((cache, config, others));
            for (what, mask) in &masks {
                let places = find(mask);
                println!("RESULT a child that {name}: {what}: {} places {places:?}", places.len());
            }
            // SAFETY: it ends the process.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: the status is a variable of this function's.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((ended, status), (child, 0));
    }
}

/// The states of the library's threads that refresh tokens. After a refresh the background thread has nothing to sleep
/// for but the next one.
fn thread_states() -> impl Iterator<Item = char> {
    std::fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(|task| {
        let about = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        about.split_once("(amp-token) ").and_then(|(_, rest)| rest.chars().next())
    })
}

#[test]
fn a_forked_child_frees_every_secret() {
    let secret = text("", SECRET, "");
    let emulator = Emulator::builder().client("the-id", secret.as_str()).start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "fork::parent", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.env(URL, emulator.url()).env(DIRECTORY, directory.path().join("store")).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.matches("RESULT").count() == 9, "{text}");
    let left: Vec<_> = text.lines().filter(|line| line.contains("RESULT") && !line.contains(": 0 places")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// In a child, whose limits are its own. Without pages that can be shared or mapped, there is still the heap.
#[test]
fn a_secret_does_not_need_pages() {
    let (short, long) = ("x".repeat(64), "y".repeat(1 << 16));
    // SAFETY: the child uses its own memory only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // What the allocator keeps for the next blocks.
        drop([vec![1_u8; 1 << 16], vec![1; 1 << 16], vec![1; 1 << 16]]);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a structure that lives through the call.
        let is_limited = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) } == 0;
        let secrets = [short.as_str(), long.as_str()].map(Secret::from);
        let is_intact = secrets[0].expose() == short && secrets[1].expose() == long;
        drop(secrets);
        // SAFETY: it ends the process.
        unsafe { libc::_exit(if is_limited && is_intact { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the status is a variable of this function's.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((ended, status), (child, 0));
}
