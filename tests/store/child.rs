//! What the child processes do.

use crate::support::{CHILD_MODE, CHILD_SETTINGS, Lines, Settings, TestStore, is_held};
use amp_token::store::Entry;
use amp_token::sys::clock::Clock;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn report(line: &str) {
    // The test harness does not end its own line.
    println!("\nchild: {line}");
}

#[test]
#[ignore = "run by the tests that need another process"]
fn child_main() {
    let mode = std::env::var(CHILD_MODE).unwrap();
    let settings = std::env::var(CHILD_SETTINGS).unwrap();
    let settings = Settings(
        settings.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect(),
    );
    match mode.as_str() {
        "get" => get(&settings),
        "get as another user" => {
            // SAFETY: it touches no memory.
            assert_eq!(unsafe { libc::setuid(65534) }, 0);
            get(&settings);
        }
        "get, and write nothing" => {
            forbid_writing();
            get(&settings);
        }
        "lock" => {
            let held = settings.store().0.lock(Duration::ZERO);
            report(if is_held(&held) { "held" } else { "not held" });
            wait_for_the_end();
        }
        "lock and fork" => lock_and_fork(&settings, false),
        "lock, fork and drop" => lock_and_fork(&settings, true),
        "lock, fork and unlock" => lock_fork_and_unlock(&settings),
        "lock and execute" => lock_and_execute(&settings),
        "fork and remove the files" => fork_and_remove_the_files(&settings),
        "storm" => storm(&settings),
        _ => panic!("no mode is called {mode}"),
    }
}

/// Gets a token, and reports the warnings and the token.
fn get(settings: &Settings) {
    let settings = settings.clone().with("user_agent", &format!("process-{}", std::process::id()));
    let (cache, lines) = settings.cache();
    let token = cache.get();
    if let Ok(token) = &token {
        // Once more from the beginning: a warning is not repeated.
        if std::env::var_os("AMP_STORE_TEST_TWICE").is_some() {
            cache.invalidate(token);
            cache.get().unwrap();
        }
    }
    for line in lines.warnings() {
        report(&format!("warning {line}"));
    }
    match token {
        Ok(token) => report(&format!("token {}", token.value())),
        Err(error) => report(&format!("failed {error}")),
    }
}

/// Waits until the test is over, however it ends.
fn wait_for_the_end() -> ! {
    let _ = std::io::stdin().read(&mut [0]);
    end(0)
}

/// Lets every write to a file fail, after a few bytes, as a disk that is full does.
fn forbid_writing() {
    let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
    // SAFETY: `limit` is read during the call only; ignoring the signal that comes with the limit is
    // allowed at any time.
    unsafe {
        assert_ne!(libc::signal(libc::SIGXFSZ, libc::SIG_IGN), libc::SIG_ERR);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

/// Holds the lock, and has a child that was forked meanwhile. It keeps what it inherited, like a
/// child that was forked while another thread refreshed the token; or it drops it.
fn lock_and_fork(settings: &Settings, child_drops: bool) {
    let (store, _) = settings.store();
    let lock = store.lock(Duration::ZERO);
    assert!(is_held(&lock));
    if fork() == 0 {
        if child_drops {
            drop(lock);
        } else {
            std::mem::forget(lock);
        }
        report(&format!("child {}", std::process::id()));
        wait_for_the_end();
    }
    wait_for_the_end();
}

/// Unlocks what it locked before it forked a child, which keeps what it inherited.
fn lock_fork_and_unlock(settings: &Settings) {
    let (store, _) = settings.store();
    let lock = store.lock(Duration::ZERO);
    assert!(is_held(&lock));
    let child = fork();
    if child != 0 {
        drop(lock);
        report(&format!("child {child}"));
    }
    wait_for_the_end();
}

/// Holds the lock, and starts a child that executes another program meanwhile.
fn lock_and_execute(settings: &Settings) {
    let (store, _) = settings.store();
    let lock = store.lock(Duration::ZERO);
    assert!(is_held(&lock));
    // It reads what this process has as its input, and so ends with the test.
    let mut child = std::process::Command::new("cat").spawn().unwrap();
    report(&format!("child {}", child.id()));
    child.wait().unwrap();
}

fn fork() -> libc::pid_t {
    // SAFETY: the only other thread is the test runner's, which waits for this one and holds no lock;
    // so the child may do whatever this thread may.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    child
}

/// Gets a token, removes the files with the secret and the CA certificate, and gets another token in a forked child:
/// it is like a worker that gives up the right to read them.
fn fork_and_remove_the_files(settings: &Settings) {
    let (cache, _) = settings.cache();
    let token = cache.get().unwrap();
    for (name, path) in &settings.0 {
        if matches!(name.as_str(), "client_secret_file" | "ca_file") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let child = fork();
    if child == 0 {
        cache.invalidate(&token);
        match cache.get() {
            Ok(token) => report(&format!("token {}", token.value())),
            Err(error) => report(&format!("failed {error}")),
        }
        end(0);
    }
    let mut status = 0;
    // SAFETY: the child is ours and was not waited for; `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
}

/// A token that shows whether it is whole.
fn patterned(seed: u32) -> String {
    format!("{seed:08x}").repeat(140)
}

fn is_whole(token: &str) -> bool {
    token.len() == 8 * 140 && u32::from_str_radix(&token[..8], 16).is_ok_and(|seed| patterned(seed) == token)
}

/// The children of a storm.
const ALL: usize = 1000;

/// What they share with their parent: which child holds the lock, and which are about to be killed.
struct Shared {
    inside: AtomicU32,
    doomed: [AtomicU32; ALL + 1],
}

impl Shared {
    fn new() -> &'static Self {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping in a place of the kernel's choice disturbs nothing.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), read_write, shared, -1, 0) };
        assert_ne!(place, libc::MAP_FAILED);
        // SAFETY: the mapping is large enough, aligned to a page, zeroed, which is a value of atomic
        // numbers, and never unmapped.
        unsafe { &*place.cast() }
    }
}

/// Kills a thousand children, each at some moment of loading, locking and saving. A child that sees
/// anything wrong ends by itself, with a number.
fn storm(settings: &Settings) {
    const AT_ONCE: usize = 8;
    let (store, lines) = settings.store();
    let shared = Shared::new();
    let mut living = std::collections::VecDeque::new();
    let mut seed = 1_u32;
    let mut wrong = Vec::new();
    for number in 1..=ALL + AT_ONCE {
        if number <= ALL {
            match fork() {
                0 => hammer(&store, &lines, shared, number),
                child => living.push_back((number, child)),
            }
        }
        if living.len() < AT_ONCE && number <= ALL {
            continue;
        }
        // Some moment: a generator of pseudo-random numbers whose start is fixed.
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        std::thread::sleep(Duration::from_micros((seed % 4000).into()));
        let Some((number, child)) = living.pop_front() else { break };
        shared.doomed[number].store(1, Ordering::SeqCst);
        let mut status = 0;
        // SAFETY: the child is ours and was not waited for; `status` outlives the calls.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        }
        if !libc::WIFSIGNALED(status) {
            wrong.push(libc::WEXITSTATUS(status));
        }
    }
    assert!(wrong.is_empty(), "children ended by themselves, with {wrong:?}");
    report("survived");
}

fn end(number: libc::c_int) -> ! {
    // SAFETY: it ends the process at once, and runs nothing of the parent's.
    unsafe { libc::_exit(number) }
}

fn hammer(store: &TestStore, lines: &Lines, shared: &Shared, number: usize) -> ! {
    let number = u32::try_from(number).unwrap();
    let check = || match store.load() {
        Some(entry) if !is_whole(entry.token.expose()) => end(2),
        _ if !lines.warnings().is_empty() => end(3),
        _ => {}
    };
    loop {
        check();
        let lock = store.lock(Duration::from_millis(2));
        if is_held(&lock) {
            // No other child holds the lock, except perhaps one that was killed here.
            let other = shared.inside.swap(number, Ordering::SeqCst);
            if other != 0 && shared.doomed[other as usize].load(Ordering::SeqCst) == 0 {
                end(4);
            }
            let issued = Clock::System.now();
            let lifetime = Duration::from_secs(300);
            store.save(&Entry { token: patterned(number).as_str().into(), issued, lifetime });
            check();
            let _ = shared.inside.compare_exchange(number, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}
