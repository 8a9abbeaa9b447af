//! The members of a token response that this library reads, successful or not.
//!
//! Each member is interpreted on its own: one of an unexpected type does not hide the others. The body must be one
//! JSON object, without duplicates of the members that are read. Members that are not read may have any value.

use crate::sys::secret::SecretCow;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The members, as they are spelled. `null` counts as missing.
#[derive(Default, Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    token_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error_description: Option<&'a RawValue>,
}

/// The `expires_in` of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seconds {
    Missing,
    /// It is not a positive whole number.
    Invalid,
    Valid(u64),
}

/// The `error` of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OauthError<'a> {
    /// There is none. Some servers send an empty one beside a token: an empty string, `false` or 0.
    None,
    /// A code, such as `invalid_client`.
    Code(&'a str),
    /// A value that is not a code of OAuth, such as an object.
    Other,
}

/// A token response, parsed.
pub(super) struct TokenBody<'a> {
    pub(super) access_token: Option<SecretCow<'a>>,
    /// Whether `access_token` has a value of another type.
    pub(super) has_other_token: bool,
    pub(super) token_type: Option<SecretCow<'a>>,
    pub(super) expires_in: Seconds,
    has_error: bool,
    error_code: Option<SecretCow<'a>>,
    pub(super) error_description: Option<SecretCow<'a>>,
}

impl<'a> TokenBody<'a> {
    /// Parses a body; `None` if it is not such an object.
    pub(super) fn parse(body: &'a str) -> Option<Self> {
        // Serde would also fill the members from an array, in their order.
        if !body.starts_with('{') {
            return None;
        }
        let members: Members = serde_json::from_str(body).ok()?;
        let has_error = members.error.is_some_and(|error| !is_empty(error));
        let access_token = members.access_token.and_then(string);
        Some(TokenBody {
            has_other_token: members.access_token.is_some() && access_token.is_none(),
            access_token,
            token_type: members.token_type.and_then(string).filter(|kind| !kind.trim().is_empty()),
            expires_in: members.expires_in.map_or(Seconds::Missing, seconds),
            has_error,
            error_code: members.error.filter(|_| has_error).and_then(string),
            error_description: members.error_description.and_then(string),
        })
    }

    /// The code of the error, if there is one.
    pub(super) fn error_code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }

    pub(super) fn error(&self) -> OauthError<'_> {
        match self.error_code() {
            Some(code) => OauthError::Code(code),
            None if self.has_error => OauthError::Other,
            None => OauthError::None,
        }
    }
}

/// A body as text, without the byte order mark, which some servers send and JSON does not allow, and without
/// surrounding blanks. A description in Latin-1 must not hide the error that it belongs to: bytes that are not UTF-8
/// are replaced, in a copy that is allocated once and wiped.
pub(super) fn text(body: &[u8]) -> SecretCow<'_> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match std::str::from_utf8(body) {
        Ok(text) => SecretCow::Borrowed(text),
        Err(_) => {
            // Each byte becomes at most the three bytes of the replacement character.
            let mut copy = Zeroizing::new(String::with_capacity(body.len() * 3));
            for chunk in body.utf8_chunks() {
                copy.push_str(chunk.valid());
                if !chunk.invalid().is_empty() {
                    copy.push(char::REPLACEMENT_CHARACTER);
                }
            }
            SecretCow::Owned(copy)
        }
    }
}

fn string(value: &RawValue) -> Option<SecretCow<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// Whether a value means that there is no error.
fn is_empty(value: &RawValue) -> bool {
    string(value).map_or_else(
        || matches!(value.get(), "false" | "[]" | "{}") || number(value.get()) == Some(0.0),
        |text| text.trim().is_empty(),
    )
}

/// A whole number in any spelling of JSON (`300`, `300.0`, `3e2`), or a string that contains one. A number that is
/// too large for any type counts as the largest.
fn seconds(value: &RawValue) -> Seconds {
    let quoted = string(value);
    let spelled = quoted.as_deref().map_or(value.get(), str::trim);
    match number(spelled) {
        // The conversion saturates.
        Some(number) if number >= 1.0 && (number.fract() == 0.0 || number.is_infinite()) => {
            Seconds::Valid(number as u64)
        }
        _ => Seconds::Invalid,
    }
}

/// Parses a decimal number. The standard library alone would also accept `inf` and `nan`.
fn number(text: &str) -> Option<f64> {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires_in(spelled: &str) -> Seconds {
        TokenBody::parse(&format!("{{\"expires_in\":{spelled}}}")).unwrap().expires_in
    }

    #[test]
    fn every_spelling_of_a_whole_number_is_accepted() {
        for spelled in [
            "300",
            "300.0",
            "300.000",
            "3e2",
            "3E2",
            "3.0e+2",
            "30000e-2",
            "3000.0E-1",
            "\"300\"",
            "\"300.0\"",
            "\"3e2\"",
            "\" 300 \"",
            "\"+300\"",
            "\"\\u0033\\u0030\\u0030\"",
        ] {
            assert_eq!(expires_in(spelled), Seconds::Valid(300), "{spelled}");
        }
        for spelled in ["1e400", "\"1e400\"", "18446744073709551616", "9e99"] {
            assert_eq!(expires_in(spelled), Seconds::Valid(u64::MAX), "{spelled}");
        }
        for spelled in [
            "0",
            "0.0",
            "-0",
            "-300",
            "300.5",
            "1e-1",
            "\"\"",
            "\"inf\"",
            "\"nan\"",
            "\"300 s\"",
            "\"3,0\"",
            "true",
            "[300]",
            "{\"a\":300}",
            "\"0x12c\"",
            "\"1e\"",
            "\"-1\"",
            "0.9",
        ] {
            assert_eq!(expires_in(spelled), Seconds::Invalid, "{spelled}");
        }
        assert_eq!(expires_in("null"), Seconds::Missing);
    }

    #[test]
    fn an_empty_error_is_none() {
        for (value, expected) in [
            ("null", OauthError::None),
            ("\"\"", OauthError::None),
            ("\" \"", OauthError::None),
            ("false", OauthError::None),
            ("0", OauthError::None),
            ("0.0", OauthError::None),
            ("[]", OauthError::None),
            ("{}", OauthError::None),
            ("true", OauthError::Other),
            ("1", OauthError::Other),
            ("{\"code\":\"invalid_client\"}", OauthError::Other),
            ("[\"invalid_client\"]", OauthError::Other),
            ("\"invalid_client\"", OauthError::Code("invalid_client")),
            ("\"invalid\\u005fclient\"", OauthError::Code("invalid_client")),
        ] {
            let body = format!("{{\"error\":{value}}}");
            assert_eq!(TokenBody::parse(&body).unwrap().error(), expected, "{value}");
        }
    }

    #[test]
    fn a_member_of_another_type_does_not_hide_the_others() {
        for odd in ["5", "[\"x\"]", "{\"a\":{}}", "true", "\"\\ud800\"", "null"] {
            let body = format!(
                "{{\"access_token\":{odd},\"token_type\":{odd},\"error\":\"invalid_client\",\"error_description\":{odd}}}"
            );
            let body = TokenBody::parse(&body).unwrap();
            assert_eq!(body.error(), OauthError::Code("invalid_client"), "{odd}");
            assert!(body.access_token.is_none() && body.token_type.is_none() && body.error_description.is_none());
            assert_eq!(body.has_other_token, odd != "null");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let bytes = b"\xef\xbb\xbf {\"error\":\"invalid_client\",\"error_description\":\"ung\xfcltig\"}\r\n";
        let text = text(bytes);
        let body = TokenBody::parse(&text).unwrap();
        assert_eq!(body.error(), OauthError::Code("invalid_client"));
        assert_eq!(body.error_description.as_deref(), Some("ung\u{fffd}ltig"));
        let SecretCow::Owned(copy) = &text else { panic!("not copied") };
        assert_eq!(copy.capacity(), (bytes.len() - 3 - 1 - 2) * 3);
    }
}
