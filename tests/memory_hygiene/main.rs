//! A core dump that is made while the library's objects exist holds no secret and no token. After they are freed, the
//! process's memory holds no trace of them either.
//!
//! A child process uses the library, reads its own memory through /proc, and then ends with a signal that makes the
//! kernel write a core dump. There, only the library's own memory holds the secret and the token: the strings that are
//! searched for are kept masked. (In a real application, the strings that it passed in and the tokens that it copied
//! out are in its own memory, which the library cannot protect.)
#![cfg(all(target_os = "linux", not(feature = "zeroizing-allocator")))]

mod fork;
mod freed;
mod peer;

use amp_emulator::Emulator;
use amp_token::api::{self, ApiRequest};
use amp_token::config::Config;
use amp_token::token::cache::TokenCache;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use zeroize::Zeroizing;

const CHILD: &str = "AMP_TEST_SECRETS_CHILD";
/// The directory for its core dump.
const DUMP: &str = "AMP_TEST_SECRETS_DUMP";
const MASK: u8 = 0xa5;

/// The part of a string that is searched for, masked. Not its beginning: that is where an allocator
/// writes its own data into memory that was freed.
fn masked(text: &[u8]) -> Vec<u8> {
    text.iter().skip(24).take(24).map(|byte| byte ^ MASK).collect()
}

/// The offsets in `bytes` at which the string is.
fn occurrences<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = needle[0] ^ MASK;
    let is_it = move |window: &[u8]| window[0] == first && window.iter().zip(needle).all(|(a, b)| a ^ MASK == *b);
    bytes.windows(needle.len()).enumerate().filter(move |(_, window)| is_it(window)).map(|(offset, _)| offset)
}

/// An address in this process's memory at which the string is.
#[derive(Debug)]
struct Found {
    _mapping: String,
    _address: u64,
    /// Whether the kernel would write it into a core dump.
    is_dumped: bool,
}

/// Every address in this process's memory at which the string is.
fn find(needle: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut piece = vec![0_u8; 1 << 16];
    let own = piece.as_ptr() as u64;
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines();
    while let Some(line) = lines.next() {
        let (range, rest) = line.split_once(' ').unwrap();
        let name = rest.split_whitespace().nth(4).unwrap_or("anonymous");
        let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
        let is_dumped = !flags.split_whitespace().any(|flag| flag == "dd");
        if !rest.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let length = ((end - at) as usize).min(piece.len());
            memory.seek(SeekFrom::Start(at)).unwrap();
            if memory.read_exact(&mut piece[..length]).is_err() {
                break;
            }
            for offset in occurrences(&piece[..length], needle) {
                let address = at + offset as u64;
                if !(own..own + piece.len() as u64).contains(&address) {
                    found.push(Found { _mapping: name.to_owned(), _address: address, is_dumped });
                }
            }
            // Overlapping, so that nothing is missed at the seam.
            at += (length.max(needle.len()) - needle.len() + 1) as u64;
            if length < piece.len() {
                break;
            }
        }
    }
    found
}

fn wipe(bytes: &mut [u8]) {
    for byte in bytes.iter_mut() {
        // SAFETY: a valid place in a slice that is borrowed mutably.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
}

/// Caches with the secret in every other setting that can hold one: a personal access token, the password of a proxy, and of Redis.
fn elsewhere(secret: &[u8]) -> Vec<TokenCache> {
    let text = |parts: [&str; 2]| Zeroizing::new([parts[0], std::str::from_utf8(secret).unwrap(), parts[1]].concat());
    let mut settings = vec![("personal_access_token", text(["", ""])), ("proxy", text(["http://me:", "@127.0.0.1:9"]))];
    if cfg!(feature = "redis") {
        settings.push(("store", text(["redis://:", "@127.0.0.1:9"])));
    }
    let cache = |(name, value): &(&str, Zeroizing<String>)| {
        let mut config = Config::new();
        config.set(name, Some(value)).unwrap();
        if *name != "personal_access_token" {
            config.set("client_id", Some("other")).unwrap();
            config.set("client_secret", Some("a secret that is not searched for")).unwrap();
        }
        TokenCache::new(&config).unwrap()
    };
    settings.iter().map(cache).collect()
}

/// The child: uses the library with a secret from standard input, searches its memory, frees all objects, and searches
/// again. Or, instead of freeing them, aborts with a core dump.
#[test]
#[ignore = "run by a_core_dump_holds_no_live_secret and nothing_is_left_in_memory"]
fn child() {
    let url = std::env::var(CHILD).unwrap();
    let mut secret = [0_u8; 64];
    // Not through `stdin()`, whose buffer would keep it.
    File::open("/dev/stdin").unwrap().read_exact(&mut secret).unwrap();
    let secret_mask = masked(&secret);
    let mut config = Config::new();
    for (name, value) in [("client_id", "the-id"), ("auth_url", &url), ("api_url", &url), ("proxy", "none")] {
        config.set(name, Some(value)).unwrap();
    }
    if let Ok(ca) = std::env::var("AMP_TEST_CA") {
        // rustls does not wipe what it frees.
        freed::IS_ZEROIZING.store(true, Ordering::Relaxed);
        config.set("ca_file", Some(&ca)).unwrap();
    }
    config.set("client_secret", Some(std::str::from_utf8(&secret).unwrap())).unwrap();
    let others = elsewhere(&secret);
    // In ordinary memory: a search that does not find this proves nothing.
    let control: Vec<u8> = secret.iter().rev().copied().collect();
    let control_mask = masked(&control);
    wipe(&mut secret);
    let cache = TokenCache::new(&config).unwrap();
    let token_mask = cache.with_token(|token| masked(token.value().as_bytes())).unwrap();
    // The signature is the part that must stay secret; its end differs between any two tokens.
    let end_mask = cache.with_token(|token| masked(&token.value().as_bytes()[token.value().len() - 48..])).unwrap();
    let get = ApiRequest { method: "GET", path: "/v2/content/hubs", content_type: None, body: b"" };
    assert_eq!(api::request(&cache, &get).unwrap().status, 200);
    let masks =
        [("control", control_mask), ("client secret", secret_mask), ("token", token_mask), ("token's end", end_mask)];
    for (what, mask) in &masks {
        let places = find(mask);
        let dumped = places.iter().filter(|place| place.is_dumped).count();
        println!("LIVE {what}: {} places, {dumped} dumped {places:?}", places.len());
        println!("MASKED {what}: {}", mask.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    if let Some(directory) = std::env::var_os(DUMP) {
        std::env::set_current_dir(directory).unwrap();
        let most = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a plain structure that lives through the call; then the process ends, as it should.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &most);
            libc::abort();
        }
    }
    drop((cache, config, others, control));
    for (what, mask) in &masks[1..] {
        let places = find(mask);
        println!("RESULT {what}: {} places {places:?}", places.len());
    }
}

/// Runs the child, and returns its output.
fn run_child(tls: bool, dump: Option<&Path>) -> String {
    use std::hash::BuildHasher;
    let random = |salt: u32| format!("{:016x}", std::hash::RandomState::new().hash_one(salt));
    let secret: String = (0..4).map(random).collect();
    let emulator = Emulator::builder().tls(tls).client("the-id", secret.clone()).start().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD, emulator.url());
    command.envs(dump.map(|directory| (DUMP, directory)));
    if tls {
        command.env("AMP_TEST_CA", emulator.ca_file());
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("LIVE").count(), 4, "{text}");
    match dump {
        Some(_) => assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{text}"),
        None => assert!(output.status.success() && text.matches("RESULT").count() == 3, "{text}"),
    }
    text
}

/// While the library's objects exist, the kernel leaves each mapping that holds a secret out of core dumps.
fn assert_none_is_dumped(text: &str) {
    for line in text.lines().filter(|line| line.contains("LIVE")) {
        let is_control = line.contains("control");
        assert!(!line.contains(": 0 places"), "the search finds nothing at all: {line}");
        assert_eq!(line.contains(", 0 dumped"), !is_control, "{line}");
    }
}

#[test]
fn a_core_dump_holds_no_live_secret() {
    let directory = tempfile::tempdir().unwrap();
    let text = run_child(true, Some(directory.path()));
    let core = std::fs::read_dir(&directory).unwrap().next().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    assert_none_is_dumped(&text);
    let Some(core) = core else {
        // Then only the kernel's flags of each mapping, asserted above, can be checked.
        println!("the kernel wrote no core file: see /proc/sys/kernel/core_pattern, and the limit on its size");
        return;
    };
    for line in text.lines().filter_map(|line| line.strip_prefix("MASKED ")) {
        let (what, digits) = line.split_once(": ").unwrap();
        let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
        let mask: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let count = occurrences(&core, &mask).count();
        println!("core dump of {} bytes, {what}: {count} places", core.len());
        assert_eq!(count > 0, what == "control", "{what}: {count} places in the core dump");
    }
}

#[test]
fn nothing_is_left_in_memory() {
    for tls in [false, true] {
        let text = run_child(tls, None);
        assert_none_is_dumped(&text);
        for line in text.lines().filter(|line| line.contains("RESULT")) {
            assert!(line.contains(": 0 places"), "with TLS: {tls}: {line}");
        }
    }
}
