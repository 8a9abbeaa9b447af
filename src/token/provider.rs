//! Fetches tokens: from the store if it has one, else from the token service.
//!
//! A [`TokenProvider`] finds the credentials, sends the request of [`oauth`](crate::oauth) through the
//! [transport](crate::net::transport), [retries](retry) it, reads the credentials again if they were rejected
//! (they may have been rotated), and saves the token in the [store]. It keeps no token; the
//! [cache](crate::token::cache) does.

use crate::config::credentials::Credentials;
use crate::config::credentials_provider::CredentialsProvider;
use crate::config::{Config, Options};
use crate::error::{Error, Kind, Phase, Result};
use crate::net::http::HttpTransport;
use crate::net::transport::Transport;
use crate::oauth::client_credentials;
use crate::oauth::retry::{self, Deadline};
use crate::store::{self, Entry, LockResult, Store};
use crate::sys::clock::Timestamps;
use crate::sys::sync::Mutex;
use crate::token::Token;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The longest time that a caller with a usable token spends on refreshing it.
pub(crate) const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a provider is created from. It is immutable, so that a forked child can create a provider from it.
pub struct ProviderConfig {
    /// The settings.
    pub options: Options,
    credentials_provider: CredentialsProvider,
    transport: Option<Arc<dyn Transport>>,
    /// The number of token requests that were sent.
    pub requests: AtomicU64,
}

impl ProviderConfig {
    /// Whether the application's own transport sends the requests.
    pub fn has_own_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// Copies what is needed from a configuration.
    pub fn new(config: &Config) -> Result<Self> {
        let options = config.options()?;
        Ok(ProviderConfig {
            credentials_provider: CredentialsProvider::new(&options)?,
            options,
            transport: config.transport.clone(),
            requests: AtomicU64::new(0),
        })
    }
}

/// Fetches tokens; see the documentation of the module.
pub struct TokenProvider {
    config: Arc<ProviderConfig>,
    transport: Arc<dyn Transport>,
    resolved: Mutex<ResolvedCredentials>,
}

/// Credentials, and the store that belongs to them.
#[derive(Clone)]
struct ResolvedCredentials {
    credentials: Credentials,
    /// Where they come from.
    origin: String,
    store: Option<Arc<dyn Store>>,
}

/// What the caller of [`TokenProvider::fetch`] has and needs.
pub struct FetchRequest<'a> {
    /// The token to be replaced, if any. A stored token that is the same is ignored.
    pub replacing: Option<&'a Token>,
    /// Whether the caller cannot continue without a new token.
    pub required: bool,
    /// When the call must return.
    pub deadline: Deadline,
    /// How many times a request may be sent again.
    pub max_retries: u32,
    /// How long a token out of the store must still be valid.
    pub min_validity: Duration,
}

/// A new token that is to be saved in the store, and the lock under which it was requested.
pub struct PendingSave {
    store: Arc<dyn Store>,
    entry: Entry,
    _lock: LockResult,
}

impl PendingSave {
    /// Saves the token in the store. A disk may be slow, so this is done after the token is published to the
    /// threads of this process.
    pub fn save(self) {
        self.store.save(&self.entry);
    }
}

impl TokenProvider {
    /// Finds the credentials and creates the transport; sends nothing.
    pub fn new(config: Arc<ProviderConfig>) -> Result<Self> {
        let transport = match &config.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(HttpTransport::new(&config.options.network)?),
        };
        let resolved = Mutex::new(ResolvedCredentials::find(&config)?);
        Ok(TokenProvider { config, transport, resolved })
    }

    /// Fetches a token from the store or the service, with what must still be saved in the store. `None` if a new
    /// token is not required and another process is already refreshing it.
    pub fn fetch(&self, fetch: &FetchRequest) -> Result<Option<(Token, Option<PendingSave>)>> {
        let resolved = self.credentials();
        if let Credentials::PersonalAccessToken(_) = resolved.credentials {
            // The file may have been replaced in the meantime.
            let resolved = if fetch.replacing.is_some() { self.reload_credentials()? } else { resolved };
            let token = Token::permanent(resolved.credentials.secret(), self.config.options.clock.now());
            return Ok(Some((token, None)));
        }
        let Some(store) = &resolved.store else { return Ok(Some((self.request(&resolved, fetch)?, None))) };
        if let Some(token) = self.load(store.as_ref(), fetch) {
            return Ok(Some((token, None)));
        }
        // A caller that waits for another process needs the rest of its time for a request of its own.
        let wait =
            if fetch.required { fetch.deadline.remaining(&self.config.options.clock) / 2 } else { Duration::ZERO };
        let lock = match store.lock(wait) {
            LockResult::Busy if !fetch.required => return Ok(None),
            lock => lock,
        };
        // Another process may have refreshed the token while this one waited.
        if let Some(token) = self.load(store.as_ref(), fetch) {
            return Ok(Some((token, None)));
        }
        if fetch.deadline.remaining(&self.config.options.clock).is_zero() {
            return Err(Error::new(
                Kind::Timeout,
                format!("timed out waiting for the token store {}", store.location()),
            )
            .with_phase(Phase::Connect)
            .with_hint("use another store_dir or store, or allow more time with timeout_ms"));
        }
        let token = self.request(&resolved, fetch)?;
        let entry = Entry { token: token.value().into(), issued: token.issued().wall, expires: token.expires().wall };
        // The credentials may have been read again, and the store belongs to the credentials.
        let pending_save = self.credentials().store.map(|store| PendingSave { store, entry, _lock: lock });
        Ok(Some((token, pending_save)))
    }

    /// The transport.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Removes a token from the store.
    pub fn remove_from_store(&self, token: &Token) {
        if let Some(store) = &self.credentials().store {
            store.remove(token.value());
        }
    }

    /// The token in the store, if it has not expired. Sends no token request.
    pub fn load_from_store(&self) -> Option<Token> {
        self.read(self.credentials().store?.as_ref())
    }

    /// A description of where the store is, if there is one.
    pub fn store_location(&self) -> Option<String> {
        self.credentials().store.map(|store| store.location())
    }

    /// The credentials, and a description of where they are from.
    pub fn resolve_credentials(config: &ProviderConfig) -> Result<(Credentials, String)> {
        config.credentials_provider.resolve()
    }

    /// The credentials that are in use, and a description of where they are from. Reads no file: a pipe can be read
    /// only once.
    pub fn credentials_in_use(&self) -> (Credentials, String) {
        let resolved = self.credentials();
        (resolved.credentials, resolved.origin)
    }

    fn credentials(&self) -> ResolvedCredentials {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload_credentials(&self) -> Result<ResolvedCredentials> {
        let resolved = ResolvedCredentials::find(&self.config)?;
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = resolved.clone();
        Ok(resolved)
    }

    /// The stored token, if it is not the one to be replaced and can be used. A token that is due for refresh is
    /// used only if the caller has none.
    fn load(&self, store: &dyn Store, fetch: &FetchRequest) -> Option<Token> {
        let clock = &self.config.options.clock;
        let token = self.read(store)?;
        if fetch.replacing.is_some_and(|current| current.value() == token.value()) {
            return None;
        }
        let now = clock.now();
        let good = token.is_fresh(now) || fetch.required;
        (good && token.is_usable(now, fetch.min_validity)).then_some(token)
    }

    /// The entry of the store as a token.
    fn read(&self, store: &dyn Store) -> Option<Token> {
        let Options { clock, min_validity, .. } = &self.config.options;
        let entry = store.load()?;
        let now = clock.now();
        let (age, lifetime) = (now.wall.checked_sub(entry.issued)?, entry.expires.checked_sub(entry.issued)?);
        let (Ok(age), Ok(lifetime)) = (u64::try_from(age), u64::try_from(lifetime)) else {
            return None; // issued in the future, or expired before it was issued
        };
        let issued = Timestamps { monotonic: now.monotonic.saturating_sub_unsigned(age), wall: entry.issued };
        Some(Token::new(&entry.token, issued, Duration::from_nanos(lifetime), *min_validity, clock))
    }

    /// Requests a token from the service. If the credentials were rejected and have changed on disk, requests it
    /// once more with the new ones.
    fn request(&self, resolved: &ResolvedCredentials, fetch: &FetchRequest) -> Result<Token> {
        match self.request_token(&resolved.credentials, fetch) {
            Err(rejected)
                if rejected.kind() == Kind::CredentialsRejected && self.config.credentials_provider.reads_files() =>
            {
                let again = self.reload_credentials()?;
                if again.credentials == resolved.credentials {
                    return Err(rejected);
                }
                self.config
                    .options
                    .log
                    .info(|| "the credentials were rejected and have changed on disk; using the new ones");
                self.request_token(&again.credentials, fetch)
            }
            result => result,
        }
    }

    fn request_token(&self, credentials: &Credentials, fetch: &FetchRequest) -> Result<Token> {
        let Options { token_url, user_agent, clock, min_validity, log, .. } = &self.config.options;
        let Credentials::Client { id, secret } = credentials else {
            return Ok(Token::permanent(credentials.secret(), clock.now()));
        };
        let request = client_credentials::token_request(token_url, id, secret, user_agent);
        retry::with_retries(clock, fetch.deadline, fetch.max_retries, |left| {
            // Read before the request is sent, because the lifetime begins at some time after that.
            let issued = clock.now();
            self.config.requests.fetch_add(1, Ordering::Relaxed);
            let result = self.transport.send(&request, left).and_then(|response| {
                client_credentials::parse_token_response(
                    &response,
                    token_url,
                    &[secret.expose()],
                    issued.wall / 1_000_000_000,
                )
            });
            match result {
                Ok(grant) => Ok(Token::new(&grant.access_token, issued, grant.lifetime, *min_validity, clock)),
                Err(error) => {
                    log.debug(|| format!("a token request failed: {error}"));
                    Err(error)
                }
            }
        })
    }
}

impl ResolvedCredentials {
    fn find(config: &ProviderConfig) -> Result<Self> {
        let (credentials, origin) = config.credentials_provider.resolve()?;
        config.options.log.debug(|| format!("using credentials from {origin}"));
        let store = store::open(&config.options, &credentials)?;
        Ok(ResolvedCredentials { credentials, origin, store })
    }
}

/// Rejects a refreshed token that is unchanged, or that arrived so late that it cannot be returned. (A token whose
/// whole lifetime is too short for `min_validity` is not late.)
pub(crate) fn check_refreshed(
    token: &Token,
    current: Option<&Token>,
    last_rejected: Option<&Token>,
    now: Timestamps,
    min_validity: Duration,
) -> Result<()> {
    if token.is_permanent() {
        return Ok(());
    }
    let unchanged = [current, last_rejected].into_iter().flatten().any(|old| old.value() == token.value());
    let (what, advice) = if unchanged {
        ("the token service returned the same token again", "try again later")
    } else if !token.is_usable(now, Duration::ZERO) {
        (
            "the token had expired, or was about to, when it arrived",
            "the server or the network is too slow for the lifetime of its tokens",
        )
    } else if !token.is_usable(now, min_validity) && token.issued().is_before_both(token.usable_until(min_validity)) {
        (
            "the token was not valid for min_validity_ms any more when it arrived",
            "the server or the network is slow, or min_validity_ms is close to the lifetime of tokens",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Protocol, what).with_phase(Phase::Parse).with_retryable(true).with_hint(advice))
}

/// The error for a `min_validity` that no token of the service has.
pub(crate) fn min_validity_error(token: &Token, min_validity: Duration) -> Error {
    Error::invalid(format!(
        "min_validity of {} ms is longer than the lifetime of a token, {} s",
        min_validity.as_millis(),
        token.lifetime().as_secs()
    ))
    .with_hint("use a smaller value")
}

/// Rejects a new token that has expired on its way, or that no caller can use.
pub fn check_usable(token: &Token, min_validity: Duration, now: Timestamps) -> Result<()> {
    if token.is_usable(now, min_validity) {
        return Ok(());
    }
    check_refreshed(token, None, None, now, min_validity)?;
    Err(min_validity_error(token, min_validity))
}

/// Gets one token, without a cache. If there is a store, the token is read from it, and refreshed if it is due
/// and no other process is refreshing it.
pub fn get_token(config: &Config) -> Result<Token> {
    let config = Arc::new(ProviderConfig::new(config)?);
    let Options { clock, timeout, retries, min_validity, log, .. } = config.options.clone();
    let _deliver = log.deliver_at_end();
    let provider = TokenProvider::new(config)?;
    let fetch = FetchRequest {
        replacing: None,
        required: true,
        deadline: Deadline::after(&clock, timeout),
        max_retries: retries,
        min_validity,
    };
    let fetch_and_save = |fetch: &FetchRequest| {
        let (token, pending_save) = provider.fetch(fetch)?.unzip();
        if let Some(pending_save) = pending_save.flatten() {
            pending_save.save();
        }
        Ok(token)
    };
    let token = fetch_and_save(&fetch)?.ok_or_else(|| Error::new(Kind::Internal, "a required fetch was deferred"))?;
    let now = clock.now();
    check_usable(&token, min_validity, now)?;
    if token.is_fresh(now) {
        return Ok(token);
    }
    let deadline = Deadline::after(&clock, REFRESH_TIMEOUT.min(timeout));
    let refresh = FetchRequest { replacing: Some(&token), required: false, deadline, max_retries: 0, min_validity };
    let refreshed = fetch_and_save(&refresh).and_then(|refreshed| {
        let check =
            |refreshed| check_refreshed(&refreshed, Some(&token), None, clock.now(), min_validity).map(|()| refreshed);
        refreshed.map(check).transpose()
    });
    Ok(match refreshed {
        Ok(Some(refreshed)) => refreshed,
        Ok(None) => token,
        Err(error) => {
            log.warning(|| {
                format!("the token is due for refresh, but refreshing it failed; it is still valid: {error}")
            });
            token
        }
    })
}
