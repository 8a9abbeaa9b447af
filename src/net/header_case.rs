//! The conventional case of header names in a request: `Content-Type`, not `content-type`.
//!
//! ureq writes names in lower case, which HTTP allows, but some firewalls and old servers reject. Only the letters of
//! names change, and the length never does. The request may be passed in pieces of any size.

/// Where in a request the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum HeaderCase {
    /// In the request line.
    #[default]
    RequestLine,
    /// At the first letter of a word in a name; `true` at the first one of a line.
    WordStart(bool),
    /// Inside a word of a name.
    Word,
    /// In a value.
    Value,
    /// In the body.
    Body,
}

impl HeaderCase {
    /// Changes the next bytes of the request.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *self = match (*self, *byte) {
                (HeaderCase::Body, _) => return,
                (HeaderCase::RequestLine | HeaderCase::Value, b'\n') => HeaderCase::WordStart(true),
                (HeaderCase::RequestLine | HeaderCase::Value, _) => *self,
                (HeaderCase::WordStart(true), b'\r') => *self,
                (HeaderCase::WordStart(true), b'\n') => HeaderCase::Body,
                (HeaderCase::WordStart(_) | HeaderCase::Word, b':') => HeaderCase::Value,
                (HeaderCase::WordStart(_) | HeaderCase::Word, b'-') => HeaderCase::WordStart(false),
                (HeaderCase::WordStart(_), _) => {
                    byte.make_ascii_uppercase();
                    HeaderCase::Word
                }
                (HeaderCase::Word, _) => HeaderCase::Word,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_change_however_a_request_is_split() {
        let request = b"POST /a-b: c HTTP/1.1\r\nhost: a-b.example\r\nx-request-id:x-y\r\nx: \r\n\r\nbody-b: c\r\nd: e";
        let expected =
            b"POST /a-b: c HTTP/1.1\r\nHost: a-b.example\r\nX-Request-Id:x-y\r\nX: \r\n\r\nbody-b: c\r\nd: e";
        for size in 1..=request.len() {
            let (mut case, mut changed) = (HeaderCase::default(), request.to_vec());
            changed.chunks_mut(size).for_each(|piece| case.apply(piece));
            assert_eq!((changed.as_slice(), case), (&expected[..], HeaderCase::Body));
        }
    }
}
