//! The cost of a cached get, of many threads on an empty cache, and of refreshes.
//!
//! `cargo bench --package amp_bench_cache`. The functions of the C API are called through the shared library, as in a C
//! program. With `AMP_BENCH_RESULTS=FILE` the latencies during refreshes are also written there, as JSON, for
//! `benches/run.py`.

use amp_token::config::Config;
use amp_token::error::Error;
use amp_token::net::transport::{Request, Response};
use amp_token::token::cache::TokenCache;
use arc_swap::ArcSwap;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::hint::black_box;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: [usize; 4] = [1, 2, 4, 8];
const CAPACITY: usize = 4096;

/// As long as Amplience's tokens.
const TOKEN_LENGTH: usize = 1118;

/// The average duration of a token request in the benchmarks of herds and refreshes.
const SERVICE: Duration = Duration::from_millis(35);

/// The refreshes of 300-second tokens in an hour (one every 240 s), here with tokens of 2 seconds.
const REFRESHES: u32 = 15;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cached(&mut criterion);
    herd(&mut criterion);
    criterion.final_summary();
    // Not when `cargo test` only checks that the benchmarks run.
    if std::env::args().any(|argument| argument == "--bench") {
        refreshes();
    }
}

/// Returns a cache whose transport takes `latency`, and the number of its requests.
fn cache(
    lifetime: u64,
    latency: impl Fn(u64) -> Duration + Send + Sync + 'static,
    settings: &[(&str, &str)],
) -> (TokenCache, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = requests.clone();
    let respond = move |_: &Request, _: Duration| -> Result<Response, Error> {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        thread::sleep(latency(number));
        Ok(Response { status: 200, headers: Vec::new(), body: response_body(lifetime, number).into_bytes().into() })
    };
    let mut config = Config::new();
    for (name, value) in [("client_id", "id"), ("client_secret", "secret")].iter().chain(settings) {
        config.set(name, Some(value)).expect("a setting");
    }
    config.transport = Some(Arc::new(respond));
    (TokenCache::new(&config).expect("a cache"), requests)
}

fn response_body(lifetime: u64, number: u64) -> String {
    format!(r#"{{"access_token":"{number:t>TOKEN_LENGTH$}","expires_in":{lifetime}}}"#)
}

fn cached(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cached");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let token = ArcSwap::from_pointee(("t".repeat(1024), i64::MAX - 1));
    let (cache, _) = cache(86_400, |_| Duration::ZERO, &[]);
    let library = Library::load();
    // Side by side for each number of threads, so that other load on the machine affects all of them.
    for threads in THREADS {
        measure(&mut group, "bare copy", threads, |buffer| bare_copy(&token, buffer));
        measure(&mut group, "copy (C)", threads, |buffer| library.copy(buffer));
        measure(&mut group, "get and free (C)", threads, |_| library.get());
        measure(&mut group, "with and copy (Rust)", threads, |buffer| {
            let copy = |buffer: *mut u8| {
                cache.with_token(|token| {
                    let text = token.value_with_nul();
                    // SAFETY: this thread owns the buffer of 4096 bytes, and the string is shorter.
                    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len()) };
                })
            };
            copy(buffer.as_mut_ptr()).expect("a token");
        });
        measure(&mut group, "get (Rust)", threads, |_| drop(black_box(cache.get().expect("a token"))));
    }
    group.finish();
}

/// The basic operations of a cache: load an atomically swapped pointer, read two coarse clocks, copy 1 KB.
fn bare_copy(token: &ArcSwap<(String, i64)>, buffer: &mut [u8]) {
    let token = token.load();
    assert!(coarse(libc::CLOCK_MONOTONIC_COARSE) < token.1 && coarse(libc::CLOCK_REALTIME_COARSE) < token.1);
    buffer[..token.0.len()].copy_from_slice(token.0.as_bytes());
}

fn coarse(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes, and nothing else is accessed.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Measures the time of one get while `threads` threads make gets.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: usize, get: impl Fn(&mut [u8]) + Sync) {
    group.bench_function(BenchmarkId::new(name, threads), |bencher| {
        bencher.iter_custom(|gets| {
            let each = gets.div_ceil(threads as u64);
            run_parallel(threads, || {
                let mut buffer = [0; CAPACITY];
                for _ in 0..each {
                    get(black_box(&mut buffer));
                }
            })
        });
    });
}

/// Returns the time that `threads` threads take for `body`, measured from when all of them have started.
fn run_parallel(threads: usize, body: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    body();
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        running.into_iter().for_each(|thread| thread.join().expect("no panic"));
        begin.elapsed()
    })
}

/// How long many threads wait for the first token, which one request fetches for all of them.
fn herd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("herd");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for threads in [64, 1000] {
        group.bench_function(BenchmarkId::new("empty cache", threads), |bencher| {
            bencher.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let (cache, requests) = cache(300, |_| SERVICE, &[]);
                        let took = run_parallel(threads, || drop(cache.get().expect("a token")));
                        assert_eq!(requests.load(Ordering::SeqCst), 1, "requests of a herd of {threads}");
                        took
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// How long calls take while tokens are refreshed, with and without `background_refresh`, both at the same
/// time, so that other load on the machine affects both.
fn refreshes() {
    let time = REFRESHES * Duration::from_millis(1600);
    let latency = |number: u64| SERVICE - Duration::from_millis(15) + Duration::from_millis(number * 7 % 31);
    let run = |background: &str| {
        let (cache, requests) = cache(2, latency, &[("background_refresh", background)]);
        cache.get().expect("a token");
        let end = Instant::now() + time;
        let caller = || {
            let mut took = Vec::new();
            while Instant::now() < end {
                let begin = Instant::now();
                drop(black_box(cache.get().expect("a token")));
                took.push(begin.elapsed());
                thread::sleep(Duration::from_micros(200));
            }
            took
        };
        let mut took: Vec<Duration> = thread::scope(|scope| {
            let callers: Vec<_> = (0..2).map(|_| scope.spawn(caller)).collect();
            callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
        });
        took.sort_unstable();
        (took, requests.load(Ordering::SeqCst) - 1)
    };
    let ((inline, inline_refreshes), (background, background_refreshes)) = thread::scope(|scope| {
        let (inline, background) = (scope.spawn(|| run("false")), scope.spawn(|| run("true")));
        (inline.join().expect("no panic"), background.join().expect("no panic"))
    });
    let summary = |took: &[Duration]| {
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        format!(
            r#"{{"calls": {}, "p50": {:.6}, "p99_9": {:.6}, "longest": {:.6}}}"#,
            took.len(),
            at(0.5),
            at(0.999),
            at(1.0)
        )
    };
    let how = format!(
        "The duration of calls while tokens are refreshed. The benchmark makes as many refreshes as tokens of 300 seconds \
         need in an hour, with tokens of 2 seconds in {} s: {inline_refreshes} refreshes without background_refresh, \
         {background_refreshes} with it. As a multiple of the duration of a token request ({} ms on average, 20 to 50):",
        time.as_secs(),
        SERVICE.as_millis()
    );
    let json = format!(
        r#"{{"how": "{how}", "service_ms": {}, "modes": {{"without background_refresh": {}, "with background_refresh": {}}}}}"#,
        SERVICE.as_millis(),
        summary(&inline),
        summary(&background)
    );
    println!("refreshes: {json}");
    if let Ok(file) = std::env::var("AMP_BENCH_RESULTS") {
        std::fs::write(file, json).expect("AMP_BENCH_RESULTS can be written");
    }
}

/// The shared library, and a cache in it.
struct Library {
    cache: *mut c_void,
    copy: CopyFn,
    get: GetFn,
    free: FreeFn,
}

type NewFn = unsafe extern "C" fn() -> *mut c_void;
type SetFn = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, *mut *mut c_void) -> c_int;
type SetTransportFn = unsafe extern "C" fn(*mut c_void, TransportFn, *mut c_void, *mut *mut c_void) -> c_int;
type CopyFn = unsafe extern "C" fn(*const c_void, *mut c_char, usize, *mut usize, *mut *mut c_void) -> c_int;
type GetFn = unsafe extern "C" fn(*const c_void, *mut *mut c_void, *mut *mut c_void) -> c_int;
type FreeFn = unsafe extern "C" fn(*mut c_void);

// SAFETY: according to the header, many threads may use a cache at the same time.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the library that cargo has built next to this program.
    fn load() -> Self {
        let path = std::env::current_exe().expect("a path").with_file_name("libamp_token.so");
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL");
        // SAFETY: the path is NUL-terminated, and the library's initializers are those of Rust.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        let find = |name: &CStr| {
            // SAFETY: the handle stays open, and the name is NUL-terminated.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?} is missing");
            found
        };
        // SAFETY: include/amp_token.h declares these functions like this, except for the types behind
        // pointers, and every argument meets its requirements.
        unsafe {
            let config = transmute::<*mut c_void, NewFn>(find(c"amp_config_new"))();
            let set = transmute::<*mut c_void, SetFn>(find(c"amp_config_set"));
            for (name, value) in [(c"client_id", c"id"), (c"client_secret", c"secret")] {
                assert_eq!(set(config, name.as_ptr(), value.as_ptr(), null_mut()), 0);
            }
            let reply_functions = Box::leak(Box::new(ReplyFunctions {
                set_status: transmute::<*mut c_void, SetStatusFn>(find(c"amp_http_reply_set_status")),
                append_body: transmute::<*mut c_void, AppendBodyFn>(find(c"amp_http_reply_append_body")),
            }));
            let set_transport = transmute::<*mut c_void, SetTransportFn>(find(c"amp_config_set_transport"));
            assert_eq!(set_transport(config, send, (&raw mut *reply_functions).cast(), null_mut()), 0);
            let mut cache = null_mut();
            let new = transmute::<*mut c_void, GetFn>(find(c"amp_token_cache_new"));
            assert_eq!(new(config, &raw mut cache, null_mut()), 0);
            Library {
                cache,
                copy: transmute::<*mut c_void, CopyFn>(find(c"amp_token_cache_copy")),
                get: transmute::<*mut c_void, GetFn>(find(c"amp_token_cache_get")),
                free: transmute::<*mut c_void, FreeFn>(find(c"amp_token_free")),
            }
        }
    }

    fn copy(&self, buffer: &mut [u8]) {
        // SAFETY: the cache lives as long as the process, and the length is that of the buffer.
        let status =
            unsafe { (self.copy)(self.cache, buffer.as_mut_ptr().cast(), buffer.len(), null_mut(), null_mut()) };
        assert_eq!(status, 0);
    }

    fn get(&self) {
        let mut token = null_mut();
        // SAFETY: the cache lives as long as the process, and the token is freed once.
        unsafe {
            assert_eq!((self.get)(self.cache, &raw mut token, null_mut()), 0);
            (self.free)(token);
        }
    }
}

type TransportFn = unsafe extern "C" fn(*const c_void, *mut c_void, *mut c_void) -> i32;
type SetStatusFn = unsafe extern "C" fn(*mut c_void, i32);
type AppendBodyFn = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> bool;

/// The functions with which the transport writes its response.
struct ReplyFunctions {
    set_status: SetStatusFn,
    append_body: AppendBodyFn,
}

/// A transport that returns a token immediately.
unsafe extern "C" fn send(_: *const c_void, reply: *mut c_void, functions: *mut c_void) -> i32 {
    let body = response_body(86_400, 0);
    // SAFETY: `functions` is the pointer that `Library::load` passed with this function and never frees, and the
    // library's `reply` is valid during this call.
    unsafe {
        let functions = &*functions.cast::<ReplyFunctions>();
        (functions.set_status)(reply, 200);
        (functions.append_body)(reply, body.as_ptr().cast(), body.len());
    }
    0
}
