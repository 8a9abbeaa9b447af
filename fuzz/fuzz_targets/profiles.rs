//! A `config.toml`: sections whose values are those of the settings, or an error that names a place and quotes nothing.
#![no_main]
use amp_token::config::profiles::parse_profiles;
use amp_token::config::{Config, settings};
use amp_token_fuzz::{Piece, assemble, on_small_stack};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "hush-hush-hush";

#[rustfmt::skip]
const TABLE: [&str; 40] = [
    "[default]\n", "[\"a b\"]\n", "[", "]", "[[", "client_id", "client_secret", "credential_command", "timeout_ms", "background_refresh",
    "retries", "store", "auth_url", "ca_file", "profile", " = ", "=", "\n", "\r\n", "\"", "'", "'''", "\"\"\"", "\\", "\\u00e9", "\\n",
    "'hush-hush-hush'", "\"hush-hush-hush\"", "5_000", "-1", "0xff", "1.5", "true", "{", "}", ",", ".", "# comment", "\u{feff}", "file",
];

fuzz_target!(|pieces: Vec<Piece>| on_small_stack(move || run(&assemble(&pieces, &TABLE))));

fn run(text: &str) {
    match parse_profiles(text) {
        Ok(profiles) => {
            for (number, (name, values)) in profiles.iter().enumerate() {
                assert!(profiles[..number].iter().all(|(other, _)| other != name), "{name} twice in {text:?}");
                for (setting, value) in values {
                    let mut config = Config::new();
                    let set = config.set(setting, Some(value.expose()));
                    assert!(set.is_ok(), "{setting}: {set:?} in {text:?}");
                    assert!(settings::SETTINGS.iter().any(|row| row.name == *setting));
                }
            }
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("/home/me/config.toml"), "{shown}");
            // A value that is not quoted, or is no value, may be anything. A name of a setting is quoted.
            assert!(!shown.contains(SECRET) || is_name(text), "{shown}");
        }
    }
}

/// Whether the secret is where a name belongs, which a message may repeat.
fn is_name(text: &str) -> bool {
    text.lines().any(|line| line.split(['=', ']']).next().is_some_and(|name| name.contains(SECRET)))
}
