//! Any value of any setting: it is accepted, or rejected with a reason; accepted values make usable options.
#![no_main]
use amp_token::config::Config;
use amp_token::config::settings::SETTINGS;
use amp_token::net::url::Url;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pairs: Vec<(u8, String)>| on_small_stack(move || run(pairs)));

fn run(pairs: Vec<(u8, String)>) {
    let mut config = Config::new();
    for (row, value) in &pairs {
        let setting = &SETTINGS[usize::from(*row) % SETTINGS.len()];
        if let Err(error) = config.set(setting.name, Some(value)) {
            assert!(error.to_string().starts_with(setting.name), "{error}");
        }
    }
    if let Ok(options) = config.options() {
        assert!(options.token_url.path().ends_with("/oauth/token"));
        for url in [options.token_url, options.api_url] {
            assert!(Url::parse(url.as_str()).is_some_and(|parsed| parsed == url), "{url}");
        }
    }
    let _ = format!("{config:?}");
}
