//! A secret in a text, each character in a spelling of its own: nothing that is shown holds a part of it.
#![no_main]
use amp_token::sanitize::{MIN_RUN, QUOTE_LIMIT, is_unprintable, sanitize};
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, String, Vec<u8>, String)| on_small_stack(move || run(input)));

fn run((before, secret, spellings, after): (String, String, Vec<u8>, String)) {
    let spelling = spellings.iter().copied().chain(std::iter::repeat(0));
    let spelled: String = secret.chars().zip(spelling).map(|(c, spelling)| spell(c, spelling)).collect();
    let shown = sanitize(&format!("{before}{spelled}{after}"), &[&secret]);
    assert!(shown.chars().count() <= QUOTE_LIMIT + 1 && !shown.chars().any(is_unprintable), "{shown:?}");

    // White space and plus signs count as nothing, and a part may be nothing else.
    let is_gap = |c: char| c == '+' || c.is_whitespace() || is_unprintable(c);
    let chars: Vec<char> = secret.chars().collect();
    for part in chars.windows(MIN_RUN.min(chars.len()).max(1)).filter(|part| !part.iter().all(|c| is_gap(*c))) {
        let part: String = part.iter().collect();
        for piece in shown.trim_end_matches('…').split("[redacted]") {
            assert!(!piece.contains(&part), "{part:?} is in {shown:?}");
        }
    }
}

fn spell(c: char, spelling: u8) -> String {
    let number = u32::from(c);
    match spelling % 12 {
        1 => c.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect(),
        2 => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        3 => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        4 => format!("\\u{{{number:x}}}"),
        5 => format!("&#{number};"),
        6 => format!("&#x{number:x};"),
        7 => c.to_ascii_uppercase().into(),
        8 => format!("\u{200b}{c}\u{1b}"),
        9 => format!("{c}\n"),
        10 => format!("\u{fe0f}{c}"),
        11 => c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        _ => c.into(),
    }
}
