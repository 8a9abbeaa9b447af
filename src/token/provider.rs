//! Fetches tokens: from the store if it has one, else from the token service.
//!
//! A [`TokenProvider`] finds the credentials, sends the request of [`oauth`](crate::oauth) through the
//! [transport](crate::net::transport), [retries](retry) it, reads the credentials again if they were rejected
//! (they may have been rotated), and saves the token in the [store]. It keeps no token; the
//! [cache](crate::token::cache) does.
//!
//! With a store, one process requests a token for all that share it. The others wait for the lock of the store for
//! nearly all of their time, and look at the store meanwhile. They get what the holder of the lock gets: its token,
//! or its failure, which it leaves in the store as a [note](Note). A process that stops waiting sends a request of its
//! own, one at a time, and one whose request failed looks at the store once more. So a service that is slow or fails
//! gets few requests, and no process fails while there is a token.

use crate::config::credentials::Credentials;
use crate::config::credentials_provider::CredentialsProvider;
use crate::config::{Config, Options};
use crate::error::{Error, Kind, Phase, Result};
use crate::net::http::HttpTransport;
use crate::net::proxy;
use crate::net::transport::Transport;
use crate::oauth::client_credentials;
use crate::oauth::retry::{self, Deadline};
use crate::store::{
    self, Contents, Entry, Failure, IoBudget, Lock, LockResult, MAX_LIFETIME, Note, Removal, SeenNote, Store,
};
use crate::sys::boot;
use crate::sys::clock::{Clock, Timestamps};
use crate::sys::secret::{Secret, SecretBytes};
use crate::token::Token;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest time that a caller with a usable token spends on refreshing it.
pub(crate) const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// The time at the end of a call in which the store is read once more after the request has failed; also never more
/// than a twentieth of the time that was left for the request.
const LAST_LOOK: Duration = Duration::from_millis(50);

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
    /// `None` until they are needed, if a program must be run to find them. Not behind a lock, which a forked child
    /// could inherit locked.
    resolved: ArcSwapOption<ResolvedCredentials>,
    /// A hash of what the way to the service depends on.
    route: u64,
    /// The last error with a `Retry-After`, and the monotonic time at which that is over.
    asked: ArcSwapOption<(i64, Error)>,
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
    /// The token to be replaced, if any. A stored token that is the same, or older, is ignored.
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
    lock: Option<Lock>,
    budget: IoBudget,
}

impl PendingSave {
    /// Saves the token in the store, and releases the lock. A disk may be slow, so this is done after the token is
    /// published to the threads of this process, and finished in the background if the call has no time for it.
    pub fn save(self) {
        self.store.save(&self.entry, self.lock, &self.budget);
    }
}

/// A fetch that waits for another process, or has waited.
struct SharedFetch<'a> {
    store: &'a Arc<dyn Store>,
    fetch: &'a FetchRequest<'a>,
    start: Timestamps,
    budget: IoBudget,
    /// The time at the end of the call in which it does not wait any more.
    reserve: Duration,
}

/// What the store says to a fetch.
enum Answer {
    Token(Token),
    /// The failure of another process, which this one would get too.
    Failed(Error),
    /// The service requires that no request is sent for so long.
    Hold(Duration),
    /// Another process that stopped waiting for the lock sends a request.
    Requesting,
    Nothing,
}

impl TokenProvider {
    /// Finds the credentials, unless a program must be run for that, and creates the transport; sends nothing.
    pub fn new(config: Arc<ProviderConfig>) -> Result<Self> {
        let transport = match &config.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(HttpTransport::new(&config.options.network)?),
        };
        let resolved = match config.credentials_provider.runs_program() {
            true => ArcSwapOption::empty(),
            false => ArcSwapOption::from_pointee(ResolvedCredentials::find(&config, config.options.timeout)?),
        };
        let route = route(&config);
        Ok(TokenProvider { config, transport, resolved, route, asked: ArcSwapOption::empty() })
    }

    /// The provider for a forked child of the process that `parent` belongs to. It has what the parent knew: the
    /// credentials, the directory or server of the store, the proxies, and the CA certificates if the parent has used
    /// them. The child may have given up the right to read them. Its locks and connections are new.
    pub fn for_child(parent: &TokenProvider) -> Self {
        let known = parent.resolved.load();
        let resolved = known.as_ref().map(|known| ResolvedCredentials {
            credentials: known.credentials.clone(),
            store: known.store.as_ref().map(|store| store.for_child()),
            origin: known.origin.clone(),
        });
        TokenProvider {
            config: parent.config.clone(),
            // The built-in transport keeps connections, which it does not use in another process.
            transport: parent.transport.clone(),
            resolved: ArcSwapOption::from_pointee(resolved),
            route: parent.route,
            asked: ArcSwapOption::new(parent.asked.load_full()),
        }
    }

    /// The delay that the service last asked for: until when, and with which error. A request that is repeated after it
    /// has not failed yet, so a forked child finds it nowhere else.
    pub(super) fn asked(&self) -> Option<Arc<(i64, Error)>> {
        self.asked.load_full()
    }

    /// Fetches a token from the store or the service, with what must still be saved in the store. `None` if a new
    /// token is not required and another process is already refreshing it.
    pub fn fetch(&self, fetch: &FetchRequest) -> Result<Option<(Token, Option<PendingSave>)>> {
        let was_known = self.known().is_some();
        let resolved = self.credentials(fetch.deadline)?;
        if let Credentials::PersonalAccessToken(_) = resolved.credentials {
            // The file may have been replaced in the meantime. If it cannot be read now, the token that is known is
            // used: the server's rejection is the error that counts.
            let resolved = match fetch.replacing {
                Some(_) if was_known => self.reload_credentials(fetch.deadline).unwrap_or_else(|error| {
                    self.config.options.log.warning(|| format!("the credentials cannot be read again: {error}"));
                    resolved
                }),
                _ => resolved,
            };
            let token = Token::permanent(resolved.credentials.secret(), self.config.options.clock.now());
            return Ok(Some((token, None)));
        }
        match self.fetch_with(&resolved, fetch) {
            Err(rejected)
                if rejected.kind() == Kind::CredentialsRejected
                    && was_known
                    && self.config.credentials_provider.may_change() =>
            {
                let log = &self.config.options.log;
                // If they cannot be read now, the rejection is the error that counts.
                let again = match self.reload_credentials(fetch.deadline) {
                    Ok(again) if again.credentials != resolved.credentials => again,
                    Ok(_) => return Err(rejected),
                    Err(error) => {
                        log.debug(|| format!("the credentials cannot be read again: {error}"));
                        return Err(rejected);
                    }
                };
                log.info(|| {
                    format!("the credentials were rejected and have changed; using the new ones, from {}", again.origin)
                });
                self.fetch_with(&again, fetch)
            }
            result => result,
        }
    }

    /// Fetches a token with these credentials.
    fn fetch_with(
        &self,
        resolved: &ResolvedCredentials,
        fetch: &FetchRequest,
    ) -> Result<Option<(Token, Option<PendingSave>)>> {
        let Options { clock, .. } = &self.config.options;
        let Some(store) = &resolved.store else {
            return Ok(Some((self.request(&resolved.credentials, fetch, |_| ())?, None)));
        };
        let tenth = fetch.deadline.remaining(clock) / 10;
        let shared = SharedFetch {
            store,
            fetch,
            start: clock.now(),
            budget: IoBudget::new(&self.config.options, fetch.deadline),
            // Random, so that processes that began together do not stop waiting together.
            reserve: tenth + clock.random_below(tenth),
        };
        // Whether the lock may be free.
        let mut is_free = true;
        loop {
            let (answer, is_locked) = self.ask_store(&shared);
            let is_requesting = matches!(answer, Answer::Requesting);
            match answer {
                Answer::Token(token) => return Ok(Some((token, None))),
                Answer::Failed(error) => return Err(error),
                Answer::Hold(time) => {
                    clock.sleep(time);
                    continue;
                }
                Answer::Requesting | Answer::Nothing => {}
            }
            let lock = if is_free && !is_locked { store.try_lock(&shared.budget) } else { LockResult::Busy };
            let lock = match lock {
                LockResult::Held(lock) => match self.ask_store(&shared).0 {
                    // Another process had the lock until now.
                    Answer::Token(token) => return Ok(Some((token, None))),
                    Answer::Failed(error) => return Err(error),
                    Answer::Hold(_) => continue,
                    Answer::Requesting | Answer::Nothing => Some(lock),
                },
                LockResult::Unavailable => None,
                LockResult::Busy if !fetch.required => return Ok(None),
                LockResult::Busy => {
                    let left = fetch.deadline.remaining(clock);
                    if left < shared.reserve / 16 {
                        return Err(shared.timed_out("timed out waiting for the token request of another process"));
                    }
                    if left > shared.reserve || is_requesting {
                        // At the end, the store alone tells when another process has a token.
                        let is_early = left > shared.reserve;
                        let limit = if is_early { left - shared.reserve } else { left.min(shared.reserve / 8) };
                        is_free = store.wait(shared.start.remaining_until(clock.now()), limit);
                        shared.budget.renew();
                        continue;
                    }
                    store.leave_note(&Note::Requesting, left, &shared.budget);
                    None
                }
            };
            return self.request_and_share(resolved, &shared, lock).map(Some);
        }
    }

    /// Requests a token, and leaves a failure in the store for the others.
    fn request_and_share(
        &self,
        resolved: &ResolvedCredentials,
        shared: &SharedFetch,
        lock: Option<Lock>,
    ) -> Result<(Token, Option<PendingSave>)> {
        let Options { clock, .. } = &self.config.options;
        if shared.fetch.deadline.remaining(clock).is_zero() {
            let place = shared.store.location();
            return Err(shared.timed_out(&format!("timed out waiting for the token store {place}")));
        }
        // Some time is left for a last look at the store.
        let left = shared.fetch.deadline.remaining(clock);
        let request =
            FetchRequest { deadline: Deadline::after(clock, left - LAST_LOOK.min(left / 20)), ..*shared.fetch };
        let share = |error: &Error| {
            if let Some(failure) = Failure::new(error, self.route) {
                let budget = IoBudget::new(&self.config.options, shared.fetch.deadline);
                shared.store.leave_note(&Note::Failed(failure), Duration::ZERO, &budget);
            }
        };
        // While this process waits to repeat the request, others may stop waiting for it.
        let error = match self.request(&resolved.credentials, &request, share) {
            Ok(token) => {
                let entry = Entry { token: token.value().into(), issued: token.issued(), lifetime: token.lifetime() };
                let budget = IoBudget::new(&self.config.options, shared.fetch.deadline);
                return Ok((token, Some(PendingSave { store: shared.store.clone(), entry, lock, budget })));
            }
            Err(error) => error,
        };
        // Another process may have had more luck.
        let budget = IoBudget::new(&self.config.options, shared.fetch.deadline);
        if let Some(token) = self.usable(shared.store.read(&budget).entry, shared.fetch) {
            return Ok((token, None));
        }
        share(&error);
        Err(error)
    }

    /// What is in the store for this fetch, and whether another process is known to hold the lock.
    fn ask_store(&self, shared: &SharedFetch) -> (Answer, bool) {
        let Contents { entry, note, is_locked } = shared.store.read(&shared.budget);
        let answer = match self.usable(entry, shared.fetch) {
            Some(token) => Answer::Token(token),
            None => note.map_or(Answer::Nothing, |note| self.judge(note, shared)),
        };
        (answer, is_locked)
    }

    /// What a note means for this fetch.
    fn judge(&self, seen: SeenNote, shared: &SharedFetch) -> Answer {
        let Options { clock, .. } = &self.config.options;
        // What happened while this call waited is its outcome too.
        let waited = shared.start.remaining_until(clock.now());
        let is_current = !seen.left.is_zero() || (seen.age < waited);
        let failure = match seen.note {
            _ if !is_current => return Answer::Nothing,
            Note::Requesting if seen.left.is_zero() => return Answer::Nothing,
            Note::Requesting => return Answer::Requesting,
            Note::Failed(failure) => failure,
        };
        if failure.route.is_some_and(|route| route != self.route) {
            return Answer::Nothing; // this process may reach the service in another way
        }
        if failure.hold && !seen.left.is_zero() {
            let left = shared.fetch.deadline.remaining(clock);
            // Not all at once, when the time has passed.
            let time = seen.left + clock.random_below(seen.left.min(Duration::from_secs(1)));
            return if shared.fetch.required && shared.fetch.max_retries > 0 && time < left {
                Answer::Hold(time)
            } else {
                Answer::Failed(failure.error.with_retry_after(Some(seen.left)))
            };
        }
        // A process that tries more often may have more luck.
        if failure.error.is_retryable() && failure.attempts <= shared.fetch.max_retries {
            return Answer::Nothing;
        }
        Answer::Failed(failure.error)
    }

    /// The transport.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Removes a token from the store, and reports what became of it.
    pub fn remove_from_store(&self, token: &Token) -> Removal {
        match self.known().as_ref().and_then(|known| known.store.as_ref()) {
            Some(store) => store.remove(token.value(), &IoBudget::without_deadline(&self.config.options)),
            None => Removal::NotStored,
        }
    }

    /// The token in the store, if it has not expired. Sends no token request.
    pub fn load_from_store(&self) -> Option<Token> {
        let budget = IoBudget::without_deadline(&self.config.options);
        Some(self.token(self.known()?.store.as_ref()?.read(&budget).entry?))
    }

    /// A description of where the store is, if there is one.
    pub fn store_location(&self) -> Option<String> {
        self.known()?.store.as_ref().map(|store| store.location())
    }

    /// The credentials, and a description of where they are from.
    pub fn resolve_credentials(config: &ProviderConfig) -> Result<(Credentials, String)> {
        config.credentials_provider.resolve(config.options.timeout)
    }

    /// The credentials that are in use, and a description of where they are from. Reads no file: a pipe can be read
    /// only once. `None` if a program must be run to find them.
    pub fn credentials_in_use(&self) -> Option<(Credentials, String)> {
        self.known().map(|known| (known.credentials.clone(), known.origin.clone()))
    }

    /// What is known of credentials that a program must be run to find: where they are from, and the client id.
    pub fn credentials_preview(config: &ProviderConfig) -> (String, Option<&str>) {
        config.credentials_provider.preview()
    }

    /// Finds the credentials if they are not known, which may run a program.
    pub fn find_credentials(&self) -> Result<()> {
        let Options { clock, timeout, .. } = &self.config.options;
        self.credentials(Deadline::after(clock, *timeout)).map(|_| ())
    }

    fn known(&self) -> Option<Arc<ResolvedCredentials>> {
        self.resolved.load_full()
    }

    /// The credentials; they are looked for if they are not known.
    fn credentials(&self, deadline: Deadline) -> Result<Arc<ResolvedCredentials>> {
        match self.known() {
            Some(known) => Ok(known),
            None => self.look_for_credentials(deadline.remaining(&self.config.options.clock)),
        }
    }

    fn reload_credentials(&self, deadline: Deadline) -> Result<Arc<ResolvedCredentials>> {
        let left = deadline.remaining(&self.config.options.clock);
        // A program may need longer than a file: it asks a server.
        let limit = if self.config.credentials_provider.runs_program() { left } else { left.min(REFRESH_TIMEOUT) };
        self.look_for_credentials(limit)
    }

    fn look_for_credentials(&self, timeout: Duration) -> Result<Arc<ResolvedCredentials>> {
        let resolved = Arc::new(ResolvedCredentials::find(&self.config, timeout)?);
        self.resolved.store(Some(resolved.clone()));
        Ok(resolved)
    }

    /// The stored token, if it is not the one to be replaced and can be used. A token that is due for refresh is
    /// used only if the caller has none.
    fn usable(&self, entry: Option<Entry>, fetch: &FetchRequest) -> Option<Token> {
        let clock = &self.config.options.clock;
        let token = self.token(entry?);
        // An older one is in the store until its successor is saved. It may have been rejected, and is of no use anyway.
        let is_older = |current: &Token| token.issued().monotonic < current.issued().monotonic;
        if fetch.replacing.is_some_and(|current| current.value() == token.value() || is_older(current)) {
            return None;
        }
        let now = clock.now();
        // The service does not issue tokens that are valid for `min_validity`: another one would not be either.
        let is_as_good_as_any = now.is_before_both(token.issued().after(token.lifetime() / 10))
            && !token.can_last(fetch.min_validity)
            && token.is_usable(now, Duration::ZERO);
        let good = token.is_fresh(now) || fetch.required;
        (is_as_good_as_any || (good && token.is_usable(now, fetch.min_validity))).then_some(token)
    }

    /// The entry of the store as a token.
    fn token(&self, entry: Entry) -> Token {
        let Options { clock, min_validity, .. } = &self.config.options;
        Token::new(&entry.token, entry.issued, entry.lifetime, *min_validity, clock)
    }

    /// Requests a token from the service. `share` is called with each error by which the service asks for a delay, before
    /// the request is repeated.
    fn request(&self, credentials: &Credentials, fetch: &FetchRequest, share: impl Fn(&Error)) -> Result<Token> {
        let Options { token_url, user_agent, clock, min_validity, log, .. } = &self.config.options;
        let Credentials::Client { id, secret } = credentials else {
            return Ok(Token::permanent(credentials.secret(), clock.now()));
        };
        let request = client_credentials::token_request(token_url, id, secret, user_agent);
        let share_delay = |error: &Error| {
            if error.retry_after().is_some() {
                share(error);
            }
        };
        let attempt = |left| {
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
                Ok(grant) => {
                    let lifetime = grant.lifetime.min(MAX_LIFETIME);
                    Ok(Token::new(&grant.access_token, issued, lifetime, *min_validity, clock))
                }
                Err(error) => {
                    log.debug(|| format!("a token request failed: {error}"));
                    if let Some(delay) = error.retry_after() {
                        let until = clock.now().after(delay).monotonic;
                        self.asked.store(Some(Arc::new((until, error.clone()))));
                    }
                    Err(error)
                }
            }
        };
        retry::with_reported_retries(clock, fetch.deadline, fetch.max_retries, attempt, share_delay)
    }
}

impl SharedFetch<'_> {
    fn timed_out(&self, message: &str) -> Error {
        Error::new(Kind::Timeout, message)
            .with_phase(Phase::Connect)
            .with_hint("use another store_dir or store, or allow more time with timeout_ms")
    }
}

impl ResolvedCredentials {
    fn find(config: &ProviderConfig, timeout: Duration) -> Result<Self> {
        let (credentials, origin) = config.credentials_provider.resolve(timeout)?;
        config.options.log.debug(|| format!("using credentials from {origin}"));
        let store = store::open(&config.options, &credentials)?;
        Ok(ResolvedCredentials { credentials, origin, store })
    }
}

/// A hash of the network, proxies and certificates of this process. Processes with the same one reach the service in
/// the same way, or all fail to.
fn route(config: &ProviderConfig) -> u64 {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    let network = &config.options.network;
    let path = |path: &std::path::PathBuf| path.as_os_str().as_encoded_bytes().to_vec();
    add(&network.ca_file.as_ref().map(path).unwrap_or_default());
    for file in network.client_certificate.iter().flat_map(|(certificate, key)| [certificate, key]) {
        add(&path(file));
    }
    add(network.proxy.as_ref().map_or("", Secret::expose).as_bytes());
    for name in proxy::VARIABLES.into_iter().chain(["SSL_CERT_FILE", "SSL_CERT_DIR"]) {
        let value = config.options.environment.get(name).map(|value| SecretBytes::from(value.as_encoded_bytes()));
        add(value.as_ref().map_or(&[], SecretBytes::expose));
    }
    add(&boot::identity());
    // The network namespace, where there are such.
    add(std::fs::read_link("/proc/self/ns/net").unwrap_or_default().as_os_str().as_encoded_bytes());
    // A transport of the application is known to this process only.
    if config.has_own_transport() {
        let random = Clock::System.random_below(Duration::MAX).as_nanos();
        add(&random.to_be_bytes());
    }
    hash.finish().as_ref().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
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
    } else if !token.is_usable(now, min_validity) && token.can_last(min_validity) {
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
    // As most callers have given it.
    let wanted = match (min_validity.subsec_millis(), min_validity.as_secs()) {
        (0, seconds) => format!("{seconds} s"),
        _ => format!("{} ms", min_validity.as_millis()),
    };
    let lifetime = token.lifetime().as_secs();
    Error::invalid(format!("min_validity of {wanted} is longer than the lifetime of a token, {lifetime} s"))
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

#[cfg(test)]
mod tests;
