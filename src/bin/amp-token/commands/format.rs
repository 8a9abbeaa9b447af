//! The forms in which `amp-token get` prints a token: for shells, and for programs that run a command for one.
//!
//! A token consists of visible ASCII characters. A personal access token may contain any of them, so each form quotes
//! those that have a meaning in it. All buffers are wiped.

use crate::cli::TOKEN_VARIABLE;
use crate::exit::{CliError, CliResult};
use amp_token::sys::clock::Clock;
use amp_token::token::Token;
use zeroize::Zeroizing;

/// The forms, and what each is for.
pub const FORMATS: [(&str, &str); 8] = [
    ("plain", "the token alone"),
    ("header", "the header Authorization"),
    ("json", "an object, with the time at which it expires"),
    ("env", "for eval in sh, bash and zsh"),
    ("fish", "for source in fish"),
    ("powershell", "for Invoke-Expression in PowerShell"),
    ("cmd", "a line of a batch file of Windows"),
    ("exec-credential", "for Kubernetes' kubectl"),
];

/// The token in one of the forms, or in the one of `curl-config`, without a line break at its end.
pub fn token(format: &str, token: &Token) -> CliResult<Zeroizing<String>> {
    let value = token.value();
    Ok(match format {
        // In a quoted string of curl a backslash starts an escape sequence, as in JSON.
        "curl" => concat(&["header = \"Authorization: ", &json_escaped(token.authorization()), "\""]),
        "header" => concat(&["Authorization: ", token.authorization()]),
        "json" => {
            let times = match token.is_permanent() {
                true => ", \"expires_at\": null, \"expires_in\": null".to_owned(),
                false => {
                    let left = token.expires_in(Clock::System.now());
                    format!(", \"expires_at\": {}, \"expires_in\": {left}", token.expires_at())
                }
            };
            let value = json_escaped(value);
            concat(&["{\"access_token\": \"", &value, "\", \"token_type\": \"Bearer\"", &times, "}"])
        }
        "env" => concat(&["export ", TOKEN_VARIABLE, "='", &replaced(value, &[('\'', "'\\''")]), "'"]),
        "fish" => {
            let value = replaced(value, &[('\\', "\\\\"), ('\'', "\\'")]);
            concat(&["set -gx ", TOKEN_VARIABLE, " '", &value, "'"])
        }
        "powershell" => concat(&["$Env:", TOKEN_VARIABLE, " = '", &replaced(value, &[('\'', "''")]), "'"]),
        // Nothing can escape a quotation mark in cmd.
        "cmd" if value.contains('"') => {
            return Err(CliError::usage("the token contains a quotation mark, which cannot be written for cmd"));
        }
        "cmd" => concat(&["set \"", TOKEN_VARIABLE, "=", &replaced(value, &[('%', "%%")]), "\""]),
        "exec-credential" => {
            let expires = match token.is_permanent() {
                true => String::new(),
                false => format!(", \"expirationTimestamp\": \"{}\"", rfc3339(token.expires_at())),
            };
            let head =
                "{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": ";
            concat(&[head, "{\"token\": \"", &json_escaped(value), "\"", &expires, "}}"])
        }
        _ => concat(&[value]),
    })
}

/// Visible ASCII in a string of JSON.
pub fn json_escaped(text: &str) -> Zeroizing<String> {
    replaced(text, &[('"', "\\\""), ('\\', "\\\\")])
}

/// The text with other strings, of at most four bytes, in place of some characters.
fn replaced(text: &str, others: &[(char, &str)]) -> Zeroizing<String> {
    // Large enough from the start, because a buffer that grows leaves copies of its contents in memory.
    let mut result = Zeroizing::new(String::with_capacity(text.len() * 4));
    for c in text.chars() {
        match others.iter().find(|(from, _)| *from == c) {
            Some((_, to)) => result.push_str(to),
            None => result.push(c),
        }
    }
    result
}

fn concat(parts: &[&str]) -> Zeroizing<String> {
    Zeroizing::new(parts.concat())
}

/// Seconds since 1970 as RFC 3339 writes them. By hand: it is the only date that the command writes so.
fn rfc3339(seconds: i64) -> String {
    let (mut days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days_of = |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = days_of(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use amp_token::sys::secret::Secret;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn what_has_a_meaning_in_a_form_is_quoted() {
        let permanent = |text: &str| Token::permanent(&Secret::from(text), Clock::System.now());
        let token = |format: &str, text: &str| super::token(format, &permanent(text)).unwrap().to_string();
        let odd = r"a'b\c$d%e`f&";
        assert_eq!(token("plain", odd), odd);
        assert_eq!(token("powershell", odd), r"$Env:AMPLIENCE_ACCESS_TOKEN = 'a''b\c$d%e`f&'");
        assert_eq!(token("cmd", odd), r#"set "AMPLIENCE_ACCESS_TOKEN=a'b\c$d%%e`f&""#);
        assert!(super::token("cmd", &permanent("a\"b")).is_err());
        for format in ["json", "exec-credential"] {
            let json: serde_json::Value = serde_json::from_str(&token(format, "a\"b\\c")).unwrap();
            let value = json.get("access_token").or_else(|| json.pointer("/status/token"));
            assert_eq!(value, Some(&"a\"b\\c".into()), "{json}");
            assert_eq!(json.pointer("/status/expirationTimestamp"), None);
        }
    }
}
