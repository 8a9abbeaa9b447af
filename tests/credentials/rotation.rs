//! Secrets that are replaced while a cache runs, and profiles that share nothing.

use crate::{Home, ID, SECRET};
use amp_token::config::Config;
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::cache::TokenCache;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

/// That of the emulator's tokens.
const LIFETIME: Duration = Duration::from_secs(300);

/// A secret that is long enough for the store.
fn secret(number: u32) -> String {
    format!("secret number {number:08} of a test")
}

fn cache(home: &Home, clock: &Arc<ManualClock>, settings: &[(&str, &str)]) -> TokenCache {
    let mut config = Config::new();
    config.clock = Clock::Manual(clock.clone());
    let url = home.emulator.url();
    for (name, value) in [("auth_url", url.as_str()), ("retries", "0")].iter().chain(settings) {
        config.set(name, Some(value)).unwrap();
    }
    TokenCache::new(&config).unwrap()
}

/// The service and the source get a new secret again and again, and no call of a running cache fails.
fn rotates(home: &Home, settings: &[(&str, &str)], replace: impl Fn(u32)) {
    home.emulator.set_credentials(ID, secret(0));
    replace(0);
    let clock = ManualClock::new(1);
    let cache = cache(home, &clock, settings);
    let mut last = cache.get().unwrap();
    for number in 1..=5 {
        home.emulator.set_credentials(ID, secret(number));
        replace(number);
        // What is cached stays, and the next request finds the new secret.
        assert_eq!(cache.get().unwrap().value(), last.value());
        clock.advance(LIFETIME);
        let next = cache.get().unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_ne!(next.value(), last.value());
        last = next;
    }
    assert_eq!(home.emulator.stats().token_failures, 5, "each new secret was noticed because the old one was rejected");
}

#[test]
fn a_program_is_run_again_when_its_secret_was_rejected() {
    let home = Home::new();
    let file = home.path("secret").to_str().unwrap().to_owned();
    let program = home.program("x", &format!("echo run >> '{file}.runs'; cat '{file}'"));
    rotates(&home, &[("client_id", ID), ("credential_command", &program)], |number| {
        home.file("secret", &secret(number));
    });
    let runs = fs::read_to_string(home.path("secret.runs")).unwrap();
    assert_eq!(runs.lines().count(), 6);
}

#[test]
fn mounted_files_are_read_again_when_they_were_rejected() {
    let home = Home::new();
    let directory = home.path("mounted");
    fs::create_dir(&directory).unwrap();
    for name in ["client_id", "client_secret"] {
        symlink(format!("..data/{name}"), directory.join(name)).unwrap();
    }
    // As the kubelet does it.
    let replace = |number: u32| {
        fs::create_dir(directory.join(format!("..{number}"))).unwrap();
        home.file(&format!("mounted/..{number}/client_id"), ID);
        home.file(&format!("mounted/..{number}/client_secret"), &secret(number));
        symlink(format!("..{number}"), directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
        if number > 0 {
            fs::remove_dir_all(directory.join(format!("..{}", number - 1))).unwrap();
        }
    };
    rotates(&home, &[("credentials_dir", directory.to_str().unwrap())], replace);
}

#[test]
fn a_hub_is_read_again_when_it_was_rejected() {
    let home = Home::new();
    let replace = |number: u32| {
        home.hubs(&format!(r#"[{{"hubId":"1","name":"h","clientId":"{ID}","clientSecret":"{}"}}]"#, secret(number)));
    };
    replace(0);
    let mut config = Config::new();
    let settings = [("auth_url", home.emulator.url()), ("retries", "0".to_owned()), ("profile", "h".to_owned())];
    settings.iter().for_each(|(name, value)| config.set(name, Some(value)).unwrap());
    // The home directory of this process is another one.
    config.environment = amp_token::config::Environment::of_home(home.directory.path());
    home.emulator.set_credentials(ID, secret(0));
    let clock = ManualClock::new(1);
    config.clock = Clock::Manual(clock.clone());
    let cache = TokenCache::new(&config).unwrap();
    let first = cache.get().unwrap();
    home.emulator.set_credentials(ID, secret(1));
    replace(1);
    clock.advance(LIFETIME);
    assert_ne!(cache.get().unwrap().value(), first.value());
}

/// Sections with the same client and URL, and two hubs of one client.
#[test]
fn two_profiles_share_no_stored_token() {
    let home = Home::new();
    let section = |name: &str| format!("[{name}]\nclient_id = '{ID}'\nclient_secret = '{SECRET}'\n");
    home.config(&(section("a") + &section("b") + &section("default")));
    let hub = |id: &str| format!(r#"{{"hubId":"{id}","name":"hub {id}","clientId":"{ID}","clientSecret":"{SECRET}"}}"#);
    home.hubs(&format!("[{},{}]", hub("1"), hub("2")));
    let mut tokens = std::collections::BTreeSet::new();
    for profile in ["a", "b", "1", "2"] {
        let get = || home.succeeds(&mut home.amp_token(&["get", "--profile", profile]));
        let token = get();
        assert_eq!(get(), token, "{profile}");
        assert!(tokens.insert(token), "{profile}");
    }
    // A hub is the same by its name.
    assert!(!tokens.insert(home.succeeds(&mut home.amp_token(&["get", "--profile", "hub 1"]))));
    assert!(tokens.insert(home.succeeds(&mut home.amp_token(&["get"]))), "the section default");
    let mut command = home.amp_token(&["get"]);
    command.env("AMPLIENCE_CLIENT_ID", ID).env("AMPLIENCE_CLIENT_SECRET", SECRET);
    home.succeeds(&mut command);
    // What removes the token of one leaves those of the others.
    assert_eq!(home.succeeds(&mut home.amp_token(&["invalidate", "--profile", "a"])), "the stored token is removed\n");
    let requests = home.emulator.stats().token_requests;
    home.succeeds(&mut home.amp_token(&["get", "--profile", "b"]));
    assert_eq!(home.emulator.stats().token_requests, requests);
    home.succeeds(&mut home.amp_token(&["get", "--profile", "a"]));
    assert_eq!(home.emulator.stats().token_requests, requests + 1);
}

#[test]
fn profiles_are_listed_without_secrets() {
    let home = Home::new();
    home.config("[production]\nclient_id = 'p'\ncredential_command = ['pass', 'show', 'p']\n[empty]\n");
    home.hubs(&format!(
        r#"[{{"hubId":"1","name":"staging hub","clientId":"s","clientSecret":"{SECRET}","isActive":true}},{{"hubId":"2","patToken":"amp_pat_x"}},{{"_":[]}}]"#
    ));
    let run = |arguments: &[&str]| home.succeeds(&mut home.amp_token(&[&["profiles"], arguments].concat()));
    let table = "name          hub  client  credentials            file\n\
                 production    -    p       credential_command     ~/.config/amp-token/config.toml\n\
                 empty         -    -       none                   ~/.config/amp-token/config.toml\n\
                 staging hub * 1    s       client_secret          ~/.amplience/hubs.json\n\
                 2             2    -       personal_access_token  ~/.amplience/hubs.json\n";
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&run(&["--profile", "1"])), words(table));
    assert_eq!(run(&["--names"]), "production\nempty\nstaging hub\n2\n");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let expected = serde_json::json!({
        "name": "production", "hub_id": null, "client_id": "p", "credentials": "credential_command",
        "file": "~/.config/amp-token/config.toml", "chosen": false,
    });
    assert_eq!(json[0], expected);
    // Also while a profile that does not exist is chosen.
    assert_eq!(run(&["--names", "--profile", "x"]).lines().count(), 4);
}
