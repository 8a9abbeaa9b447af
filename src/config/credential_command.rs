//! Credentials that a program prints: a password manager, a vault, the command line of a cloud.
//!
//! It prints the secret on one line, or a JSON object: our own names, or those that AWS has for such programs
//! (`credential_process`). What it prints is never part of an error, except for the standard error of a program that
//! failed, without what is or looks like a secret.

use super::environment::{Environment, has_raised_privileges};
use super::settings::describe_json_error;
use super::text::trim_text;
use crate::error::{Error, Kind, Result, resource_limit};
use crate::sanitize::{QUOTE_LIMIT, sanitize};
use crate::sys::deadline::IoDeadline;
use crate::sys::program::{self, Ended, Outcome, Printed};
use crate::sys::secret::Secret;
use serde::Deserialize;
use std::io::ErrorKind;
use std::path::Path;
use zeroize::Zeroizing;

/// The most that a program may print, in bytes. Credentials have some hundred.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// The shortest run of letters and digits that may be a secret, in characters: those of clients have 64.
const SHORTEST_SECRET: usize = 32;

/// What a program has printed.
#[derive(Debug)]
pub(super) enum Output {
    /// A secret alone: that of a client, or a personal access token.
    Text(Secret),
    /// A client id and its secret.
    Client { id: String, secret: Secret },
    /// A client's secret in a JSON object without a client id.
    ClientSecret(Secret),
    /// A personal access token.
    PersonalAccessToken(Secret),
}

/// The command as messages name it: its arguments may hold anything.
pub(super) fn describe(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    let name = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
    format!("credential_command {}", sanitize(&name, &[]))
}

/// Rejects a command in a program with raised privileges, whose user chooses the environment of what it runs.
pub(super) fn check_privileges(command: &[String]) -> Result<()> {
    if !has_raised_privileges() {
        return Ok(());
    }
    let name = describe(command);
    let message = format!(
        "{name} is not run, because this program runs with raised privileges (setuid, setgid or file capabilities)"
    );
    Err(Error::new(Kind::Config, message).with_hint("set client_secret or client_secret_file"))
}

/// Runs the command.
pub(super) fn run(command: &[String], environment: &Environment, deadline: IoDeadline) -> Result<Output> {
    check_privileges(command)?;
    let name = describe(command);
    let no_program = |problem: &str| {
        Error::new(Kind::Config, format!("{name} cannot be run: {problem}"))
            .with_hint("install the program, or use its whole path")
    };
    let Some(program) = command.first() else { return Err(no_program("it has no name")) };
    let variables = environment.inherited();
    let Some(file) = program::find(program, variables) else {
        return Err(no_program("there is no such program in PATH"));
    };
    let outcome = program::run(&file, command, variables, OUTPUT_LIMIT, deadline).map_err(|error| {
        match (error.kind(), resource_limit(&error)) {
            (ErrorKind::TimedOut, _) => timed_out(&name, deadline, ""),
            (_, Some((problem, hint))) => {
                Error::new(Kind::Io, format!("{name} cannot be run: {problem}")).with_hint(hint)
            }
            (ErrorKind::NotFound, _) => no_program(&format!("{} does not exist", sanitize(program, &[]))),
            _ => no_program(&error.to_string()),
        }
    })?;
    let failed = |problem: &str, printed: &Printed| {
        Error::new(Kind::NoCredentials, format!("{name} {problem}{}", stderr(printed)))
    };
    match outcome {
        Outcome::TimedOut(printed) => Err(timed_out(&name, deadline, &stderr(&printed))),
        Outcome::TooLong(printed) => Err(failed(&format!("printed more than {OUTPUT_LIMIT} bytes"), &printed)
            .with_hint("it must print the secret alone, or a JSON object")),
        Outcome::Ended(Ended::Status(0) | Ended::Unknown, printed) => {
            parse(&printed.stdout).map_err(|(problem, hint)| failed(&problem, &printed).with_hint(hint))
        }
        Outcome::Ended(Ended::Status(status), printed) => {
            Err(failed(&format!("ended with status {status}"), &printed).with_hint(RUN_BY_HAND))
        }
        Outcome::Ended(Ended::Signal(signal), printed) => {
            Err(failed(&format!("was ended by signal {signal}"), &printed).with_hint(RUN_BY_HAND))
        }
    }
}

const RUN_BY_HAND: &str = "run it by hand, as the same user and without a terminal";

fn timed_out(name: &str, deadline: IoDeadline, stderr: &str) -> Error {
    Error::new(Kind::Timeout, format!("{name} did not end within {deadline}{stderr}"))
        .with_hint("it cannot ask questions: unlock what it reads from first; or raise timeout_ms")
}

/// What the program printed on standard error, as the end of a message: the last lines, without secrets.
fn stderr(Printed { stdout, stderr }: &Printed) -> String {
    let text = Zeroizing::new(String::from_utf8_lossy(stderr).into_owned());
    let text = text.trim();
    let mut start = text.len();
    for (position, _) in text.rmatch_indices('\n').chain([(0, "")]) {
        if text.len() - position > QUOTE_LIMIT && start < text.len() {
            break;
        }
        start = position;
    }
    // A line that is too long is cut at its end by sanitize().
    let text = text[start..].trim();
    if text.is_empty() {
        return String::new();
    }
    let output = Zeroizing::new(String::from_utf8_lossy(stdout).into_owned());
    let secrets: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!(": {}", without_long_runs(&sanitize(text, &secrets)))
}

/// Replaces runs of letters and digits that may be secrets, such as those that a shell's trace shows.
fn without_long_runs(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, run) = rest.split_at(start);
        let end = run.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(run.len());
        shown.push_str(before);
        shown.push_str(if end >= SHORTEST_SECRET { "[redacted]" } else { &run[..end] });
        rest = &run[end..];
    }
    shown + rest
}

/// Names of ours, and those of AWS.
#[derive(Deserialize)]
struct Members {
    #[serde(alias = "AccessKeyId")]
    client_id: Option<String>,
    #[serde(alias = "SecretAccessKey")]
    client_secret: Option<Secret>,
    personal_access_token: Option<Secret>,
}

/// The error is what is wrong, and a hint.
fn parse(stdout: &[u8]) -> std::result::Result<Output, (String, &'static str)> {
    const ONE_LINE: &str = "it must print the secret on one line, or a JSON object";
    const MEMBERS: &str = "it must have client_id and client_secret, or personal_access_token";
    let Ok(text) = std::str::from_utf8(stdout) else {
        return Err(("printed something that is not UTF-8".to_owned(), ONE_LINE));
    };
    let text = trim_text(text);
    if text.is_empty() {
        return Err(("printed nothing".to_owned(), ONE_LINE));
    }
    if !text.starts_with('{') {
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        return match lines {
            1 => Ok(Output::Text(Secret::from(text))),
            _ => Err((format!("printed {lines} lines"), ONE_LINE)),
        };
    }
    let Members { client_id, client_secret, personal_access_token } = serde_json::from_str(text)
        .map_err(|error| (format!("printed JSON that is not valid: {}", describe_json_error(&error)), MEMBERS))?;
    let filled = |secret: Option<Secret>| {
        let secret = secret.map(|secret| Secret::from(trim_text(secret.expose())));
        secret.filter(|secret| !secret.is_empty())
    };
    let id = client_id.map(|id| trim_text(&id).to_owned()).filter(|id| !id.is_empty());
    match (id, filled(client_secret), filled(personal_access_token)) {
        (None, None, Some(token)) => Ok(Output::PersonalAccessToken(token)),
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Err(("printed JSON with both a client and a personal_access_token".to_owned(), MEMBERS))
        }
        (Some(id), Some(secret), None) => Ok(Output::Client { id, secret }),
        (None, Some(secret), None) => Ok(Output::ClientSecret(secret)),
        (Some(_), None, None) => Err(("printed JSON without a client_secret".to_owned(), MEMBERS)),
        (None, None, None) => Err(("printed JSON without credentials".to_owned(), MEMBERS)),
    }
}

/// The credentials that a program has printed, or what is wrong with them and what is shown of its standard error; for
/// the fuzzer.
#[cfg(fuzzing)]
pub fn parse_output(stdout: &[u8], error_output: &[u8]) -> std::result::Result<Vec<Secret>, String> {
    let bytes = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    let shown = stderr(&Printed { stdout: bytes(stdout), stderr: bytes(error_output) });
    match parse(stdout) {
        Ok(Output::Client { id, secret }) => Ok(vec![Secret::from(id.as_str()), secret]),
        Ok(Output::Text(secret) | Output::ClientSecret(secret) | Output::PersonalAccessToken(secret)) => {
            Ok(vec![secret])
        }
        Err((problem, hint)) => Err(format!("{problem}; {hint}{shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_a_secret_or_an_object() {
        for (text, expected) in [
            ("hush\n", r#"Text([secret])"#),
            ("\u{feff} hu sh \r\n", "Text([secret])"),
            (r#"{"client_id":" i ","client_secret":"s\n"}"#, r#"Client { id: "i", secret: [secret] }"#),
            (r#"{"client_secret":"s","more":[1]}"#, "ClientSecret([secret])"),
            (r#"{"personal_access_token":"amp_pat_1"}"#, "PersonalAccessToken([secret])"),
            (
                r#"{"Version":1,"AccessKeyId":"i","SecretAccessKey":"s","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}"#,
                r#"Client { id: "i", secret: [secret] }"#,
            ),
        ] {
            let shown = format!("{:?}", parse(text.as_bytes()).unwrap());
            assert_eq!(shown.replace("Secret(..)", "[secret]"), expected, "{text}");
        }
        for (text, problem) in [
            ("", "printed nothing"),
            (" \n\t\n", "printed nothing"),
            ("hush\nuser: me\n", "printed 2 lines"),
            ("hush\r\rmore\n\nand", "printed 2 lines"),
            ("{\"client_id\": \"hush\"", "printed JSON that is not valid: it ends too early (line 1, column 20)"),
            ("{\"client_id\"; \"hush\"}", "printed JSON that is not valid: expected `:` (line 1, column 13)"),
            (
                "{\n\"client_id\": 5}",
                "printed JSON that is not valid: a value has another type than expected (line 2, column 14)",
            ),
            ("{\"client_id\": \"hush\"}", "printed JSON without a client_secret"),
            ("{\"client_secret\": \"\"}", "printed JSON without credentials"),
            ("{}", "printed JSON without credentials"),
            (
                r#"{"client_id":"a","client_secret":"hush","personal_access_token":"hush"}"#,
                "printed JSON with both a client and a personal_access_token",
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().0, problem, "{text}");
        }
        assert_eq!(parse(b"\xff\xfe").unwrap_err().0, "printed something that is not UTF-8");
    }

    #[test]
    fn the_error_output_is_shown_without_secrets() {
        let shown = |stdout: &str, text: &str| {
            let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
            stderr(&Printed { stdout: bytes(stdout), stderr: bytes(text) })
        };
        assert_eq!(shown("", " \n"), "");
        assert_eq!(shown("", "gpg: decryption failed: No secret key\n"), ": gpg: decryption failed: No secret key");
        assert_eq!(shown("hush-hush-hush\n", "+ echo hush-hush-hush\nno"), ": + echo [redacted] no");
        let secret = "94a4c32749110a75f7be94a4c32749110a75f7be94a4c32749110a75f7be5e04";
        assert_eq!(
            shown("", &format!("+ S={secret}\nfailed (id 4e7e72f5-9bd5-4d2c-9b0c-1c7e3c1f7f4e)")),
            ": + S=[redacted] failed (id 4e7e72f5-9bd5-4d2c-9b0c-1c7e3c1f7f4e)"
        );
        let long = format!("Traceback\n{}\nError: the vault is sealed\n", "  File x\n".repeat(100));
        let end = shown("", &long);
        assert!(end.ends_with("File x Error: the vault is sealed") && end.len() < 220, "{end}");
        let line = shown("", &"é ".repeat(40_000));
        assert!(line.len() < 700, "{}", line.len());
    }
}
