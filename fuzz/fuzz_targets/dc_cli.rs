//! A configuration file of dc-cli, or something that looks like one.
#![no_main]
use amp_token::config::credentials::Credentials;
use amp_token::config::dc_cli::from_dc_cli;
use amp_token::log::Log;
use amp_token::oauth::client_credentials;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<String>, Vec<u8>)| on_small_stack(move || run(input)));

fn run(input: (Option<String>, Vec<u8>)) {
    let (client_id, text) = input;
    match from_dc_cli(&text, "a file", client_id.as_deref(), &Log::default()) {
        Ok(Some(Credentials::PersonalAccessToken(token))) => {
            assert!(client_credentials::is_valid_bearer_token(token.expose()))
        }
        Ok(Some(Credentials::Client { id, secret })) => assert!(!id.is_empty() && !secret.is_empty()),
        Ok(None) | Err(_) => {}
    }
}
