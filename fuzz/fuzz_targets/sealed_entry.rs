//! An entry of the store, as it was or changed in any way: itself, or absent.
#![no_main]
use amp_token::sys::clock::Timestamps;
use amp_token::store::{Entry, reopen};
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, i64, u32, i64, Vec<(u16, u8)>, Option<u16>)| on_small_stack(move || run(input)));

fn run(input: (String, i64, u32, i64, Vec<(u16, u8)>, Option<u16>)) {
    let (token, issued, lifetime, now, flips, length) = input;
    let entry = Entry { token: token.as_str().into(), issued, expires: issued.saturating_add(lifetime.into()) };
    let change = |sealed: &mut Vec<u8>| {
        for (at, bits) in &flips {
            let at = usize::from(*at) % sealed.len();
            sealed[at] ^= bits;
        }
        if let Some(length) = length {
            sealed.resize(usize::from(length), 0);
        }
    };
    let Some((is_same, opened)) = reopen(&entry, Timestamps { monotonic: now, wall: now }, change) else { return };
    if let Some(opened) = opened {
        // (One that is a little in the future counts as made now.)
        assert!(is_same && opened.token == entry.token && opened.expires == entry.expires && opened.issued <= issued);
    }
}
