//! Resolving host names, within a deadline.
//!
//! `getaddrinfo` has no timeout, and repeats a question whose answer was lost only after 5 seconds. So it runs on
//! helper threads, which may outlast the call that started them, and no work of theirs is thrown away:
//!
//! - **A resolution under way is joined** by every later call for the same host.
//! - **A late answer counts.** If no call waits for it any more, the next call for that host gets it.
//! - **A host has few threads.** The second resolution of a host only starts when the first one has taken
//!   [`SLOW_RESOLUTION`], and there are at most [`MAX_RESOLUTIONS`]: a name server that does not answer cannot take the
//!   threads that other hosts need.
//!
//! Nothing else is cached. That is the business of the system's resolver, which knows for how long an answer is valid.

use crate::error::{Phase, Result, resource_limit};
use crate::net::tcp::Peer;
use crate::net::url::{is_loopback, split_zone};
use crate::sys::deadline::IoDeadline;
use crate::sys::fork::ForkLocal;
use crate::sys::sync::JoinHandle;
use crate::sys::threads::HelperThreads;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After this time, a resolution counts as lost, and another one may be started beside it.
const SLOW_RESOLUTION: Duration = Duration::from_secs(10);

/// The largest number of resolutions of one host at a time.
const MAX_RESOLUTIONS: usize = 4;

/// For how long an answer for which no call waited is kept.
const LATE_ANSWER_TTL: Duration = Duration::from_secs(30);

static RESOLVER_THREADS: HelperThreads = HelperThreads::new("amp-lookup");

/// The resolutions of this process.
static RESOLUTIONS: ForkLocal<Arc<Resolutions>> = ForkLocal::new();

/// Resolves a host name, within the deadline.
pub(crate) fn resolve(host: &str, port: u16, peer: &Peer, deadline: IoDeadline) -> Result<Vec<SocketAddr>> {
    match resolve_host(host, port, deadline) {
        Ok(found) if found.is_empty() => {
            let none = io::Error::other("the name has no addresses");
            Err(peer.io_error(Phase::Resolve, &none, deadline))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(peer.io_error(Phase::Resolve, &error, deadline)),
    }
}

fn resolve_host(host: &str, port: u16, deadline: IoDeadline) -> io::Result<Vec<SocketAddr>> {
    let at = |address: IpAddr| SocketAddr::new(address, port);
    if let (address, Some(zone)) = split_zone(host)
        && let Ok(address) = address.parse()
    {
        let unknown = || io::Error::other(format!("this machine has no network interface {zone}"));
        return Ok(vec![SocketAddrV6::new(address, port, 0, interface_index(zone).ok_or_else(unknown)?).into()]);
    }
    if let Ok(address) = host.parse() {
        return Ok(vec![at(address)]);
    }
    // Plain http is allowed to these names because they mean this machine. A DNS server must not be able to
    // change that.
    if is_loopback(host) {
        return Ok(vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]);
    }
    let mut found = RESOLUTIONS.with(Arc::clone).resolve(host, deadline, getaddrinfo)?;
    for address in &mut found {
        address.set_port(port);
    }
    Ok(found)
}

/// The number of a network interface, from its name or number.
fn interface_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    #[cfg(unix)]
    {
        let name = std::ffi::CString::new(zone).ok()?;
        // SAFETY: the name is a string that ends with a NUL, and is only read during the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        (index != 0).then_some(index)
    }
    #[cfg(not(unix))]
    None
}

fn getaddrinfo(host: &str) -> io::Result<Vec<SocketAddr>> {
    let found = (host, 0).to_socket_addrs().map(Iterator::collect);
    // A resolver that cannot open its files or a socket reports that the name does not exist.
    found.map_err(|error| socket_limit_error().unwrap_or(error))
}

/// The reason why this process cannot open a socket at present, if it cannot.
fn socket_limit_error() -> Option<io::Error> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err().filter(|error| resource_limit(error).is_some())
}

/// The resolutions of one process.
struct Resolutions {
    hosts: Mutex<HashMap<String, Host>>,
    /// Notified when a resolution has ended.
    ended: Condvar,
    slow: Duration,
}

/// The resolutions of one host.
#[derive(Default)]
struct Host {
    /// The number of resolutions under way.
    running: usize,
    /// When the newest of them started.
    started: Option<Instant>,
    /// The number of calls that wait for one.
    waiting: usize,
    /// The outcome of the last resolution, for the calls that waited for it, and how many outcomes there have been.
    outcome: Option<io::Result<Vec<SocketAddr>>>,
    outcomes: u64,
    /// An answer for which no call waited, and when it arrived.
    late: Option<(Instant, Vec<SocketAddr>)>,
}

impl Host {
    fn is_in_use(&self) -> bool {
        self.running > 0
            || self.waiting > 0
            || self.late.as_ref().is_some_and(|(arrived, _)| arrived.elapsed() < LATE_ANSWER_TTL)
    }
}

impl Default for Resolutions {
    fn default() -> Self {
        Resolutions::new(SLOW_RESOLUTION)
    }
}

impl Resolutions {
    fn new(slow: Duration) -> Self {
        Resolutions { hosts: Mutex::default(), ended: Condvar::new(), slow }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of a host, from a resolution that is under way or else from a new one.
    fn resolve(
        self: Arc<Self>,
        name: &str,
        deadline: IoDeadline,
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Clone + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let name = name.to_ascii_lowercase();
        let mut hosts = self.lock();
        hosts.retain(|_, host| host.is_in_use());
        let host = hosts.entry(name.clone()).or_default();
        if let Some((_, found)) = host.late.take() {
            return Ok(found);
        }
        host.waiting += 1;
        let before = host.outcomes;
        let mut thread = None;
        let result = loop {
            let host = hosts.entry(name.clone()).or_default();
            if host.outcomes > before {
                break host.outcome.as_ref().map_or_else(|| Err(io::ErrorKind::Other.into()), copy);
            }
            let left = match deadline.remaining() {
                Ok(left) => left,
                Err(late) => break Err(late),
            };
            let age = host.started.map_or(Duration::MAX, |started| started.elapsed());
            let mut wait = left;
            if host.running == 0 || (host.running < MAX_RESOLUTIONS && age >= self.slow) {
                match self.start(&name, resolver.clone()) {
                    Ok(Some(started)) => {
                        thread = Some(started);
                        host.running += 1;
                        host.started = Some(Instant::now());
                    }
                    // Until another thread ends.
                    Ok(None) => wait = left.min(Duration::from_millis(5)),
                    // Those under way may still succeed.
                    Err(_) if host.running > 0 => {}
                    Err(error) => break Err(error),
                }
            } else if host.running < MAX_RESOLUTIONS {
                wait = left.min(self.slow - age);
            }
            hosts = self.ended.wait_timeout(hosts, wait).unwrap_or_else(PoisonError::into_inner).0;
        };
        let host = hosts.entry(name).or_default();
        host.waiting -= 1;
        let all_ended = host.running == 0;
        drop(hosts);
        if let Some(thread) = thread.filter(|_| all_ended) {
            // It is about to end. Waiting for it keeps it out of a fork that follows.
            let _ = thread.join();
        }
        result
    }

    /// Starts a resolution; `None` if there are too many threads.
    fn start(
        self: &Arc<Self>,
        name: &str,
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Option<JoinHandle<()>>> {
        let (resolutions, name) = (Arc::clone(self), name.to_owned());
        RESOLVER_THREADS.start(move || {
            // Calls may wait for it, so it must not end without a result.
            let result = catch_unwind(AssertUnwindSafe(|| resolver(&name)));
            let result = result.unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")));
            resolutions.finish(name, result);
        })
    }

    /// Passes the result of a resolution to the calls that wait for it.
    fn finish(&self, name: String, result: io::Result<Vec<SocketAddr>>) {
        let mut hosts = self.lock();
        let host = hosts.entry(name).or_default();
        host.running -= 1;
        match result {
            Ok(found) if host.waiting == 0 => host.late = Some((Instant::now(), found)),
            // Another resolution of the host may still succeed.
            Err(_) if host.running > 0 => {}
            result => {
                host.outcome = Some(result);
                host.outcomes += 1;
            }
        }
        self.ended.notify_all();
    }
}

/// A copy of a result, for each of several calls.
fn copy(result: &io::Result<Vec<SocketAddr>>) -> io::Result<Vec<SocketAddr>> {
    match result {
        Ok(found) => Ok(found.clone()),
        Err(error) => Err(match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    type Answer = io::Result<Vec<SocketAddr>>;

    fn soon() -> IoDeadline {
        IoDeadline::after(Duration::from_secs(30))
    }

    fn address() -> Vec<SocketAddr> {
        vec!["192.0.2.1:0".parse().unwrap()]
    }

    /// A name server whose answers the test sends; it counts the resolutions.
    struct NameServer {
        resolutions: Arc<Resolutions>,
        answers: Arc<Mutex<Receiver<Answer>>>,
        asked: Arc<AtomicUsize>,
    }

    impl NameServer {
        fn new(slow: Duration) -> (Self, Sender<Answer>) {
            let (sender, answers) = channel();
            let resolutions = Arc::new(Resolutions::new(slow));
            (NameServer { resolutions, answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }, sender)
        }

        fn resolve(&self, host: &str, deadline: IoDeadline) -> Answer {
            let (answers, asked) = (Arc::clone(&self.answers), Arc::clone(&self.asked));
            Arc::clone(&self.resolutions).resolve(host, deadline, move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                answers.lock().unwrap().recv().unwrap()
            })
        }

        /// Waits until the number of threads that look this host up is `running`, and of calls that wait `waiting`.
        fn wait_for(&self, host: &str, running: usize, waiting: usize) {
            let mut hosts = self.resolutions.lock();
            let patience = soon();
            while hosts.get(host).is_none_or(|host| (host.running, host.waiting) != (running, waiting)) {
                patience.remaining().expect("the resolutions are in the state that the test waits for");
                hosts = self.resolutions.ended.wait_timeout(hosts, Duration::from_millis(1)).unwrap().0;
            }
        }
    }

    #[test]
    fn names_of_this_machine_are_not_resolved_by_dns() {
        for host in ["localhost", "LOCALHOST.", "any.localhost"] {
            let found = resolve_host(host, 7, soon()).unwrap();
            assert!(found.iter().all(|address| address.ip().is_loopback()));
        }
        assert_eq!(resolve_host("::1", 7, soon()).unwrap(), ["[::1]:7".parse().unwrap()]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_zone_is_the_name_or_number_of_an_interface() {
        for host in ["fe80::1%25lo", "fe80::1%lo", "fe80::1%251", "fe80::1%1"] {
            let found = resolve_host(host, 7, soon()).unwrap();
            assert_eq!(found, ["[fe80::1%1]:7".parse().unwrap()], "{host}");
        }
        let error = resolve_host("fe80::1%25none", 7, soon()).unwrap_err();
        assert_eq!(error.to_string(), "this machine has no network interface none");
    }

    #[test]
    fn calls_for_one_host_share_a_resolution_and_its_result() {
        for result in [Ok(address()), Err(io::Error::from_raw_os_error(1)), Err(io::Error::other("no such name"))] {
            let (server, answer) = NameServer::new(SLOW_RESOLUTION);
            std::thread::scope(|scope| {
                let calls: Vec<_> = ["a.example", "A.example", "a.EXAMPLE"]
                    .map(|host| scope.spawn(|| server.resolve(host, soon())))
                    .into_iter()
                    .collect();
                server.wait_for("a.example", 1, 3);
                let expected = format!("{result:?}");
                answer.send(result).unwrap();
                for call in calls {
                    assert_eq!(format!("{:?}", call.join().unwrap()), expected);
                }
            });
            assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        }
    }

    #[test]
    fn a_resolution_that_outlasts_its_call_is_joined_and_its_late_answer_counts() {
        let (server, answer) = NameServer::new(SLOW_RESOLUTION);
        for _ in 0..3 {
            let error = server.resolve("slow.example", IoDeadline::after(Duration::from_millis(5))).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        server.wait_for("slow.example", 1, 0);
        answer.send(Ok(address())).unwrap();
        server.wait_for("slow.example", 0, 0);
        assert_eq!(server.resolve("slow.example", soon()).unwrap(), address());
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        // It is no cache.
        answer.send(Err(io::Error::other("gone"))).unwrap();
        assert_eq!(server.resolve("slow.example", soon()).unwrap_err().to_string(), "gone");
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_host_whose_resolutions_hang_has_few_threads() {
        let (server, answer) = NameServer::new(Duration::ZERO);
        let mut calls = 0;
        while calls < 3 * MAX_RESOLUTIONS || server.resolutions.lock()["silent.example"].running < MAX_RESOLUTIONS {
            server.resolve("silent.example", IoDeadline::after(Duration::from_millis(5))).unwrap_err();
            calls += 1;
        }
        server.wait_for("silent.example", MAX_RESOLUTIONS, 0);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| server.resolve("silent.example", soon()));
            server.wait_for("silent.example", MAX_RESOLUTIONS, 1);
            // As long as others are under way, one that fails is not the result.
            answer.send(Err(io::Error::other("lost"))).unwrap();
            answer.send(Ok(address())).unwrap();
            assert_eq!(call.join().unwrap().unwrap(), address());
        });
        for _ in 0..MAX_RESOLUTIONS {
            let _ = answer.send(Ok(address()));
        }
    }

    #[test]
    fn a_panic_is_a_result() {
        let resolutions = Arc::new(Resolutions::new(SLOW_RESOLUTION));
        let error = resolutions.resolve("x.example", soon(), |_| panic!("as the test wants")).unwrap_err();
        assert_eq!(error.to_string(), "the resolver panicked");
    }
}
