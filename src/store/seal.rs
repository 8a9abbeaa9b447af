//! Encrypts the records of a store with keys that are derived from the client secret.
//!
//! The key and the name of a record are derived from the client secret, so anyone who can decrypt a record could
//! also request a token from the service. Each record has its own key (HKDF-SHA256 with a random salt) and is bound
//! to its kind and, through its name, to one client id and one token endpoint. A record that [`RecordCipher::seal`]
//! did not make, or that was changed, counts as absent. `docs/store-format.md` describes the bytes, and what the
//! construction does and does not protect against.

use crate::oauth::client_credentials;
use crate::sys::boot::{self, BootId};
use crate::sys::secret::Secret;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::time::Duration;
use zeroize::Zeroizing;

/// The first byte of a record. A record with another number has another format and is ignored.
const VERSION: u8 = 2;

/// The salt for deriving the name. It separates these keys from those that other programs derive from the same
/// secret, and these names from those of version 1.
const NAME_SALT: &[u8] = b"amp_token store v2 name";

/// The HKDF info for deriving the key of a record; the record's name is appended.
const KEY_INFO: &[u8] = b"amp_token store v2 key";

const NAME: usize = 16;
const SALT: usize = 32;
const TIMES_LEN: usize = 48;
const TAG: usize = 16;

/// The length of the part that is not encrypted: version and salt.
const HEADER_LEN: usize = 1 + SALT;

/// The size of the largest record.
pub(super) const MAX_RECORD_BYTES: usize = HEADER_LEN + TIMES_LEN + client_credentials::MAX_TOKEN_BYTES + TAG;

/// The shortest client secret from which keys are derived, in bytes. Anyone who can read a record can brute-force
/// the secret offline. Secrets of the service have 64 hexadecimal digits; a shorter one than this was probably
/// chosen by a person.
const MIN_SECRET_BYTES: usize = 16;

/// How far in the future a record may have been made, because clocks differ slightly. It is always below the margin
/// at the end of a token's lifetime: see [`Times::age`].
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// What a record is. A record of one kind cannot be decrypted as one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// A token.
    Entry = 0,
    /// A note for the other processes.
    Note = 1,
}

/// One moment by all clocks that two processes may share, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// The wall clock: time since 1970.
    pub(super) wall: i64,
    /// The boot in which `boot_time` was read.
    pub(super) boot: BootId,
    /// The time since that boot.
    pub(super) boot_time: i64,
    /// The clock of the store itself, such as that of a Redis server: time since 1970. `None` if it is not known.
    pub(super) store: Option<i64>,
}

impl Times {
    /// These times, `age` earlier.
    pub(super) fn before(self, age: Duration) -> Self {
        let age = nanoseconds(age);
        Times {
            wall: self.wall.saturating_sub(age),
            boot_time: self.boot_time.saturating_sub(age),
            store: self.store.map(|store| store.saturating_sub(age)),
            ..self
        }
    }

    /// Whether the two moments are of one known boot.
    pub(super) fn is_same_boot(&self, other: &Times) -> bool {
        self.boot == other.boot && self.boot != boot::UNKNOWN
    }

    /// How long ago `made` was, now. `None` if it is in the future.
    ///
    /// Within one boot, the time since the boot decides, and the wall clock if it says that more time has passed. A
    /// record of another boot or machine is as old as the clock of the store says, and only if that is not known, as
    /// old as the wall clocks of the two machines say. Such clocks may differ slightly, so a record that was made in
    /// the near future counts as made now. The tolerance is at most a twentieth of the lifetime: half of the margin
    /// in which a token is not returned, so that it can never make an expired token valid.
    pub(super) fn age(&self, made: &Times, lifetime: Duration) -> Option<Duration> {
        let since = |now: i64, then: i64| i128::from(now) - i128::from(then);
        let wall = since(self.wall, made.wall);
        let age = if self.is_same_boot(made) {
            let passed = since(self.boot_time, made.boot_time);
            if passed < 0 {
                return None;
            }
            passed.max(wall)
        } else {
            let age = match (self.store, made.store) {
                (Some(now), Some(then)) => since(now, then),
                _ => wall,
            };
            let tolerance = MAX_CLOCK_SKEW.min(lifetime / 20).as_nanos();
            if age < 0 && age.unsigned_abs() > tolerance {
                return None;
            }
            age
        };
        Some(Duration::from_nanos(u64::try_from(age.max(0)).unwrap_or(u64::MAX)))
    }
}

/// A record that was decrypted.
pub(super) struct Record {
    /// When it was made.
    pub(super) made: Times,
    /// How long it is valid.
    pub(super) lifetime: Duration,
    plain: Zeroizing<Vec<u8>>,
    payload: std::ops::Range<usize>,
}

impl Record {
    /// The content.
    pub(super) fn payload(&self) -> &[u8] {
        &self.plain[self.payload.clone()]
    }
}

/// Encrypts and decrypts the records of one client at one token endpoint.
#[derive(Clone)]
pub(super) struct RecordCipher {
    secret: Secret,
    name: [u8; NAME],
}

impl RecordCipher {
    /// `None` if the secret is too short. `profile` tells a profile from all others, and is empty if there is none.
    pub(super) fn new(secret: &Secret, token_url: &str, client_id: &str, profile: &str) -> Option<Self> {
        if secret.expose().len() < MIN_SECRET_BYTES {
            return None;
        }
        // The lengths ensure that no two lists result in the same bytes.
        let mut info = Vec::new();
        for part in [token_url, client_id].into_iter().chain((!profile.is_empty()).then_some(profile)) {
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part.as_bytes());
        }
        let mut name = [0; NAME];
        let derived = Salt::new(HKDF_SHA256, NAME_SALT).extract(secret.expose().as_bytes());
        derived.expand(&[&info], NameLength).and_then(|bytes| bytes.fill(&mut name)).ok()?;
        Some(RecordCipher { secret: secret.clone(), name })
    }

    /// The name of the records: 32 hexadecimal digits, from which nothing can be learned without the secret.
    pub(super) fn name(&self) -> String {
        self.name.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Encrypts a record. `None` if the system's random number generator fails.
    pub(super) fn seal(&self, kind: RecordKind, made: &Times, lifetime: Duration, payload: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).ok()?;
        self.seal_with_salt(salt, kind, made, lifetime, payload)
    }

    fn seal_with_salt(
        &self,
        salt: [u8; SALT],
        kind: RecordKind,
        made: &Times,
        lifetime: Duration,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        // Allocated in its final size, because a buffer that grows leaves a copy of the token behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(HEADER_LEN + TIMES_LEN + payload.len() + TAG));
        sealed.push(VERSION);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&made.wall.to_be_bytes());
        sealed.extend_from_slice(&nanoseconds(lifetime).to_be_bytes());
        sealed.extend_from_slice(&made.boot);
        sealed.extend_from_slice(&made.boot_time.to_be_bytes());
        sealed.extend_from_slice(&made.store.unwrap_or(0).to_be_bytes());
        sealed.extend_from_slice(payload);
        let (key, nonce, associated) = self.key(&salt, kind)?;
        let tag = key.seal_in_place_separate_tag(nonce, associated, &mut sealed[HEADER_LEN..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        // The buffer is encrypted now.
        Some(std::mem::take(&mut *sealed))
    }

    /// Decrypts a record. `None` if it is of another client, version, kind or token endpoint, or damaged.
    pub(super) fn open(&self, kind: RecordKind, sealed: &[u8]) -> Option<Record> {
        let (head, body) = sealed.split_at_checked(HEADER_LEN)?;
        let (version, salt) = head.split_first()?;
        if *version != VERSION || body.len() < TIMES_LEN + TAG || sealed.len() > MAX_RECORD_BYTES {
            return None;
        }
        let mut plain = Zeroizing::new(body.to_vec());
        let (key, nonce, associated) = self.key(salt, kind)?;
        let length = key.open_in_place(nonce, associated, &mut plain).ok()?.len();
        let (wall, rest) = number(&plain)?;
        let (lifetime, rest) = number(rest)?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (boot_time, rest) = number(rest)?;
        let (store, _) = number(rest)?;
        let made = Times { wall, boot: *boot, boot_time, store: Some(store).filter(|time| *time != 0) };
        let lifetime = Duration::from_nanos(u64::try_from(lifetime).ok()?);
        Some(Record { made, lifetime, payload: TIMES_LEN..length, plain })
    }

    /// The key, nonce and associated data for the record with this salt. A key is never used twice, so the nonce may
    /// be constant.
    fn key(&self, salt: &[u8], kind: RecordKind) -> Option<(LessSafeKey, Nonce, Aad<[u8; 2 + NAME]>)> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(self.secret.expose().as_bytes());
        let info = [KEY_INFO, &self.name];
        let key = derived.expand(&info, &AES_256_GCM).ok()?;
        let mut associated = [VERSION; 2 + NAME];
        associated[1] = kind as u8;
        associated[2..].copy_from_slice(&self.name);
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

/// A duration in nanoseconds; the longest that fits if it is longer.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Splits off a number at the beginning.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const URL: &str = "https://auth.example/oauth/token";
    const ID: &str = "11111111-2222-3333-4444-555555555555";
    const TOKEN: &[u8] = b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
    const MINUTES: Duration = Duration::from_secs(300);
    const SECOND: i64 = 1_000_000_000;

    fn cipher() -> RecordCipher {
        RecordCipher::new(&SECRET.into(), URL, ID, "").unwrap()
    }

    fn made() -> Times {
        Times {
            wall: 1_700_000_000_000_000_000,
            boot: std::array::from_fn(|index| 0xb0 + index as u8),
            boot_time: 86_400_000_000_000,
            store: Some(1_700_000_001_000_000_000),
        }
    }

    fn sealed() -> Vec<u8> {
        cipher().seal(RecordKind::Entry, &made(), MINUTES, TOKEN).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_format_is_what_the_documentation_says() {
        // The program in `docs/store-format.md`, which uses other implementations of all algorithms, prints the
        // same bytes.
        let salt = std::array::from_fn(|index| index as u8);
        let mut printed = vec![cipher().name()];
        printed.push(hex(&cipher().seal_with_salt(salt, RecordKind::Entry, &made(), MINUTES, TOKEN).unwrap()));
        let note = b"\x02\x00\x00\x00\x00\x00\x00\x00\x07";
        printed.push(hex(&cipher()
            .seal_with_salt(salt, RecordKind::Note, &made(), Duration::from_secs(1), note)
            .unwrap()));
        let document = include_str!("../../docs/store-format.md");
        assert!(document.contains(&format!("```text\n{}\n```", printed.join("\n"))), "{}", printed.join("\n"));
    }

    #[test]
    fn sealed_records_can_be_opened() {
        let (one, two) = (sealed(), sealed());
        assert_ne!(one, two, "the salt is random");
        for sealed in [one, two] {
            let record = cipher().open(RecordKind::Entry, &sealed).unwrap();
            assert_eq!((record.made, record.lifetime, record.payload()), (made(), MINUTES, TOKEN));
            assert!(!String::from_utf8_lossy(&sealed).contains("eyJ"));
        }
        let unknown = Times { store: None, ..made() };
        let sealed = cipher().seal(RecordKind::Note, &unknown, MINUTES, b"").unwrap();
        let record = cipher().open(RecordKind::Note, &sealed).unwrap();
        assert_eq!((record.made, record.payload()), (unknown, &b""[..]));
    }

    #[test]
    fn a_changed_record_counts_as_absent() {
        let sealed = sealed();
        let opens = |bytes: &[u8]| cipher().open(RecordKind::Entry, bytes).is_some();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&changed), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(!opens(&sealed[..length]), "{length} bytes");
        }
        for more in [&b"\0"[..], &sealed, &[0; MAX_RECORD_BYTES]] {
            assert!(!opens(&[&sealed, more].concat()));
        }
        assert!(opens(&sealed));
        assert!(cipher().open(RecordKind::Note, &sealed).is_none(), "an entry is no note");
    }

    #[test]
    fn a_record_belongs_to_one_client_at_one_endpoint() {
        let sealed = sealed();
        let others = [
            (&SECRET[1..], URL, ID),
            (SECRET, "https://auth.example/oauth/token/", ID),
            (SECRET, URL, "another"),
            // The same bytes, split at another position.
            (SECRET, "https://auth.example/oauth/token1", &ID[1..]),
        ];
        for (secret, url, id) in others {
            let other = RecordCipher::new(&secret.into(), url, id, "").unwrap();
            assert_ne!(other.name(), cipher().name());
            assert!(other.open(RecordKind::Entry, &sealed).is_none());
        }
    }

    /// The age of a record of `made`, `by` the other clocks, in seconds.
    fn age(by: Times) -> Option<f64> {
        by.age(&made(), MINUTES).map(|age| age.as_secs_f64())
    }

    fn moved(wall: i64, boot_time: i64, store: i64) -> Times {
        let made = made();
        Times {
            wall: made.wall + wall * SECOND,
            boot_time: made.boot_time + boot_time * SECOND,
            store: made.store.map(|time| time + store * SECOND),
            ..made
        }
    }

    #[test]
    fn within_one_boot_both_clocks_count() {
        assert_eq!(age(moved(0, 0, 0)), Some(0.0));
        assert_eq!(age(moved(20, 20, 20)), Some(20.0));
        // The wall clock was set back, or forward.
        assert_eq!(age(moved(-3600, 20, 0)), Some(20.0));
        assert_eq!(age(moved(3600, 20, 0)), Some(3600.0));
        // No time since the boot can go back.
        assert_eq!(age(moved(20, -1, 20)), None);
    }

    #[test]
    fn on_another_machine_the_clock_of_the_store_counts() {
        for boot in [boot::UNKNOWN, [1; 16]] {
            let moved = |wall, store| Times { boot, ..moved(wall, -100, store) };
            // Whatever the wall clocks of the two machines say.
            for wall in [-3600, 0, 20, 3600] {
                assert_eq!(age(moved(wall, 20)), Some(20.0));
            }
            assert_eq!(age(moved(0, -2)), Some(0.0));
            assert_eq!(age(moved(0, -3)), None);
            // Where the store has no clock, the wall clock counts.
            let without = |wall| Times { store: None, ..moved(wall, 20) };
            assert_eq!(age(without(30)), Some(30.0));
            assert_eq!(age(without(-2)), Some(0.0));
            assert_eq!(age(without(-3)), None);
            // The tolerance scales with the lifetime.
            assert_eq!(without(-1).age(&made(), Duration::from_secs(20)), Some(Duration::ZERO));
            assert_eq!(without(-1).age(&made(), Duration::from_secs(19)), None);
        }
        // An unknown boot is not the same as another unknown boot.
        let unknown = |times: Times| Times { boot: boot::UNKNOWN, ..times };
        assert_eq!(unknown(moved(0, 0, 20)).age(&unknown(made()), MINUTES), Some(Duration::from_secs(20)));
        for extreme in [i64::MIN, i64::MAX] {
            let times = Times { wall: extreme, boot: [1; 16], boot_time: extreme, store: None };
            assert_eq!(age(times).is_some(), extreme > 0);
        }
    }

    #[test]
    fn a_short_secret_seals_nothing() {
        assert!(RecordCipher::new(&"fifteen letters".into(), URL, ID, "").is_none());
        assert!(RecordCipher::new(&"sixteen letters!".into(), URL, ID, "").is_some());
    }
}
