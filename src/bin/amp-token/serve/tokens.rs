//! The token that is handed out, and its renewal.
//!
//! Everything about tokens is the library's: the cache, its single request, its backoff, its store. The cache blocks, so
//! one task asks it, on one blocking thread, and all requests that need a token wait for what that task got. So a service
//! that does not answer costs one thread, whatever is waiting, and nothing waits that needs no new token.
//!
//! **When it is renewed.** A client of the OAuth flow throws a token away some time before it expires: Go's library 10 s,
//! the official SDK 30 s, others up to 60 s. A server that handed out what it has until the end would have such a client
//! ask again at every call and still use nothing. So a token is replaced when [`AMPLE`] is left, or half of its lifetime
//! if that is less, and one that has less is handed out only if no other can be had.
//!
//! **Whether it is renewed.** Only if it was handed out since it came, so that a server that nobody uses sends nothing; or
//! always, where a file or a hook depends on it.

use super::metrics::Metrics;
use amp_token::error::{Error, Kind, Result};
use amp_token::sys::clock::Timestamps;
use amp_token::token::Token;
use amp_token::token::cache::TokenCache;
use ring::digest::{SHA256, digest};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// The time for which a token is good when it is handed out: the margins of clients, 60 s at most, and time to use it.
const AMPLE: Duration = Duration::from_secs(90);

/// How long a request waits for a better token while a usable one is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the clock is looked at: timers stand still while the machine is suspended, and the lifetime of a token does
/// not.
const TICK: Duration = Duration::from_secs(5);

/// How long after a failure a renewal is tried again that nobody waits for, if the failure does not say.
const RETRY: Duration = Duration::from_secs(1);

/// How long a token that was handed out identifies a client after it has expired: a client may begin a request with it
/// just before.
const GRACE: Duration = Duration::from_secs(60);

/// The longest that a request waits beyond the time that the library itself takes.
const SLACK: Duration = Duration::from_secs(1);

/// What came of the last attempt.
type Attempt = Option<Result<Arc<Token>>>;

/// The token of this server.
pub struct Tokens {
    pub cache: Arc<TokenCache>,
    metrics: Arc<Metrics>,
    /// Changes with each attempt.
    attempts: watch::Sender<Attempt>,
    /// Changes with each new token.
    current: watch::Sender<Option<Arc<Token>>>,
    /// When the attempt in progress began.
    since: Mutex<Option<Instant>>,
    /// Somebody waits for an attempt.
    wanted: Notify,
    was_used: AtomicBool,
    /// Hashes of tokens that were handed out, and how long they identify a client.
    handed_out: Mutex<Vec<([u8; 32], Timestamps)>>,
}

/// How long a token is good when it is handed out.
fn ample(token: &Token) -> Duration {
    if token.is_permanent() { Duration::ZERO } else { AMPLE.min(token.lifetime() / 2) }
}

impl Tokens {
    pub fn new(cache: Arc<TokenCache>, metrics: Arc<Metrics>) -> Self {
        Tokens {
            cache,
            metrics,
            attempts: watch::Sender::new(None),
            current: watch::Sender::new(None),
            since: Mutex::default(),
            wanted: Notify::new(),
            was_used: AtomicBool::new(false),
            handed_out: Mutex::default(),
        }
    }

    /// How long a token is valid.
    pub fn left(&self, token: &Token) -> Duration {
        self.now().remaining_until(token.expires())
    }

    fn now(&self) -> Timestamps {
        self.cache.options().clock.now()
    }

    /// A valid token, now.
    fn cached(&self) -> Option<Arc<Token>> {
        self.cache.try_get().ok()
    }

    fn is_ample(&self, token: &Token) -> bool {
        self.left(token) >= ample(token)
    }

    /// A token for a client. Waits for one if there is none, until `timeout_ms`.
    pub async fn get(&self) -> Result<Arc<Token>> {
        let token = self.find().await?;
        self.was_used.store(true, Ordering::Relaxed);
        Ok(token)
    }

    async fn find(&self) -> Result<Arc<Token>> {
        let cached = self.cached();
        if let Some(token) = cached.clone().filter(|token| self.is_ample(token)) {
            return Ok(token);
        }
        // Subscribed first: an attempt that ends from now on counts.
        let mut attempts = self.attempts.subscribe();
        self.wanted.notify_one();
        let limit = cached.as_ref().map_or(self.cache.options().timeout + SLACK, |token| self.patience(token));
        let mut attempt = self.outcome(&mut attempts, limit).await;
        if attempt.is_none() && cached.is_some() {
            match self.cached() {
                Some(token) => return Ok(token),
                // It has expired meanwhile.
                None => attempt = self.outcome(&mut attempts, self.cache.options().timeout + SLACK).await,
            }
        }
        match attempt {
            Some(Ok(token)) => Ok(token),
            // A token that is not good for long is better than none.
            Some(Err(error)) => self.cached().ok_or(error),
            None => Err(Error::new(Kind::Timeout, "no token arrived in time")
                .with_hint("the service is slow, or a proxy is; see the log of amp-token serve")),
        }
    }

    /// What comes of the attempt in progress, or of the next one.
    async fn outcome(&self, attempts: &mut watch::Receiver<Attempt>, limit: Duration) -> Attempt {
        match timeout(limit, attempts.changed()).await {
            Ok(Ok(())) => attempts.borrow_and_update().clone(),
            _ => None,
        }
    }

    /// How long a request waits for a better token than this one: not until it has expired, and only once for an attempt
    /// that hangs.
    fn patience(&self, token: &Token) -> Duration {
        let usable = self.now().remaining_until(token.usable_until(Duration::ZERO));
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
        PATIENCE.saturating_sub(waited).min(usable / 2)
    }

    /// A token that is there already, for `/readyz`. If there is none, one is requested, and nobody waits for it.
    pub fn ready(&self) -> Result<Arc<Token>> {
        let token = self.cache.try_get()?;
        self.was_used.store(true, Ordering::Relaxed);
        if !self.is_ample(&token) {
            self.wanted.notify_one();
        }
        Ok(token)
    }

    /// The current token, and its successors.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Token>>> {
        self.current.subscribe()
    }

    /// Remembers that a client has this token.
    pub fn record_handed_out(&self, token: &Token) {
        let (hash, now) = (hash(token.value().as_bytes()), self.now());
        let mut known = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        if known.last().is_some_and(|(last, _)| *last == hash) {
            return;
        }
        known.retain(|(have, until)| *have != hash && now.is_before_both(*until));
        known.push((hash, if token.is_permanent() { Timestamps::NEVER } else { token.expires().after(GRACE) }));
    }

    /// Whether a client got this token here.
    pub fn was_handed_out(&self, sent: &[u8]) -> bool {
        let (sent, now) = (hash(sent), self.now());
        let known = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, until)| now.is_before_both(*until)).any(|(hash, _)| hash.ct_eq(&sent).into())
    }

    /// Another token than this one, which the API rejected with this response, if there may be one; see
    /// [`TokenCache::report`].
    pub async fn replace(self: &Arc<Self>, rejected: Arc<Token>, status: u16, body: Vec<u8>) -> Option<Arc<Token>> {
        let this = Arc::clone(self);
        let work = move || {
            let replaced = this.cache.report(&rejected, status, &body);
            replaced.then(|| this.cache.try_get().ok()).flatten().filter(|token| token.value() != rejected.value())
        };
        let token = tokio::task::spawn_blocking(work).await.ok().flatten()?;
        self.publish(&token);
        Some(token)
    }

    fn publish(&self, token: &Arc<Token>) {
        self.current.send_if_modified(|current| {
            let is_new = current.as_ref().is_none_or(|current| current.value() != token.value());
            if is_new {
                *current = Some(Arc::clone(token));
            }
            is_new
        });
    }

    /// One attempt to have a token that is good for long enough.
    pub async fn attempt(self: &Arc<Self>) -> Result<Arc<Token>> {
        let this = Arc::clone(self);
        let work = move || {
            let token = this.cache.get()?;
            match this.is_ample(&token) {
                true => Ok(token),
                false => this.cache.get_for(ample(&token)),
            }
        };
        let set = |since| *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        set(Some(Instant::now()));
        let outcome = tokio::task::spawn_blocking(work).await;
        set(None);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::new(Kind::Internal, format!("internal error: the renewal failed: {error}"))),
        };
        if let Ok(token) = &outcome {
            self.publish(token);
        }
        self.attempts.send_replace(Some(outcome.clone()));
        outcome
    }

    /// Renews the token for ever: always, or if it is used.
    pub async fn keep_renewed(self: Arc<Self>, always: bool) {
        // When to try again after a failure.
        let mut earliest = Instant::now();
        let mut token = self.current.borrow().clone();
        let mut is_idle = false;
        loop {
            let due = match &token {
                _ if is_idle => None,
                None => always.then_some(Duration::ZERO),
                Some(token) if token.is_permanent() => None,
                Some(token) => Some(self.left(token).saturating_sub(ample(token))),
            };
            let is_due = due.is_some_and(|left| left.is_zero()) && Instant::now() >= earliest;
            if !is_due {
                let next = match due {
                    Some(left) => (Instant::now() + left.min(TICK)).max(earliest),
                    None => Instant::now() + TICK,
                };
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = sleep_until(next) => {
                        // The cache may have got another one, for the proxy.
                        if let Some(newer) = self.current.borrow().clone() {
                            token = Some(newer);
                        }
                        continue;
                    }
                }
            } else if !always && !self.was_used.swap(false, Ordering::Relaxed) {
                is_idle = true;
                continue;
            }
            is_idle = false;
            match self.attempt().await {
                Ok(new) => (token, earliest) = (Some(new), Instant::now()),
                Err(error) => {
                    let pause = error.retry_after().unwrap_or(RETRY).clamp(Duration::from_millis(50), TICK);
                    earliest = Instant::now() + pause;
                    // Somebody needs it, or the attempt would not have been made.
                    self.was_used.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// The metrics of this server as text.
    pub fn metrics(&self) -> std::result::Result<Vec<u8>, prometheus::Error> {
        self.metrics.text(&self.cache)
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}
