//! `amp-token serve` and `amp-token exec --serve`: clients on real sockets, the emulator behind them.

mod attacks;
mod examples;
mod exec;
mod proxy;
mod server;
mod token;

use crate::support::{CommandResult, TestEnv};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server. It is killed when it is dropped.
struct Serve {
    child: Child,
    /// The lines that it printed when it was ready.
    lines: Vec<(String, String)>,
    _stdout: BufReader<ChildStdout>,
}

impl Serve {
    /// Starts `amp-token serve` with these options, and waits until it is ready.
    fn start(env: &TestEnv, options: &[&str]) -> Self {
        Serve::run(env.command().arg("serve").args(options))
    }

    fn run(command: &mut Command) -> Self {
        // The tests may run in the background or with nohup, where some are ignored; a process inherits that.
        let restore = || {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
                // SAFETY: the default handling needs no function.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(restore) };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        while !lines.iter().any(|(name, _): &(String, _)| name.starts_with("client_secret")) {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let mut error = String::new();
                child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("the server ended: {error}");
            }
            let (name, value) = line.trim_end().split_once('=').unwrap();
            lines.push((name.to_owned(), value.to_owned()));
        }
        Serve { child, lines, _stdout: stdout }
    }

    fn value(&self, name: &str) -> &str {
        &self.lines.iter().find(|(have, _)| have == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn ticket(&self) -> &str {
        self.value("client_secret")
    }

    /// `127.0.0.1:PORT`
    fn host(&self) -> &str {
        self.value("auth_url").split_once("://").unwrap().1
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.host()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends a request in these words and returns the response.
    fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        let _ = stream.write_all(request.as_bytes());
        Answer::read(stream)
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.host()))
    }

    /// A request with the ticket.
    fn api(&self, path: &str) -> Answer {
        self.get(path, &format!("Authorization: Bearer {}\r\n", self.ticket()))
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let (host, length) = (self.host(), body.len());
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ))
    }

    /// A request for a token with this secret.
    fn token_with(&self, secret: &str) -> Answer {
        let form = format!("client_id=any&client_secret={secret}&grant_type=client_credentials");
        self.post("/oauth/token", "Content-Type: application/x-www-form-urlencoded\r\n", &form)
    }

    fn token(&self) -> Answer {
        self.token_with(self.ticket())
    }

    /// A value of `/metrics`, with its labels.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", "").body;
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(have, _)| have == name));
        line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that was not waited for, so the number is its own.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) }, 0);
    }

    /// Ends it as a service manager does; returns its exit status and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        self.signal(libc::SIGTERM);
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let ticket = self.lines.iter().find(|(name, _)| name == "client_secret").map_or("-", |(_, ticket)| ticket);
        assert!(!said.contains(ticket), "{said}");
        (status.code(), said)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Reads one response, until the server closes the connection.
    fn read(mut stream: impl Read) -> Self {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        Answer::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
        Answer { status, head, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn access_token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Asserts the status and the code of an error.
    #[track_caller]
    fn assert_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(code)), "{self:?}");
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// A request over a Unix socket.
fn over_socket(path: &Path, request: &str) -> Answer {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    Answer::read(stream)
}

/// Waits for something that happens in another process.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that cannot start.
fn refused(env: &TestEnv, options: &[&str]) -> CommandResult {
    CommandResult::of(env.command().arg("serve").args(options))
}
