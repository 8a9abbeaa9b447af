//! What processes report to each other through the store, in addition to tokens.
//!
//! A process whose token request failed leaves a note, so that those that wait for it do not each send the same
//! request, and none is sent before the `Retry-After` of the service. A process that stops waiting for the holder of
//! the lock leaves a note that it sends a request itself, so that the others do not do the same at once.

use crate::error::{Error, Kind};
use std::time::Duration;

/// How long processes that come later believe a failure without a `Retry-After`.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// The longest `Retry-After` that processes believe each other.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The longest text of a note, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// The failures that a process can learn from another. A timeout is not one of them, because it depends on the time
/// that the caller had, nor is any failure of this machine.
const SHARED: [Kind; 8] = [
    Kind::CredentialsRejected,
    Kind::Resolve,
    Kind::Connect,
    Kind::Tls,
    Kind::Proxy,
    Kind::RateLimited,
    Kind::Server,
    Kind::Protocol,
];

/// The failures that another network, proxy or CA certificate could have prevented.
const OF_THE_NETWORK: [Kind; 5] = [Kind::Resolve, Kind::Connect, Kind::Tls, Kind::Proxy, Kind::Protocol];

/// A note for the other processes.
#[derive(Clone, Debug)]
pub enum Note {
    /// A token request failed.
    Failed(Failure),
    /// A process sends a request without the lock, because it waited for its holder for too long.
    Requesting,
}

/// A failed request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The failure.
    pub error: Error,
    /// The number of requests that were sent or attempted.
    pub attempts: u32,
    /// A hash of all that the way to the service depends on, if the failure may have been on that way.
    pub route: Option<u64>,
    /// Whether the service required a delay before the next request.
    pub hold: bool,
}

impl Failure {
    /// `None` if the failure says nothing to other processes.
    pub fn new(error: &Error, route: u64) -> Option<Self> {
        let kind = error.kind();
        // Only these mean that the service does not want the next request yet.
        let hold = error.retry_after().is_some()
            && (kind == Kind::RateLimited || (kind == Kind::Server && error.http_status() == Some(503)));
        SHARED.contains(&kind).then(|| Failure {
            error: error.clone(),
            attempts: error.attempts(),
            route: OF_THE_NETWORK.contains(&kind).then_some(route),
            hold,
        })
    }
}

impl Note {
    /// How long processes that come later believe the note.
    pub fn lifetime(&self, left: Duration) -> Duration {
        match self {
            Note::Failed(failure) if failure.hold => {
                failure.error.retry_after().unwrap_or_default().clamp(FAILURE_LIFETIME, MAX_RETRY_AFTER)
            }
            Note::Failed(_) => FAILURE_LIFETIME,
            Note::Requesting => left.min(MAX_RETRY_AFTER),
        }
    }

    /// The bytes of the note of the process that is called `writer`.
    pub(super) fn encode(&self, writer: u64) -> Vec<u8> {
        let failure = match self {
            Note::Requesting => return [&[2][..], &writer.to_be_bytes()].concat(),
            Note::Failed(failure) => failure,
        };
        let error = &failure.error;
        let flags = u8::from(error.is_retryable()) | u8::from(failure.hold) << 1;
        let mut bytes = [&[1][..], &writer.to_be_bytes()].concat();
        bytes.extend_from_slice(&(error.kind().number() as u16).to_be_bytes());
        bytes.extend_from_slice(&error.http_status().unwrap_or(0).to_be_bytes());
        bytes.push(flags);
        bytes.extend_from_slice(&failure.attempts.to_be_bytes());
        bytes.extend_from_slice(&failure.route.unwrap_or(0).to_be_bytes());
        let texts = [Some(error.message()), error.hint(), error.host(), error.oauth_code(), error.oauth_description()];
        let text = texts.map(|text| text.unwrap_or_default().replace('\0', "")).join("\0");
        if text.len() <= MAX_TEXT_BYTES {
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// The note, and the process that wrote it. `None` if this version does not know such notes.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Note, u64)> {
        let (what, rest) = bytes.split_first()?;
        let (writer, rest) = rest.split_first_chunk()?;
        let writer = u64::from_be_bytes(*writer);
        match what {
            1 => Some((Note::Failed(Failure::decode(rest)?), writer)),
            2 => Some((Note::Requesting, writer)),
            _ => None,
        }
    }
}

impl Failure {
    fn decode(bytes: &[u8]) -> Option<Failure> {
        let (kind, rest) = bytes.split_first_chunk()?;
        let kind = i32::from(u16::from_be_bytes(*kind));
        let kind = SHARED.into_iter().find(|known| known.number() == kind)?;
        let (status, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first()?;
        let (attempts, rest) = rest.split_first_chunk()?;
        let (route, rest) = rest.split_first_chunk()?;
        let text = std::str::from_utf8(rest).ok().filter(|text| text.len() <= MAX_TEXT_BYTES)?;
        // The writer has sanitized it: an error never holds anything else.
        if text.chars().any(|character| character.is_control() && character != '\0') {
            return None;
        }
        let mut texts = text.split('\0').map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        let mut next = || texts.next().flatten();
        let message = next().unwrap_or_else(|| "the token request of another process failed".to_owned());
        let mut error = Error::new(kind, message).with_retryable(flags & 1 != 0);
        if let Some(hint) = next() {
            error = error.with_hint(hint);
        }
        if let Some(host) = next() {
            error = error.with_host(host);
        }
        if let status @ 1.. = u16::from_be_bytes(*status) {
            error = error.with_http_status(status);
        }
        let code = next();
        Some(Failure {
            error: error.with_oauth_error(code, next()),
            attempts: u32::from_be_bytes(*attempts),
            route: Some(u64::from_be_bytes(*route)).filter(|route| *route != 0),
            hold: flags & 2 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: &Error) -> Note {
        Note::Failed(Failure::new(error, 0x1122_3344_5566_7788).unwrap())
    }

    #[test]
    fn the_bytes_of_a_note_are_fixed() {
        let error = Error::new(Kind::Server, "message")
            .with_http_status(503)
            .with_host("host")
            .with_attempts(4)
            .with_hint("hint")
            .with_oauth_error(Some("code".to_owned()), None)
            .with_retry_after(Some(Duration::from_secs(9)));
        let bytes = failure(&error).encode(7);
        assert_eq!(
            bytes,
            b"\x01\0\0\0\0\0\0\0\x07\0\x29\x01\xf7\x03\0\0\0\x04\0\0\0\0\0\0\0\0message\0hint\0host\0code\0"
        );
        let refused = failure(&Error::new(Kind::Connect, "m")).encode(7);
        assert_eq!(refused, b"\x01\0\0\0\0\0\0\0\x07\0\x1f\0\0\x01\0\0\0\0\x11\x22\x33\x44\x55\x66\x77\x88m\0\0\0\0");
        assert_eq!(Note::Requesting.encode(7), b"\x02\0\0\0\0\0\0\0\x07");
    }

    #[test]
    fn a_note_carries_what_a_program_needs_to_decide() {
        let error = Error::new(Kind::RateLimited, "auth.example is rate limiting requests")
            .with_http_status(429)
            .with_host("auth.example:443")
            .with_attempts(1)
            .with_hint("send fewer requests")
            .with_oauth_error(Some("slow_down".to_owned()), Some("not so fast".to_owned()))
            .with_retry_after(Some(Duration::from_secs(9)));
        let note = failure(&error);
        assert_eq!(note.lifetime(Duration::ZERO), Duration::from_secs(9));
        let Some((Note::Failed(read), 5)) = Note::decode(&note.encode(5)) else { panic!("it can be read") };
        assert_eq!((read.attempts, read.route, read.hold), (1, None, true));
        let told = error.with_retry_after(None).to_string();
        assert_eq!(read.error.to_string(), told);
        assert_eq!((read.error.kind(), read.error.host()), (Kind::RateLimited, Some("auth.example:443")));
        assert!(read.error.is_retryable());
    }

    #[test]
    fn a_failure_of_one_caller_is_not_shared() {
        for kind in [Kind::Timeout, Kind::Io, Kind::Config, Kind::Internal, Kind::NoCredentials] {
            assert!(Failure::new(&Error::new(kind, "x"), 1).is_none(), "{kind:?}");
        }
        for (kind, route) in
            [(Kind::Connect, Some(1)), (Kind::Tls, Some(1)), (Kind::CredentialsRejected, None), (Kind::Server, None)]
        {
            assert_eq!(Failure::new(&Error::new(kind, "x"), 1).unwrap().route, route, "{kind:?}");
        }
    }

    #[test]
    fn only_a_required_delay_is_believed_for_long() {
        let asked = |kind, status: u16, seconds| {
            let error = Error::new(kind, "x").with_http_status(status);
            failure(&error.with_retry_after(Some(Duration::from_secs(seconds)))).lifetime(Duration::ZERO)
        };
        assert_eq!(asked(Kind::Server, 503, 60), Duration::from_secs(60));
        assert_eq!(asked(Kind::Server, 500, 60), FAILURE_LIFETIME);
        assert_eq!(asked(Kind::CredentialsRejected, 400, 60), FAILURE_LIFETIME);
        assert_eq!(asked(Kind::RateLimited, 429, 86_400), MAX_RETRY_AFTER);
        assert_eq!(asked(Kind::RateLimited, 429, 0), FAILURE_LIFETIME);
    }

    #[test]
    fn other_bytes_are_no_note() {
        let bytes = failure(&Error::new(Kind::Server, "message")).encode(1);
        for length in 0..26 {
            assert!(Note::decode(&bytes[..length]).is_none(), "{length} bytes");
        }
        let mut unknown = bytes.clone();
        unknown[0] = 3;
        assert!(Note::decode(&unknown).is_none());
        // A local failure, which is not shared.
        let mut local = bytes.clone();
        local[10] = 60;
        assert!(Note::decode(&local).is_none());
        for more in [vec![b'x'; MAX_TEXT_BYTES], b"\x1b[2J".to_vec(), b"\xff".to_vec()] {
            assert!(Note::decode(&[bytes.clone(), more].concat()).is_none());
        }
    }
}
