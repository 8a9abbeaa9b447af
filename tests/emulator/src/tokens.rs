//! Access tokens and personal access tokens.
//!
//! An access token is a signed JSON Web Token like those of Amplience: RS256, about 1.1 KB, and with an `exp`
//! that is much later than the `expires_in` of the response. As with Amplience only `expires_in` counts: a
//! token is accepted until that time has passed, whatever its claims say.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD as STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::rsa::KeyPair;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use rsa::{Generate as _, pkcs8::EncodePrivateKey as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::state::MAX_DURATION;

const HEADER: &str = r#"{"kid":"amplience-token-signing-key","alg":"RS256"}"#;
const NOT_BEFORE: u64 = 120;
const EXTRA_LIFETIME: u64 = 960;
/// The number of objects that the permissions list determines the length of an access token: this makes it about
/// 1.1 KB.
const OBJECTS: usize = 9;
/// With this many tokens, expired ones are removed, so that memory does not grow during a long run.
const SWEEP_AT: usize = 10_000;
const MAX_PERSONAL: usize = 5;

/// One key pair for the whole process: generating it takes a tenth of a second.
static SIGNING_KEY: LazyLock<KeyPair> = LazyLock::new(|| {
    let key = rsa::PrivateKey::generate().to_pkcs8_der().expect("a generated key can be encoded");
    KeyPair::from_pkcs8(key.as_bytes()).expect("ring accepts a 2048-bit key")
});

/// Generates the signing key now, so that the first token request is as fast as the others.
pub(crate) fn prepare() {
    LazyLock::force(&SIGNING_KEY);
}

/// The claims of an access token, in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    permissions: String,
}

/// The claim of a key that may read content items, and some objects that Amplience does not have: base64 of gzip of
/// JSON. The emulator permits everything, whatever it says.
static PERMISSIONS: LazyLock<String> = LazyLock::new(|| {
    let object = |id: &str| json!({"id": id, "r": ["READ"]});
    let mut objects = vec![object("CONTENT_ITEM"), object("HUB")];
    objects.extend((0..OBJECTS).map(|number| object(&format!("EMULATED_{}", number * 7919))));
    let text = json!([{"n": "CONTENT", "t": [{"n": "FUNCTIONAL", "e": objects}]}]).to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("a vector can be written to");
    STANDARD.encode(encoder.finish().expect("a vector can be written to"))
});

/// A signed access token, which is not accepted until [`Tokens::add`].
pub(crate) struct AccessToken {
    pub value: String,
    id: String,
    expires_at: SystemTime,
}

impl AccessToken {
    pub fn sign(client_id: &str, now: SystemTime, expires_in: u64) -> AccessToken {
        let issued_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = uuid();
        let claims = Claims {
            iss: "amplience".to_owned(),
            sub: client_id.to_owned(),
            iat: issued_at,
            nbf: issued_at - NOT_BEFORE,
            exp: issued_at.saturating_add(expires_in).saturating_add(EXTRA_LIFETIME),
            jti: id.clone(),
            permissions: PERMISSIONS.clone(),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are plain JSON values");
        let mut text = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(claims));
        let mut signature = vec![0; SIGNING_KEY.public().modulus_len()];
        SIGNING_KEY
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("the buffer has the signature's length");
        text.push('.');
        text.push_str(&BASE64.encode(signature));
        AccessToken { value: text, id, expires_at: now + Duration::from_secs(expires_in).min(MAX_DURATION) }
    }
}

/// Returns the ID in an access token if this process signed it.
fn verified_id(token: &str) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = BASE64.decode(signature).ok()?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, SIGNING_KEY.public())
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    let (_, claims) = signed.split_once('.')?;
    let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    Some(claims.jti)
}

/// A personal access token, as returned when it is created.
#[derive(Clone)]
pub(crate) struct PersonalToken {
    pub id: String,
    pub token: String,
}

/// All accepted tokens, and some that have expired.
#[derive(Default)]
pub(crate) struct Tokens {
    expiry_by_id: HashMap<String, SystemTime>,
    personal: Vec<PersonalToken>,
    latest: Option<String>,
}

impl Tokens {
    pub fn add(&mut self, token: &AccessToken, now: SystemTime) {
        if self.expiry_by_id.len() >= SWEEP_AT {
            self.expiry_by_id.retain(|_, expires_at| *expires_at > now);
        }
        self.expiry_by_id.insert(token.id.clone(), token.expires_at);
        self.latest = Some(token.value.clone());
    }

    /// Returns the last issued token, valid or not.
    pub fn latest(&self) -> Option<String> {
        self.latest.clone()
    }

    /// Creates a personal access token; `None` if the maximum number exists.
    pub fn add_personal(&mut self) -> Option<PersonalToken> {
        if self.personal.len() >= MAX_PERSONAL {
            return None;
        }
        let (first, second) = (BASE64.encode(random::<16>()), BASE64.encode(random::<32>()));
        let token = PersonalToken { id: uuid(), token: format!("amp_pat_{first}.{second}") };
        self.personal.push(token.clone());
        Some(token)
    }

    pub fn revoke(&mut self, token: &str) {
        self.personal.retain(|personal| personal.token != token);
        if let Some(id) = verified_id(token) {
            self.expiry_by_id.remove(&id);
        }
    }

    pub fn revoke_all(&mut self) {
        self.expiry_by_id.clear();
        self.personal.clear();
    }

    pub fn accepts(&self, token: &str, now: SystemTime) -> bool {
        self.personal.iter().any(|personal| personal.token == token)
            || verified_id(token).is_some_and(|id| self.expiry_by_id.get(&id).is_some_and(|at| now < *at))
    }
}

/// Returns a random (version 4) UUID.
pub(crate) fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).expect("the system provides random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn an_access_token_has_the_form_of_amplience_s() {
        let token = AccessToken::sign(&uuid(), now(), 300).value;
        assert!(token.starts_with(
            "eyJraWQiOiJhbXBsaWVuY2UtdG9rZW4tc2lnbmluZy1rZXkiLCJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhbXBsaWVuY2Ui"
        ));
        assert!((1050..1200).contains(&token.len()), "{}", token.len());
        let claims = BASE64.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Claims = serde_json::from_slice(&claims).unwrap();
        assert_eq!((claims.exp - claims.iat, claims.iat - claims.nbf), (1260, 120));
    }

    #[test]
    fn a_token_is_accepted_until_it_expires_is_revoked_or_is_altered() {
        let (mut tokens, first) = (Tokens::default(), AccessToken::sign("client", now(), 300));
        let second = AccessToken::sign("client", now(), 300);
        assert_ne!(first.value, second.value);
        assert!(!tokens.accepts(&first.value, now()), "signed, but not issued");
        tokens.add(&first, now());
        tokens.add(&second, now());
        assert!(tokens.accepts(&first.value, now() + Duration::from_millis(299_999)));
        assert!(!tokens.accepts(&first.value, now() + Duration::from_secs(300)));
        let end = if first.value.ends_with('A') { "g" } else { "A" };
        assert!(!tokens.accepts(&format!("{}{end}", &first.value[..first.value.len() - 1]), now()));
        tokens.revoke(&first.value);
        assert!(!tokens.accepts(&first.value, now()));
        assert!(tokens.accepts(&second.value, now()));
    }

    #[test]
    fn at_most_five_personal_tokens_exist() {
        let mut tokens = Tokens::default();
        let token = tokens.add_personal().unwrap().token;
        let (first, second) = token.strip_prefix("amp_pat_").unwrap().split_once('.').unwrap();
        assert_eq!((first.len(), second.len()), (22, 43));
        assert!((0..4).all(|_| tokens.add_personal().is_some()));
        assert!(tokens.add_personal().is_none());
        assert!(tokens.accepts(&token, now()));
        tokens.revoke(&token);
        assert!(!tokens.accepts(&token, now()));
        assert!(tokens.add_personal().is_some());
    }
}
