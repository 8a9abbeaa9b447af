//! An entry of the store, as it was or changed in any way: itself, or absent.
#![no_main]
use amp_token::store::{Entry, reopen};
use amp_token::sys::clock::Clock;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

type Input = (String, u32, u32, i64, bool, Vec<(u16, u8)>, Option<u16>);

fuzz_target!(|input: Input| on_small_stack(move || run(input)));

fn run(input: Input) {
    let (token, age, lifetime, later, same_boot, flips, length) = input;
    let issued = Clock::System.now().before(Duration::from_millis(age.into()));
    let entry = Entry { token: token.as_str().into(), issued, lifetime: Duration::from_millis(lifetime.into()) };
    let change = |sealed: &mut Vec<u8>| {
        for (at, bits) in &flips {
            let at = usize::from(*at) % sealed.len();
            sealed[at] ^= bits;
        }
        if let Some(length) = length {
            sealed.resize(usize::from(length), 0);
        }
    };
    let Some((is_same, opened)) = reopen(&entry, later, same_boot, change) else { return };
    if let Some(opened) = opened {
        // It is never valid for longer than it was made for.
        assert!(is_same && opened.token == entry.token && opened.lifetime <= entry.lifetime);
    }
}
