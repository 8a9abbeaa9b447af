//! The ticket: the local secret with which a client authenticates to `amp-token serve`.
//!
//! It is 256 random bits in hexadecimal digits, new at each start, unless a file has it. Base64 has fewer characters, but
//! may begin with a hyphen, and a tool that gets it as an argument takes that for an option. It is compared in constant
//! time and shown once, in the lines that the command prints when it is ready. What it protects is a token, not the client
//! secret: somebody who has the ticket can use the APIs while the server runs, and has nothing afterwards.

use crate::exit::{CliError, CliResult, EXIT_IO};
use amp_token::sanitize::sanitize;
use amp_token::sys::secret::Secret;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How many random bytes a ticket has.
const RANDOM_BYTES: usize = 32;

/// The shortest ticket that a file may have, in characters: 128 bits as hexadecimal digits have 32, and as Base64 22.
const SHORTEST: usize = 16;

/// The longest, in bytes.
const LONGEST: usize = 4096;

/// The secret of this server.
pub struct Ticket(Secret);

impl Ticket {
    /// A ticket that nobody can guess.
    pub fn random() -> CliResult<Self> {
        let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| CliError::new(EXIT_IO, "cannot make a ticket: the system's random number generator failed"))?;
        let mut digits = String::with_capacity(2 * RANDOM_BYTES);
        for byte in bytes.iter() {
            write!(digits, "{byte:02x}").expect("a String can be written to");
        }
        Ok(Ticket(Secret::new(digits)))
    }

    /// The first line of a file.
    pub fn from_file(path: &Path) -> CliResult<Self> {
        let shown = sanitize(&path.display().to_string(), &[]);
        let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
        File::open(path)
            .and_then(|file| file.take(LONGEST as u64 + 1).read_to_string(&mut text))
            .map_err(|error| CliError::new(EXIT_IO, format!("cannot read the ticket from {shown}: {error}")))?;
        let ticket = text.trim_start_matches('\u{feff}').trim();
        let problem = if text.len() > LONGEST {
            format!("it has more than {LONGEST} bytes")
        } else if !ticket.bytes().all(|byte| byte.is_ascii_graphic()) {
            "it is not one line of visible ASCII characters".to_owned()
        } else if ticket.len() < SHORTEST {
            format!("it has fewer than {SHORTEST} characters, so it can be guessed")
        } else {
            return Ok(Ticket(Secret::from(ticket)));
        };
        Err(CliError::usage(format!(
            "cannot use the ticket in {shown}: {problem}; write one, as with \"openssl rand -hex 32\""
        )))
    }

    /// Whether a client has sent this ticket. Takes the same time for each of the same length.
    pub fn is(&self, sent: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(sent).into()
    }

    /// The ticket itself, for the lines that the user reads and the environment of a child.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_ticket_is_an_argument_of_any_tool() {
        let tickets: Vec<_> = (0..200).map(|_| Ticket::random().unwrap()).collect();
        let is_digits = |ticket: &Ticket| {
            ticket.expose().len() == 64 && ticket.expose().bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        assert!(tickets.iter().all(is_digits));
        assert_ne!(tickets[0].expose(), tickets[1].expose());
    }
}
