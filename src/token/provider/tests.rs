//! How processes that share a store treat each other, in virtual time. The store is a fake one, which says what
//! another process would have written, and lets time pass while the provider waits.

use super::*;
use crate::net::transport::{Request, Response};
use crate::store::Contents;
use crate::sys::clock::ManualClock;
use crate::token::cache::TokenCache;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock};

const TIMEOUT: Duration = Duration::from_secs(30);
const ID: &str = "the-id";
const SECRET: &str = "a secret that is long enough";

/// What the others do after some time: a change of the store's content, and whether the lock is free from then on.
type Event = (Duration, Option<Entry>, Option<Note>, bool);

/// The store, as the other processes leave it.
struct FakeStore {
    clock: Arc<ManualClock>,
    start: Timestamps,
    events: Vec<Event>,
    notes: Mutex<Vec<Note>>,
    saved: Mutex<Vec<(Entry, bool)>>,
    waits: AtomicUsize,
    /// The longest time of one wait.
    longest_wait: Mutex<Duration>,
}

impl FakeStore {
    fn event(&self) -> Option<&Event> {
        let passed = self.start.remaining_until(self.clock.now());
        self.events.iter().rfind(|event| event.0 <= passed)
    }
}

impl Store for FakeStore {
    fn read(&self, _: &IoBudget) -> Contents {
        let Some((at, entry, note, _)) = self.event() else { return Contents::default() };
        let age = self.start.after(*at).remaining_until(self.clock.now());
        let seen = |note: &Note| {
            let lifetime = note.lifetime(TIMEOUT);
            SeenNote { note: note.clone(), age, left: lifetime.saturating_sub(age) }
        };
        Contents { entry: entry.clone(), note: note.as_ref().map(seen), is_locked: false }
    }

    fn try_lock(&self, _: &IoBudget) -> LockResult {
        match self.event() {
            Some((.., true)) => LockResult::Held(Box::new(())),
            _ => LockResult::Busy,
        }
    }

    fn wait(&self, _: Duration, limit: Duration) -> bool {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(limit.min(*self.longest_wait.lock().unwrap()));
        true
    }

    fn save(&self, entry: &Entry, lock: Option<Lock>, _: &IoBudget) {
        self.saved.lock().unwrap().push((entry.clone(), lock.is_some()));
    }

    fn leave_note(&self, note: &Note, _: Duration, _: &IoBudget) {
        self.notes.lock().unwrap().push(note.clone());
    }

    fn remove(&self, _: &str, _: &IoBudget) -> Removal {
        Removal::NotStored
    }

    fn for_child(&self) -> Arc<dyn Store> {
        unreachable!("no test forks")
    }

    fn location(&self) -> String {
        "a fake".to_owned()
    }
}

/// A provider with a service and a store that do what a test says.
struct World {
    clock: Arc<ManualClock>,
    provider: TokenProvider,
    store: Arc<FakeStore>,
    requests: Arc<AtomicUsize>,
    /// The time between the start and the first request.
    asked: Arc<Mutex<Option<Duration>>>,
}

/// What the service does: the time that it takes, and its response.
type Service = (Duration, u16, &'static str, Option<&'static str>);

const TOKEN: Service = (Duration::ZERO, 200, r#"{"access_token":"own","expires_in":300}"#, None);

impl World {
    fn new(service: Service, events: impl Fn(&ManualClock) -> Vec<Event>) -> Self {
        World::with(&[], service, events)
    }

    fn with(settings: &[(&str, &str)], service: Service, events: impl Fn(&ManualClock) -> Vec<Event>) -> Self {
        let clock = ManualClock::new(5);
        let start = clock.now();
        let (requests, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let mut config = Config::new();
        for (name, value) in [("client_id", ID), ("client_secret", SECRET)].iter().chain(settings) {
            config.set(name, Some(value)).unwrap();
        }
        config.clock = Clock::Manual(clock.clone());
        config.transport = Some(Arc::new({
            let (clock, requests, asked) = (clock.clone(), requests.clone(), asked.clone());
            move |_: &Request, timeout: Duration| {
                requests.fetch_add(1, Ordering::SeqCst);
                asked.lock().unwrap().get_or_insert(start.remaining_until(clock.now()));
                let (takes, status, body, retry_after) = service;
                clock.advance(takes.min(timeout));
                if takes >= timeout {
                    return Err(Error::new(Kind::Timeout, "no response"));
                }
                let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
                headers.extend(retry_after.map(|value| ("Retry-After".to_owned(), value.to_owned())));
                Ok(Response { status, headers, body: body.as_bytes().to_vec().into() })
            }
        }));
        let store = Arc::new(FakeStore {
            events: events(&clock),
            clock: clock.clone(),
            start,
            notes: Mutex::default(),
            saved: Mutex::default(),
            waits: AtomicUsize::new(0),
            longest_wait: Mutex::new(Duration::from_millis(100)),
        });
        let provider = TokenProvider::new(Arc::new(ProviderConfig::new(&config).unwrap())).unwrap();
        let credentials = Credentials::Client { id: ID.to_owned(), secret: SECRET.into() };
        let known = ResolvedCredentials {
            credentials,
            store: Some(store.clone() as Arc<dyn Store>),
            origin: "a test".to_owned(),
        };
        provider.resolved.store(Some(Arc::new(known)));
        World { clock, provider, store, requests, asked }
    }

    fn fetch(&self, max_retries: u32) -> Result<Option<Token>> {
        let deadline = Deadline::after(&Clock::Manual(self.clock.clone()), TIMEOUT);
        let min_validity = self.provider.config.options.min_validity;
        let fetch = FetchRequest { replacing: None, required: true, deadline, max_retries, min_validity };
        let (token, save) = self.provider.fetch(&fetch)?.unzip();
        if let Some(save) = save.flatten() {
            save.save();
        }
        Ok(token)
    }

    fn value(&self) -> String {
        self.fetch(3).unwrap().unwrap().value().to_owned()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn passed(&self) -> Duration {
        self.store.start.remaining_until(self.clock.now())
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A token that another process requested at the beginning and has since `at`.
fn theirs(clock: &ManualClock, at: u64) -> Event {
    let entry = Entry { token: "theirs".into(), issued: clock.now(), lifetime: seconds(300) };
    (seconds(at), Some(entry), None, true)
}

/// The failure of another process, after `at` seconds.
fn failed(at: u64, error: Error, hold: bool) -> Event {
    let attempts = error.attempts();
    (seconds(at), None, Some(Note::Failed(Failure { error, attempts, route: None, hold })), true)
}

fn unavailable(attempts: u32) -> Error {
    Error::new(Kind::Server, "unavailable").with_http_status(503).with_attempts(attempts)
}

#[test]
fn a_caller_waits_for_another_process_for_nearly_all_of_its_time() {
    for at in [1, 16, 23] {
        let world = World::new(TOKEN, |clock| vec![theirs(clock, at)]);
        assert_eq!((world.value().as_str(), world.requests()), ("theirs", 0), "{at}");
        assert!(world.passed() < seconds(at + 1));
    }
}

#[test]
fn callers_that_began_together_stop_waiting_one_by_one() {
    let mut times = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let world = World::new(TOKEN, |_| vec![]);
        for _ in 0..seed {
            let _ = Clock::Manual(world.clock.clone()).random_below(TIMEOUT);
        }
        assert_eq!((world.value().as_str(), world.requests()), ("own", 1));
        let asked = world.asked.lock().unwrap().unwrap();
        assert!(asked >= TIMEOUT * 8 / 10 && asked <= TIMEOUT * 9 / 10 + seconds(1), "{asked:?}");
        times.insert(asked);
        // The others learn that this one asks, and it shares what it got, though without the lock.
        assert!(matches!(world.store.notes.lock().unwrap()[..], [Note::Requesting]));
        assert!(matches!(&world.store.saved.lock().unwrap()[..], [(entry, false)] if entry.token.expose() == "own"));
    }
    assert!(times.len() > 15, "{times:?}");
}

#[test]
fn while_one_caller_asks_without_the_lock_the_others_wait() {
    let requesting = || (seconds(20), None, Some(Note::Requesting), false);
    let world = World::new(TOKEN, |clock| vec![requesting(), theirs(clock, 29)]);
    assert_eq!((world.value().as_str(), world.requests()), ("theirs", 0));
    let world = World::new(TOKEN, |_| vec![requesting()]);
    let error = world.fetch(3).unwrap_err();
    assert_eq!((error.kind(), world.requests()), (Kind::Timeout, 0));
    assert!(error.to_string().starts_with("timed out waiting for the token request of another process"), "{error}");
    assert!(world.passed() <= TIMEOUT);
}

#[test]
fn a_caller_whose_own_request_failed_looks_at_the_store_once_more() {
    // It stops waiting, and its own request does not end in time. The token arrives meanwhile.
    let silent = (TIMEOUT, 200, "", None);
    let world = World::new(silent, |clock| vec![theirs(clock, 29)]);
    assert_eq!((world.value().as_str(), world.requests()), ("theirs", 1));
    assert!(world.passed() < TIMEOUT, "some time is left for that look");
}

#[test]
fn a_failure_of_another_process_is_the_failure_of_those_that_waited() {
    let rejected = || Error::new(Kind::CredentialsRejected, "rejected").with_http_status(400).with_attempts(1);
    let world = World::new(TOKEN, |_| vec![failed(5, rejected(), false)]);
    let error = world.fetch(3).unwrap_err();
    assert_eq!((error.kind(), error.http_status(), world.requests()), (Kind::CredentialsRejected, Some(400), 0));
    // A caller that would try as often as the other did.
    let world = World::new(TOKEN, |_| vec![failed(5, unavailable(4), false)]);
    assert_eq!((world.fetch(3).unwrap_err().kind(), world.requests()), (Kind::Server, 0));
    // One that would try more often.
    let world = World::new(TOKEN, |_| vec![failed(5, unavailable(1), false)]);
    assert_eq!((world.value().as_str(), world.requests()), ("own", 1));
    // Those that come later believe it for a second.
    for (later, believed) in [(900, true), (1100, false)] {
        let world = World::new(TOKEN, |_| vec![failed(0, rejected(), false)]);
        world.clock.advance(Duration::from_millis(later));
        assert_eq!((world.fetch(3).is_err(), world.requests()), (believed, usize::from(!believed)), "{later}");
    }
}

#[test]
fn a_failure_on_another_way_to_the_service_says_nothing() {
    let refused = |route| {
        let error = Error::new(Kind::Connect, "refused").with_attempts(4);
        let failure = Failure { error, attempts: 4, route: Some(route), hold: false };
        (seconds(5), None, Some(Note::Failed(failure)), true)
    };
    let world = World::new(TOKEN, |_| vec![refused(7)]);
    assert_eq!((world.value().as_str(), world.requests()), ("own", 1));
    let mut world = World::new(TOKEN, |_| vec![refused(7)]);
    world.provider.route = 7;
    assert_eq!((world.fetch(3).unwrap_err().kind(), world.requests()), (Kind::Connect, 0));
}

#[test]
fn a_retry_after_that_another_process_got_is_obeyed() {
    let asked = |seconds| {
        let error = Error::new(Kind::RateLimited, "too many requests").with_http_status(429).with_attempts(1);
        error.with_retry_after(Some(Duration::from_secs(seconds)))
    };
    // It ends in time: the caller waits.
    let world = World::new(TOKEN, |_| vec![failed(0, asked(10), true)]);
    assert_eq!((world.value().as_str(), world.requests()), ("own", 1));
    let at = world.asked.lock().unwrap().unwrap();
    assert!(at >= seconds(10) && at <= seconds(12), "{at:?}");
    // It does not, or the caller does not wait.
    for (required, retries) in [(60, 3), (10, 0)] {
        let world = World::new(TOKEN, |_| vec![failed(0, asked(required), true)]);
        world.clock.advance(seconds(1));
        let error = world.fetch(retries).unwrap_err();
        assert_eq!((error.kind(), world.requests()), (Kind::RateLimited, 0));
        assert_eq!(error.retry_after(), Some(seconds(required - 1)));
    }
}

#[test]
fn the_holder_of_the_lock_shares_what_it_gets() {
    let free = || vec![(Duration::ZERO, None, None, true)];
    let world = World::new(TOKEN, |_| free());
    assert_eq!(world.value(), "own");
    assert!(matches!(&world.store.saved.lock().unwrap()[..], [(_, true)]));
    assert!(world.store.notes.lock().unwrap().is_empty());
    for (status, retry_after, kind, hold) in [
        (400, None, Kind::CredentialsRejected, false),
        (429, Some("60"), Kind::RateLimited, true),
        (503, Some("60"), Kind::Server, true),
        (500, None, Kind::Server, false),
    ] {
        let body = r#"{"error":"invalid_client"}"#;
        let world = World::new((Duration::ZERO, status, body, retry_after), |_| free());
        assert_eq!(world.fetch(0).unwrap_err().kind(), kind);
        let notes = world.store.notes.lock().unwrap();
        assert!(matches!(&notes[..], [Note::Failed(failure)] if failure.hold == hold && failure.attempts == 1));
        assert!(world.store.saved.lock().unwrap().is_empty());
    }
    // What only this caller's time decided is not shared.
    let world = World::new((TIMEOUT, 200, "", None), |_| free());
    assert_eq!(world.fetch(0).unwrap_err().kind(), Kind::Timeout);
    assert!(world.store.notes.lock().unwrap().is_empty());
}

#[test]
fn a_young_token_that_is_too_short_is_not_requested_again() {
    let settings = [("min_validity_ms", "400000")];
    let world = World::with(&settings, TOKEN, |clock| vec![theirs(clock, 0)]);
    assert_eq!((world.value().as_str(), world.requests()), ("theirs", 0));
    // The service may have changed its mind since.
    let world = World::with(&settings, TOKEN, |clock| vec![theirs(clock, 0)]);
    world.clock.advance(seconds(60));
    assert_eq!((world.value().as_str(), world.requests()), ("own", 1));
}

#[test]
fn no_lifetime_of_more_than_a_day_is_believed() {
    let long = (Duration::ZERO, 200, r#"{"access_token":"own","expires_in":999999999}"#, None);
    let world = World::new(long, |_| vec![(Duration::ZERO, None, None, true)]);
    assert_eq!(world.fetch(0).unwrap().unwrap().lifetime(), MAX_LIFETIME);
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// An empty store that does something while a token is saved, or while the lock is taken.
#[derive(Default)]
struct SlowStore {
    while_locked: OnceLock<Hook>,
    while_saved: OnceLock<Hook>,
    removed: Mutex<Vec<String>>,
}

impl Store for SlowStore {
    fn read(&self, _: &IoBudget) -> Contents {
        Contents::default()
    }

    fn try_lock(&self, _: &IoBudget) -> LockResult {
        self.while_locked.get().inspect(|hook| hook());
        LockResult::Unavailable
    }

    fn wait(&self, _: Duration, _: Duration) -> bool {
        true
    }

    fn save(&self, _: &Entry, _: Option<Lock>, _: &IoBudget) {
        self.while_saved.get().inspect(|hook| hook());
    }

    fn leave_note(&self, _: &Note, _: Duration, _: &IoBudget) {}

    fn remove(&self, token: &str, _: &IoBudget) -> Removal {
        self.removed.lock().unwrap().push(token.to_owned());
        Removal::Removed
    }

    fn for_child(&self) -> Arc<dyn Store> {
        unreachable!("no test forks")
    }

    fn location(&self) -> String {
        "a slow one".to_owned()
    }
}

/// A cache with that store, and the number of requests.
fn cache_with(store: &Arc<SlowStore>, clock: &Arc<ManualClock>) -> (Arc<TokenCache>, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let mut config = Config::new();
    for (name, value) in [("client_id", ID), ("client_secret", SECRET), ("timeout_ms", "1000")] {
        config.set(name, Some(value)).unwrap();
    }
    config.clock = Clock::Manual(clock.clone());
    let counter = requests.clone();
    config.transport = Some(Arc::new(move |_: &Request, _: Duration| {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let body = format!(r#"{{"access_token":"token-{number}","expires_in":300}}"#);
        Ok(Response { status: 200, headers: Vec::new(), body: body.into_bytes().into() })
    }));
    let cache = TokenCache::new(&config).unwrap();
    let credentials = Credentials::Client { id: ID.to_owned(), secret: SECRET.into() };
    cache.provider().unwrap().resolved.store(Some(Arc::new(ResolvedCredentials {
        credentials,
        store: Some(store.clone() as Arc<dyn Store>),
        origin: "a test".to_owned(),
    })));
    (Arc::new(cache), requests)
}

/// No caller waits for the store; and a token that is rejected while it is saved does not stay in the store.
#[test]
fn a_token_is_there_before_it_is_stored() {
    let store = Arc::new(SlowStore::default());
    let (cache, requests) = cache_with(&store, &ManualClock::new(5));
    let (other, seen) = (Arc::downgrade(&cache), Arc::new(Mutex::new(Vec::new())));
    let values = seen.clone();
    let hook: Hook = Box::new(move || {
        let cache = other.upgrade().unwrap();
        if values.lock().unwrap().is_empty() {
            let token = cache.get().unwrap();
            values.lock().unwrap().push(token.value().to_owned());
            cache.invalidate(&token);
        }
    });
    assert!(store.while_saved.set(hook).is_ok());
    cache.get().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["token-1"]);
    assert_eq!((cache.statistic("waits"), requests.load(Ordering::SeqCst)), (Some(0), 1));
    // Once when it was rejected, and once after it was saved.
    assert_eq!(*store.removed.lock().unwrap(), ["token-1", "token-1"]);
}

/// The store is unusable, and finding that out takes all the time of the call.
#[test]
fn a_store_that_uses_all_the_time_is_named() {
    let (store, clock) = (Arc::new(SlowStore::default()), ManualClock::new(5));
    let (cache, requests) = cache_with(&store, &clock);
    let hook: Hook = Box::new(move || clock.advance(Duration::from_secs(1)));
    assert!(store.while_locked.set(hook).is_ok());
    let error = cache.get().err().unwrap();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.to_string().contains("timed out waiting for the token store a slow one"), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_caller_that_waits_for_the_request_of_another_process_returns_by_its_deadline() {
    for seed in 0..20 {
        let world = World::new(TOKEN, |_| vec![(Duration::ZERO, None, Some(Note::Requesting), false)]);
        *world.store.longest_wait.lock().unwrap() = Duration::MAX;
        world.clock.advance(Duration::from_nanos(seed));
        let start = world.clock.now();
        let result = world.fetch(3);
        let took = start.remaining_until(world.clock.now());
        assert!(took <= TIMEOUT, "{took:?}");
        assert!(result.is_err() || world.requests() > 0);
    }
}

#[test]
fn an_older_token_of_the_store_replaces_none() {
    let world = World::new(TOKEN, |clock| vec![theirs(clock, 0)]);
    world.clock.advance(seconds(10));
    let clock = Clock::Manual(world.clock.clone());
    let current = Token::new(&"current".into(), clock.now(), seconds(300), Duration::ZERO, &clock);
    let deadline = Deadline::after(&clock, TIMEOUT);
    let fetch = FetchRequest {
        replacing: Some(&current),
        required: true,
        deadline,
        max_retries: 0,
        min_validity: Duration::ZERO,
    };
    let (token, _) = world.provider.fetch(&fetch).unwrap().unwrap();
    assert_eq!(token.value(), "own");
}

/// A process that waits to repeat its request tells the others, which may stop waiting for it in the meantime.
#[test]
fn a_retry_after_is_shared_before_the_request_is_repeated() {
    let world = World::new((Duration::ZERO, 503, "", Some("5")), |_| vec![(Duration::ZERO, None, None, true)]);
    world.fetch(1).unwrap_err();
    assert_eq!(world.requests(), 2);
    let notes = world.store.notes.lock().unwrap();
    let hold = |note: &&Note| matches!(note, Note::Failed(Failure { hold: true, .. }));
    assert_eq!(notes.iter().filter(hold).count(), 2, "{notes:?}");
    // A forked child finds it, too.
    let asked = world.provider.asked().unwrap();
    let (until, error) = &*asked;
    assert!(*until > world.clock.now().monotonic && error.http_status() == Some(503));
}
