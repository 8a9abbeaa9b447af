//! A page of a collection: the next one is on the same path, or there is none.
#![no_main]
use amp_token::api;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, Vec<u8>)| on_small_stack(move || run(input)));

fn run(input: (String, Vec<u8>)) {
    let (path, body) = input;
    if let Ok(Some(next)) = api::next_page(&path, &body) {
        let start = path.split('?').next().unwrap();
        assert!(next.starts_with(start) && next[start.len()..].starts_with('?'), "{path:?} {next:?}");
    }
}
