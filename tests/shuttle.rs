//! The cache's own code under a model checker: thousands of interleavings of the swap, the single
//! flight, and an invalidation during a refresh. Run by
//! `RUSTFLAGS="--cfg shuttle" cargo test --test shuttle --release`.
#![cfg(shuttle)]

use amp_token::config::Config;
use amp_token::error::{Error, Kind};
use amp_token::net::transport::{Request, Response};
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::cache::TokenCache;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{check_pct, check_random, thread};
use std::sync::Arc;
use std::time::Duration;

/// Every model runs under two schedulers: one that picks at random, and one that looks for bugs
/// which need few but well-placed switches.
fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(model.clone(), 20_000);
    check_pct(model, 20_000, 3);
}

fn grant(number: u64) -> Response {
    let body = format!(r#"{{"access_token":"token-{number}","expires_in":300}}"#);
    Response { status: 200, headers: Vec::new(), body: body.into_bytes().into() }
}

struct World {
    cache: TokenCache,
    clock: Arc<ManualClock>,
    requests: Arc<AtomicU64>,
}

/// A cache over a service that answers its requests, counted from 1, with `respond`. Every request
/// is a point where others may run; two at once end the model.
fn world(respond: impl Fn(u64) -> Result<Response, Error> + Send + Sync + 'static) -> Arc<World> {
    let (clock, requests) = (ManualClock::new(1), Arc::new(AtomicU64::new(0)));
    let (counter, flying) = (requests.clone(), AtomicU64::new(0));
    let mut config = Config::new();
    config.set("client_id", Some("id")).unwrap();
    config.set("client_secret", Some("secret")).unwrap();
    config.set("retries", Some("0")).unwrap();
    // A model moves the clock while others wait.
    config.set("timeout_ms", Some("86400000")).unwrap();
    config.clock = Clock::Manual(clock.clone());
    config.transport = Some(Arc::new(move |_: &Request, _: Duration| {
        assert_eq!(flying.fetch_add(1, Ordering::SeqCst), 0, "two requests at once");
        thread::yield_now();
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        flying.fetch_sub(1, Ordering::SeqCst);
        respond(number)
    }));
    Arc::new(World { cache: TokenCache::new(&config).unwrap(), clock, requests })
}

fn number(token: &str) -> u64 {
    token.strip_prefix("token-").unwrap().parse().unwrap()
}

fn run<const N: usize>(bodies: [Box<dyn FnOnce() + Send>; N]) {
    let threads = bodies.map(|body| thread::spawn(body));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_cold_cache_sends_one_request() {
    check(|| {
        let world = world(|number| Ok(grant(number)));
        run([(); 4].map(|()| {
            let world = world.clone();
            Box::new(move || assert_eq!(world.cache.get().unwrap().value(), "token-1")) as Box<dyn FnOnce() + Send>
        }));
        assert_eq!(world.requests.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_failure_reaches_every_waiter_and_no_request_is_sent_during_backoff() {
    check(|| {
        let world = world(|_| Err(Error::new(Kind::Connect, "refused")));
        run([(); 4].map(|()| {
            let world = world.clone();
            Box::new(move || assert_eq!(world.cache.get().unwrap_err().kind(), Kind::Connect))
                as Box<dyn FnOnce() + Send>
        }));
        assert_eq!(world.requests.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_due_token_is_refreshed_once_and_returned_meanwhile() {
    check(|| {
        let world = world(|number| Ok(grant(number)));
        world.cache.get().unwrap();
        world.clock.advance(Duration::from_secs(245));
        run([(); 3].map(|()| {
            let world = world.clone();
            Box::new(move || assert!(number(world.cache.get().unwrap().value()) <= 2)) as Box<dyn FnOnce() + Send>
        }));
        assert_eq!(world.requests.load(Ordering::SeqCst), 2);
        assert_eq!(world.cache.get().unwrap().value(), "token-2");
    });
}

#[test]
fn an_invalidation_during_a_refresh_drops_only_its_own_token() {
    check(|| {
        let world = world(|number| Ok(grant(number)));
        let first = world.cache.get().unwrap();
        world.clock.advance(Duration::from_secs(245));
        let (refreshing, invalidating, reading) = (world.clone(), world.clone(), world.clone());
        run([
            Box::new(move || drop(refreshing.cache.get().unwrap())),
            Box::new(move || {
                invalidating.cache.invalidate(&first);
                // From here on this thread never sees the token that it reported.
                assert_ne!(invalidating.cache.get().unwrap().value(), "token-1");
            }),
            Box::new(move || drop(reading.cache.get().unwrap())),
        ]);
        assert_eq!(
            world.cache.get().unwrap().value(),
            "token-2",
            "the new token was dropped, or the old one came back"
        );
        assert_eq!(world.requests.load(Ordering::SeqCst), 2);
    });
}

/// The hand-over of a rejected token: those who report it share one request and get its token, and those who do not
/// are never without one.
#[test]
fn a_rejected_token_is_replaced_once_and_used_by_others_meanwhile() {
    check(|| {
        let world = world(|number| Ok(grant(number)));
        let first = world.cache.get().unwrap();
        let reporter = |world: &Arc<World>| {
            let (world, first) = (world.clone(), first.clone());
            Box::new(move || {
                assert!(world.cache.report(&first, 401, b""));
                assert_eq!(world.cache.get().unwrap().value(), "token-2");
            }) as Box<dyn FnOnce() + Send>
        };
        let (invalidating, reading, rejected) = (world.clone(), world.clone(), first.clone());
        run([
            reporter(&world),
            reporter(&world),
            Box::new(move || {
                invalidating.cache.invalidate(&rejected);
                assert_eq!(invalidating.cache.get().unwrap().value(), "token-2");
            }),
            Box::new(move || {
                for _ in 0..2 {
                    reading.cache.get().unwrap();
                }
            }),
        ]);
        assert_eq!(world.requests.load(Ordering::SeqCst), 2);
        assert_eq!(world.cache.get().unwrap().value(), "token-2");
    });
}

/// The replacement fails: the others keep the token, and the reporters learn that there is no other.
#[test]
fn a_failed_replacement_leaves_the_token_in_use() {
    check(|| {
        let world = world(|number| if number == 1 { Ok(grant(1)) } else { Err(Error::new(Kind::Connect, "refused")) });
        let first = world.cache.get().unwrap();
        let (one, other, reading) = (world.clone(), world.clone(), world.clone());
        let (mine, yours) = (first.clone(), first.clone());
        run([
            Box::new(move || assert!(!one.cache.report(&mine, 401, b""))) as Box<dyn FnOnce() + Send>,
            Box::new(move || assert!(!other.cache.report(&yours, 401, b""))),
            Box::new(move || {
                for _ in 0..3 {
                    assert_eq!(reading.cache.get().unwrap().value(), "token-1");
                }
            }),
        ]);
        assert_eq!(world.requests.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn the_epoch_changes_with_every_swap() {
    check(|| {
        let world = world(|number| Ok(grant(number)));
        world.cache.get().unwrap();
        let (writing, reading) = (world.clone(), world.clone());
        run([
            Box::new(move || {
                for _ in 0..2 {
                    let token = writing.cache.get().unwrap();
                    writing.clock.advance(Duration::from_secs(100));
                    writing.cache.invalidate(&token);
                    writing.cache.get().unwrap();
                }
            }),
            Box::new(move || {
                // What a binding does: the count first, then the token that goes with it.
                let mut last = 0;
                for _ in 0..3 {
                    let before = reading.cache.epoch().load(std::sync::atomic::Ordering::SeqCst);
                    let seen = number(reading.cache.get().unwrap().value());
                    assert!(seen >= last, "a token came back that was replaced");
                    if reading.cache.epoch().load(std::sync::atomic::Ordering::SeqCst) == before {
                        // Nothing changed: a second look finds the same.
                        assert!(number(reading.cache.get().unwrap().value()) >= seen);
                    }
                    last = seen;
                }
            }),
        ]);
    });
}
