//! Where tokens come from: the store if it has one, else the service.
//!
//! A [`TokenProvider`] puts the pieces together: it finds the credentials, carries the request of
//! [`oauth`](crate::oauth) over the [transport](crate::net::transport), repeats it as [`retry`] says, reads credentials
//! again once when they were refused (they may have been rotated), and shares what it got through
//! the [store]. It keeps no token; that is the [cache](crate::token::cache)'s business.

use crate::config::credentials::Credentials;
use crate::config::credentials_provider::CredentialsProvider;
use crate::config::settings::{Config, Options};
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

/// The longest a caller with a usable token is kept for its renewal.
pub(crate) const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// All that a source is made from; immutable, so that a forked child can make a new one from it.
pub struct ProviderConfig {
    /// The settings.
    pub options: Options,
    credentials_provider: CredentialsProvider,
    transport: Option<Arc<dyn Transport>>,
    /// The number of requests that were sent for tokens.
    pub requests: AtomicU64,
}

impl ProviderConfig {
    /// Takes what is needed of a configuration.
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

/// See the module's documentation.
pub struct TokenProvider {
    config: Arc<ProviderConfig>,
    transport: Arc<dyn Transport>,
    known: Mutex<ResolvedCredentials>,
}

/// Credentials, and the store that belongs to them.
#[derive(Clone)]
struct ResolvedCredentials {
    credentials: Credentials,
    store: Option<Arc<dyn Store>>,
}

/// What the caller has and needs.
pub struct FetchRequest<'a> {
    /// The token in hand, if any: it is to be replaced, so the same one is no answer.
    pub current: Option<&'a Token>,
    /// Whether nobody can go on without a new one.
    pub required: bool,
    /// When the answer must be there.
    pub deadline: Deadline,
    /// How often a request may be repeated.
    pub retries: u32,
}

/// A new token that other processes wait for, and the lock under which it was asked for.
pub struct PendingSave {
    store: Arc<dyn Store>,
    entry: Entry,
    _lock: LockResult,
}

impl PendingSave {
    /// Puts it into the store. That may take long, as a disk may, and no bound of ours would end it:
    /// so this comes after all that threads of this process wait for.
    pub fn save(self) {
        self.store.save(&self.entry);
    }
}

impl TokenProvider {
    /// Finds the credentials and gets the transport ready; sends nothing.
    pub fn new(config: Arc<ProviderConfig>) -> Result<Self> {
        let transport = match &config.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(HttpTransport::new(&config.options.network)?),
        };
        let known = Mutex::new(ResolvedCredentials::find(&config)?);
        Ok(TokenProvider { config, transport, known })
    }

    /// Gets a token, from the store or the service, and tells whether it must still be shared. `None`:
    /// there was no hurry, and another process is already renewing it.
    pub fn fetch(&self, fetch: &FetchRequest) -> Result<Option<(Token, Option<PendingSave>)>> {
        let known = self.credentials();
        if let Credentials::PersonalAccessToken(_) = known.credentials {
            // It may have been replaced on disk since.
            let known = if fetch.current.is_some() { self.reload_credentials()? } else { known };
            let token = Token::permanent(known.credentials.secret(), self.config.options.clock.now());
            return Ok(Some((token, None)));
        }
        let Some(store) = &known.store else { return Ok(Some((self.request(&known, fetch)?, None))) };
        if let Some(token) = self.load(store.as_ref(), fetch) {
            return Ok(Some((token, None)));
        }
        // Whoever waits for another process still needs the time to ask by itself afterwards.
        let wait =
            if fetch.required { fetch.deadline.remaining(&self.config.options.clock) / 2 } else { Duration::ZERO };
        let lock = match store.lock(wait) {
            LockResult::Busy if !fetch.required => return Ok(None),
            lock => lock,
        };
        // Another process may have renewed it while this one waited.
        if let Some(token) = self.load(store.as_ref(), fetch) {
            return Ok(Some((token, None)));
        }
        if fetch.deadline.remaining(&self.config.options.clock).is_zero() {
            return Err(Error::new(
                Kind::Timeout,
                format!("the store {} took all the time there was", store.location()),
            )
            .with_phase(Phase::Connect)
            .with_hint("use another store_dir or store, or allow more time with timeout_ms"));
        }
        let token = self.request(&known, fetch)?;
        let entry = Entry { token: token.value().into(), issued: token.issued().wall, expires: token.expires().wall };
        // The credentials may have turned out to be others, and the store with them.
        let pending_save = self.credentials().store.map(|store| PendingSave { store, entry, _lock: lock });
        Ok(Some((token, pending_save)))
    }

    /// What carries requests.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Takes a token out of the store that others share.
    pub fn remove_from_store(&self, token: &Token) {
        if let Some(store) = &self.credentials().store {
            store.remove(token.value());
        }
    }

    /// The token that the store holds, if it is not dead yet. Asks no server for one.
    pub fn load_from_store(&self) -> Option<Token> {
        self.read(self.credentials().store?.as_ref())
    }

    /// Where the store is, in words, if there is one.
    pub fn store_location(&self) -> Option<String> {
        self.credentials().store.map(|store| store.location())
    }

    /// Where the credentials are from, in words.
    pub fn resolve_credentials(config: &ProviderConfig) -> Result<(Credentials, String)> {
        config.credentials_provider.resolve()
    }

    fn credentials(&self) -> ResolvedCredentials {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload_credentials(&self) -> Result<ResolvedCredentials> {
        let known = ResolvedCredentials::find(&self.config)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }

    /// The stored token, if it is another one than the caller's and can be used. One that is due
    /// for renewal helps only a caller who has none.
    fn load(&self, store: &dyn Store, fetch: &FetchRequest) -> Option<Token> {
        let Options { clock, min_validity, .. } = &self.config.options;
        let token = self.read(store)?;
        if fetch.current.is_some_and(|current| current.value() == token.value()) {
            return None;
        }
        let now = clock.now();
        let good = token.is_fresh(now) || (fetch.required && token.is_usable(now, *min_validity));
        good.then_some(token)
    }

    /// The entry of a store as a token.
    fn read(&self, store: &dyn Store) -> Option<Token> {
        let Options { clock, min_validity, .. } = &self.config.options;
        let entry = store.load()?;
        let now = clock.now();
        let (age, lifetime) = (now.wall.checked_sub(entry.issued)?, entry.expires.checked_sub(entry.issued)?);
        let (Ok(age), Ok(lifetime)) = (u64::try_from(age), u64::try_from(lifetime)) else {
            return None; // from the future, or from nowhere
        };
        let issued = Timestamps { monotonic: now.monotonic.saturating_sub_unsigned(age), wall: entry.issued };
        Some(Token::new(&entry.token, issued, Duration::from_nanos(lifetime), *min_validity, clock))
    }

    /// Asks the service; once more with the credentials of now, if they were refused and have
    /// changed on disk.
    fn request(&self, known: &ResolvedCredentials, fetch: &FetchRequest) -> Result<Token> {
        match self.request_token(&known.credentials, fetch) {
            Err(refused)
                if refused.kind() == Kind::CredentialsRejected && self.config.credentials_provider.reads_files() =>
            {
                let again = self.reload_credentials()?;
                if again.credentials == known.credentials {
                    return Err(refused);
                }
                self.config
                    .options
                    .log
                    .info(|| "the credentials were refused and have changed on disk: using the new ones");
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
        retry::with_retries(clock, fetch.deadline, fetch.retries, |left| {
            // Before the request leaves: the lifetime may have begun at any time after.
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
        Ok(ResolvedCredentials { credentials, store })
    }
}

/// Refuses a token that is no news or comes dead.
pub(crate) fn check_refreshed(
    token: &Token,
    current: Option<&Token>,
    dropped: Option<&Token>,
    now: Timestamps,
) -> Result<()> {
    if token.is_permanent() {
        return Ok(());
    }
    let known = [current, dropped].into_iter().flatten().any(|known| known.value() == token.value());
    let (what, advice) = if known {
        ("the service handed out the same token again", "try again later")
    } else if !token.is_usable(now, Duration::ZERO) {
        (
            "the token was as good as dead when it came",
            "the server or the network is too slow for the lifetime of its tokens",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Protocol, what).with_phase(Phase::Parse).with_retryable(true).with_hint(advice))
}

/// The error for a fetch that no token of the service can fulfil.
pub(crate) fn min_validity_error(token: &Token, min_validity: Duration) -> Error {
    Error::invalid(format!(
        "min_validity of {} ms is more than a token has, which lives {} s",
        min_validity.as_millis(),
        token.lifetime().as_secs()
    ))
    .with_hint("ask for less")
}

/// One token, asked for now: no cache. If there is a store it is taken from there, and renewed on the
/// way when that is due and nobody else does it.
pub fn get_token(config: &Config) -> Result<Token> {
    let config = Arc::new(ProviderConfig::new(config)?);
    let Options { clock, timeout, retries, min_validity, log, .. } = config.options.clone();
    let source = TokenProvider::new(config)?;
    let fetch = FetchRequest { current: None, required: true, deadline: Deadline::after(&clock, timeout), retries };
    let obtain = |fetch: &FetchRequest| {
        let (token, pending_save) = source.fetch(fetch)?.unzip();
        if let Some(pending_save) = pending_save.flatten() {
            pending_save.save();
        }
        Ok(token)
    };
    let token = obtain(&fetch)?.ok_or_else(|| Error::new(Kind::Internal, "an required fetch was put off"))?;
    let now = clock.now();
    if !token.is_usable(now, min_validity) {
        check_refreshed(&token, None, None, now)?;
        return Err(min_validity_error(&token, min_validity));
    }
    if token.is_fresh(now) {
        return Ok(token);
    }
    let deadline = Deadline::after(&clock, REFRESH_TIMEOUT.min(timeout));
    let renewal = FetchRequest { current: Some(&token), required: false, deadline, retries: 0 };
    let renewed = obtain(&renewal).and_then(|renewed| {
        renewed.map(|renewed| check_refreshed(&renewed, Some(&token), None, clock.now()).map(|()| renewed)).transpose()
    });
    Ok(match renewed {
        Ok(Some(renewed)) => renewed,
        Ok(None) => token,
        Err(error) => {
            log.warning(|| format!("the token is due for renewal, which failed; it is still good: {error}"));
            token
        }
    })
}
