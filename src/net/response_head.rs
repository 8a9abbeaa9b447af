//! Brings the head of a response into a form that ureq's parser accepts, before ureq sees it.
//!
//! ureq configures its parser as for a server that reads requests: it rejects folded headers, blanks before the colon,
//! odd names and values, other versions, an HTTP/1.0 response in chunks, and interim responses with headers. Old appliances, gateways
//! and IIS send those, curl and browsers accept them, and none of these headers decides anything here. A response
//! that is rejected costs the caller a token that the server has already issued. ureq has no switch for any of it.
//!
//! Guarantees:
//!
//! - The framing is not guessed. `Content-Length` and `Transfer-Encoding` with a valid name reach ureq as they are,
//!   and ureq rejects values that are invalid or that contradict each other. A line that is dropped may be a
//!   misspelled one, so a connection must not be used for a second response unless the head [`is_strict`].
//! - What is not a response at all reaches ureq unchanged, and at once: ureq describes it.
//! - The result takes the place of what was received in the buffer. The few heads that would become longer stay as they are.

use zeroize::Zeroizing;

/// The state of the head after more bytes were received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// More bytes are needed. This many are kept: an interim response is removed.
    Incomplete(usize),
    /// The head is complete, or is not one. This many bytes are left, including those after it.
    Complete(usize),
}

/// Normalizes the head at the start of `input`.
///
/// - Interim responses (1xx, with or without headers) are removed. 101 is final (RFC 9110, section 15.2).
/// - A folded header is joined by spaces (RFC 9112, section 5.2).
/// - Blanks around names and values are removed, and control characters in values are replaced by spaces.
/// - Lines without a valid name are dropped.
/// - Every version becomes HTTP/1.1, so that chunks are decoded. They differ in nothing else that matters here.
pub(super) fn normalize(input: &mut [u8]) -> Head {
    let mut start = 0;
    loop {
        start += input[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let rest = &input[start..];
        if !rest.iter().zip(b"HTTP/").all(|(byte, other)| byte.eq_ignore_ascii_case(other)) {
            return Head::Complete(input.len());
        }
        let status = status(rest);
        let Some(length) = head_length(rest) else {
            // A status line that is complete and invalid is reported now, and not when the peer closes.
            if status.is_none() && rest.contains(&b'\n') {
                return Head::Complete(input.len());
            }
            input.copy_within(start.., 0);
            return Head::Incomplete(input.len() - start);
        };
        let head = &rest[..length];
        match status {
            Some(status) if status[0] == b'1' && status != *b"101" => start += length,
            // A NUL has no place in a head: ureq reports it.
            Some(status) if !head.contains(&0) => {
                let head = rewritten(head, status);
                let end = start + length;
                // `HTTP/2 200` and two LF become longer, so there is no place for the result: ureq rejects the version.
                if head.len() > end {
                    return Head::Complete(input.len());
                }
                input[..head.len()].copy_from_slice(&head);
                input.copy_within(end.., head.len());
                return Head::Complete(head.len() + input.len() - end);
            }
            _ => return Head::Complete(input.len()),
        }
    }
}

/// Whether `input` begins with the head of a final response that says exactly how long the response is: one of HTTP/1.1,
/// of which [`normalize`] drops nothing, and without a coding that ureq ignores, whose end is that of the connection (RFC
/// 9112, section 6.3).
pub(super) fn is_strict(input: &[u8]) -> bool {
    let Some(length) = head_length(input) else { return false };
    let Some(head) = input[..length].strip_suffix(b"\r\n\r\n") else { return false };
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let is_final = lines.next().is_some_and(|line| line.starts_with(b"HTTP/1.1 ") && line.get(9) != Some(&b'1'));
    let line_breaks = head.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
    let pairs = head.windows(2).filter(|two| two == b"\r\n").count();
    is_final
        && line_breaks == 2 * pairs
        && lines.all(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (name, value) = line.split_at(colon);
            let is_coding = name.eq_ignore_ascii_case(b"Transfer-Encoding");
            !name.is_empty()
                && (!is_coding || value[1..].trim_ascii().eq_ignore_ascii_case(b"chunked"))
                && name.iter().all(|byte| is_token(*byte))
                && value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
        })
}

/// The length of a head, with the empty line at its end; `None` if it is not complete.
fn head_length(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = &input[at..at + input[at..].iter().position(|byte| *byte == b'\n')?];
        at += line.len() + 1;
        if line.iter().all(|byte| *byte == b'\r') {
            return Some(at);
        }
    }
}

/// The digits of the status; `None` if this is not the status line of a version that may have this form. Some proxies
/// write 2 or 3, the versions that they speak to the server.
fn status(line: &[u8]) -> Option<[u8; 3]> {
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let (version, rest) = line.split_at(blank);
    let is_version = [b"1.1" as &[u8], b"1.0", b"2", b"3"].contains(&version.get(b"HTTP/".len()..)?);
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    let (digits, rest) = rest[blanks..].split_first_chunk::<3>()?;
    let is_status = digits.iter().all(u8::is_ascii_digit) && !rest.first().is_some_and(u8::is_ascii_digit);
    (is_version && is_status).then_some(*digits)
}

/// A head in the form that ureq accepts. Only a version of one digit makes it longer, by two bytes.
fn rewritten(head: &[u8], status: [u8; 3]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(head.len()));
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status);
    out.push(b'\n');
    // Whether the header before this line was kept, so that its fold is, too.
    let mut is_kept = false;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let is_fold = matches!(line.first(), Some(b' ' | b'\t'));
        let value = if is_fold {
            if is_kept {
                // The space takes the place of the line break.
                out.pop();
                out.push(b' ');
            }
            line
        } else {
            let (name, value) = match line.iter().position(|byte| *byte == b':') {
                Some(colon) => (line[..colon].trim_ascii(), &line[colon + 1..]),
                None => (&line[..0], line),
            };
            is_kept = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
            if is_kept {
                out.extend_from_slice(name);
                out.push(b':');
            }
            value
        };
        if is_kept {
            let shown = |byte: &u8| if byte.is_ascii_control() { b' ' } else { *byte };
            out.extend(value.trim_ascii().iter().map(shown));
            out.push(b'\n');
        }
    }
    out.push(b'\n');
    out
}

/// Whether a byte may be in the name of a header (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normalized head and what follows it.
    fn normalized(input: &str) -> String {
        let mut bytes = input.as_bytes().to_vec();
        let Head::Complete(length) = normalize(&mut bytes) else { panic!("incomplete: {input:?}") };
        bytes.truncate(length);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_ureq_would_reject_is_brought_into_form() {
        for (input, expected) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", "HTTP/1.1 200\nA:b\n\nbody"),
            ("HTTP/1.0 200 OK\nA: b\n\nbody\n\n", "HTTP/1.1 200\nA:b\n\nbody\n\n"),
            ("http/1.1   404\r\n\r\n", "HTTP/1.1 404\n\n"),
            ("HTTP/2 200 \r\nA: b\r\n\r\n", "HTTP/1.1 200\nA:b\n\n"),
            ("\n\nHTTP/2 200\n\nbody", "HTTP/1.1 200\n\nbody"),
            ("HTTP/1.1 200OK\r\r\n\r\r\n", "HTTP/1.1 200\n\n"),
            ("\r\n\nHTTP/1.1 200 Zugriff f\u{fc}r Sie\r\n\r\n", "HTTP/1.1 200\n\n"),
            // Folds.
            ("HTTP/1.1 200\r\nA: one\r\n two\r\n\t three \r\nB: c\r\n\r\n", "HTTP/1.1 200\nA:one two three\nB:c\n\n"),
            ("HTTP/1.1 200\r\nA:\r\n b\r\n\r\n", "HTTP/1.1 200\nA: b\n\n"),
            ("HTTP/1.1 200\r\nA: b\r\n \r\nC: d\r\n\r\n", "HTTP/1.1 200\nA:b \nC:d\n\n"),
            ("HTTP/1.1 200\r\nA b: c\r\n d: e\r\nF: g\r\n\r\n", "HTTP/1.1 200\nF:g\n\n"),
            ("HTTP/1.1 200\r\n A: b\r\nC: d\r\n\r\n", "HTTP/1.1 200\nC:d\n\n"),
            // Names and values.
            ("HTTP/1.1 200\r\nA : b\r\nC\t:d\r\n\r\n", "HTTP/1.1 200\nA:b\nC:d\n\n"),
            ("HTTP/1.1 200\r\n: b\r\nno colon\r\nX@Y: z\r\nS\u{e9}t: z\r\nC: d\r\n\r\n", "HTTP/1.1 200\nC:d\n\n"),
            ("HTTP/1.1 200\r\nA: b\u{1}c\u{7f}d\re\tf\u{e9}\r\n\r\n", "HTTP/1.1 200\nA:b c d e f\u{e9}\n\n"),
            ("HTTP/1.1 200\r\nA:\r\nB:::\r\n\r\n", "HTTP/1.1 200\nA:\nB:::\n\n"),
            // Interim responses.
            ("HTTP/1.1 100 Continue\r\nServer: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", "HTTP/1.1 200\n\nx"),
            ("HTTP/1.1 199\nA : b\n\n\r\nHTTP/1.0 102 x\n\nHTTP/1.1 201\r\n\r\n", "HTTP/1.1 201\n\n"),
            ("HTTP/1.1 101 Switch\r\n\r\nHTTP/1.1 200\r\n\r\n", "HTTP/1.1 101\n\nHTTP/1.1 200\r\n\r\n"),
        ] {
            assert_eq!(normalized(input), expected, "{input:?}");
        }
    }

    #[test]
    fn what_is_no_response_reaches_ureq_unchanged_and_at_once() {
        for input in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "220 mail.example ESMTP",
            "<",
            "HTTQ",
            "HTTP/4 200\r\n",
            "HTTP/2.0 200\r\n",
            "HTTP/ 200\r\n",
            "HTTP/1.2 200 OK\r\n",
            "HTTP/1.1\t200 OK\r\n",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1200\r\n",
            "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
            // It would become longer.
            "HTTP/2 200\n\n",
            "HTTP/3 503\nA:b\n\nbody",
        ] {
            assert_eq!(normalized(input), input);
        }
    }

    #[test]
    fn an_incomplete_head_waits_and_is_never_longer() {
        let whole = "HTTP/1.1 103 Early\r\nA : b\r\n\r\n\r\nHTTP/1.1 200 OK\r\nA: one\r\n two\r\nB : c\r\n\r\n";
        for cut in 0..whole.len() {
            let mut bytes = whole.as_bytes()[..cut].to_vec();
            let Head::Incomplete(length) = normalize(&mut bytes) else { panic!("complete at {cut}") };
            // What is kept and the rest give the same result.
            bytes.truncate(length);
            bytes.extend_from_slice(&whole.as_bytes()[cut..]);
            assert_eq!(normalized(std::str::from_utf8(&bytes).unwrap()), "HTTP/1.1 200\nA:one two\nB:c\n\n");
        }
        for head in ["HTTP/1.1 200\n\n", "HTTP/1.0 200\nA:b\n c\n\n", "HTTP/1.0 200\nA:\n\t\n\n"] {
            assert!(rewritten(head.as_bytes(), *b"200").len() <= head.len(), "{head:?}");
        }
    }

    #[test]
    fn only_a_head_of_which_nothing_is_dropped_is_strict() {
        for head in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\nC:\td\u{fc}\r\n\r\nbody\n: x\r",
        ] {
            assert!(is_strict(head.as_bytes()), "{head:?}");
        }
        for head in [
            "",
            "HTTP/1.1 200 OK\r\nA: b\r\n",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ntransfer-encoding: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        ] {
            assert!(!is_strict(head.as_bytes()), "{head:?}");
        }
    }
}
