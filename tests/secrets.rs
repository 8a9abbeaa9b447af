//! After everything is freed, the process's memory holds no trace of a secret or a token.
//!
//! The work is done in a child process, which reads its own memory through /proc. Neither the secret
//! nor the token is ever in a place there that the library does not own: what is searched for is kept
//! masked.
#![cfg(target_os = "linux")]

use amp_emulator::Emulator;
use amp_token::api::{self, Call};
use amp_token::cache::TokenCache;
use amp_token::settings::Config;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

const CHILD: &str = "AMP_TEST_SECRETS_CHILD";
const MASK: u8 = 0xa5;

/// The part of a text that is searched for, masked. Not its beginning: that is where an allocator
/// writes its own notes into memory that was freed.
fn masked(text: &[u8]) -> Vec<u8> {
    text.iter().skip(24).take(24).map(|byte| byte ^ MASK).collect()
}

/// Every place of this process's memory where the text is, with the name of its mapping.
fn find(needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut piece = vec![0_u8; 1 << 16];
    let own = piece.as_ptr() as u64;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let name = rest.split_whitespace().nth(4).unwrap_or("anonymous");
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
            for (offset, window) in piece[..length].windows(needle.len()).enumerate() {
                let address = at + offset as u64;
                let is_own = (own..own + piece.len() as u64).contains(&address);
                if window[0] ^ MASK == needle[0] && !is_own && window.iter().zip(needle).all(|(a, b)| a ^ MASK == *b) {
                    found.push(format!("{name} at {address:x}"));
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

/// The child: uses the library with a secret from standard input, frees all, and looks.
#[test]
fn child() {
    let Some(url) = std::env::var_os(CHILD) else { return };
    let url = url.to_str().unwrap().to_owned();
    let mut secret = [0_u8; 64];
    // Not through `stdin()`, whose buffer would keep it.
    File::open("/dev/stdin").unwrap().read_exact(&mut secret).unwrap();
    let secret_mask = masked(&secret);
    let mut config = Config::new();
    for (name, value) in [("client_id", "the-id"), ("auth_url", &url), ("api_url", &url), ("proxy", "none")] {
        config.set(name, Some(value)).unwrap();
    }
    if let Ok(ca) = std::env::var("AMP_TEST_CA") {
        config.set("ca_file", Some(&ca)).unwrap();
    }
    config.set("client_secret", Some(std::str::from_utf8(&secret).unwrap())).unwrap();
    wipe(&mut secret);
    let cache = TokenCache::new(&config).unwrap();
    let token_mask = cache.with(|token| masked(token.value().as_bytes())).unwrap();
    // The signature is what makes it worth something; its end is the same in no two tokens.
    let end_mask = cache.with(|token| masked(&token.value().as_bytes()[token.value().len() - 48..])).unwrap();
    let get = Call { method: "GET", path: "/v2/content/hubs", content_type: None, body: b"" };
    assert_eq!(api::request(&cache, &get).unwrap().status, 200);
    // While it lives it must be found, or the search is worth nothing.
    assert!(!find(&end_mask).is_empty() && !find(&secret_mask).is_empty(), "the search finds nothing at all");
    drop(cache);
    drop(config);
    for (what, mask) in [("client secret", secret_mask), ("token", token_mask), ("token's end", end_mask)] {
        let places = find(&mask);
        println!("RESULT {what}: {} places {places:?}", places.len());
    }
}

fn look(tls: bool) -> String {
    use std::hash::BuildHasher;
    let random = |salt: u32| format!("{:016x}", std::hash::RandomState::new().hash_one(salt));
    let secret: String = (0..4).map(random).collect();
    let emulator = Emulator::builder().tls(tls).client("the-id", secret.clone()).start().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, emulator.url());
    if tls {
        command.env("AMP_TEST_CA", emulator.ca_file());
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("RESULT").count(), 3, "{text}");
    text
}

#[test]
fn nothing_is_left_in_memory() {
    for tls in [false, true] {
        let text = look(tls);
        for line in text.lines().filter(|line| line.contains("RESULT")) {
            assert!(line.contains(": 0 places"), "with TLS: {tls}: {line}");
        }
    }
}
