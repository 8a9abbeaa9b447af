//! The `amp-emulator` command.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::client::{FORM, Response, exchange, request};

/// Starts the command and reads the settings that it prints, up to and including `last`.
fn start(arguments: &[&str], last: &str) -> (Child, HashMap<String, String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amp-emulator"));
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut settings = HashMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !settings.contains_key(last) {
        let line = lines.next().expect("more lines").unwrap();
        let (name, value) = line.split_once('=').unwrap();
        settings.insert(name.to_owned(), value.to_owned());
    }
    (child, settings)
}

fn terminate(mut child: Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
#[cfg(unix)]
fn it_serves_until_sigterm() {
    let (child, settings) = start(&["--expires-in", "60", "--client-id=me"], "client_secret");
    assert_eq!(settings["client_id"], "me");
    assert!(settings["auth_url"] == settings["url"] && settings["api_url"] == settings["url"]);
    let body = format!("client_id=me&client_secret={}&grant_type=client_credentials", settings["client_secret"]);
    let stream = TcpStream::connect(settings["url"].strip_prefix("http://").unwrap()).unwrap();
    let response = Response::parse(&exchange(stream, &request("POST", "/oauth/token", FORM, &body)).unwrap());
    assert_eq!((response.status, response.json()["expires_in"].as_u64()), (200, Some(60)));
    terminate(child);
}

#[test]
#[cfg(unix)]
fn it_prints_the_paths_of_its_files_and_removes_them() {
    let (child, settings) = start(&["--mutual-tls"], "client_key");
    assert!(settings["url"].starts_with("https://localhost:"));
    let files = ["ca_file", "client_certificate", "client_key"].map(|name| &settings[name]);
    assert!(files.iter().all(|path| std::fs::read_to_string(path).unwrap().starts_with("-----BEGIN ")));
    terminate(child);
    assert!(files.iter().all(|path| !std::path::Path::new(path).exists()));
}

#[test]
fn it_prints_help_and_rejects_unknown_options() {
    let run = |argument| Command::new(env!("CARGO_BIN_EXE_amp-emulator")).arg(argument).output().unwrap();
    let help = run("--help");
    assert!(help.status.success() && help.stdout.starts_with(b"A local server"));
    let unknown = run("--tsl");
    assert!(unknown.status.code() == Some(1) && unknown.stdout.is_empty());
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("--tsl"));
}
