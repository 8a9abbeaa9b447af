//! `amp-token status`: the credentials, the store and the stored token. Sends no request, runs no program and shows no
//! secret.

use crate::context::Context;
use crate::exit::CliResult;
use crate::output;
use amp_token::config::Options;
use amp_token::config::credentials::Credentials;
use amp_token::error::Kind;
use amp_token::token::Token;
use amp_token::token::provider::{ProviderConfig, TokenProvider};
use clap::ArgMatches;
use serde_json::{Value, json};
use std::sync::Arc;

/// `amp-token status`
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<()> {
    let config = Arc::new(ProviderConfig::new(&context.config)?);
    let provider = match TokenProvider::new(config.clone()) {
        // All else is known, and a script may ask for just this.
        Err(error) if error.kind() == Kind::NoCredentials => {
            let Options { token_url, api_url, .. } = &config.options;
            output::answer(&if arguments.get_flag("json") {
                let (token_url, api_url) = (token_url.to_string(), api_url.to_string());
                output::json(&json!({
                    "credentials": null, "profile": profile(context), "token_url": token_url, "api_url": api_url,
                    "store": null, "token": null,
                }))
            } else {
                output::columns([("credentials", "none".to_owned()), ("server", token_url.to_string())])
            })?;
            return Err(error.into());
        }
        provider => provider?,
    };
    let credentials = match provider.credentials_in_use() {
        Some((Credentials::Client { id, .. }, from)) => Known { kind: "client", id: Some(id), from },
        Some((Credentials::PersonalAccessToken(_), from)) => Known { kind: "personal_access_token", id: None, from },
        None => {
            let (from, id) = TokenProvider::credentials_preview(&config);
            Known { kind: "command", id: id.map(str::to_owned), from }
        }
    };
    let status = Status {
        credentials,
        profile: profile(context),
        store: provider.store_location().or_else(|| unopened_store(&provider, &config.options)),
        stored: StoredToken::load(&provider, &config.options),
        options: &config.options,
    };
    output::answer(&if arguments.get_flag("json") { output::json(&status.to_json()) } else { status.to_table() })
}

/// The kind of a store whose directory or key is not known before a program has printed the secret.
fn unopened_store(provider: &TokenProvider, options: &Options) -> Option<String> {
    let kind = match options.store.expose() {
        "none" => return None,
        "file" => "file",
        _ => "redis",
    };
    provider.credentials_in_use().is_none().then(|| kind.to_owned())
}

fn profile(context: &Context) -> Option<&str> {
    context.config.profile().map(|profile| profile.name.as_str())
}

/// What is known of the credentials.
struct Known {
    kind: &'static str,
    id: Option<String>,
    /// Where they come from.
    from: String,
}

/// The times of a token in the store, in whole seconds.
struct StoredToken {
    expires_at: i64,
    expires_in: i64,
    /// The time until a command refreshes it.
    renewal_in: u64,
    usable: bool,
}

impl StoredToken {
    fn load(provider: &TokenProvider, options: &Options) -> Option<Self> {
        let token: Token = provider.load_from_store()?;
        let now = options.clock.now();
        Some(StoredToken {
            expires_at: token.expires_at(),
            expires_in: token.expires_in(now),
            renewal_in: now.remaining_until(token.refresh_at()).as_secs(),
            usable: token.is_usable(now, options.min_validity),
        })
    }
}

/// Everything that the command prints.
struct Status<'a> {
    credentials: Known,
    profile: Option<&'a str>,
    /// The location of the store, if there is one.
    store: Option<String>,
    stored: Option<StoredToken>,
    options: &'a Options,
}

impl Status<'_> {
    fn to_json(&self) -> Value {
        let Known { kind, id, from } = &self.credentials;
        json!({
            "credentials": { "kind": kind, "client_id": id, "from": from },
            "profile": self.profile,
            "token_url": self.options.token_url.to_string(),
            "api_url": self.options.api_url.to_string(),
            "store": self.store,
            "token": self.stored.as_ref().map(|stored| json!({
                "expires_at": stored.expires_at,
                "expires_in": stored.expires_in,
                "renewal_in": stored.renewal_in,
                "usable": stored.usable,
            })),
        })
    }

    fn to_table(&self) -> String {
        let (who, server) = match (self.credentials.kind, &self.credentials.id) {
            ("personal_access_token", _) => ("a personal access token".to_owned(), &self.options.api_url),
            (_, Some(id)) => (format!("API key {id}"), &self.options.token_url),
            (_, None) => ("not read yet".to_owned(), &self.options.token_url),
        };
        let (token, refresh) = match (self.credentials.kind, &self.stored) {
            ("personal_access_token", _) => ("does not expire".to_owned(), "never".to_owned()),
            ("command", _) => (
                "not known: it is encrypted with the secret, and status does not run the command".to_owned(),
                "not known".to_owned(),
            ),
            (_, None) => ("none stored".to_owned(), "the next command requests one".to_owned()),
            (_, Some(stored)) if !stored.usable => {
                (format!("expires in {} s", stored.expires_in), "the next command requests another one".to_owned())
            }
            (_, Some(stored)) => (
                format!("valid for {} s", stored.expires_in),
                match stored.renewal_in {
                    0 => "due: the next command refreshes it".to_owned(),
                    seconds => format!("in {seconds} s"),
                },
            ),
        };
        output::columns([
            ("credentials", format!("{who}, from {}", self.credentials.from)),
            ("server", server.to_string()),
            ("store", self.store.clone().unwrap_or_else(|| "none".to_owned())),
            ("token", token),
            ("refresh", refresh),
        ])
    }
}
