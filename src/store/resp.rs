//! RESP 2, the protocol of Redis and Valkey: commands and replies as pure functions over bytes.
//!
//! By hand, because the store sends seven commands and reads five kinds of reply. The `redis` crate would bring more
//! crates than the whole library has. It resolves names without a time limit, has a timeout for each read and write
//! instead of one deadline for the exchange, needs a crypto provider that is installed for the whole process, and
//! reads CA certificates and keeps passwords in its own way.

use super::seal;
use std::io::{self, BufRead, Read};
use zeroize::Zeroizing;

/// A command and its arguments.
pub(super) type Command<'a> = &'a [&'a [u8]];

/// The reply to one command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Nil,
    Integer(i64),
    Bulk(Vec<u8>),
    /// A string that is longer than any that the store writes. It is not read.
    TooLong,
    /// The reply to `TIME`: nanoseconds since 1970.
    Time(i64),
    /// An error message of the server, which may repeat a password.
    Error(Zeroizing<String>),
}

impl Value {
    /// The message of an error reply.
    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Value::Error(message) => Some(message),
            _ => None,
        }
    }
}

/// Encodes commands: each is an array of strings with their lengths, so nothing needs quoting.
pub(super) fn encode(commands: &[Command]) -> Zeroizing<Vec<u8>> {
    let arguments = || commands.iter().flat_map(|command| command.iter());
    // Allocated in its final size, because a buffer that grows leaves a copy of the password behind.
    let size = arguments().map(|argument| argument.len() + 32).sum::<usize>() + commands.len() * 32;
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    for command in commands {
        bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for argument in *command {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
}

/// The longest line of a reply, in bytes.
const MAX_LINE_BYTES: u64 = 1024;

/// Reads one reply. The only valid array is that of `TIME`, because no other command of the store returns one.
pub(super) fn read_reply(source: &mut impl BufRead) -> io::Result<Value> {
    match read_value(source)? {
        Reply::Value(value) => Ok(value),
        Reply::Pair => {
            let mut number = || match read_value(source)? {
                Reply::Value(Value::Bulk(digits)) => {
                    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse::<i64>().ok()).ok_or_else(invalid)
                }
                _ => Err(invalid()),
            };
            let (seconds, microseconds) = (number()?, number()?);
            let time = seconds.checked_mul(1_000_000).and_then(|time| time.checked_add(microseconds));
            Ok(Value::Time(time.and_then(|time| time.checked_mul(1000)).ok_or_else(invalid)?))
        }
    }
}

/// A reply, or the beginning of an array of two.
enum Reply {
    Value(Value),
    Pair,
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the reply is not valid in the protocol of Redis (RESP 2)")
}

fn read_value(source: &mut impl BufRead) -> io::Result<Reply> {
    // Allocated in its final size, because a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES as usize));
    source.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(invalid)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(invalid)?;
    let number = || rest.parse::<i64>().map_err(|_| invalid());
    if (kind, rest) == ("*", "2") {
        return Ok(Reply::Pair);
    }
    let value = match kind {
        "+" => Ok(Value::Bulk(rest.as_bytes().to_vec())),
        "-" => Ok(Value::Error(rest.to_owned().into())),
        ":" => Ok(Value::Integer(number()?)),
        "$" if number()? == -1 => Ok(Value::Nil),
        "$" => {
            let length = u64::try_from(number()?).map_err(|_| invalid())?;
            // With pointers of 32 bits it may be more than any size.
            let Some(length) = usize::try_from(length).ok().filter(|length| *length <= seal::MAX_RECORD_BYTES) else {
                return Ok(Reply::Value(Value::TooLong));
            };
            let mut bytes = vec![0; length + 2];
            source.read_exact(&mut bytes)?;
            if !bytes.ends_with(b"\r\n") {
                return Err(invalid());
            }
            bytes.truncate(bytes.len() - 2);
            Ok(Value::Bulk(bytes))
        }
        _ => Err(invalid()),
    };
    value.map(Reply::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_counted_strings() {
        let bytes = encode(&[&[b"GET", b"a\r\nb"], &[b"PING"]]);
        assert_eq!(bytes.as_slice(), b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nPING\r\n");
        assert!(bytes.capacity() > bytes.len());
    }

    #[test]
    fn replies_are_read_or_rejected() {
        let read = |mut bytes: &[u8]| read_reply(&mut bytes).ok();
        assert_eq!(read(b"+OK\r\n"), Some(Value::Bulk(b"OK".to_vec())));
        assert_eq!(read(b"$4\r\na\r\nb\r\n"), Some(Value::Bulk(b"a\r\nb".to_vec())));
        assert_eq!(read(b"$-1\r\n"), Some(Value::Nil));
        assert_eq!(read(b":-2\r\n"), Some(Value::Integer(-2)));
        assert_eq!(read(b"-ERR no\r\n"), Some(Value::Error("ERR no".to_owned().into())));
        let time = b"*2\r\n$10\r\n1700000000\r\n$6\r\n000025\r\n";
        assert_eq!(read(time), Some(Value::Time(1_700_000_000_000_025_000)));
        assert_eq!(read(b"$99999999999\r\n"), Some(Value::TooLong));
        let endless = [b'+'; 5000];
        for bad in [
            &b""[..],
            b"\r\n",
            b"+OK",
            b"$-2\r\n",
            b"$5\r\nabc",
            b"$1\r\nabcd",
            b"$18446744073709551615\r\n",
            b"*1\r\n",
            b"*2\r\n$1\r\n1\r\n",
            b"*2\r\n$1\r\n1\r\n$-1\r\n",
            b"*2\r\n$1\r\n1\r\n$1\r\nx\r\n",
            b"*2\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n",
            b"*2\r\n$19\r\n9223372036854775807\r\n$1\r\n1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\xff\xff\r\n",
            &endless,
        ] {
            assert_eq!(read(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
