//! Makes text from outside of the process safe to show in an error message, a log line or on a terminal.
//!
//! Such text comes from a server, a proxy, a certificate, a file or the environment. [`sanitize`] makes one short
//! line of it:
//!
//! 1. It truncates the text, so that all further work is bounded.
//! 2. It removes control characters and invisible characters.
//! 3. It redacts secrets in the rest, and whatever looks like a token.
//! 4. It truncates the result to [`QUOTE_LIMIT`].
//!
//! A server may echo a part of a secret, in another case, with other characters in between, or in another
//! encoding. So the text is compared by the characters that it stands for. Any run of [`MIN_RUN`] characters that
//! also occurs in a secret is redacted, and so is a shorter secret as a whole. These encodings are understood, also
//! mixed and up to three on top of each other: percent encoding, the escapes of JSON and of programming languages,
//! HTML entities, quoted-printable and doubled quotation marks; and base64 and hexadecimal digits.
//!
//! Nothing here is recursive, and no copy of a secret is left in freed memory: a secret is compared in place, and
//! decoded text is wiped.

use zeroize::{Zeroize, Zeroizing};

/// The maximum length of quoted text in an error or a log line, in characters.
pub const QUOTE_LIMIT: usize = 200;

/// The shortest part of a secret that is redacted, in characters.
pub const MIN_RUN: usize = 8;

/// How much of a text is examined, in bytes: enough for some echoes of a long secret, and the text around them.
const INPUT_LIMIT: usize = 2048;

/// How much of that is never shown if the text goes on after it, in bytes: a short secret that begins before
/// this part ends within it, in any spelling, and is hidden whole.
const OVERLAP: usize = 512;

/// How often text is decoded before it is compared. The comparison itself understands one more layer.
const DECODE_DEPTH: usize = 2;

/// Shorter secrets are not looked for in base64 and hexadecimal digits, where they occur by chance.
const SHORTEST_IN_DIGITS: usize = 4;

/// The replacement for redacted text.
const REDACTED: &str = "[redacted]";

/// Makes text safe to show: one line without control characters, no longer than [`QUOTE_LIMIT`] (and an ellipsis),
/// in which each of `secrets` and whatever looks like a token is redacted.
pub fn sanitize(text: &str, secrets: &[&str]) -> String {
    let input = first_bytes(text, INPUT_LIMIT);
    let is_cut = input.len() < text.len();
    let mut hidden = Hidden::new(input.len());
    let mut layer = Layer::of(input);
    for depth in 0.. {
        redact_tokens(&layer, &mut hidden);
        for secret in secrets {
            redact_secret(&layer, secret, &mut hidden);
        }
        match if depth < DECODE_DEPTH { layer.decoded() } else { None } {
            Some(next) => layer = next,
            None => break,
        }
    }
    let end = if is_cut { first_bytes(input, INPUT_LIMIT - OVERLAP).len() } else { input.len() };
    hidden.render(input, end, is_cut)
}

/// The first `most` bytes of a text, or fewer, so that it ends between two characters.
fn first_bytes(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Replaces the characters that a terminal does not show as they are, such as control characters, and keeps the
/// rest unchanged. For values of this machine, such as paths.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Scheme, host and path of a URL. The parts that may contain a secret are replaced by an ellipsis: the user name
/// and password, the query, the fragment, and a path from its first unusual character on.
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            (&url[..scheme.len() + 3], rest)
        }
        _ => ("", url),
    };
    let (front, behind) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let mut shown = scheme.to_owned();
    // The password may be what holds the `?`, and then its beginning stands in front.
    if behind.contains('@') {
        shown.push('…');
        return shown;
    }
    let front = match front.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str("…@");
            host
        }
        None => front,
    };
    let path = if scheme.is_empty() {
        front
    } else {
        let (authority, path) = front.split_at(front.find('/').unwrap_or(front.len()));
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        // Without a host behind it, a password looks like a port.
        let is_number = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_port = |port: &str| port.ends_with(']') || is_number(port);
        if authority.chars().all(is_host) && authority.rsplit_once(':').is_none_or(|(_, port)| is_port(port)) {
            shown.push_str(authority);
        } else {
            shown.push('…');
        }
        path
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let plain = &path[..path.find(|c| !is_plain(c)).unwrap_or(path.len())];
    shown.push_str(plain);
    if plain.len() < path.len() || !behind.is_empty() {
        shown.push('…');
    }
    sanitize(&shown, &[])
}

/// The text, if it is a short word of letters: what was meant to be a name. Arguments in the wrong order
/// put a secret in its place.
pub(crate) fn as_word(text: &str) -> Option<&str> {
    let is_word = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphabetic() || b"_-".contains(&byte));
    is_word.then_some(text)
}

/// Control characters, and those that Unicode calls ignorable: they reorder or hide text on a terminal, or
/// are invisible.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Characters that do not count in a comparison: those that are stripped, and white space, which a server may
/// add, drop, or spell as a plus sign.
fn is_gap(c: char) -> bool {
    c == '+' || c.is_whitespace() || is_unprintable(c)
}

/// Which bytes of the input are hidden.
struct Hidden {
    /// For each end of a hidden range, its lowest start: one entry per range, however long it is.
    starts: Vec<usize>,
}

impl Hidden {
    fn new(length: usize) -> Self {
        Hidden { starts: (0..=length).collect() }
    }

    fn add(&mut self, start: usize, end: usize) {
        self.starts[end] = self.starts[end].min(start);
    }

    /// The text up to `end`, as it is shown.
    fn render(self, text: &str, end: usize, is_cut: bool) -> String {
        let mut is_hidden = self.starts;
        // From now on, for each byte: the lowest start of all ranges that end behind it.
        for at in (1..is_hidden.len()).rev() {
            is_hidden[at - 1] = is_hidden[at - 1].min(is_hidden[at]);
        }
        let is_hidden = |at: usize| is_hidden[at + 1] <= at;
        let mut shown = String::with_capacity(end.min(4 * QUOTE_LIMIT) + REDACTED.len() + 4);
        let (mut count, mut is_spaced, mut was_hidden) = (0, false, false);
        for (at, c) in text[..end].char_indices() {
            let piece = match c {
                _ if is_hidden(at) && was_hidden => continue,
                _ if is_hidden(at) => REDACTED,
                _ if c.is_whitespace() => {
                    is_spaced = true;
                    continue;
                }
                _ if is_unprintable(c) => continue,
                // The plus signs at the ends of a hidden secret may be its own.
                '+' if was_hidden || text[at..].find(|c| c != '+').is_some_and(|plus| is_hidden(at + plus)) => continue,
                _ => &text[at..at + c.len_utf8()],
            };
            was_hidden = is_hidden(at);
            if is_spaced && count > 0 {
                shown.push(' ');
                count += 1;
            }
            is_spaced = false;
            shown.push_str(piece);
            count += piece.chars().count();
            if count > QUOTE_LIMIT {
                break;
            }
        }
        match shown.char_indices().nth(QUOTE_LIMIT) {
            Some((end, _)) => {
                shown.truncate(end);
                shown.push('…');
            }
            None if is_cut => shown.push('…'),
            None => {}
        }
        shown
    }
}

/// A character that text stands for, and where it stands in the input.
#[derive(Clone, Copy)]
struct Item {
    c: char,
    /// The first byte of the input that spells it.
    start: usize,
    /// The byte behind the last one.
    end: usize,
    /// Whether white space stands in front of it, other than line breaks: the end of a token.
    is_spaced: bool,
}

impl Zeroize for Item {
    fn zeroize(&mut self) {
        self.c.zeroize();
        self.start.zeroize();
        self.end.zeroize();
    }
}

/// Text as it is compared: without white space and without what is stripped.
struct Layer {
    items: Zeroizing<Vec<Item>>,
    is_spaced: bool,
}

impl Layer {
    /// An empty layer with room for all that will be added: one that grows leaves copies behind.
    fn with_room(length: usize) -> Self {
        Layer { items: Zeroizing::new(Vec::with_capacity(length)), is_spaced: false }
    }

    fn push(&mut self, item: Item) {
        self.is_spaced |= item.is_spaced;
        if item.c.is_whitespace() {
            self.is_spaced |= !matches!(item.c, '\r' | '\n');
        } else if !is_unprintable(item.c) {
            self.items.push(Item { is_spaced: self.is_spaced, ..item });
            self.is_spaced = false;
        }
    }

    fn of(text: &str) -> Self {
        let mut layer = Layer::with_room(text.len());
        for (start, c) in text.char_indices() {
            layer.push(Item { c, start, end: start + c.len_utf8(), is_spaced: false });
        }
        layer
    }

    /// The same text with one layer of escapes undone; `None`: it has no escapes.
    fn decoded(&self) -> Option<Layer> {
        let mut next = Layer::with_room(self.items.len());
        let (mut at, mut found) = (0, false);
        while let Some(&item) = self.items.get(at) {
            let (c, length) = match escape(&self.items, at) {
                Some((meaning, length)) => {
                    found = true;
                    (meaning.unwrap_or(char::REPLACEMENT_CHARACTER), length)
                }
                None => (item.c, 1),
            };
            next.push(Item { c, end: self.items[at + length - 1].end, ..item });
            at += length;
        }
        found.then_some(next)
    }
}

/// Hides what looks like a JSON web token or a personal access token.
fn redact_tokens(layer: &Layer, hidden: &mut Hidden) {
    const MARKS: [&str; 2] = ["eyJ", "amp_pat_"];
    const SHORTEST: usize = 17;
    let items = &layer.items;
    let mut at = 0;
    while at < items.len() {
        let has =
            |mark: &&str| mark.chars().enumerate().all(|(i, c)| items.get(at + i).is_some_and(|item| item.c == c));
        if MARKS.iter().any(has) {
            let is_part = |item: &&Item| item.c.is_ascii_alphanumeric() || "._-~+/=".contains(item.c);
            let rest = items[at + 1..].iter().take_while(is_part).take_while(|item| !item.is_spaced).count();
            if rest + 1 >= SHORTEST {
                hidden.add(items[at].start, items[at + rest].end);
                at += rest;
            }
        }
        at += 1;
    }
}

/// Hides a secret and its parts.
fn redact_secret(layer: &Layer, secret: &str, hidden: &mut Hidden) {
    redact_runs(&layer.items, secret, hidden);
    if secret.len() >= SHORTEST_IN_DIGITS {
        let base64 = |c| match c {
            'A'..='Z' => Some(c as u32 - 'A' as u32),
            'a'..='z' => Some(c as u32 - 'a' as u32 + 26),
            '0'..='9' => Some(c as u32 - '0' as u32 + 52),
            '+' | '-' => Some(62),
            '/' | '_' => Some(63),
            _ => None,
        };
        redact_digits(&layer.items, 6, base64, secret, hidden);
        redact_digits(&layer.items, 4, |c| c.to_digit(16), secret, hidden);
    }
}

/// Hides a secret that is spelled in digits of so many bits each.
fn redact_digits(items: &[Item], bits: usize, value: impl Fn(char) -> Option<u32>, secret: &str, hidden: &mut Hidden) {
    let shortest = (secret.len().min(MIN_RUN) * 8).div_ceil(bits);
    // The bytes of a secret may begin at any digit, because other digits may stand in front.
    let phases = if bits == 6 { 4 } else { 2 };
    let mut at = 0;
    while at < items.len() {
        let length = items[at..].iter().take_while(|item| value(item.c).is_some()).count();
        let run = &items[at..at + length];
        at += length + 1;
        if length < shortest {
            continue;
        }
        for phase in 0..phases {
            let mut bytes = Zeroizing::new(Vec::with_capacity(length));
            let (mut number, mut have) = (0, 0);
            for (i, item) in run.iter().enumerate().skip(phase) {
                number = (number << bits | value(item.c).unwrap_or(0)) & 0xffff;
                have += bits;
                if have >= 8 {
                    have -= 8;
                    let byte = (number >> have) as u8;
                    // A byte shares its digits with its neighbours.
                    let (first, last) = (i.saturating_sub(2).max(phase), (i + 1).min(length - 1));
                    let (start, end) = (run[first].start, run[last].end);
                    bytes.push(Item { c: byte.into(), start, end, is_spaced: false });
                }
            }
            if may_hold(&bytes, secret) {
                redact_runs(&bytes, secret, hidden);
            }
        }
    }
}

/// Whether a run of bytes could stand in a secret, by its characters alone: digits that spell something else
/// make bytes of all kinds.
fn may_hold(bytes: &[Item], secret: &str) -> bool {
    let needed = if secret.contains(is_gap) { 1 } else { secret.chars().count().min(MIN_RUN) };
    let occurs = |c: char| secret.contains(c.to_ascii_lowercase()) || secret.contains(c.to_ascii_uppercase());
    let mut length = 0;
    bytes.iter().filter(|item| !is_gap(item.c)).any(|item| {
        length = if occurs(item.c) || (is_garbled(item.c) && !secret.is_ascii()) { length + 1 } else { 0 };
        length >= needed
    })
}

/// A run of characters that stands in the text and in the secret.
#[derive(Clone, Copy)]
struct Run {
    /// The byte of the secret where the run would go on.
    next: usize,
    /// The byte of the secret where it began.
    first: usize,
    /// The byte of the input where it began.
    start: usize,
}

/// What text at some place may stand for.
#[derive(Clone, Copy)]
enum Reading {
    Is(char),
    /// A character beyond ASCII that did not survive an encoding.
    Garbled,
    /// Nothing that counts.
    Gap,
}

/// Hides every run of [`MIN_RUN`] characters of the secret, or all of it if it is shorter.
///
/// At each place it keeps the runs that reach it. As text can be read in more than one way, a run may reach
/// several later places. The work is at most the product of both lengths.
fn redact_runs(items: &[Item], secret: &str, hidden: &mut Hidden) {
    let mut reached: Vec<Vec<Run>> = vec![Vec::new(); items.len() + 1];
    for at in 0..items.len() {
        let mut runs = std::mem::take(&mut reached[at]);
        runs.sort_unstable_by_key(|run| (run.next, run.first));
        runs.dedup_by(|later, kept| {
            let same = later.next == kept.next;
            if same {
                kept.start = kept.start.min(later.start);
            }
            same
        });
        readings(items, at, &mut |reading, length| {
            let (there, end) = (&mut reached[at + length], items[at + length - 1].end);
            let mut step = |run: Run, after: usize| {
                let run = Run { next: skip_gaps(secret, after), ..run };
                if is_enough(secret, &run) {
                    hidden.add(run.start, end);
                }
                there.push(run);
            };
            match reading {
                Reading::Gap => there.extend_from_slice(&runs),
                reading => {
                    for run in &runs {
                        if let Some(c) = secret[run.next..].chars().next().filter(|c| reading.fits(*c)) {
                            step(*run, run.next + c.len_utf8());
                        }
                    }
                    for (first, c) in secret.char_indices() {
                        let is_new = || runs.binary_search_by_key(&first, |run| run.next).is_err();
                        if reading.fits(c) && !is_gap(c) && is_new() {
                            step(Run { next: first, first, start: items[at].start }, first + c.len_utf8());
                        }
                    }
                }
            }
        });
    }
}

impl Reading {
    /// Whether this may be that character of a secret.
    fn fits(self, secret: char) -> bool {
        match self {
            Reading::Is(c) if c.is_ascii() || secret.is_ascii() => c.eq_ignore_ascii_case(&secret),
            Reading::Is(c) => c.to_lowercase().eq(secret.to_lowercase()),
            Reading::Garbled => !secret.is_ascii(),
            Reading::Gap => false,
        }
    }
}

/// The first place from `with_phase` on that is no gap.
fn skip_gaps(secret: &str, at: usize) -> usize {
    secret[at..].find(|c| !is_gap(c)).map_or(secret.len(), |gaps| at + gaps)
}

/// Whether a run is to be hidden. The gaps of the secret at both of its ends count, too.
fn is_enough(secret: &str, run: &Run) -> bool {
    let first = secret[..run.first].trim_end_matches(is_gap).len();
    (first == 0 && run.next == secret.len()) || secret[first..run.next].chars().nth(MIN_RUN - 1).is_some()
}

/// Calls `each` with everything that the text at a place may stand for, and the number of items that say so.
fn readings(items: &[Item], at: usize, each: &mut impl FnMut(Reading, usize)) {
    let c = items[at].c;
    let meant = |c| if is_gap(c) { Reading::Gap } else { Reading::Is(c) };
    each(meant(c), 1);
    // Accents and the like, which stand between the characters of a secret.
    if !c.is_ascii() && !is_gap(c) {
        each(Reading::Gap, 1);
    }
    // One character becomes as many as it has bytes, at most.
    let garbled = items[at..].iter().take(4).take_while(|item| is_garbled(item.c)).count();
    for length in 1..=garbled {
        each(Reading::Garbled, length);
    }
    if let Some((meaning, length)) = escape(items, at) {
        each(meaning.map_or(Reading::Garbled, meant), length);
    }
    match c {
        '=' => {
            if let Some((meaning, length)) = utf8(items, at) {
                each(meaning.map_or(Reading::Garbled, meant), length);
            }
        }
        '\'' | '"' if items.get(at + 1).is_some_and(|item| item.c == c) => each(Reading::Is(c), 2),
        _ => {}
    }
}

/// What is left of a character that an encoding does not have, or whose bytes were taken for characters.
fn is_garbled(c: char) -> bool {
    matches!(c, '?' | char::REPLACEMENT_CHARACTER | '\u{80}'..='\u{ff}')
}

/// The number that so many hexadecimal digits make.
fn hex(items: &[Item], at: usize, digits: usize) -> Option<u32> {
    items.get(at..at + digits)?.iter().try_fold(0_u32, |number, item| Some(number << 4 | item.c.to_digit(16)?))
}

/// The character that an escape at a place stands for, and its length in items. No character: it is one that
/// is not known here.
fn escape(items: &[Item], at: usize) -> Option<(Option<char>, usize)> {
    match items[at].c {
        '%' | '\\' => unit(items, at)
            .map(|(unit, length)| wide(items, at, unit, length))
            .or_else(|| utf8(items, at))
            .or_else(|| letter(items, at)),
        '&' => entity(items, at),
        _ => None,
    }
}

/// `\u0041`, `%u0041`, `\u{41}` and `\U00000041`: a number, and the length in items.
fn unit(items: &[Item], at: usize) -> Option<(u32, usize)> {
    let c = |offset: usize| items.get(at + offset).map(|item| item.c);
    match (c(0)?, c(1)?) {
        ('\\', 'u') if c(2) == Some('{') => {
            let digits = items[at + 3..].iter().take(6).take_while(|item| item.c.is_ascii_hexdigit()).count();
            (digits > 0 && c(3 + digits) == Some('}')).then_some(())?;
            Some((hex(items, at + 3, digits)?, digits + 4))
        }
        (_, 'u') => Some((hex(items, at + 2, 4)?, 6)),
        ('\\', 'U') => Some((hex(items, at + 2, 8)?, 10)),
        _ => None,
    }
}

/// The character of a number; of two, if they are the halves of a surrogate pair.
fn wide(items: &[Item], at: usize, high: u32, length: usize) -> (Option<char>, usize) {
    if (0xd800..0xdc00).contains(&high)
        && items.get(at + length).is_some_and(|item| item.c == items[at].c)
        && let Some((low @ 0xdc00..0xe000, more)) = unit(items, at + length)
    {
        return (char::from_u32(0x10000 + ((high & 0x3ff) << 10) + (low & 0x3ff)), length + more);
    }
    (char::from_u32(high), length)
}

/// A character whose bytes are written as `%c3%a9`, `\xc3\xa9`, `\303\251` or `=C3=A9`. Bytes that are not UTF-8 are
/// taken for Latin-1.
fn utf8(items: &[Item], at: usize) -> Option<(Option<char>, usize)> {
    let (first, length) = byte(items, at)?;
    let mut bytes = [first, 0, 0, 0];
    let count = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let mut whole = length;
    for place in &mut bytes[1..count] {
        let Some((next, more)) = byte(items, at + whole) else { break };
        (*place, whole) = (next, whole + more);
    }
    match std::str::from_utf8(&bytes[..count]).ok().and_then(|text| text.chars().next()) {
        Some(c) => Some((Some(c), whole)),
        None => Some((Some(first.into()), length)),
    }
}

fn byte(items: &[Item], at: usize) -> Option<(u8, usize)> {
    let (number, length) = match (items.get(at)?.c, items.get(at + 1)?.c) {
        ('%' | '=', _) => (hex(items, at + 1, 2)?, 3),
        ('\\', 'x' | 'X') => (hex(items, at + 2, 2)?, 4),
        ('\\', '0'..='7') => {
            let digits = items[at + 1..].iter().take(3).map_while(|item| item.c.to_digit(8));
            let count = digits.clone().count();
            (digits.fold(0, |number, digit| number << 3 | digit), count + 1)
        }
        _ => return None,
    };
    Some((u8::try_from(number).ok()?, length))
}

/// A backslash and a character.
fn letter(items: &[Item], at: usize) -> Option<(Option<char>, usize)> {
    match (items[at].c, items.get(at + 1)?.c) {
        // Escapes of control characters, which do not count.
        ('\\', 'a' | 'b' | 'e' | 'f' | 'n' | 'r' | 't' | 'v') => Some((Some(' '), 2)),
        ('\\', c) if c.is_ascii_punctuation() => Some((Some(c), 2)),
        _ => None,
    }
}

/// An HTML entity, by number or by name. Of those that may also be written without a semicolon, the ones for
/// ASCII are known.
fn entity(items: &[Item], at: usize) -> Option<(Option<char>, usize)> {
    const LONGEST: usize = 24;
    let c = |offset: usize| items.get(at + offset).map(|item| item.c);
    let ended = |length: usize| length + usize::from(c(length) == Some(';'));
    let count = |from: usize, is_part: fn(&char) -> bool| {
        items[(at + from).min(items.len())..].iter().take(LONGEST).take_while(|item| is_part(&item.c)).count()
    };
    if c(1)? == '#' {
        let (from, radix) = if matches!(c(2)?, 'x' | 'X') { (3, 16) } else { (2, 10) };
        let digits = match radix {
            16 => count(from, char::is_ascii_hexdigit),
            _ => count(from, char::is_ascii_digit),
        };
        let mut number = 0_u32;
        for item in &items[at + from..at + from + digits] {
            number = number.saturating_mul(radix).saturating_add(item.c.to_digit(radix)?);
        }
        return (digits > 0).then(|| (char::from_u32(number), ended(from + digits)));
    }
    let length = count(1, char::is_ascii_alphanumeric);
    let has = |name: &str, length: usize| {
        name.len() == length && name.chars().zip(&items[at + 1..]).all(|(c, item)| item.c.eq_ignore_ascii_case(&c))
    };
    if c(1 + length) == Some(';') && length > 0 {
        let known = ENTITIES.iter().find(|(name, _)| has(name, length));
        return Some((known.map(|(_, c)| *c), length + 2));
    }
    let (name, c) = ENTITIES[..BARE_ENTITIES].iter().find(|(name, _)| name.len() <= length && has(name, name.len()))?;
    Some((Some(*c), name.len() + 1))
}

/// How many of [`ENTITIES`] may be written without a semicolon.
const BARE_ENTITIES: usize = 5;

/// The names of what is not a letter or a digit.
#[rustfmt::skip]
const ENTITIES: [(&str, char); 43] = [
    ("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("nbsp", ' '),
    ("Tab", ' '), ("NewLine", ' '), ("NonBreakingSpace", ' '), ("excl", '!'), ("num", '#'), ("dollar", '$'),
    ("percnt", '%'), ("apos", '\''), ("lpar", '('), ("rpar", ')'), ("ast", '*'), ("midast", '*'), ("plus", '+'),
    ("comma", ','), ("period", '.'), ("sol", '/'), ("colon", ':'), ("semi", ';'), ("equals", '='), ("quest", '?'),
    ("commat", '@'), ("lsqb", '['), ("lbrack", '['), ("bsol", '\\'), ("rsqb", ']'), ("rbrack", ']'), ("Hat", '^'),
    ("lowbar", '_'), ("UnderBar", '_'), ("grave", '`'), ("DiacriticalGrave", '`'), ("lcub", '{'), ("lbrace", '{'),
    ("verbar", '|'), ("vert", '|'), ("VerticalLine", '|'), ("rcub", '}'), ("rbrace", '}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_stripped_and_scrubbed() {
        assert_eq!(sanitize("no\r\nsuch\u{1b}[31m key", &[]), "no such[31m key");
        assert_eq!(sanitize("bad secret p&ss and p%26ss", &["p&ss"]), "bad secret [redacted] and [redacted]");
        assert_eq!(sanitize("got:amp_pat_0123456789abcdefghijkl.zz, sorry", &[]), "got:[redacted], sorry");
        assert_eq!(sanitize("\"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJh.x\"", &[]), "\"[redacted]\"");
        assert_eq!(sanitize(&"x".repeat(5000), &[]).chars().count(), QUOTE_LIMIT + 1);
        assert_eq!(sanitize("\u{202e}abc", &[]), "abc");
        assert_eq!(sanitize("  a \u{200b} b\t\u{85}c  ", &[]), "a b c");
        assert_eq!(sanitize("", &["secret"]), "");
    }

    #[test]
    fn every_mark_of_a_token_counts() {
        assert_eq!(sanitize("eyJ,eyJhbGciOiJSUzI1NiJ9", &[]), "eyJ,[redacted]");
        assert_eq!(sanitize("eyJ0,amp_pat_0123456789abcdef", &[]), "eyJ0,[redacted]");
        assert_eq!(sanitize("e\u{200b}yJhbGci\u{7}OiJSUz\r\nI1NiJ9.x and more", &[]), "[redacted] and more");
        assert_eq!(sanitize("eyJhbGciOiJSUzI1NiJ9%2Ex%2Dy, sorry", &[]), "[redacted], sorry");
        assert_eq!(sanitize("obey Jonathan-the-janitor-of-it", &[]), "obey Jonathan-the-janitor-of-it");
    }

    /// A long text must not need more stack than a short one: threads of 128 KiB and less are common.
    #[test]
    fn long_text_needs_no_more_stack() {
        for text in [["eyJ", &"a".repeat(14), "!"].concat(), "%25".into(), "a secret".into(), "&#x26;".into()] {
            let text = text.repeat(64 * 1024 / text.len());
            let sanitized = move || sanitize(&text, &["a secret", &"%25".repeat(100)]);
            let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(sanitized).unwrap();
            let shown = thread.join().unwrap();
            assert!(shown.chars().count() <= QUOTE_LIMIT + 1, "{shown}");
        }
    }

    #[test]
    fn text_that_is_no_secret_stays() {
        let secret = "94a4c32749110a75f7be0c3a5e046509";
        for text in [
            "invalid client: the secret 94a4c32 is wrong",
            "https://a.example/x?state=a%20b&code=%zz&amp;x=\\u00e9#frag",
            "100 % of 1+1=2, it''s \"fine\" \\o/ &nbsp &unknown; a\\",
            "Zürich 東京 e\u{301}, 94A4-C327 4-911-0A75",
            "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        ] {
            assert_eq!(sanitize(text, &[secret, "other-secret+~", ""]), text);
        }
    }

    #[test]
    fn a_part_of_a_secret_is_hidden() {
        let secret = "S3cret-that-is-long-enough-0123456789abcdef";
        for length in 0..secret.len() {
            for start in 0..secret.len() - length {
                let part = &secret[start..start + length];
                let hidden = if length >= 8 { REDACTED } else { part };
                assert_eq!(sanitize(&format!("no: {part}..."), &[secret]), format!("no: {hidden}..."));
            }
        }
        // A secret that is shorter is hidden only as a whole.
        assert_eq!(sanitize("short, sHor, shor t", &["short"]), "[redacted], sHor, [redacted]");
    }

    #[test]
    fn a_secret_at_the_cut_is_not_shown_in_part() {
        for (secret, room) in [("hunter2", 0), ("correct-horse-battery", 0), ("&#x68;unter2", 0)] {
            for at in INPUT_LIMIT - OVERLAP - 200..INPUT_LIMIT + 8 {
                let before = format!("a{}", "\u{200b}".repeat((at - 1) / 3));
                let text = format!("{before}{secret}{}", "\u{200b}".repeat(2000 + room));
                let shown = sanitize(&text, &["hunter2", "correct-horse-battery"]);
                assert!(["a[redacted]…", "a…"].contains(&shown.as_str()), "{at}: {shown}");
            }
        }
        let shown = sanitize(&format!("{}hunter2", "x".repeat(QUOTE_LIMIT - 4)), &["hunter2"]);
        assert!(shown.ends_with("x[red…"), "{shown}");
    }

    fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
            text.extend((0..=group.len()).map(|i| char::from(alphabet[bits >> (18 - 6 * i) & 63])));
        }
        text
    }

    /// A secret as servers may spell it, character by character.
    fn spellings(secret: &str) -> Vec<String> {
        const QUOTED_PRINTABLE: usize = 6;
        type Spell = fn(char) -> String;
        fn bytes(c: char, each: impl Fn(u8) -> String) -> String {
            c.to_string().bytes().map(each).collect()
        }
        fn units(c: char, each: impl Fn(u16) -> String) -> String {
            c.encode_utf16(&mut [0; 2]).iter().map(|unit| each(*unit)).collect()
        }
        fn is_reserved(c: &char) -> bool {
            !c.is_ascii_alphanumeric()
        }
        let each: [Spell; 15] = [
            |c| c.to_uppercase().to_string(),
            |c| c.to_lowercase().to_string(),
            |c| bytes(c, |byte| format!("%{byte:02X}")),
            |c| bytes(c, |byte| format!("%{byte:02x}")),
            |c| bytes(c, |byte| format!("\\x{byte:02x}")),
            |c| bytes(c, |byte| format!("\\{byte:03o}")),
            |c| bytes(c, |byte| format!("={byte:02X}")),
            |c| units(c, |unit| format!("\\u{unit:04x}")),
            |c| units(c, |unit| format!("%u{unit:04X}")),
            |c| format!("\\u{{{:x}}}", u32::from(c)),
            |c| format!("\\U{:08X}", u32::from(c)),
            |c| format!("&#{};", u32::from(c)),
            |c| format!("&#x{:X};", u32::from(c)),
            |c| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.into() },
            |c| match ENTITIES.iter().find(|(_, have)| *have == c) {
                Some((name, _)) => format!("&{name};"),
                None => c.into(),
            },
        ];
        let spell = |text: &str, spell: Spell| text.chars().map(spell).collect::<String>();
        // What is reserved alone, as most servers do, and everything.
        let some = |text: &str, how: Spell| {
            text.chars().map(|c| if is_reserved(&c) { how(c) } else { c.into() }).collect::<String>()
        };
        let mut all = vec![secret.to_owned(), crate::net::url::form_encode(secret)];
        for (number, how) in each.into_iter().enumerate() {
            all.push(spell(secret, how));
            all.push(some(secret, how));
            if number == QUOTED_PRINTABLE {
                continue;
            }
            // On top of another spelling.
            all.push(some(&crate::net::url::form_encode(secret), how));
            all.push(some(&some(secret, each[7]), how));
            all.push(some(&some(secret, each[14]), each[3]));
        }
        // Taken for Latin-1, and written in an encoding that lacks a character.
        all.push(secret.bytes().map(char::from).collect());
        all.push(secret.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect());
        all
    }

    /// A secret in digits that stand for its bytes, and for the text next to it.
    fn in_digits(secret: &str) -> Vec<String> {
        const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut all = Vec::new();
        let utf16: Vec<_> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for alphabet in [STANDARD, FOR_URLS] {
            all.push(base64(secret.as_bytes(), alphabet));
            all.push(base64(format!("id:{secret}").as_bytes(), alphabet).replace('/', "\\/"));
            all.push(base64(format!("an-id:{secret}").as_bytes(), alphabet).replace('+', "%2B"));
            if secret.is_ascii() {
                all.push(base64(&utf16, alphabet));
            }
        }
        all.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect());
        all.push(secret.bytes().map(|byte| format!("{byte:02X}")).collect());
        all
    }

    const SECRETS: [&str; 7] = [
        "94a4c32749110a75f7be0c3a5e046509",
        "a+b~c",
        "se+cret/41&b7=%é",
        "pass phrase with spaces",
        "p%41s&wo\"rd<x>'y\\z",
        "%2b%25&amp;\\u0041",
        "пароль-секрет-1🙂",
    ];

    /// Digits of what stands in front of the secret may stay.
    fn assert_hides_digits(spelled: &str, secret: &str) {
        let shown = sanitize(&format!("got secret:{spelled}, sorry"), &["other", secret]);
        let (before, after) = shown.split_once(REDACTED).unwrap_or_else(|| panic!("{spelled}: {shown}"));
        assert!(before.len() <= "got secret:YW4taWQ6".len() && after.len() <= "A, sorry".len(), "{spelled}: {shown}");
    }

    #[test]
    fn a_secret_is_hidden_in_every_spelling() {
        for secret in SECRETS {
            for spelled in spellings(secret) {
                let shown = sanitize(&format!("got secret:{spelled}, sorry"), &["other", secret]);
                assert_eq!(shown, "got secret:[redacted], sorry", "{spelled}");
            }
            for spelled in in_digits(secret) {
                assert_hides_digits(&spelled, secret);
            }
        }
    }

    #[test]
    fn a_secret_is_hidden_whatever_stands_between_its_characters() {
        // Of each range of characters that are stripped, the ends; and white space.
        let between = [
            '\0',
            '\u{7}',
            '\u{1b}',
            '\u{7f}',
            '\u{80}',
            '\u{9f}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180f}',
            '\u{200b}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{fffb}',
            '\u{1bca0}',
            '\u{1d17a}',
            '\u{e0001}',
            '\u{e0fff}',
            ' ',
            '\t',
            '\n',
            '\r',
            '\u{85}',
            '\u{a0}',
            '\u{2028}',
            '\u{3000}',
        ];
        for secret in &SECRETS[1..5] {
            for spelled in spellings(secret) {
                for (number, (at, _)) in spelled.char_indices().enumerate().skip(1) {
                    // Every character at every place would take minutes.
                    for c in between.iter().skip(number % between.len()).take(1) {
                        let (before, after) = spelled.split_at(at);
                        let shown = sanitize(&format!("got secret:{before}{c}{after}, sorry"), &[secret]);
                        assert_eq!(shown.replace(" ,", ","), "got secret:[redacted], sorry", "{spelled} {c:?} at {at}");
                    }
                }
            }
            for spelled in in_digits(secret) {
                for (number, c) in between.iter().enumerate() {
                    let (before, after) = spelled.split_at(1 + number % (spelled.len() - 1));
                    assert_hides_digits(&format!("{before}{c}{after}"), secret);
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_secret_is_hidden_in_every_spelling() {
        for secret in SECRETS {
            let starts: Vec<_> = secret.char_indices().map(|(at, _)| at).collect();
            for (first, start) in starts.iter().enumerate() {
                let Some(end) = starts.iter().copied().chain([secret.len()]).nth(first + MIN_RUN) else { break };
                let part = &secret[*start..end];
                for spelled in spellings(part) {
                    let shown = sanitize(&format!("got {spelled}, sorry"), &[secret]);
                    assert!(
                        !shown.contains(spelled.trim()) && shown.contains(REDACTED),
                        "{part} as {spelled}: {shown}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_refused_url_shows_no_secret() {
        for (url, shown) in [
            ("https://auth.test/oauth/token", "https://auth.test/oauth/token"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://auth.test:443/a?client_secret=S3cret", "https://auth.test:443/a…"),
            ("https://auth.test#S3cret", "https://auth.test…"),
            ("https://me:S3cret@api.test/v2", "https://…@api.test/v2"),
            ("https://me:hu/sh@api.test", "https://…@api.test"),
            ("https://me:hu?sh@api.test", "https://…"),
            ("https://me:hu#sh@api.test", "https://…"),
            ("https://me:hu@sh@api.test", "https://…@api.test"),
            ("https://me:S3cret", "https://…"),
            ("https://me:12345678", "https://…"),
            ("https://me:S3cret%40api.test/v2", "https://…/v2"),
            ("https://api.test/v2?mail=a@b&secret=S3cret", "https://…"),
            ("https://api.test/v2&secret=S3cret", "https://api.test/v2…"),
            ("https://api.test/v2%3Fsecret=S3cret", "https://api.test/v2…"),
            ("https://api.test/v2;secret=S3cret", "https://api.test/v2…"),
            ("https:/me:S3cret@api.test", "…@api.test"),
            ("/v2/content/hubs?access_token=S3cret", "/v2/content/hubs…"),
            ("v2/content S3cret", "v2/content…"),
            ("https://api.test/eyJhbGciOiJSUzI1NiJ9.x", "https://api.test/[redacted]"),
            ("https://ap\u{1b}i.test/\u{202e}", "https://…/…"),
        ] {
            assert_eq!(redact_url(url), shown, "{url}");
        }
    }

    #[test]
    fn what_is_printable_is_kept_whole() {
        assert_eq!(printable("/tmp/a b\u{1b}[31m\n\u{202e}é"), "/tmp/a b\u{fffd}[31m\u{fffd}\u{fffd}é");
        assert_eq!(printable(&"x".repeat(1000)).len(), 1000);
    }
}
