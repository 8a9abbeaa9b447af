//! What the fuzz targets have in common.

#[cfg(feature = "peers")]
pub mod curl;
#[cfg(feature = "peers")]
pub mod openssl;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};

/// The stack of a thread that has little of it. Threads of musl have 128 KiB, for example.
const SMALL_STACK: usize = 64 * 1024;

type Work = Box<dyn FnOnce() + Send>;

/// Does it in a thread with a small stack, so that a recursion over the input is a finding: on the main thread's
/// stack of 8 MiB it would fit. The thread stays, because to start one takes longer than most inputs do.
pub fn on_small_stack<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    static THREAD: OnceLock<Mutex<(SyncSender<Work>, Receiver<()>)>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, works) = sync_channel::<Work>(1);
        let (done, receiver) = sync_channel(1);
        let run = move || {
            for work in works {
                work();
                done.send(()).unwrap();
            }
        };
        std::thread::Builder::new().stack_size(SMALL_STACK).spawn(run).unwrap();
        Mutex::new((sender, receiver))
    });
    let (sender, result) = sync_channel(1);
    let thread = thread.lock().unwrap();
    thread.0.send(Box::new(move || sender.send(body()).unwrap())).unwrap();
    thread.1.recv().unwrap();
    result.recv().unwrap()
}

/// A difference between this library and another one: a finding, unless one of these reasons explains it. With
/// `AMP_FUZZ_LIST` in the environment it is printed, and the fuzzer goes on.
pub fn difference<T>(reasons: &[(&'static str, fn(&T) -> bool)], case: &T, shown: impl FnOnce() -> String) {
    if reasons.iter().any(|(_, applies)| applies(case)) {
        return;
    }
    let shown = shown();
    assert!(std::env::var_os("AMP_FUZZ_LIST").is_some(), "{shown}");
    eprintln!("DIFFERENCE {shown}");
}

/// A part of a text: one of a table of strings that mean something in it, or any other.
#[derive(Arbitrary, Clone, Debug)]
pub enum Piece {
    Known(u8),
    Other(String),
}

/// A text without NUL, made of strings of this table and others.
pub fn assemble(pieces: &[Piece], table: &[&str]) -> String {
    let text: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Known(row) => table[usize::from(*row) % table.len()],
            Piece::Other(text) => text,
        })
        .collect();
    text.replace('\0', "")
}
