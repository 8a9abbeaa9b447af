//! Files of the settings that do not answer: no call waits for them beyond its deadline, and the service's rejection
//! stays the error that counts.

use crate::support::*;
use amp_emulator::Emulator;
use amp_token::config::Config;
use amp_token::error::{Error, Kind};
use amp_token::token::cache::TokenCache;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A named pipe, which is not open for writing.
fn pipe(directory: &TempDir) -> PathBuf {
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    for (name, value) in settings {
        config.set(name, Some(value)).unwrap();
    }
    config
}

fn get(config: &Config) -> Result<(), Error> {
    TokenCache::new(config)?.get().map(drop)
}

#[test]
fn a_secret_from_a_pipe_that_nothing_is_written_to_times_out() {
    let directory = temp_dir();
    let pipe = pipe(&directory);
    let pipe = pipe.to_str().unwrap();
    for settings in [
        &[("client_id", "id"), ("client_secret_file", pipe)][..],
        &[("personal_access_token_file", pipe)],
        &[("config_file", pipe)],
    ] {
        let mut config = config(settings);
        config.set("timeout_ms", Some("100")).unwrap();
        let error = get(&config).unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        let message = error.to_string();
        assert!(
            message.contains(&format!("{} {pipe} timed out after 100 ms", settings.last().unwrap().0)),
            "{message}"
        );
    }
}

#[test]
fn certificates_from_a_pipe_that_nothing_is_written_to_time_out() {
    let directory = temp_dir();
    let pipe = pipe(&directory);
    let pipe = pipe.to_str().unwrap();
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let (id, secret, url) = (emulator.client_id(), emulator.client_secret(), emulator.url());
    let ca = emulator.ca_file();
    let base = [("client_id", id.as_str()), ("client_secret", &secret), ("auth_url", &url), ("retries", "0")];
    for files in [
        &[("ca_file", pipe)][..],
        &[("ca_file", ca.to_str().unwrap()), ("client_certificate", pipe), ("client_key", pipe)],
    ] {
        let mut config = config(&[&base[..], files].concat());
        config.set("timeout_ms", Some("2000")).unwrap();
        let error = get(&config).unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(error.to_string().contains("certificates for TLS timed out"), "{error}");
        assert!(error.to_string().contains(&format!("{} {pipe}", files.last().unwrap().0)), "{error}");
    }
}

#[test]
fn a_secret_that_cannot_be_read_again_does_not_hide_the_rejection() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let file = directory.path().join("secret");
    std::fs::write(&file, "the secret, which is rejected").unwrap();
    let url = emulator.url();
    let settings = [("client_id", "id"), ("client_secret_file", file.to_str().unwrap()), ("auth_url", &url)];
    let cache = TokenCache::new(&config(&settings)).unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = cache.get().err().unwrap();
    assert_eq!((error.kind(), error.http_status()), (Kind::CredentialsRejected, Some(400)), "{error}");
    // One that is written once: it is a pipe by now.
    pipe(&directory);
    std::fs::rename(directory.path().join("pipe"), &file).unwrap();
    let mut config = config(&settings);
    config.set("timeout_ms", Some("2000")).unwrap();
    let writer = std::thread::spawn({
        let file = file.clone();
        move || std::fs::write(file, "another secret, which is rejected").unwrap()
    });
    let error = get(&config).unwrap_err();
    writer.join().unwrap();
    assert_eq!((error.kind(), error.http_status()), (Kind::CredentialsRejected, Some(400)), "{error}");
}

#[test]
fn a_personal_access_token_that_cannot_be_read_again_is_kept() {
    let directory = temp_dir();
    let file = directory.path().join("token");
    std::fs::write(&file, "amp_pat_one").unwrap();
    let cache = TokenCache::new(&config(&[("personal_access_token_file", file.to_str().unwrap())])).unwrap();
    let token = cache.get().unwrap();
    std::fs::remove_file(&file).unwrap();
    cache.invalidate(&token);
    assert_eq!(cache.get().unwrap().value(), "amp_pat_one");
    std::fs::write(&file, "amp_pat_two").unwrap();
    cache.invalidate(&token);
    assert_eq!(cache.get().unwrap().value(), "amp_pat_two");
}

#[test]
fn a_rotated_secret_is_found_through_the_store_too() {
    let (emulator, directory) = (Emulator::builder().start().unwrap(), temp_dir());
    let file = directory.path().join("secret");
    std::fs::write(&file, "the secret from before the rotation").unwrap();
    let (id, url) = (emulator.client_id(), emulator.url());
    let settings = Settings::default()
        .with("client_id", &id)
        .with("client_secret_file", file.to_str().unwrap())
        .with("auth_url", &url)
        .with_file_store(&directory.path().join("store"));
    let (cache, _) = settings.cache();
    std::fs::write(&file, emulator.client_secret()).unwrap();
    let token = cache.get().unwrap();
    assert_eq!(emulator.stats().token_requests, 2);
    // It is stored under the new secret.
    let (other, _) = settings.cache();
    assert_eq!(other.get().unwrap().value(), token.value());
    assert_eq!(emulator.stats().token_requests, 2);
}

#[test]
fn certificates_that_are_loaded_too_late_serve_the_next_call() {
    let directory = temp_dir();
    let pipe = pipe(&directory);
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let (id, secret, url) = (emulator.client_id(), emulator.client_secret(), emulator.url());
    let settings = [
        ("client_id", id.as_str()),
        ("client_secret", &secret),
        ("auth_url", &url),
        ("ca_file", pipe.to_str().unwrap()),
        ("timeout_ms", "2000"),
        ("retries", "0"),
    ];
    let cache = TokenCache::new(&config(&settings)).unwrap();
    assert_eq!(cache.get().err().unwrap().kind(), Kind::Timeout);
    // The thread that the call has left reads it now.
    std::fs::write(&pipe, std::fs::read(emulator.ca_file()).unwrap()).unwrap();
    while cache.get().is_err() {}
}
