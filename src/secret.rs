//! Text that must not be seen: wiped when dropped, left out of core dumps, never printed.
//!
//! Every secret and token lives in a [`Secret`] for as long as the library keeps it. What it passes through
//! on its way is wiped, and filled once: a growing buffer leaves copies behind that nobody wipes.

use crate::vault::Place;
use std::fmt;
use zeroize::Zeroizing;

/// A secret text.
pub struct Secret(Place);

impl Secret {
    /// Takes over `text`, whose buffer is wiped.
    pub fn new(text: String) -> Self {
        Secret::from(Zeroizing::new(text).as_str())
    }

    /// The text itself: for the place that sends it, and no other.
    #[inline]
    pub fn reveal(&self) -> &str {
        // SAFETY: every secret is made from a `str`, and its bytes do not change.
        unsafe { std::str::from_utf8_unchecked(self.0.bytes()) }
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.reveal().is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(Place::new(text.as_bytes()))
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Secret::from(self.reveal())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for Secret {}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        String::deserialize(text).map(Secret::new)
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
    pub fn reveal(&self) -> &[u8] {
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
        SecretBytes::from(self.reveal())
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
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
    }

    #[test]
    fn a_fingerprint_is_stable_and_tells_nothing() {
        assert_eq!(fingerprint("token"), fingerprint("token"));
        assert_ne!(fingerprint("token"), fingerprint("other"));
        assert_eq!(fingerprint("token").len(), 6);
    }
}
