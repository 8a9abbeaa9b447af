//! What the fuzz targets have in common.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};

/// The stack of a thread that has little of it. Threads of musl have 128 KiB, for example.
const SMALL_STACK: usize = 64 * 1024;

type Work = Box<dyn FnOnce() + Send>;

/// Does it in a thread with a small stack, so that a recursion over the input is a finding: on the main thread's
/// stack of 8 MiB it would fit. The thread stays, because to start one takes longer than most inputs do.
pub fn on_small_stack(body: impl FnOnce() + Send + 'static) {
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
    let thread = thread.lock().unwrap();
    thread.0.send(Box::new(body)).unwrap();
    thread.1.recv().unwrap();
}
