//! The cost of a cached token, of a herd on an empty cache, and of renewals.
//!
//! `cargo bench --bench cache`. The functions of the C interface are those of the shared library, as
//! a program would load it. With `AMP_BENCH_RESULTS=FILE` the latencies of renewals go there too, as
//! JSON, for `benches/run.py`.

use amp_token::config::settings::Config;
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

/// What a request takes in the benches of herds and renewals, on average.
const SERVICE: Duration = Duration::from_millis(35);

/// An hour's renewals of 300-second tokens (one every 240 s), with tokens of 2 seconds.
const RENEWALS: u32 = 15;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cached(&mut criterion);
    herd(&mut criterion);
    criterion.final_summary();
    // Not when cargo only tries whether benches run.
    if std::env::args().any(|argument| argument == "--bench") {
        renewals();
    }
}

/// A cache on a service that takes `latency` and counts its requests.
fn cache(
    lifetime: u64,
    latency: impl Fn(u64) -> Duration + Send + Sync + 'static,
    settings: &[(&str, &str)],
) -> (TokenCache, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = requests.clone();
    let answer = move |_: &Request, _: Duration| -> Result<Response, Error> {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        thread::sleep(latency(number));
        Ok(Response { status: 200, headers: Vec::new(), body: reply(lifetime, number).into_bytes().into() })
    };
    let mut config = Config::new();
    for (name, value) in [("client_id", "id"), ("client_secret", "secret")].iter().chain(settings) {
        config.set(name, Some(value)).expect("a setting");
    }
    config.transport = Some(Arc::new(answer));
    (TokenCache::new(&config).expect("a cache"), requests)
}

fn reply(lifetime: u64, number: u64) -> String {
    format!(r#"{{"access_token":"{number:t>TOKEN_LENGTH$}","expires_in":{lifetime}}}"#)
}

fn cached(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cached");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let token = ArcSwap::from_pointee(("t".repeat(1024), i64::MAX - 1));
    let (cache, _) = cache(86_400, |_| Duration::ZERO, &[]);
    let library = Library::load();
    // Side by side for each number of threads: what else the machine does should meet all alike.
    for threads in THREADS {
        measure(&mut group, "floor", threads, |buffer| floor(&token, buffer));
        measure(&mut group, "copy (C)", threads, |buffer| library.copy(buffer));
        measure(&mut group, "get and free (C)", threads, |_| library.get());
        measure(&mut group, "with and copy (Rust)", threads, |buffer| {
            let copy = |buffer: *mut u8| {
                cache.with_token(|token| {
                    let text = token.value_with_nul();
                    // SAFETY: the buffer of 4096 bytes is this thread's own, and the text is shorter.
                    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len()) };
                })
            };
            copy(buffer.as_mut_ptr()).expect("a token");
        });
        measure(&mut group, "get (Rust)", threads, |_| drop(black_box(cache.get().expect("a token"))));
    }
    group.finish();
}

/// The least that a cache has to do: load an atomically swapped pointer, read two coarse clocks,
/// copy 1 KB.
fn floor(token: &ArcSwap<(String, i64)>, buffer: &mut [u8]) {
    let token = token.load();
    assert!(coarse(libc::CLOCK_MONOTONIC_COARSE) < token.1 && coarse(libc::CLOCK_REALTIME_COARSE) < token.1);
    buffer[..token.0.len()].copy_from_slice(token.0.as_bytes());
}

fn coarse(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid to write to, and nothing else is touched.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Measures the time of one of the gets that `threads` threads make together.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, threads: usize, get: impl Fn(&mut [u8]) + Sync) {
    group.bench_function(BenchmarkId::new(name, threads), |bencher| {
        bencher.iter_custom(|gets| {
            let each = gets.div_ceil(threads as u64);
            together(threads, || {
                let mut buffer = [0; CAPACITY];
                for _ in 0..each {
                    get(black_box(&mut buffer));
                }
            })
        });
    });
}

/// The time that `threads` threads take for `body`, from the moment at which all of them are there.
fn together(threads: usize, body: impl Fn() + Sync) -> Duration {
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

/// How long a herd of threads waits for the first token; one request serves them all.
fn herd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("herd");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for threads in [64, 1000] {
        group.bench_function(BenchmarkId::new("empty cache", threads), |bencher| {
            bencher.iter_custom(|times| {
                (0..times)
                    .map(|_| {
                        let (cache, requests) = cache(300, |_| SERVICE, &[]);
                        let took = together(threads, || drop(cache.get().expect("a token")));
                        assert_eq!(requests.load(Ordering::SeqCst), 1, "requests of a herd of {threads}");
                        took
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// How long calls take while tokens are renewed under way, with and without `background_refresh`,
/// both at the same time, so that whatever else the machine does meets both.
fn renewals() {
    let time = RENEWALS * Duration::from_millis(1600);
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
    let ((inline, inline_renewals), (background, background_renewals)) = thread::scope(|scope| {
        let (inline, background) = (scope.spawn(|| run("false")), scope.spawn(|| run("true")));
        (inline.join().expect("no panic"), background.join().expect("no panic"))
    });
    let figures = |took: &[Duration]| {
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
        "Calls while tokens are renewed, in real time: as many renewals as tokens of 300 seconds need in an hour, with tokens \
         of 2 seconds in {} s; {inline_renewals} renewals without background_refresh, {background_renewals} with it. As a \
         multiple of what a request takes ({} ms on average, 20 to 50):",
        time.as_secs(),
        SERVICE.as_millis()
    );
    let json = format!(
        r#"{{"how": "{how}", "service_ms": {}, "modes": {{"without background_refresh": {}, "with background_refresh": {}}}}}"#,
        SERVICE.as_millis(),
        figures(&inline),
        figures(&background)
    );
    println!("renewals: {json}");
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

// SAFETY: the header says that a cache may be used by many threads at once.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the library that cargo built next to this program.
    fn load() -> Self {
        let path = std::env::current_exe().expect("a path").with_file_name("libamp_token.so");
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL");
        // SAFETY: the path is a text with a NUL, and the library's initializers are Rust's own.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        let find = |name: &CStr| {
            // SAFETY: the handle is open for the rest of the process, and the name has a NUL.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?} is missing");
            found
        };
        // SAFETY: include/amp_token.h declares all of these functions so, up to the types that
        // pointers point to, and every argument is what it asks for.
        unsafe {
            let config = transmute::<*mut c_void, NewFn>(find(c"amp_config_new"))();
            let set = transmute::<*mut c_void, SetFn>(find(c"amp_config_set"));
            for (name, value) in [(c"client_id", c"id"), (c"client_secret", c"secret")] {
                assert_eq!(set(config, name.as_ptr(), value.as_ptr(), null_mut()), 0);
            }
            let reply = Box::leak(Box::new(Reply {
                set_status: transmute::<*mut c_void, SetStatusFn>(find(c"amp_http_reply_set_status")),
                append_body: transmute::<*mut c_void, AppendBodyFn>(find(c"amp_http_reply_append_body")),
            }));
            let set_transport = transmute::<*mut c_void, SetTransportFn>(find(c"amp_config_set_transport"));
            assert_eq!(set_transport(config, answer, (&raw mut *reply).cast(), null_mut()), 0);
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
        // SAFETY: the cache lives as long as the process, and the buffer has the length that is told.
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

/// What the transport for the shared library writes its reply with.
struct Reply {
    set_status: SetStatusFn,
    append_body: AppendBodyFn,
}

/// A transport that has a token at once.
unsafe extern "C" fn answer(_: *const c_void, reply: *mut c_void, functions: *mut c_void) -> i32 {
    let body = self::reply(86_400, 0);
    // SAFETY: `functions` is what `Library::load` gave with this function and never freed, and
    // `parse_token_response` is the library's, for this call.
    unsafe {
        let functions = &*functions.cast::<Reply>();
        (functions.set_status)(reply, 200);
        (functions.append_body)(reply, body.as_ptr().cast(), body.len());
    }
    0
}
