//! Which proxy, by settings and environment: an answer for every text, and no password in an error.
#![no_main]
use amp_token::net::proxy;
use amp_token::net::url::Url;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<String>, String, Vec<u8>, Vec<u8>)| on_small_stack(move || run(input)));

fn run(input: (Option<String>, String, Vec<u8>, Vec<u8>)) {
    let (setting, url, proxy, no_proxy) = input;
    let proxy = [b"http://user:hush-hush-hush@", proxy.as_slice()].concat();
    let environment = |name: &str| match name {
        "https_proxy" => Some(proxy.as_slice()),
        "no_proxy" => Some(no_proxy.as_slice()),
        _ => None,
    };
    for url in [url.as_str(), "https://auth.example.co.uk:8443/oauth/token", "http://[::1]:80/", "https://10.1.2.3/"] {
        let Some(url) = Url::parse(url) else { continue };
        if let Err(error) = proxy::select_proxy(&url, setting.as_deref(), environment) {
            assert!(!error.to_string().contains("hush-hush-hush"), "{error}");
        }
    }
}
