//! Secret strings: wiped when they are dropped, excluded from core dumps, never printed.
//!
//! The library keeps every client secret and every token in a [`Secret`]. The buffers that one passes through
//! before and after are wiped too, and are allocated once in their final size: a buffer that grows leaves a
//! copy behind that is not wiped.

use crate::sys::secret_memory::SecretBuf;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// A secret string. Its clones share the memory.
#[derive(Clone)]
pub struct Secret(Arc<SecretText>);

/// A secret string that is not shared, which saves one pointer.
pub(crate) struct SecretText(SecretBuf);

impl SecretText {
    pub(crate) fn new(text: &str) -> Self {
        SecretText(SecretBuf::new(text.as_bytes()))
    }

    #[inline]
    pub(crate) fn expose(&self) -> &str {
        // SAFETY: it was made from a `str`, and its bytes do not change.
        unsafe { std::str::from_utf8_unchecked(self.0.bytes()) }
    }
}

impl Secret {
    /// A copy of `text`, whose buffer is then wiped.
    pub fn new(text: String) -> Self {
        Secret::from(Zeroizing::new(text).as_str())
    }

    /// The string itself: only for the code that sends it.
    #[inline]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether the string is empty.
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

/// The value of a header or setting, some of which are secret.
#[derive(Clone, Debug)]
pub enum MaybeSecret {
    /// A value that may be shown.
    Public(Cow<'static, str>),
    /// A value that must not be shown.
    Secret(Secret),
}

impl MaybeSecret {
    /// The string itself, secret or not.
    pub fn expose(&self) -> &str {
        match self {
            MaybeSecret::Public(text) => text,
            MaybeSecret::Secret(secret) => secret.expose(),
        }
    }
}

/// A string literal is public. (There is no conversion from `String`, which may hold a secret.)
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
/// `Cow<str>` cannot be used: where serde does not know that it may borrow, as inside an `Option`, it makes a
/// `Cow` that owns a copy, which is not wiped.
pub enum SecretCow<'a> {
    /// A part of the document.
    Borrowed(&'a str),
    /// A copy, because the document has escapes in the string.
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
pub struct SecretBytes(SecretBuf);

impl SecretBytes {
    /// The bytes themselves: only for the code that sends them.
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        SecretBytes(SecretBuf::new(bytes))
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

/// Appends to a buffer. If it has to grow, the former memory is wiped, which `Vec` does not do.
pub fn append(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let length = buffer.len() + bytes.len();
    if length > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max(buffer.capacity() * 2)));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(bytes);
}

/// Fills bytes with zeros.
#[inline(never)]
pub(crate) fn wipe<T>(bytes: &mut [T])
where
    [T]: Zeroize,
{
    // Pieces of this size are a few wide stores each, and take no call of memset.
    let (pieces, rest) = bytes.as_chunks_mut::<128>();
    pieces.iter_mut().for_each(|piece| piece.as_mut_slice().zeroize());
    rest.zeroize();
}

/// A short name by which a log distinguishes tokens. The token cannot be recovered from it, and names of
/// different processes cannot be compared, because each process has a random salt.
pub fn fingerprint(text: &str) -> String {
    use ring::rand::SecureRandom;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::sync::OnceLock;
    static SALT: OnceLock<[u8; 16]> = OnceLock::new();
    let salt = SALT.get_or_init(|| {
        let mut salt = [0; 16];
        // `std::hash::RandomState` would panic in a sandbox that allows no randomness. 24 bits of a hash identify no
        // token of a thousand characters, even without a salt.
        let _ = ring::rand::SystemRandom::new().fill(&mut salt);
        salt
    });
    let mut hasher = DefaultHasher::new();
    (salt, text).hash(&mut hasher);
    format!("{:06x}", hasher.finish() & 0xff_ffff)
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
    fn a_fingerprint_is_stable_and_short() {
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
