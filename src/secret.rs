//! Text that must not be seen: wiped when dropped, never printed.
//!
//! Every secret and token lives in a [`Secret`] from the moment it enters the library. A buffer is
//! filled once and never grows, because a growing one leaves copies behind that nobody wipes.

use std::fmt;
use zeroize::Zeroizing;

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Takes over `text`; its buffer is the one that will be wiped.
    pub fn new(text: String) -> Self {
        // A buffer with room to spare would be moved by `into_boxed_str`, leaving the old one.
        if text.len() == text.capacity() {
            Secret(Zeroizing::new(text.into_boxed_str()))
        } else {
            let text = Zeroizing::new(text);
            Secret::from(text.as_str())
        }
    }

    /// The text itself: for the place that sends it, and no other.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(Zeroizing::new(Box::from(text)))
    }
}

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
    }

    #[test]
    fn a_fingerprint_is_stable_and_tells_nothing() {
        assert_eq!(fingerprint("token"), fingerprint("token"));
        assert_ne!(fingerprint("token"), fingerprint("other"));
        assert_eq!(fingerprint("token").len(), 6);
    }
}
