//! What a Redis server sends: each reply of the protocol is read as what it is, and nothing else is taken for a reply.
#![no_main]
use amp_token::store::read_redis_replies;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Time(u32, u32),
    Bytes(Vec<u8>),
}

fuzz_target!(|replies: Vec<Reply>| on_small_stack(move || run(&replies)));

fn run(replies: &[Reply]) {
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    let mut is_valid = true;
    for reply in replies {
        // A line ends with CR LF, and is not longer than the library accepts.
        let line = |text: &str| text.replace(['\r', '\n'], "").chars().take(200).collect::<String>();
        let (bytes, value) = match reply {
            Reply::Simple(text) => {
                let text = line(text);
                (format!("+{text}\r\n").into_bytes(), format!("Bulk({:?})", text.as_bytes()))
            }
            Reply::Error(text) => {
                let text = line(text);
                (format!("-{text}\r\n").into_bytes(), format!("Error({text:?})"))
            }
            Reply::Integer(number) => (format!(":{number}\r\n").into_bytes(), format!("Integer({number})")),
            Reply::Bulk(data) => {
                let head = format!("${}\r\n", data.len()).into_bytes();
                ([&head, data.as_slice(), b"\r\n"].concat(), format!("Bulk({data:?})"))
            }
            Reply::Nil => (b"$-1\r\n".to_vec(), "Nil".to_owned()),
            Reply::Time(seconds, microseconds) => {
                let (first, second) = (seconds.to_string(), microseconds.to_string());
                let bytes = format!("*2\r\n${}\r\n{first}\r\n${}\r\n{second}\r\n", first.len(), second.len());
                let time = (i64::from(*seconds) * 1_000_000 + i64::from(*microseconds)) * 1000;
                (bytes.into_bytes(), format!("Time({time})"))
            }
            Reply::Bytes(bytes) => {
                is_valid = false;
                (bytes.clone(), String::new())
            }
        };
        sent.extend(bytes);
        if is_valid {
            expected.push(value);
        }
    }
    let read = read_redis_replies(&sent);
    // What follows bytes of any kind may be read in any way.
    assert!(read.len() >= expected.len(), "{read:?} instead of {expected:?}");
    for (read, expected) in read.iter().zip(&expected) {
        assert!(read == expected || read == "TooLong", "{read} instead of {expected}");
    }
    assert!(!is_valid || read.len() == expected.len(), "{read:?} instead of {expected:?}");
}
