//! Text that must not be seen: wiped when dropped, left out of core dumps, never printed.
//!
//! Every secret and token lives in a [`Secret`] for as long as the library keeps it. What it passes through
//! on its way is wiped, and filled once: a growing buffer leaves copies behind that nobody wipes.

use crate::sys::vault::Place;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A secret text. Its clones share it.
#[derive(Clone)]
pub struct Secret(Arc<SecretText>);

/// A secret text that is not shared, and so one pointer closer.
pub(crate) struct SecretText(Place);

impl SecretText {
    pub(crate) fn new(text: &str) -> Self {
        SecretText(Place::new(text.as_bytes()))
    }

    #[inline]
    pub(crate) fn expose(&self) -> &str {
        // SAFETY: it was made from a `str`, and its bytes do not change.
        unsafe { std::str::from_utf8_unchecked(self.0.bytes()) }
    }
}

impl Secret {
    /// Takes over `str_arg`, whose buffer is wiped.
    pub fn new(text: String) -> Self {
        Secret::from(Zeroizing::new(text).as_str())
    }

    /// The text itself: for the place that sends it, and no other.
    #[inline]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(Arc::new(SecretText::new(text)))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        SecretCow::deserialize(text).map(|text| Secret::from(&*text))
    }
}

/// A value that is secret or not, depending on what it is the value of: a header, a setting.
#[derive(Clone, Debug)]
pub enum MaybeSecret {
    /// One that may be shown.
    Public(Cow<'static, str>),
    /// One that must not.
    Secret(Secret),
}

impl MaybeSecret {
    /// The text itself, secret or not.
    pub fn expose(&self) -> &str {
        match self {
            MaybeSecret::Public(text) => text,
            MaybeSecret::Secret(secret) => secret.expose(),
        }
    }
}

/// What is in the program is public. (There is none for `String`, because that may hold anything.)
impl From<&'static str> for MaybeSecret {
    fn from(text: &'static str) -> Self {
        MaybeSecret::Public(Cow::Borrowed(text))
    }
}

impl From<Secret> for MaybeSecret {
    fn from(secret: Secret) -> Self {
        MaybeSecret::Secret(secret)
    }
}

/// A string of a document that may hold a secret: borrowed from the document, or a copy that is wiped when it
/// is dropped.
///
/// `Cow<str>` does not do: where serde does not know that it may borrow, as inside an `Option`, it makes a
/// `Cow` that owns a copy, which is not wiped.
pub enum SecretCow<'a> {
    /// A part of the document.
    Borrowed(&'a str),
    /// A copy, where the document has escapes.
    Owned(Zeroizing<String>),
}

impl Deref for SecretCow<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            SecretCow::Borrowed(text) => text,
            SecretCow::Owned(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SecretCow<'a> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = SecretCow<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(SecretCow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(SecretCow::Owned(Zeroizing::new(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(SecretCow::Owned(Zeroizing::new(text)))
            }
        }
        text.deserialize_str(Text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Secret bytes, which need not be UTF-8.
pub struct SecretBytes(Place);

impl SecretBytes {
    /// The bytes themselves: for the code that sends them, and no other.
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        SecretBytes(Place::new(bytes))
    }
}

impl Clone for SecretBytes {
    fn clone(&self) -> Self {
        SecretBytes::from(self.expose())
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Appends to a buffer. Where it has to grow, the old one is wiped, which `Vec` itself does not do.
pub fn append(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let length = buffer.len() + bytes.len();
    if length > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max(buffer.capacity() * 2)));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(bytes);
}

/// A short name by which a log can tell one token from another: it cannot be turned back, and, being
/// salted anew in every process, cannot be compared with anything outside of it.
pub fn fingerprint(text: &str) -> String {
    use std::hash::BuildHasher;
    use std::sync::OnceLock;
    static SALT: OnceLock<std::hash::RandomState> = OnceLock::new();
    let hash = SALT.get_or_init(std::hash::RandomState::new).hash_one(text);
    format!("{:06x}", hash & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::from("hush")), "[secret]");
        assert_eq!(format!("{:?}", SecretBytes::from(&b"hush"[..])), "[secret]");
        let values = [MaybeSecret::from("public"), Secret::from("hush").into()];
        assert_eq!(format!("{values:?}"), r#"[Public("public"), Secret([secret])]"#);
    }

    #[test]
    fn a_fingerprint_is_stable_and_tells_nothing() {
        assert_eq!(fingerprint("token"), fingerprint("token"));
        assert_ne!(fingerprint("token"), fingerprint("other"));
        assert_eq!(fingerprint("token").len(), 6);
    }

    #[test]
    fn a_string_is_borrowed_from_its_document_also_inside_an_option() {
        #[derive(serde::Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            text: Option<SecretCow<'a>>,
        }
        for (json, is_borrowed) in [(r#"{"text":"quiet"}"#, true), (r#"{"text":"q\u0075iet"}"#, false)] {
            let text = serde_json::from_str::<Document>(json).unwrap().text.unwrap();
            assert_eq!((&*text, matches!(text, SecretCow::Borrowed(_))), ("quiet", is_borrowed));
        }
        assert!(serde_json::from_str::<Document>(r#"{"text":1}"#).is_err());
    }
}
