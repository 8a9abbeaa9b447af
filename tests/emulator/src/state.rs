//! What all connections share: one state behind one lock, and one condition that its changes wake.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use serde::Serialize;
use serde_json::Value;

use crate::faults::{Fault, Queue};
use crate::http::{Reply, Request};
use crate::tls::{Authority, CertificateKind};
use crate::tokens::Tokens;
use crate::{api, oauth};

/// How many requests are kept for tests to look at.
const KEPT_REQUESTS: usize = 1000;
/// Longer than any test, and short enough to be added to any clock.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What has happened so far, since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests for a token that have arrived, answered or not.
    pub token_requests: u64,
    /// Tokens that were made.
    pub tokens_issued: u64,
    /// Requests for a token that got another status than 200, or no reply.
    pub token_failures: u64,
    /// Requests to the Content Management API.
    pub api_requests: u64,
    /// Requests to the GraphQL API.
    pub graphql_requests: u64,
    /// TCP connections that were accepted, but for those that began with a request to `/_emulator/`.
    pub connections: u64,
    /// The most requests for a token that were ever waiting for their reply at the same time.
    pub in_flight_token_requests_max: u64,
    /// How often a content item was published.
    pub publications: u64,
    /// Requests to either API that were answered with 401 or 403.
    pub rejected: u64,
}

pub(crate) struct State {
    pub client_id: String,
    pub client_secret: String,
    pub expires_in: u64,
    pub tokens: Tokens,
    pub items: HashMap<String, Value>,
    pub publications: HashMap<String, Value>,
    pub stats: Stats,
    pub faults: Queue,
    pub requests: VecDeque<Request>,
    /// How many guards hold token requests back.
    pub holds: usize,
    pub stopping: bool,
    pub tls: Option<Arc<ServerConfig>>,
    in_flight: u64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// How far the clock is ahead, in seconds. Not part of the state, so that no one need lock it for the time.
    clock_offset: AtomicU64,
    pub authority: Option<Authority>,
}

impl Shared {
    pub fn new(client_id: String, client_secret: String, expires_in: u64, authority: Option<Authority>) -> Shared {
        let state = State {
            client_id,
            client_secret,
            expires_in,
            tokens: Tokens::default(),
            items: HashMap::new(),
            publications: HashMap::new(),
            stats: Stats::default(),
            faults: Queue::default(),
            requests: VecDeque::new(),
            holds: 0,
            stopping: false,
            tls: None,
            in_flight: 0,
        };
        Shared { state: Mutex::new(state), changed: Condvar::new(), clock_offset: AtomicU64::new(0), authority }
    }

    /// The state, locked. Not to be held over anything slow.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits until the state is as wished; false if it is not so in time.
    pub fn wait_until(&self, timeout: Duration, wish: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + timeout.min(MAX_DURATION);
        let mut state = self.state();
        while !wish(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Sleeps; an error if the emulator stops meanwhile.
    pub fn pause(&self, duration: Duration) -> io::Result<()> {
        if self.wait_until(duration, |state| state.stopping) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// The emulator's clock.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.clock_offset.load(Ordering::Relaxed)).min(MAX_DURATION)
    }

    pub fn advance(&self, seconds: u64) {
        self.clock_offset.fetch_add(seconds.min(MAX_DURATION.as_secs()), Ordering::Relaxed);
    }

    pub fn scheme(&self) -> &'static str {
        if self.authority.is_some() { "https" } else { "http" }
    }

    pub fn set_credentials(&self, client_id: String, client_secret: String) {
        let mut state = self.state();
        state.client_id = client_id;
        state.client_secret = client_secret;
    }

    /// Has connections from now on see this certificate.
    pub fn set_certificate(&self, kind: CertificateKind) -> io::Result<()> {
        let authority = self.authority.as_ref().ok_or_else(|| io::Error::other("the emulator runs without TLS"))?;
        let config = authority.server_config(kind)?;
        self.state().tls = Some(config);
        Ok(())
    }

    pub fn reset(&self) {
        let mut state = self.state();
        state.stats = Stats::default();
        state.faults = Queue::default();
        state.requests.clear();
    }

    /// Counts a request that has arrived, and finds the fault that is for it.
    fn arrive(&self, request: &Request) -> Fault {
        self.change(|state| {
            if state.requests.len() == KEPT_REQUESTS {
                state.requests.pop_front();
            }
            state.requests.push_back(request.clone());
            match request.path.as_str() {
                oauth::PATH => {
                    state.in_flight += 1;
                    state.stats.token_requests += 1;
                    let most = &mut state.stats.in_flight_token_requests_max;
                    *most = state.in_flight.max(*most);
                }
                api::GRAPHQL => state.stats.graphql_requests += 1,
                path if path.starts_with(api::CONTENT) => state.stats.api_requests += 1,
                _ => {}
            }
            state.faults.take(&request.path).unwrap_or_default()
        })
    }

    /// Counts what became of a request; `None` if it gets no reply.
    ///
    /// This comes before the reply is sent, so that a client that has its reply finds it counted, and a
    /// request which that reply lets go is not taken for a second one in flight.
    pub fn depart(&self, path: &str, status: Option<u16>) {
        self.change(|state| {
            if path == oauth::PATH {
                state.in_flight -= 1;
                state.stats.token_failures += u64::from(status != Some(200));
            } else if matches!(status, Some(401 | 403)) {
                state.stats.rejected += 1;
            }
        });
    }

    /// Takes a request in and holds it back for as long as a test or a fault wants.
    pub fn receive(&self, request: &Request) -> io::Result<Fault> {
        let fault = self.arrive(request);
        if request.path == oauth::PATH {
            self.wait_until(MAX_DURATION, |state| state.holds == 0 || state.stopping);
        }
        self.pause(fault.latency())?;
        Ok(fault)
    }

    /// The reply to a request, with what the fault changes about it.
    pub fn reply(&self, request: &Request, fault: &Fault) -> Reply {
        let placeholder = |name: &str| match name {
            "access_token" => oauth::issue(self, fault.expires_in.unwrap_or_else(|| self.state().expires_in)),
            "request_body" => String::from_utf8_lossy(&request.body).into_owned(),
            name => oauth::form_value(&request.body, name),
        };
        let reply = fault.override_response(&placeholder).unwrap_or_else(|| match request.path.as_str() {
            oauth::PATH => oauth::answer(self, request, fault),
            _ => api::answer(self, request),
        });
        fault.apply_to(reply)
    }
}
