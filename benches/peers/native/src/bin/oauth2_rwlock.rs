//! A cache written by hand in Rust: the `oauth2` crate, ureq, and a lock around the token and its expiry.
//!
//! The crate rejects a response without `token_type`. Amplience does not send it, so the transport adds it.

use amp_bench_native::{run, setting};
use oauth2::basic::BasicClient;
use oauth2::{AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, TokenResponse, TokenUrl};
use std::hint::black_box;
use std::sync::RwLock;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

type Cached = RwLock<Option<(String, Instant)>>;

fn main() {
    let client = BasicClient::new(ClientId::new(setting("CLIENT_ID")))
        .set_client_secret(ClientSecret::new(setting("CLIENT_SECRET")))
        .set_auth_type(AuthType::RequestBody)
        .set_token_uri(TokenUrl::new(setting("AUTH_URL") + "/oauth/token").expect("AUTH_URL is a URL"));
    let agent = agent();
    let send = |request: HttpRequest| -> Result<HttpResponse, ureq::Error> {
        let mut reply = agent.run(request)?;
        let mut fields: serde_json::Value = serde_json::from_str(&reply.body_mut().read_to_string()?).expect("JSON");
        fields["token_type"] = "bearer".into();
        Ok(reply.map(|_| fields.to_string().into_bytes()))
    };
    let get = |cached: &Cached| {
        if let Some((token, end)) = cached.read().expect("no panic").as_ref()
            && Instant::now() < *end
        {
            return token.clone();
        }
        let mut cached = cached.write().expect("no panic");
        if let Some((token, end)) = cached.as_ref()
            && Instant::now() < *end
        {
            return token.clone();
        }
        let start = Instant::now();
        let reply = client.exchange_client_credentials().request(&send).expect("a token");
        let lifetime = reply.expires_in().unwrap_or_default();
        let token = reply.access_token().secret().clone();
        *cached = Some((token.clone(), start + lifetime.saturating_sub(Duration::from_secs(30))));
        token
    };
    run(Cached::default(), |cached, _| drop(black_box(get(cached))), get);
}

fn agent() -> Agent {
    let config = Agent::config_builder().max_redirects(0);
    let Ok(file) = std::env::var("CA_FILE") else { return config.build().into() };
    let pem = std::fs::read(file).expect("CA_FILE can be read");
    let roots: Vec<Certificate<'_>> = parse_pem(&pem)
        .filter_map(|item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None })
        .collect();
    config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(roots)).build()).build().into()
}
