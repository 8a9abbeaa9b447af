//! `amp-token doctor`: checks each step of a token request and of a request to the API.
//!
//! It sends real requests through the library's own transport and reports each step, so what works here works
//! for a program. It opens and writes the store as `get` does, judges the token as `get` does, and does not retry.

use super::permissions::Permissions;
use super::report::{Abort, CheckResult, Report};
use crate::context::{Context, StoreProblems, misspelled_variables};
use crate::exit::CliResult;
use amp_token::api::PERSONAL_TOKEN_CAUSES;
use amp_token::config::Options;
use amp_token::config::credentials::Credentials;
use amp_token::error::{Error, Kind, Phase, Result};
use amp_token::net::http::{ConnectionTrace, HttpTransport};
use amp_token::net::proxy::ProxyUrl;
use amp_token::net::transport::{Request, Response, parse_http_date};
use amp_token::oauth::client_credentials;
use amp_token::sanitize::sanitize;
use amp_token::store::{self, Entry, IoBudget, Store};
use amp_token::sys::clock::Clock;
use amp_token::sys::secret::{MaybeSecret, Secret};
use amp_token::token::Token;
use amp_token::token::provider::{ProviderConfig, TokenProvider, check_usable};
use clap::ArgMatches;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest difference from the server's clock, in seconds, that is no failure. It is the largest margin that
/// the library leaves before the end of a token's lifetime: if the clocks differ by more, a token that another
/// machine has stored may have expired when it is used.
const MAX_CLOCK_SKEW: i64 = 10;

/// `amp-token doctor`
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let mut report = Report::start(arguments.get_flag("json"))?;
    let end = run_checks(context, &mut report);
    report.finish(end)
}

fn run_checks(context: &Context, report: &mut Report) -> CheckResult<()> {
    for line in misspelled_variables() {
        report.warn("environment", &line)?;
    }
    if let Some(profile) = context.config.profile() {
        report.pass("profile", None, &profile.describe())?;
    }
    let start = Instant::now();
    let (config, problems) = context.with_store_problems().map_err(Abort::Output)?;
    let found = ProviderConfig::new(&config).and_then(|config| {
        let (credentials, from) = TokenProvider::resolve_credentials(&config)?;
        Ok((config.options, credentials, from))
    });
    let (options, credentials, _) =
        report.check("credentials", Some(start.elapsed()), found, |(_, found, from)| match found {
            Credentials::Client { id, .. } => format!("API key {}, from {from}", sanitize(id, &[])),
            Credentials::PersonalAccessToken(_) => format!("a personal access token, from {from}"),
        })?;
    let store = check_store(report, &options, &credentials, &problems)?;
    let transport = match HttpTransport::new(&options.network) {
        Ok(transport) => transport,
        Err(error) => return report.fail("proxy", None, &error),
    };
    match &credentials {
        Credentials::Client { id, secret } => {
            let request = client_credentials::token_request(&options.token_url, id, secret, &options.user_agent);
            let issued = options.clock.now();
            let (response, took) = send_and_report(report, &transport, &request, &options, "token")?;
            let now = options.clock.now();
            let grant = client_credentials::parse_token_response(
                &response,
                &options.token_url,
                &[secret.expose()],
                now.wall / 1_000_000_000,
            );
            let token = grant.and_then(|grant| {
                let Options { min_validity, clock, .. } = &options;
                let token = Token::new(&grant.access_token, issued, grant.lifetime, *min_validity, clock);
                check_usable(&token, *min_validity, now).map(|()| token)
            });
            let token = report.check("token", Some(took), token, |token| {
                format!("{} bytes, valid for {} s", token.value().len(), token.lifetime().as_secs())
            })?;
            match Permissions::of_token(token.value()) {
                Ok(permissions) => report.pass("permissions", None, &permissions.summary())?,
                Err(problem) => report.skip("permissions", &format!("not known: {problem}"))?,
            }
            if let Some(store) = store {
                save(report, &options, store.as_ref(), &token, &problems)?;
            }
            let value = Secret::from(token.value());
            let request = api_request(&options, &value);
            let start = Instant::now();
            let reply = transport.send_traced(&request, options.timeout, &mut ConnectionTrace::default());
            check_api(report, reply, &options, false, start.elapsed(), &[secret.expose(), value.expose()])
        }
        Credentials::PersonalAccessToken(token) => {
            let request = api_request(&options, token);
            let (response, took) = send_and_report(report, &transport, &request, &options, "request")?;
            report.skip("token", "not needed: a personal access token is used as it is")?;
            report.skip("permissions", "those of the user of the personal access token")?;
            check_api(report, Ok(response), &options, true, took, &[token.expose()])
        }
    }
}

/// Opens the store, reads its entry and takes its lock. A failure does not end the checks: `get` reports it, and
/// requests a token for each call.
fn check_store(
    report: &mut Report,
    options: &Options,
    credentials: &Credentials,
    problems: &StoreProblems,
) -> CheckResult<Option<Arc<dyn Store>>> {
    if let Credentials::PersonalAccessToken(_) = credentials {
        report.skip("store", "not needed: a personal access token is used as it is")?;
        return Ok(None);
    }
    let start = Instant::now();
    let opened = store::open(options, credentials);
    let entry = opened.as_ref().ok().and_then(Option::as_ref).and_then(|store| {
        let budget = IoBudget::without_deadline(options);
        let entry = store.read(&budget).entry;
        store.try_lock(&budget);
        entry
    });
    let took = Some(start.elapsed());
    match (opened, problems.first()) {
        (Err(error), _) => report.fail_and_continue("store", took, &error)?,
        (Ok(_), Some(problem)) => report.fail_and_continue("store", took, &store_error(problem))?,
        (Ok(None), None) => report.skip("store", "off: each command requests a token")?,
        (Ok(Some(store)), None) => {
            let now = options.clock.now();
            let left = |entry: &Entry| now.remaining_until(entry.issued.after(entry.lifetime)).as_secs();
            let held = match entry {
                Some(entry) => format!("a token that expires in {} s", left(&entry)),
                None => "no token".to_owned(),
            };
            report.pass("store", took, &format!("{} holds {held}", store.location()))?;
            return Ok(Some(store));
        }
    }
    Ok(None)
}

/// Stores the token, as `get` does. Only a failure is reported.
fn save(
    report: &mut Report,
    options: &Options,
    store: &dyn Store,
    token: &Token,
    problems: &StoreProblems,
) -> CheckResult<()> {
    let start = Instant::now();
    let entry = Entry { token: token.value().into(), issued: token.issued(), lifetime: token.lifetime() };
    store.save(&entry, None, &IoBudget::without_deadline(options));
    match problems.first() {
        Some(problem) => report.fail_and_continue("store", Some(start.elapsed()), &store_error(problem)),
        None => Ok(()),
    }
}

fn store_error(problem: &str) -> Error {
    Error::new(Kind::Io, problem).with_hint("until that is fixed, each command requests a token")
}

/// Sends a request, and reports the steps up to its response and the server's clock. `last` is the step that
/// fails if the connection is established, but no response arrives.
fn send_and_report(
    report: &mut Report,
    transport: &HttpTransport,
    request: &Request,
    options: &Options,
    last: &'static str,
) -> CheckResult<(Response, Duration)> {
    let mut observed = ConnectionTrace::default();
    let before = wall_seconds(&options.clock);
    let reply = transport.send_traced(request, options.timeout, &mut observed);
    let after = wall_seconds(&options.clock);
    let took = |phases: &[Phase]| -> Option<Duration> {
        phases.iter().map(|phase| Some(observed.phases.iter().find(|(have, _)| have == phase)?.1)).sum()
    };
    let host = request.url.host();
    let server = format!("{host}:{}", request.url.port());
    let address = observed.address.map_or_else(String::new, |address| address.to_string());
    let found: Vec<_> = observed.found.iter().map(|address| address.ip().to_string()).collect();
    let named = match observed.proxy.as_deref().and_then(ProxyUrl::parse) {
        Some(proxy) => proxy.host,
        None => host.to_owned(),
    };
    let found = if found == [named.as_str()] { "an IP address".to_owned() } else { found.join(", ") };
    let (proxy_steps, proxy, tcp_steps, tcp): (&[Phase], _, &[Phase], _) = match &observed.proxy {
        Some(proxy) => (
            &[Phase::Connect, Phase::Tunnel],
            format!("{proxy} at {address} connects to {server}"),
            &[],
            format!("{server}, through the proxy"),
        ),
        None => (&[], "none".to_owned(), &[Phase::Connect], format!("{server} answers at {address}")),
    };
    let (tls_steps, tls): (&[Phase], _) = match &observed.tls {
        Some(tls) => (
            &[Phase::TlsHandshake],
            format!("{}; the certificate is for {}, issued by {}", tls.version, tls.subject, tls.issuer),
        ),
        None if request.url.scheme() == "https" => (&[Phase::TlsHandshake], String::new()),
        None => (&[], "none: http, which does not leave this machine".to_owned()),
    };
    // Without a route the name to resolve is not known: it is the proxy's or the server's.
    let first: &[(&'static str, &[Phase], String)] = match took(&[Phase::Route]) {
        Some(_) => &[("dns", &[Phase::Resolve], format!("{named} is {found}"))],
        None => &[],
    };
    let route = if first.is_empty() { &[Phase::Route][..] } else { proxy_steps };
    let lines =
        first.iter().cloned().chain([("proxy", route, proxy), ("tcp", tcp_steps, tcp), ("tls", tls_steps, tls)]);
    for (name, steps, text) in lines {
        match (took(steps), &reply) {
            (Some(time), _) => report.pass(name, (!steps.is_empty()).then_some(time), &text)?,
            (None, Err(error)) => return report.fail(name, None, error),
            // Unreachable: a response arrives only after all steps.
            (None, Ok(_)) => {}
        }
    }
    let response = report.or_fail(last, took(&[Phase::ReceiveBody]), reply)?;
    clock(report, &response, before, after)?;
    Ok((response, took(&[Phase::ReceiveBody]).unwrap_or_default()))
}

fn wall_seconds(clock: &Clock) -> i64 {
    clock.now().wall.div_euclid(1_000_000_000)
}

/// Compares this machine's clock with the server's. A difference is a failure, but the checks go on.
fn clock(report: &mut Report, response: &Response, before: i64, after: i64) -> CheckResult<()> {
    let Some(server) = response.header("date").and_then(parse_http_date) else {
        return report.skip("clock", "cannot be compared: the response has no Date header");
    };
    // The server dated the response at a time between the two.
    let off = if server < before { before - server } else { (after - server).min(0) };
    if off.abs() <= MAX_CLOCK_SKEW {
        return report.pass("clock", None, &format!("within {} s of the server's", off.abs().max(1)));
    }
    let direction = if off > 0 { "ahead of" } else { "behind" };
    let error = Error::new(Kind::Io, format!("this machine's clock is {} s {direction} the server's", off.abs()))
        .with_hint("set it, preferably with NTP: certificates and the expiry of shared tokens are checked with it");
    report.fail_and_continue("clock", None, &error)
}

/// The cheapest request that needs a token.
fn api_request(options: &Options, token: &Secret) -> Request {
    let token = Token::permanent(token, options.clock.now());
    Request {
        method: "GET".to_owned(),
        url: options.api_url.append("/v2/content/hubs?size=1"),
        headers: vec![
            ("Authorization".into(), Secret::from(token.authorization()).into()),
            ("Accept".into(), "application/hal+json, application/json".into()),
            ("User-Agent".into(), MaybeSecret::Public(options.user_agent.clone().into())),
        ],
        body: Vec::new().into(),
        max_response_bytes: 1024 * 1024,
    }
}

/// Reports how the API responded to the token.
fn check_api(
    report: &mut Report,
    reply: Result<Response>,
    options: &Options,
    is_personal: bool,
    took: Duration,
    secrets: &[&str],
) -> CheckResult<()> {
    let hubs = reply.and_then(|response| hubs(&response, options, is_personal, secrets));
    report.check("request", Some(took), hubs, |hubs| format!("{} lists {hubs} hubs", options.api_url))?;
    Ok(())
}

/// The number of hubs in the response of the API, or what is wrong with it.
fn hubs(response: &Response, options: &Options, is_personal: bool, secrets: &[&str]) -> Result<u64> {
    let api = &options.api_url;
    let target = || sanitize(response.header("location").unwrap_or("nowhere"), secrets);
    let (kind, message, hint) = match response.status {
        200 => {
            let total = serde_json::from_slice::<Value>(&response.body)
                .ok()
                .and_then(|body| body.pointer("/page/totalElements").and_then(Value::as_u64));
            match total {
                Some(total) => return Ok(total),
                None => (
                    Kind::Protocol,
                    format!("{api} did not respond like the Content Management API"),
                    "check api_url, and that no proxy or login page responds instead",
                ),
            }
        }
        401 | 403 if is_personal => (
            Kind::CredentialsRejected,
            format!("{api} rejected the personal access token: {PERSONAL_TOKEN_CAUSES}"),
            "look it up in the account of its user, and check api_url",
        ),
        401 | 403 => (
            Kind::CredentialsRejected,
            format!("{api} rejected the token"),
            "check what the API key may do (amp-token permissions), and that api_url and auth_url belong together",
        ),
        300..=399 => (Kind::Protocol, format!("{api} redirects to {}", target()), "set api_url to the URL of the API"),
        404 => (Kind::Protocol, format!("{api} has no Content Management API"), "check api_url"),
        429 => (Kind::RateLimited, format!("{api} is rate limiting requests"), "try again later"),
        500.. => (
            Kind::Server,
            format!("{api} returned a server error"),
            "try again later; if the problem persists, contact Amplience",
        ),
        _ => (Kind::Protocol, format!("{api} rejected the request"), "check api_url"),
    };
    Err(Error::new(kind, message).with_phase(Phase::Parse).with_http_status(response.status).with_hint(hint))
}
