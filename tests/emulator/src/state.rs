//! The state that all connections share, behind one lock, and a condition variable that signals its changes.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use serde::Serialize;
use serde_json::Value;

use crate::faults::{Fault, Queue};
use crate::http::{Request, Response};
use crate::tls::{Ca, CertificateKind};
use crate::tokens::Tokens;
use crate::{api, oauth};

/// How many requests are kept for tests.
const KEPT_REQUESTS: usize = 1000;
/// Longer than any test, and small enough to be added to any time without overflow.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Statistics since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Token requests that have arrived, with or without a response.
    pub token_requests: u64,
    /// Access tokens that were issued.
    pub tokens_issued: u64,
    /// Token requests that got a status other than 200, or no response.
    pub token_failures: u64,
    /// Requests to the Content Management API.
    pub api_requests: u64,
    /// Requests to the GraphQL API.
    pub graphql_requests: u64,
    /// Accepted TCP connections, except those whose first request was to `/_emulator/`.
    pub connections: u64,
    /// The highest number of token requests that waited for a response at the same time.
    pub in_flight_token_requests_max: u64,
    /// How often a content item was published.
    pub publications: u64,
    /// Requests to either API that got status 401 or 403.
    pub rejected: u64,
}

pub(crate) struct State {
    pub client_id: String,
    pub client_secret: String,
    pub expires_in: u64,
    pub tokens: Tokens,
    pub items: HashMap<String, Value>,
    pub publish_jobs: HashMap<String, Value>,
    pub stats: Stats,
    pub faults: Queue,
    pub requests: VecDeque<Request>,
    /// The number of [`crate::PausedRequests`] that exist.
    pub pauses: usize,
    pub stopping: bool,
    pub tls: Option<Arc<ServerConfig>>,
    in_flight: u64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// What [`Shared::reset`] restores.
    initial: Initial,
    changed: Condvar,
    /// How far the clock is ahead, in seconds. Not part of `State`, so that reading the time takes no lock.
    clock_offset: AtomicU64,
    pub ca: Option<Ca>,
}

/// The settings with which the emulator was started.
pub(crate) struct Initial {
    pub client_id: String,
    pub client_secret: String,
    pub expires_in: u64,
    pub certificate: CertificateKind,
}

impl Shared {
    pub fn new(initial: Initial, ca: Option<Ca>) -> Shared {
        let state = State {
            client_id: initial.client_id.clone(),
            client_secret: initial.client_secret.clone(),
            expires_in: initial.expires_in,
            tokens: Tokens::default(),
            items: HashMap::new(),
            publish_jobs: HashMap::new(),
            stats: Stats::default(),
            faults: Queue::default(),
            requests: VecDeque::new(),
            pauses: 0,
            stopping: false,
            tls: None,
            in_flight: 0,
        };
        Shared { state: Mutex::new(state), initial, changed: Condvar::new(), clock_offset: AtomicU64::new(0), ca }
    }

    /// Locks the state. Do not hold the lock during slow operations.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all threads in [`Shared::wait_until`].
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits until the condition holds. Returns false on timeout.
    pub fn wait_until(&self, timeout: Duration, condition: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + timeout.min(MAX_DURATION);
        let mut state = self.state();
        while !condition(&state) {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Sleeps. Returns an error if the emulator stops in the meantime.
    pub fn sleep(&self, duration: Duration) -> io::Result<()> {
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
        if self.ca.is_some() { "https" } else { "http" }
    }

    pub fn set_credentials(&self, client_id: String, client_secret: String) {
        let mut state = self.state();
        state.client_id = client_id;
        state.client_secret = client_secret;
    }

    /// Uses this certificate for new connections.
    pub fn set_certificate(&self, kind: CertificateKind) -> io::Result<()> {
        let ca = self.ca.as_ref().ok_or_else(|| io::Error::other("the emulator runs without TLS"))?;
        let config = ca.server_config(kind)?;
        self.state().tls = Some(config);
        Ok(())
    }

    /// Restores the state after the start. Requests that wait for a response still wait.
    pub fn reset(&self) -> io::Result<()> {
        if self.ca.is_some() {
            self.set_certificate(self.initial.certificate)?;
        }
        self.clock_offset.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.client_id.clone_from(&self.initial.client_id);
        state.client_secret.clone_from(&self.initial.client_secret);
        state.expires_in = self.initial.expires_in;
        state.tokens = Tokens::default();
        state.items.clear();
        state.publish_jobs.clear();
        drop(state);
        self.reset_statistics();
        Ok(())
    }

    pub fn reset_statistics(&self) {
        let mut state = self.state();
        state.stats = Stats::default();
        state.faults = Queue::default();
        state.requests.clear();
    }

    /// Counts a request that has arrived and returns the fault for it.
    fn record_arrival(&self, request: &Request) -> Fault {
        self.change(|state| {
            if state.requests.len() == KEPT_REQUESTS {
                state.requests.pop_front();
            }
            state.requests.push_back(request.clone());
            match request.path.as_str() {
                oauth::PATH => {
                    state.in_flight += 1;
                    state.stats.token_requests += 1;
                    let max = &mut state.stats.in_flight_token_requests_max;
                    *max = state.in_flight.max(*max);
                }
                api::GRAPHQL => state.stats.graphql_requests += 1,
                path if path.starts_with(api::CONTENT) => state.stats.api_requests += 1,
                _ => {}
            }
            state.faults.next_for(&request.path).unwrap_or_default()
        })
    }

    /// Counts the result of a request; `None` if it gets no response.
    ///
    /// This happens before the response is sent, so that a client that has received a response finds it counted,
    /// and its next request is not counted as a second one in flight.
    pub fn record_response(&self, path: &str, status: Option<u16>) {
        self.change(|state| {
            if path == oauth::PATH {
                state.in_flight -= 1;
                state.stats.token_failures += u64::from(status != Some(200));
            } else if matches!(status, Some(401 | 403)) {
                state.stats.rejected += 1;
            }
        });
    }

    /// Records a request and delays it for as long as a test or a fault requires. Returns its fault.
    pub fn receive(&self, request: &Request) -> io::Result<Fault> {
        let fault = self.record_arrival(request);
        if request.path == oauth::PATH {
            self.wait_until(MAX_DURATION, |state| state.pauses == 0 || state.stopping);
        }
        self.sleep(fault.latency())?;
        Ok(fault)
    }

    /// Returns the response to a request, with the changes of its fault.
    pub fn response(&self, request: &Request, fault: &Fault) -> Response {
        let placeholder = |name: &str| match name {
            "access_token" => oauth::issue(self, fault.expires_in.unwrap_or_else(|| self.state().expires_in)),
            "request_body" => String::from_utf8_lossy(&request.body).into_owned(),
            name => oauth::form_value(&request.body, name),
        };
        let response = fault.override_response(&placeholder).unwrap_or_else(|| match request.path.as_str() {
            oauth::PATH => oauth::handle(self, request, fault),
            _ => api::handle(self, request),
        });
        fault.apply_to(response)
    }
}
