//! The promises of the cache, held against a service of our own, in virtual time where time matters.

use amp_token::config::Config;
use amp_token::error::{Error, Kind};
use amp_token::net::transport::{Request, Response};
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::Token;
use amp_token::token::cache::TokenCache;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A scripted service: a function from the number of a request to its response, with a clock, and the tokens it issued.
struct Service {
    clock: Arc<ManualClock>,
    requests: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
    lifetime: AtomicU64,
    /// When each token expires, on the wall clock.
    expiries: Mutex<HashMap<String, i64>>,
    reply: Reply,
}

type Reply = Box<dyn Fn(&Service, u64) -> Result<Response, Error> + Send + Sync>;

fn response(status: u16, headers: &[(&str, &str)], body: String) -> Response {
    Response {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into_bytes().into(),
    }
}

impl Service {
    fn new(reply: impl Fn(&Service, u64) -> Result<Response, Error> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Service {
            clock: ManualClock::new(17),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            most_in_flight: AtomicU64::new(0),
            lifetime: AtomicU64::new(300),
            expiries: Mutex::default(),
            reply: Box::new(reply),
        })
    }

    /// A service that always answers with a new token.
    fn healthy() -> Arc<Self> {
        Service::new(|service, number| Ok(service.grant(number)))
    }

    fn grant(&self, number: u64) -> Response {
        let lifetime = self.lifetime.load(Ordering::SeqCst);
        let token = format!("token-{number}");
        self.expiries.lock().unwrap().insert(token.clone(), self.clock.now().wall + lifetime as i64 * 1_000_000_000);
        response(200, &[], format!(r#"{{"access_token":"{token}","session_expires_in":0,"expires_in":{lifetime}}}"#))
    }

    fn answer(&self, _: &Request) -> Result<Response, Error> {
        let flying = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(flying, Ordering::SeqCst);
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let reply = (self.reply)(self, number);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        reply
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    fn cache(self: &Arc<Self>, settings: &[(&str, &str)]) -> TokenCache {
        let mut config = Config::new();
        config.set("client_id", Some("id")).unwrap();
        config.set("client_secret", Some("secret")).unwrap();
        for (name, value) in settings {
            config.set(name, Some(value)).unwrap();
        }
        config.clock = Clock::Manual(self.clock.clone());
        let service = self.clone();
        config.transport = Some(Arc::new(move |request: &Request, _: Duration| service.answer(request)));
        TokenCache::new(&config).unwrap()
    }

    fn pass(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
    }

    fn assert_valid(&self, token: &Token) {
        let expiry = self.expiries.lock().unwrap()[token.value()];
        assert!(self.clock.now().wall < expiry, "{} was returned after it had expired", token.value());
    }
}

fn unavailable() -> Response {
    response(503, &[], String::new())
}

/// Something that a test opens and a service waits for.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

/// Waits for something that another thread does. A regression fails the test and does not hang it.
#[track_caller]
fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(300), "what is waited for does not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_token_is_fetched_once_and_cached() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    for _ in 0..100 {
        assert_eq!(cache.get().unwrap().value(), "token-1");
    }
    assert_eq!(cache.with_token(|token| token.authorization().to_owned()).unwrap(), "Bearer token-1");
    assert_eq!(service.requests(), 1);
    assert_eq!(cache.statistic("hits"), Some(100));
    assert_eq!(cache.statistic("refreshes"), Some(1));
    assert_eq!(cache.statistic("nonsense"), None);
}

#[test]
fn every_statistic_has_a_value() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    cache.get().unwrap();
    for (name, _) in amp_token::token::cache::STATISTICS {
        assert!(cache.statistic(name).unwrap() >= 0, "{name}");
    }
}

#[test]
fn windows_scale_with_the_lifetime() {
    for lifetime in [2_u64, 30, 300, 86_400] {
        let service = Service::healthy();
        service.lifetime.store(lifetime, Ordering::SeqCst);
        let cache = service.cache(&[]);
        cache.get().unwrap();
        service.pass(lifetime as f64 * 0.75);
        cache.get().unwrap();
        assert_eq!(service.requests(), 1, "lifetime {lifetime}: still fresh at 75 %");
        service.pass(lifetime as f64 * 0.06);
        assert_eq!(cache.get().unwrap().value(), "token-2", "lifetime {lifetime}: refreshed at 81 %");
    }
}

#[test]
fn threads_on_a_cold_cache_share_one_request() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        held.wait();
        Ok(service.grant(number))
    });
    let cache = service.cache(&[]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(|| cache.get().unwrap().value().to_owned())).collect();
        until(|| cache.statistic("waits") == Some(63));
        gate.open();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), "token-1");
        }
    });
    assert_eq!(service.requests(), 1);
}

#[test]
fn a_failure_is_shared_once_and_does_not_persist() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        held.wait();
        if number == 1 { Ok(unavailable()) } else { Ok(service.grant(number)) }
    });
    let cache = service.cache(&[("retries", "0")]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(|| cache.get().unwrap_err())).collect();
        until(|| cache.statistic("waits") == Some(63));
        gate.open();
        for thread in threads {
            let error = thread.join().unwrap();
            assert_eq!((error.kind(), error.http_status()), (Kind::Server, Some(503)));
        }
    });
    assert_eq!(service.requests(), 1);
    // During the backoff: the same failure, at once, with the time to wait.
    let error = cache.get().unwrap_err();
    assert_eq!(error.kind(), Kind::Server);
    let wait = error.retry_after().unwrap();
    assert_eq!(service.requests(), 1);
    service.clock.advance(wait);
    assert_eq!(cache.get().unwrap().value(), "token-2");
}

#[test]
fn no_thread_waits_for_a_refresh_while_the_token_is_valid() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        if number > 1 {
            held.wait();
        }
        Ok(service.grant(number))
    });
    let cache = service.cache(&[]);
    cache.get().unwrap();
    service.pass(245.0);
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| cache.get().unwrap().value().to_owned());
        until(|| service.requests() == 2);
        for _ in 0..100 {
            assert_eq!(cache.get().unwrap().value(), "token-1");
        }
        gate.open();
        assert_eq!(leader.join().unwrap(), "token-2");
    });
    assert_eq!(cache.get().unwrap().value(), "token-2");
    assert_eq!(service.requests(), 2);
}

#[test]
fn a_failed_refresh_keeps_the_token_until_it_expires() {
    let service = Service::new(|service, number| if number == 1 { Ok(service.grant(1)) } else { Ok(unavailable()) });
    let cache = service.cache(&[("retries", "0")]);
    for second in 0..290 {
        let token = cache.get().unwrap();
        assert_eq!(token.value(), "token-1", "second {second}");
        service.pass(1.0);
    }
    let attempts = service.requests();
    assert!((4..=60).contains(&attempts), "{attempts} requests during the window");
    let error = cache.get().unwrap_err();
    assert_eq!(error.kind(), Kind::Server);
}

#[test]
fn the_backoff_grows_up_to_its_cap() {
    let service = Service::new(|_, _| Ok(unavailable()));
    let cache = service.cache(&[("retries", "0")]);
    let start = service.clock.now();
    let mut waits = Vec::new();
    for _ in 0..60 {
        let before = service.requests();
        let wait = cache.get().unwrap_err().retry_after().unwrap();
        assert_eq!(service.requests(), before + 1);
        for _ in 0..50 {
            assert!(cache.get().unwrap_err().retry_after().unwrap() <= wait);
        }
        assert_eq!(service.requests(), before + 1, "no call during the backoff sends a request");
        waits.push(wait);
        service.clock.advance(wait);
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60)), "{waits:?}");
    assert!(waits[10..].iter().max() > Some(&Duration::from_secs(20)), "{waits:?}");
    assert!(start.remaining_until(service.clock.now()) > Duration::from_secs(600));
}

/// Attempts are frequent at the end of a token's lifetime; they must not lengthen the backoff after it.
#[test]
fn a_short_token_does_not_make_a_long_outage() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let service =
        Service::new(
            move |service, number| {
                if is_down.load(Ordering::SeqCst) { Ok(unavailable()) } else { Ok(service.grant(number)) }
            },
        );
    service.lifetime.store(2, Ordering::SeqCst);
    let cache = service.cache(&[("retries", "0")]);
    for _ in 0..20 {
        down.store(false, Ordering::SeqCst);
        cache.get().unwrap();
        down.store(true, Ordering::SeqCst);
        let before = service.requests();
        for _ in 0..2000 {
            service.pass(0.001);
            let _ = cache.get();
        }
        assert!(service.requests() - before > 5, "{} requests", service.requests() - before);
        let wait = cache.get().unwrap_err().retry_after().unwrap();
        assert!(wait < Duration::from_secs(2), "{wait:?} after an outage of 0.4 s");
        service.clock.advance(wait);
    }
}

#[test]
fn a_retry_after_is_obeyed() {
    let service = Service::new(|service, number| {
        if number == 1 {
            Ok(response(429, &[("Retry-After", "120")], String::new()))
        } else {
            Ok(service.grant(number))
        }
    });
    let cache = service.cache(&[]);
    let error = cache.get().unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    service.pass(119.9);
    assert_eq!(cache.get().unwrap_err().kind(), Kind::RateLimited);
    assert_eq!(service.requests(), 1);
    service.pass(0.2);
    cache.get().unwrap();
}

#[test]
fn rejected_credentials_are_not_tried_again_at_once() {
    let service = Service::new(|_, _| Ok(response(400, &[], r#"{"error":"invalid_client"}"#.into())));
    let cache = service.cache(&[]);
    for _ in 0..50 {
        let error = cache.get().unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialsRejected);
        assert_eq!(error.oauth_code(), Some("invalid_client"));
    }
    assert_eq!(service.requests(), 1);
}

#[test]
fn the_same_or_an_expired_token_is_a_failure() {
    let service = Service::new(|service, number| Ok(service.grant(if number == 2 { 1 } else { number })));
    let cache = service.cache(&[]);
    cache.get().unwrap();
    service.pass(245.0);
    assert_eq!(cache.get().unwrap().value(), "token-1");
    assert_eq!((cache.statistic("failures"), service.requests()), (Some(1), 2));
    service.pass(30.0);
    assert_eq!(cache.get().unwrap().value(), "token-3");

    let service = Service::new(|service, number| {
        let reply = service.grant(number);
        service.pass(290.0); // the network takes its time
        Ok(reply)
    });
    let cache = service.cache(&[("timeout_ms", "1000000")]);
    let error = cache.get().unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("was about to, when it arrived"), "{error}");
}

#[test]
fn clock_jumps_make_no_expired_token_valid() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    cache.get().unwrap();
    service.clock.set_wall_by(-86_400); // set back: the monotonic clock knows better
    service.pass(295.0);
    assert_eq!(cache.get().unwrap().value(), "token-2");
    service.clock.set_wall_by(86_400); // forward, or a machine that slept
    assert_eq!(cache.get().unwrap().value(), "token-3");
}

#[test]
fn only_the_current_token_is_invalidated() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    let first = cache.get().unwrap();
    let epoch = cache.epoch().load(Ordering::SeqCst);
    service.pass(60.0);
    cache.invalidate(&first);
    assert_ne!(cache.epoch().load(Ordering::SeqCst), epoch);
    assert_eq!(cache.get().unwrap().value(), "token-2");
    for _ in 0..10 {
        cache.invalidate(&first);
    }
    assert_eq!(cache.get().unwrap().value(), "token-2");
    assert_eq!(service.requests(), 2);
    assert_eq!(first.value(), "token-1");
}

#[test]
fn rejections_with_valid_tokens_between_are_not_consecutive() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    for _ in 0..10 {
        cache.invalidate(&cache.get().unwrap());
        // The next call sends a request, without backoff; its token is used until it is due.
        cache.get().unwrap();
        service.pass(300.0);
        cache.get().unwrap();
        service.pass(250.0);
        cache.get().unwrap();
    }
}

/// One call lacks a permission, for ten minutes, while other calls do not.
#[test]
fn a_call_that_is_always_rejected_costs_few_requests_and_stops_no_other() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    let mut replaced = 0;
    for _ in 0..60_000 {
        let token = cache.get().unwrap();
        service.assert_valid(&token);
        replaced += u64::from(cache.report(&token, 401, b""));
        service.assert_valid(&cache.get().unwrap());
        service.pass(0.01);
    }
    // At 0, 1, 3, 7, 15, 31 and 63 seconds, and then every minute: 15. The token is never due.
    assert_eq!((replaced, service.requests()), (15, 16));
}

/// The same, for programs that only know `invalidate`.
#[test]
fn a_program_that_invalidates_every_token_gets_a_token_each_time() {
    let service = Service::healthy();
    let cache = service.cache(&[]);
    for _ in 0..60_000 {
        cache.invalidate(&cache.get().unwrap());
        service.pass(0.01);
    }
    assert_eq!(service.requests(), 16);
}

/// A thread that reports a token does not get it again, while others use it, also if no other one can be had.
#[test]
fn a_rejected_token_stays_in_use_for_others() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let service =
        Service::new(
            move |service, number| {
                if is_down.load(Ordering::SeqCst) { Ok(unavailable()) } else { Ok(service.grant(number)) }
            },
        );
    let cache = service.cache(&[("retries", "0")]);
    let token = cache.get().unwrap();
    down.store(true, Ordering::SeqCst);
    cache.invalidate(&token);
    let other_thread = || std::thread::scope(|scope| scope.spawn(|| cache.get()).join().unwrap());
    assert_eq!(cache.get().unwrap_err().kind(), Kind::Server);
    assert_eq!(other_thread().unwrap().value(), "token-1");
    assert!(!cache.report(&token, 401, b""), "a backoff stays in force");
    assert_eq!(service.requests(), 2);
    down.store(false, Ordering::SeqCst);
    service.pass(2.0);
    assert_eq!(cache.get().unwrap().value(), "token-3");
    assert_eq!(other_thread().unwrap().value(), "token-3");
}

/// A service that takes longer than a caller with a usable token waits: the caller goes on with that token, and the
/// request is not lost.
#[test]
fn a_slow_refresh_is_finished_and_its_token_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (request_arrived, arrivals) = channel();
    let (release, released) = channel::<()>();
    let server = std::thread::spawn(move || {
        for number in 1..=2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"client_credentials") {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0);
                request.extend_from_slice(&piece[..read]);
            }
            if number == 2 {
                request_arrived.send(()).unwrap();
                released.recv().unwrap();
            }
            let body = format!(r#"{{"access_token":"token-{number}","expires_in":300}}"#);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let clock = ManualClock::new(3);
    let mut config = Config::new();
    for (name, value) in [("client_id", "id"), ("client_secret", "secret"), ("auth_url", &url), ("proxy", "none")] {
        config.set(name, Some(value)).unwrap();
    }
    config.clock = Clock::Manual(clock.clone());
    let cache = TokenCache::new(&config).unwrap();
    assert_eq!(cache.get().unwrap().value(), "token-1");
    clock.advance(Duration::from_secs(245));
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| cache.get());
        arrivals.recv().unwrap();
        // The time that the caller allows is over; the time of the request is not.
        clock.advance(Duration::from_secs(3));
        assert_eq!(caller.join().unwrap().unwrap().value(), "token-1");
        assert_eq!(cache.get().unwrap().value(), "token-1");
        release.send(()).unwrap();
        until(|| cache.get().unwrap().value() == "token-2");
    });
    server.join().unwrap();
    assert_eq!((cache.statistic("requests"), cache.statistic("failures")), (Some(2), Some(0)));
}

/// [`TokenCache::try_get`] waits for nothing, and what it starts is shared.
#[test]
fn a_call_that_never_waits_starts_one_request() {
    let gate = Arc::new(Gate::default());
    let closed = gate.clone();
    let service = Service::new(move |service, number| {
        closed.wait();
        Ok(service.grant(number))
    });
    let cache = service.cache(&[]);
    for _ in 0..100 {
        let error = cache.try_get().unwrap_err();
        assert_eq!(error.kind(), Kind::Pending);
        assert!(error.is_retryable() && error.retry_after().is_some());
    }
    gate.open();
    until(|| cache.try_get().is_ok());
    assert_eq!(service.requests(), 1);
    service.pass(245.0);
    assert_eq!(cache.try_get().unwrap().value(), "token-1", "a token that is due is returned");
    until(|| cache.try_get().unwrap().value() == "token-2");
    assert_eq!(service.requests(), 2);
}

/// A call whose `min_validity` the service cannot meet fails, and pauses; other calls use the token.
#[test]
fn tokens_that_arrive_too_late_for_a_call_do_not_cause_a_storm() {
    let service = Service::new(|service, number| {
        service.pass(1.0);
        Ok(service.grant(number))
    });
    let cache = service.cache(&[]);
    let mut errors = 0;
    for _ in 0..200 {
        errors += u64::from(cache.get_for(Duration::from_millis(299_500)).is_err());
        cache.get().unwrap();
    }
    assert_eq!(errors, 200);
    assert!(service.requests() < 10, "{}", service.requests());
    // The same as a setting, for all calls.
    let cache = service.cache(&[("min_validity_ms", "299500")]);
    let before = service.requests();
    for _ in 0..200 {
        assert!(cache.get().unwrap_err().retry_after().is_some());
    }
    assert!(service.requests() - before < 10, "{}", service.requests() - before);
}

#[test]
fn min_validity_is_kept() {
    let service = Service::healthy();
    let cache = service.cache(&[("min_validity_ms", "100000")]);
    for _ in 0..1000 {
        let token = cache.get().unwrap();
        assert!(token.expires_in(service.clock.now()) >= 100);
        service.pass(1.7);
    }
    assert!(service.requests() < 12, "{}", service.requests());

    let service = Service::healthy();
    let cache = service.cache(&[]);
    cache.get().unwrap();
    service.pass(100.0);
    assert_eq!(cache.get_for(Duration::from_secs(150)).unwrap().value(), "token-1");
    assert_eq!(cache.get_for(Duration::from_secs(250)).unwrap().value(), "token-2");
    for _ in 0..10 {
        let error = cache.get_for(Duration::from_secs(300)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }
    assert_eq!(service.requests(), 2, "what no token can fulfil is not asked for");
}

#[test]
fn a_leader_that_panics_leaves_no_thread_waiting() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        if number == 1 {
            held.wait();
            panic!("the application's transport panics");
        }
        Ok(service.grant(number))
    });
    let cache = service.cache(&[]);
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.get().map(drop))));
        until(|| service.requests() == 1);
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| cache.get().unwrap().value().to_owned())).collect();
        until(|| cache.statistic("waits") == Some(8));
        gate.open();
        assert!(leader.join().unwrap().is_err());
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), "token-2");
        }
    });
}

#[test]
fn a_waiter_waits_no_longer_than_its_own_deadline() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        held.wait();
        Ok(service.grant(number))
    });
    let cache = service.cache(&[("timeout_ms", "50")]);
    std::thread::scope(|scope| {
        scope.spawn(|| cache.get());
        until(|| service.requests() == 1);
        let waiter = scope.spawn(|| cache.get().unwrap_err());
        until(|| cache.statistic("waits") == Some(1));
        service.pass(1.0);
        assert_eq!(waiter.join().unwrap().kind(), Kind::Timeout);
        gate.open();
    });
}

#[test]
fn a_short_deadline_is_inconclusive() {
    // The inline refresh has a short deadline and times out. When the token has expired, that does not make a caller
    // with its whole timeout fail.
    let service = Service::new(|service, number| match number {
        2 => {
            service.pass(46.0);
            Err(Error::new(Kind::Timeout, "too slow for the budget"))
        }
        _ => Ok(service.grant(number)),
    });
    let cache = service.cache(&[]);
    cache.get().unwrap();
    service.pass(245.0);
    assert_eq!(cache.get().unwrap().value(), "token-3");
}

#[test]
fn the_background_thread_refreshes_only_a_token_that_is_used() {
    let service = Service::healthy();
    let cache = service.cache(&[("background_refresh", "true")]);
    cache.get().unwrap();
    service.pass(245.0);
    // This starts the thread, which refreshes the token; the caller does not wait.
    assert_eq!(cache.get().unwrap().value(), "token-1");
    until(|| service.requests() == 2);
    until(|| cache.statistic("refreshes") == Some(2));
    // Used during its lifetime: refreshed although no thread calls while it is due.
    assert_eq!(cache.get().unwrap().value(), "token-2");
    service.pass(245.0);
    cache.wake();
    until(|| cache.statistic("refreshes") == Some(3));
    // Not used: the thread rests.
    service.pass(245.0);
    for _ in 0..100 {
        cache.wake();
        std::thread::yield_now();
    }
    assert_eq!(service.requests(), 3);
    // And takes up its work again.
    assert_eq!(cache.get().unwrap().value(), "token-3");
    until(|| cache.statistic("refreshes") == Some(4));
    drop(cache); // joins the thread
}

#[test]
fn a_cache_can_be_dropped_while_its_thread_is_in_a_request() {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let service = Service::new(move |service, number| {
        if number > 1 {
            held.wait();
        }
        Ok(service.grant(number))
    });
    let cache = service.cache(&[("background_refresh", "true")]);
    let token = cache.get().unwrap();
    service.pass(245.0);
    cache.get().unwrap();
    until(|| service.requests() == 2);
    drop(cache);
    gate.open();
    until(|| Arc::strong_count(&service) == 1);
    assert_eq!(token.value(), "token-1");
}

/// Threads, faults in a third of the responses, invalidations and clock jumps: a million gets and thousands of
/// refreshes, and every promise is kept.
#[test]
fn stress_with_faults_and_clock_jumps() {
    const THREADS: u64 = 8;
    const GETS: u64 = 125_000;
    let (paused_until, early) = (Arc::new(AtomicI64::new(i64::MIN)), Arc::new(AtomicU64::new(0)));
    let (pause, broken) = (paused_until.clone(), early.clone());
    let service = Service::new(move |service, number| {
        if service.clock.now().monotonic < pause.load(Ordering::SeqCst) {
            broken.fetch_add(1, Ordering::SeqCst);
        }
        match number % 10 {
            2 => Ok(unavailable()),
            5 => Err(Error::new(Kind::Connect, "reset")),
            8 => Ok(response(200, &[], "<html>".into())),
            _ => Ok(service.grant(number)),
        }
    });
    service.lifetime.store(10, Ordering::SeqCst);
    let cache = service.cache(&[("retries", "0")]);
    let (gets, failures, refused, jumps) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(THREADS as usize);
    let worker = |thread: u64| {
        barrier.wait();
        for turn in 0..GETS {
            // The clocks before the call: the returned token was valid then. That holds for the wall clock only if
            // no thread set it meanwhile. (An odd number of `jumps`: a thread is about to.)
            let jumps_before = jumps.load(Ordering::SeqCst);
            let before = service.clock.now();
            match cache.get() {
                Ok(token) => {
                    let expires = token.expires();
                    let set = jumps_before % 2 == 1 || jumps.load(Ordering::SeqCst) != jumps_before;
                    assert!(before.monotonic < expires.monotonic, "{token:?} was returned after it had expired");
                    assert!(
                        set || before.wall < expires.wall,
                        "{token:?} was returned after it had expired by the wall clock"
                    );
                    if turn % 501 == thread {
                        refused.fetch_add(1, Ordering::Relaxed);
                        cache.invalidate(&token);
                    }
                }
                Err(error) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    match error.retry_after() {
                        // No request may be sent before that time, counted from before the call.
                        Some(wait) => {
                            paused_until.fetch_max(before.monotonic + wait.as_nanos() as i64, Ordering::SeqCst);
                            if turn % 3 == 0 {
                                service.clock.advance(wait);
                            }
                        }
                        // The others moved the clock by more than timeout_ms, or than a token lives,
                        // while this one waited.
                        None => assert_eq!(error.kind(), Kind::Timeout, "{error}"),
                    }
                }
            }
            gets.fetch_add(1, Ordering::Relaxed);
            if turn % 97 == 0 {
                service.clock.advance(Duration::from_millis(200 + (turn * 31) % 800));
            }
            if turn % 5003 == 0 {
                jumps.fetch_add(1, Ordering::SeqCst);
                service.clock.set_wall_by(if turn % 2 == 0 { -3600 } else { 3600 });
                jumps.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let worker = &worker;
            scope.spawn(move || worker(thread));
        }
    });
    assert_eq!(gets.load(Ordering::SeqCst), THREADS * GETS, "every caller came back");
    assert_eq!(service.most_in_flight.load(Ordering::SeqCst), 1, "one request at a time");
    assert_eq!(early.load(Ordering::SeqCst), 0, "no request during the backoff");
    let refreshes = cache.statistic("refreshes").unwrap();
    assert!(refreshes > 500, "{refreshes} refreshes");
    println!(
        "stress: {} gets, {refreshes} refreshes, {} requests, {} invalidations, {} failed calls",
        gets.load(Ordering::SeqCst),
        service.requests(),
        refused.load(Ordering::SeqCst),
        failures.load(Ordering::SeqCst),
    );
}

/// A day of 300-second tokens with outages of many lengths, a call every quarter of a second, in
/// virtual time: an outage shorter than what is left between the refresh point and the margin is
/// invisible.
#[test]
fn a_day_with_outages() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let service = Service::new(move |service, number| {
        if is_down.load(Ordering::SeqCst) {
            service.pass(0.05);
            Ok(unavailable())
        } else {
            service.pass(0.02);
            Ok(service.grant(number))
        }
    });
    let cache = service.cache(&[]);
    let start = service.clock.now();
    // Length of each outage in seconds; the window of a 300-second token is 50 seconds at least.
    let lengths = [1.0, 5.0, 15.0, 30.0, 40.0, 49.0, 60.0, 120.0, 300.0, 600.0];
    let (mut gets, mut longest, mut outage) = (0_u64, Duration::ZERO, 0);
    // (length, failed calls, requests) of each outage.
    let mut outages: Vec<(f64, u64, u64)> = Vec::new();
    let mut next_at = 600.0;
    while start.remaining_until(service.clock.now()) < Duration::from_secs(24 * 60 * 60) {
        let time = start.remaining_until(service.clock.now()).as_secs_f64();
        let is_down = down.load(Ordering::SeqCst);
        if !is_down && time >= next_at {
            down.store(true, Ordering::SeqCst);
            outages.push((lengths[outage % lengths.len()], 0, service.requests()));
        } else if is_down && time >= next_at + outages[outage].0 {
            down.store(false, Ordering::SeqCst);
            outages[outage].2 = service.requests() - outages[outage].2;
            // The next one begins at another point of a token's life.
            next_at = time + 700.0 + (outage * 37 % 300) as f64;
            outage += 1;
        }
        let before = service.clock.now();
        match cache.get() {
            Ok(token) => service.assert_valid(&token),
            Err(_) => {
                if let Some(last) = outages.last_mut() {
                    last.1 += 1;
                }
            }
        }
        longest = longest.max(before.remaining_until(service.clock.now()));
        gets += 1;
        service.pass(0.25);
    }
    let done = &outages[..outage];
    for length in lengths {
        let of_length: Vec<_> = done.iter().filter(|(this, ..)| *this == length).collect();
        let failed: u64 = of_length.iter().map(|(_, failed, _)| failed).sum();
        let requests: u64 = of_length.iter().map(|(.., requests)| requests).sum();
        println!(
            "outage of {length:>5} s: {} times, {failed:>4} failed calls, {:.1} requests each",
            of_length.len(),
            requests as f64 / of_length.len() as f64
        );
        if length < 50.0 {
            assert_eq!(failed, 0, "an outage of {length} s was seen by callers");
        }
    }
    println!("a day: {gets} gets, {} requests, longest blocked get {longest:?}", service.requests());
    assert!(outage > 40);
}
