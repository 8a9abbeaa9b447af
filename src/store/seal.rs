//! Encrypts the entries of a store with keys that are derived from the client secret.
//!
//! The key and the name of an entry are derived from the client secret, so anyone who can decrypt an entry could
//! also request a token from the service. Each entry has its own key (HKDF-SHA256 with a random salt) and is bound,
//! through its name, to one client id and one token endpoint. An entry that [`EntryCipher::seal`] did not make, or
//! that was changed, counts as absent. `docs/store-format.md` describes the bytes, and what the construction does
//! and does not protect against.

use super::Entry;
use crate::oauth::client_credentials;
use crate::sys::clock::Timestamps;
use crate::sys::secret::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::time::Duration;
use zeroize::Zeroizing;

/// The first byte of an entry. An entry with another number has another format and is ignored.
const VERSION: u8 = 1;

/// The salt for deriving the name. It separates these keys from those that other programs derive from the same
/// secret.
const NAME_SALT: &[u8] = b"amp_token store v1 name";

/// The HKDF info for deriving the key of an entry; the entry's name is appended.
const KEY_INFO: &[u8] = b"amp_token store v1 key";

const NAME: usize = 16;
const SALT: usize = 32;
const TIMESTAMPS_LEN: usize = 16;
const TAG: usize = 16;

/// The length of the part that is not encrypted: version and salt.
const HEADER_LEN: usize = 1 + SALT;

/// The size of the largest entry.
pub(super) const MAX_ENTRY_BYTES: usize = HEADER_LEN + TIMESTAMPS_LEN + client_credentials::MAX_TOKEN_BYTES + TAG;

/// The shortest client secret from which keys are derived, in bytes. Anyone who can read an entry can brute-force
/// the secret offline. Secrets of the service have 64 hexadecimal digits; a shorter one than this was probably
/// chosen by a person.
const MIN_SECRET_BYTES: usize = 16;

/// How far in the future an entry may have been created, because the clocks of machines differ slightly. It is
/// always below the margin at the end of a token's lifetime: see [`EntryCipher::open`].
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Encrypts and decrypts the entries of one client at one token endpoint.
pub(super) struct EntryCipher {
    secret: Secret,
    name: [u8; NAME],
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// The entry is authentic, but its token has expired.
    Expired,
    /// The entry is authentic, but was created later than now.
    NotYetValid,
    /// The entry is of another client, version or token endpoint, or it is damaged.
    Undecryptable,
}

impl EntryCipher {
    /// `None` if the secret is too short.
    pub(super) fn new(secret: &Secret, token_url: &str, client_id: &str) -> Option<Self> {
        if secret.expose().len() < MIN_SECRET_BYTES {
            return None;
        }
        // The lengths ensure that no two pairs result in the same bytes.
        let mut info = Vec::new();
        for part in [token_url, client_id] {
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part.as_bytes());
        }
        let mut name = [0; NAME];
        let derived = Salt::new(HKDF_SHA256, NAME_SALT).extract(secret.expose().as_bytes());
        derived.expand(&[&info], NameLength).and_then(|bytes| bytes.fill(&mut name)).ok()?;
        Some(EntryCipher { secret: secret.clone(), name })
    }

    /// The name of the entry: 32 hexadecimal digits, from which nothing can be learned without the secret.
    pub(super) fn name(&self) -> String {
        self.name.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Encrypts an entry. `None` if the system's random number generator fails.
    pub(super) fn seal(&self, entry: &Entry) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).ok()?;
        self.seal_with_salt(salt, entry)
    }

    fn seal_with_salt(&self, salt: [u8; SALT], entry: &Entry) -> Option<Vec<u8>> {
        let token = entry.token.expose().as_bytes();
        // Allocated in its final size, because a buffer that grows leaves a copy of the token behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(HEADER_LEN + TIMESTAMPS_LEN + token.len() + TAG));
        sealed.push(VERSION);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&entry.issued.to_be_bytes());
        sealed.extend_from_slice(&entry.expires.to_be_bytes());
        sealed.extend_from_slice(token);
        let (key, nonce, associated) = self.key(&salt)?;
        let tag = key.seal_in_place_separate_tag(nonce, associated, &mut sealed[HEADER_LEN..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        // The buffer is encrypted now.
        Some(std::mem::take(&mut *sealed))
    }

    /// Decrypts an entry at the time `now`.
    ///
    /// An entry that was created slightly later than now, by a machine whose clock is ahead, counts as created now.
    /// The tolerance is at most a twentieth of the lifetime: half of the margin in which a token is not returned, so
    /// that it can never make an expired token valid.
    pub(super) fn open(&self, sealed: &[u8], now: Timestamps) -> Result<Entry, OpenError> {
        let (head, body) = sealed.split_at_checked(HEADER_LEN).ok_or(OpenError::Undecryptable)?;
        let (version, salt) = head.split_first().ok_or(OpenError::Undecryptable)?;
        if *version != VERSION || body.len() < TIMESTAMPS_LEN + TAG || sealed.len() > MAX_ENTRY_BYTES {
            return Err(OpenError::Undecryptable);
        }
        let mut body = Zeroizing::new(body.to_vec());
        let (key, nonce, associated) = self.key(salt).ok_or(OpenError::Undecryptable)?;
        let plain = key.open_in_place(nonce, associated, &mut body).map_err(|_| OpenError::Undecryptable)?;
        let (issued, rest) = time(plain).ok_or(OpenError::Undecryptable)?;
        let (expires, token) = time(rest).ok_or(OpenError::Undecryptable)?;
        // Anyone with the secret can encrypt anything, but only a token may be put into a header.
        let token = std::str::from_utf8(token)
            .ok()
            .filter(|token| client_credentials::is_valid_bearer_token(token))
            .ok_or(OpenError::Undecryptable)?;
        if expires <= now.wall || expires <= issued {
            return Err(OpenError::Expired);
        }
        let lifetime = Duration::from_nanos(expires.abs_diff(issued));
        let ahead = Duration::from_nanos(issued.abs_diff(issued.min(now.wall)));
        if ahead > MAX_CLOCK_SKEW.min(lifetime / 20) {
            return Err(OpenError::NotYetValid);
        }
        Ok(Entry { token: Secret::from(token), issued: issued.min(now.wall), expires })
    }

    /// The key, nonce and associated data for the entry with this salt. A key is never used twice, so the nonce may
    /// be constant.
    fn key(&self, salt: &[u8]) -> Option<(LessSafeKey, Nonce, Aad<[u8; 1 + NAME]>)> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(self.secret.expose().as_bytes());
        let info = [KEY_INFO, &self.name];
        let key = derived.expand(&info, &AES_256_GCM).ok()?;
        let mut associated = [VERSION; 1 + NAME];
        associated[1..].copy_from_slice(&self.name);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        Some((LessSafeKey::new(UnboundKey::from(key)), nonce, Aad::from(associated)))
    }
}

/// The length of a name, as the type that ring requires.
struct NameLength;

impl KeyType for NameLength {
    fn len(&self) -> usize {
        NAME
    }
}

/// Splits off a time at the beginning.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (time, rest) = bytes.split_first_chunk()?;
    Some((i64::from_be_bytes(*time), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const URL: &str = "https://auth.example/oauth/token";
    const ID: &str = "11111111-2222-3333-4444-555555555555";
    const ISSUED: i64 = 1_700_000_000_000_000_000;
    const SECOND: i64 = 1_000_000_000;

    fn seal() -> EntryCipher {
        EntryCipher::new(&SECRET.into(), URL, ID).unwrap()
    }

    fn entry() -> Entry {
        Entry { token: "eyJhbGciOiJSUzI1NiJ9.e30.c2ln".into(), issued: ISSUED, expires: ISSUED + 300 * SECOND }
    }

    fn at(wall: i64) -> Timestamps {
        Timestamps { monotonic: 0, wall }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_format_is_what_the_documentation_says() {
        // The program in `docs/store-format.md`, which uses other implementations of all algorithms, prints the
        // same bytes.
        assert_eq!(seal().name(), "53dd6d6b3060ce7bdc4cf2a07b83f173");
        let salt = std::array::from_fn(|index| index as u8);
        assert_eq!(
            hex(&seal().seal_with_salt(salt, &entry()).unwrap()),
            "01000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f11a439abb7dd0da486bdf0a9595a3b18df97133d1a9fa5427eca6ca9fd996cb513285927151c9fe14c68c325036b3b7f8024172bab14a324430e4756b4"
        );
    }

    #[test]
    fn sealed_entries_can_be_opened() {
        let (one, two) = (seal().seal(&entry()).unwrap(), seal().seal(&entry()).unwrap());
        assert_ne!(one, two, "the salt is random");
        for sealed in [one, two] {
            assert_eq!(seal().open(&sealed, at(ISSUED)), Ok(entry()));
            assert!(!String::from_utf8_lossy(&sealed).contains("eyJ"));
        }
    }

    #[test]
    fn a_changed_entry_counts_as_absent() {
        let sealed = seal().seal(&entry()).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal().open(&changed, at(ISSUED)), Err(OpenError::Undecryptable), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(seal().open(&sealed[..length], at(ISSUED)), Err(OpenError::Undecryptable), "{length} bytes");
        }
        for more in [&b"\0"[..], &sealed, &[0; MAX_ENTRY_BYTES]] {
            assert_eq!(seal().open(&[&sealed, more].concat(), at(ISSUED)), Err(OpenError::Undecryptable));
        }
    }

    #[test]
    fn an_entry_belongs_to_one_client_at_one_endpoint() {
        let sealed = seal().seal(&entry()).unwrap();
        let others = [
            (&SECRET[1..], URL, ID),
            (SECRET, "https://auth.example/oauth/token/", ID),
            (SECRET, URL, "another"),
            // The same bytes, split at another position.
            (SECRET, "https://auth.example/oauth/token1", &ID[1..]),
        ];
        for (secret, url, id) in others {
            let other = EntryCipher::new(&secret.into(), url, id).unwrap();
            assert_ne!(other.name(), seal().name());
            assert_eq!(other.open(&sealed, at(ISSUED)), Err(OpenError::Undecryptable));
        }
    }

    #[test]
    fn an_entry_is_valid_in_its_own_time_only() {
        let sealed = seal().seal(&entry()).unwrap();
        let opened = |wall| seal().open(&sealed, at(wall));
        assert_eq!(opened(ISSUED + 300 * SECOND - 1), Ok(entry()));
        assert_eq!(opened(ISSUED + 300 * SECOND), Err(OpenError::Expired));
        // A clock that is slightly behind: the entry counts as created now, and expires no later.
        let behind = ISSUED - 2 * SECOND;
        assert_eq!(opened(behind), Ok(Entry { issued: behind, ..entry() }));
        assert_eq!(opened(behind - 1), Err(OpenError::NotYetValid));
        for extreme in [i64::MIN, 0] {
            assert_eq!(opened(extreme), Err(OpenError::NotYetValid));
        }
        // The tolerance scales with the lifetime.
        let short = seal().seal(&Entry { expires: ISSUED + 2 * SECOND, ..entry() }).unwrap();
        assert!(seal().open(&short, at(ISSUED - SECOND / 10)).is_ok());
        assert_eq!(seal().open(&short, at(ISSUED - SECOND / 10 - 1)), Err(OpenError::NotYetValid));
    }

    #[test]
    fn authentic_entries_with_invalid_content_are_rejected() {
        let made = |token: &str, issued, expires| seal().seal(&Entry { token: token.into(), issued, expires }).unwrap();
        for token in ["", "two words", "line\r\nbreak", "ümlaut"] {
            assert_eq!(
                seal().open(&made(token, ISSUED, ISSUED + SECOND), at(ISSUED)),
                Err(OpenError::Undecryptable),
                "{token}"
            );
        }
        assert_eq!(seal().open(&made("t", ISSUED, ISSUED), at(ISSUED - 1)), Err(OpenError::Expired));
        assert_eq!(seal().open(&made("t", i64::MAX, i64::MIN), at(ISSUED)), Err(OpenError::Expired));
        assert_eq!(seal().open(&made("t", i64::MIN, i64::MAX), at(ISSUED)).map(|entry| entry.expires), Ok(i64::MAX));
    }

    #[test]
    fn a_short_secret_seals_nothing() {
        assert!(EntryCipher::new(&"fifteen letters".into(), URL, ID).is_none());
        assert!(EntryCipher::new(&"sixteen letters!".into(), URL, ID).is_some());
    }
}
