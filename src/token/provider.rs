//! Where tokens come from: the store if it has one, else the service.
//!
//! A [`Source`] puts the pieces together: it finds the credentials, carries the request of
//! [`with_oauth_error`] over the [transport](crate::net::transport), repeats it as [`with_retryable`] says, reads credentials
//! again once when they were refused (they may have been rotated), and shares what it got through
//! the [store]. It keeps no token; that is the [cache](crate::token::cache)'s business.

use crate::config::credentials::{Credentials, Finder};
use crate::config::settings::{Config, Options};
use crate::error::{Error, Kind, Result, Stage};
use crate::net::http::HttpTransport;
use crate::net::transport::Transport;
use crate::oauth::client_credentials;
use crate::oauth::retry::{self, Deadline};
use crate::store::{self, Entry, Lock, Store};
use crate::sys::clock::Timestamps;
use crate::sys::sync::Mutex;
use crate::token::Token;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The longest a caller with a usable token is kept for its renewal.
pub(crate) const RENEWAL_BUDGET: Duration = Duration::from_secs(2);

/// All that a source is made from; immutable, so that a forked child can make a new one from it.
pub struct Recipe {
    /// The settings.
    pub options: Options,
    finder: Finder,
    transport: Option<Arc<dyn Transport>>,
    /// The number of requests that were sent for tokens.
    pub requests: AtomicU64,
}

impl Recipe {
    /// Takes what is needed of a configuration.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Recipe {
            options: config.options()?,
            finder: Finder::new(config)?,
            transport: config.transport.clone(),
            requests: AtomicU64::new(0),
        })
    }
}

/// See the module's documentation.
pub struct Source {
    recipe: Arc<Recipe>,
    transport: Arc<dyn Transport>,
    known: Mutex<Known>,
}

/// Credentials, and the store that belongs to them.
#[derive(Clone)]
struct Known {
    credentials: Credentials,
    store: Option<Arc<dyn Store>>,
}

/// What the caller has and needs.
pub struct Wish<'a> {
    /// The token in hand, if any: it is to be replaced, so the same one is no answer.
    pub current: Option<&'a Token>,
    /// Whether nobody can go on without a new one.
    pub urgent: bool,
    /// When the answer must be there.
    pub deadline: Deadline,
    /// How often a request may be repeated.
    pub retries: u32,
}

/// A new token that other processes wait for, and the lock under which it was asked for.
pub struct Unshared {
    store: Arc<dyn Store>,
    entry: Entry,
    _lock: Lock,
}

impl Unshared {
    /// Puts it into the store. That may take long, as a disk may, and no bound of ours would end it:
    /// so this comes after all that threads of this process wait for.
    pub fn share(self) {
        self.store.save(&self.entry);
    }
}

impl Source {
    /// Finds the credentials and gets the transport ready; sends nothing.
    pub fn new(recipe: Arc<Recipe>) -> Result<Self> {
        let transport = match &recipe.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(HttpTransport::new(&recipe.options.network)?),
        };
        let known = Mutex::new(Known::find(&recipe)?);
        Ok(Source { recipe, transport, known })
    }

    /// Gets a token, from the store or the service, and tells whether it must still be shared. `None`:
    /// there was no hurry, and another process is already renewing it.
    pub fn obtain(&self, wish: &Wish) -> Result<Option<(Token, Option<Unshared>)>> {
        let known = self.known();
        if let Credentials::PersonalAccessToken(_) = known.credentials {
            // It may have been replaced on disk since.
            let known = if wish.current.is_some() { self.find_again()? } else { known };
            let token = Token::permanent(known.credentials.secret(), self.recipe.options.clock.now());
            return Ok(Some((token, None)));
        }
        let Some(store) = &known.store else { return Ok(Some((self.request(&known, wish)?, None))) };
        if let Some(token) = self.load(store.as_ref(), wish) {
            return Ok(Some((token, None)));
        }
        // Whoever waits for another process still needs the time to ask by itself afterwards.
        let wait = if wish.urgent { wish.deadline.remaining(&self.recipe.options.clock) / 2 } else { Duration::ZERO };
        let lock = match store.lock(wait) {
            Lock::Busy if !wish.urgent => return Ok(None),
            lock => lock,
        };
        // Another process may have renewed it while this one waited.
        if let Some(token) = self.load(store.as_ref(), wish) {
            return Ok(Some((token, None)));
        }
        if wish.deadline.remaining(&self.recipe.options.clock).is_zero() {
            return Err(Error::new(Kind::Timeout, format!("the store {} took all the time there was", store.place()))
                .with_phase(Stage::Connect)
                .with_hint("use another store_dir or store, or allow more time with timeout_ms"));
        }
        let token = self.request(&known, wish)?;
        let entry = Entry { token: token.value().into(), issued: token.issued().wall, expires: token.expires().wall };
        // The credentials may have turned out to be others, and the store with them.
        let unshared = self.known().store.map(|store| Unshared { store, entry, _lock: lock });
        Ok(Some((token, unshared)))
    }

    /// What carries requests.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Takes a token out of the store that others share.
    pub fn forget(&self, token: &Token) {
        if let Some(store) = &self.known().store {
            store.remove(token.value());
        }
    }

    /// The token that the store holds, if it is not dead yet. Asks no server for one.
    pub fn stored(&self) -> Option<Token> {
        self.read(self.known().store?.as_ref())
    }

    /// Where the store is, in words, if there is one.
    pub fn store_place(&self) -> Option<String> {
        self.known().store.map(|store| store.place())
    }

    /// Where the credentials are from, in words.
    pub fn describe(recipe: &Recipe) -> Result<(Credentials, String)> {
        recipe.finder.find()
    }

    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find_again(&self) -> Result<Known> {
        let known = Known::find(&self.recipe)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        Ok(known)
    }

    /// The stored token, if it is another one than the caller's and can be used. One that is due
    /// for renewal helps only a caller who has none.
    fn load(&self, store: &dyn Store, wish: &Wish) -> Option<Token> {
        let Options { clock, min_validity, .. } = &self.recipe.options;
        let token = self.read(store)?;
        if wish.current.is_some_and(|current| current.value() == token.value()) {
            return None;
        }
        let now = clock.now();
        let good = token.is_fresh(now) || (wish.urgent && token.is_usable(now, *min_validity));
        good.then_some(token)
    }

    /// The entry of a store as a token.
    fn read(&self, store: &dyn Store) -> Option<Token> {
        let Options { clock, min_validity, .. } = &self.recipe.options;
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
    fn request(&self, known: &Known, wish: &Wish) -> Result<Token> {
        match self.exchange(&known.credentials, wish) {
            Err(refused) if refused.kind() == Kind::CredentialsRejected && self.recipe.finder.reads_files() => {
                let again = self.find_again()?;
                if again.credentials == known.credentials {
                    return Err(refused);
                }
                self.recipe
                    .options
                    .log
                    .info(|| "the credentials were refused and have changed on disk: using the new ones");
                self.exchange(&again.credentials, wish)
            }
            result => result,
        }
    }

    fn exchange(&self, credentials: &Credentials, wish: &Wish) -> Result<Token> {
        let Options { token_url, user_agent, clock, min_validity, log, .. } = &self.recipe.options;
        let Credentials::Client { id, secret } = credentials else {
            return Ok(Token::permanent(credentials.secret(), clock.now()));
        };
        let request = client_credentials::token_request(token_url, id, secret, user_agent);
        retry::with_retries(clock, wish.deadline, wish.retries, |left| {
            // Before the request leaves: the lifetime may have begun at any time after.
            let issued = clock.now();
            self.recipe.requests.fetch_add(1, Ordering::Relaxed);
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

impl Known {
    fn find(recipe: &Recipe) -> Result<Self> {
        let (credentials, origin) = recipe.finder.find()?;
        recipe.options.log.debug(|| format!("using credentials from {origin}"));
        let store = store::open(&recipe.options, &credentials)?;
        Ok(Known { credentials, store })
    }
}

/// Refuses a token that is no news or comes dead.
pub(crate) fn vet(token: &Token, current: Option<&Token>, dropped: Option<&Token>, now: Timestamps) -> Result<()> {
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
    Err(Error::new(Kind::Protocol, what).with_phase(Stage::Reply).with_retryable(true).with_hint(advice))
}

/// The error for a wish that no token of the service can fulfil.
pub(crate) fn never_enough(token: &Token, min_validity: Duration) -> Error {
    Error::invalid(format!(
        "min_validity of {} ms is more than a token has, which lives {} s",
        min_validity.as_millis(),
        token.lifetime().as_secs()
    ))
    .with_hint("ask for less")
}

/// One token, asked for now: no cache. If there is a store it is taken from there, and renewed on the
/// way when that is due and nobody else does it.
pub fn token(config: &Config) -> Result<Token> {
    let recipe = Arc::new(Recipe::new(config)?);
    let Options { clock, timeout, retries, min_validity, log, .. } = recipe.options.clone();
    let source = Source::new(recipe)?;
    let wish = Wish { current: None, urgent: true, deadline: Deadline::after(&clock, timeout), retries };
    let obtain = |wish: &Wish| {
        let (token, unshared) = source.obtain(wish)?.unzip();
        if let Some(unshared) = unshared.flatten() {
            unshared.share();
        }
        Ok(token)
    };
    let token = obtain(&wish)?.ok_or_else(|| Error::new(Kind::Internal, "an urgent wish was put off"))?;
    let now = clock.now();
    if !token.is_usable(now, min_validity) {
        vet(&token, None, None, now)?;
        return Err(never_enough(&token, min_validity));
    }
    if token.is_fresh(now) {
        return Ok(token);
    }
    let deadline = Deadline::after(&clock, RENEWAL_BUDGET.min(timeout));
    let renewal = Wish { current: Some(&token), urgent: false, deadline, retries: 0 };
    let renewed = obtain(&renewal).and_then(|renewed| {
        renewed.map(|renewed| vet(&renewed, Some(&token), None, clock.now()).map(|()| renewed)).transpose()
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
