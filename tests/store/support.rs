//! What the tests share: settings, a directory, a log that can be read, and other processes.

#[path = "../support/mod.rs"]
mod shared;

use amp_emulator::Emulator;
use amp_token::config::Config;
use amp_token::config::Options;
use amp_token::config::credentials::Credentials;
use amp_token::log::{Level, Log};
use amp_token::store::{Contents, Entry, IoBudget, LockResult, Removal, Store};
use amp_token::sys::clock::Clock;
use amp_token::token::cache::TokenCache;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub use shared::net::{ClosedPort, RawServer, UNKNOWN_HOST, read_until_eof};
pub use shared::{copy_for_every_user, is_root, require_tool, temp_dir};

/// Longer than any operation takes that succeeds.
pub const LONG: Duration = Duration::from_secs(60);

/// Names and values of settings, as a program would set them.
#[derive(Clone, Default)]
pub struct Settings(pub Vec<(String, String)>);

impl Settings {
    pub fn of(emulator: &Emulator) -> Self {
        Settings::default()
            .with("auth_url", &emulator.url())
            .with("client_id", &emulator.client_id())
            .with("client_secret", &emulator.client_secret())
    }

    /// Credentials that no service accepts, for tests of a store alone.
    pub fn dummy() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client = format!("somebody-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Settings::default().with("client_id", &client).with("client_secret", &"5ec7e7".repeat(10))
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_file_store(self, directory: &Path) -> Self {
        self.with("store", "file").with("store_dir", directory.to_str().unwrap())
    }

    pub fn config(&self) -> (Config, Lines) {
        let mut config = Config::new();
        for (name, value) in &self.0 {
            config.set(name, Some(value)).unwrap();
        }
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        config.log = Log::new(move |level, line| sink.lock().unwrap().push((level, line.to_owned())));
        let lines = Lines { log: config.log.clone(), lines };
        (config, lines)
    }

    pub fn cache(&self) -> (TokenCache, Lines) {
        let (config, lines) = self.config();
        (TokenCache::new(&config).unwrap(), lines)
    }

    pub fn store(&self) -> (TestStore, Lines) {
        let (config, lines) = self.config();
        let text = |name| config.text(name).unwrap();
        let credentials =
            Credentials::Client { id: text("client_id").to_owned(), secret: text("client_secret").into() };
        let options = config.options().unwrap();
        (TestStore::open(options, &credentials), lines)
    }
}

/// A store, each operation of which has a budget of its own.
pub struct TestStore {
    pub store: Arc<dyn Store>,
    options: Options,
}

impl TestStore {
    pub fn open(options: Options, credentials: &Credentials) -> Self {
        let store = amp_token::store::open(&options, credentials).unwrap().expect("a store");
        TestStore { store, options }
    }

    pub fn budget(&self) -> IoBudget {
        IoBudget::without_deadline(&self.options)
    }

    pub fn read(&self) -> Contents {
        self.store.read(&self.budget())
    }

    pub fn load(&self) -> Option<Entry> {
        self.read().entry
    }

    /// The token, if there is one.
    pub fn token(&self) -> Option<String> {
        self.load().map(|entry| entry.token.expose().to_owned())
    }

    /// Waits for the lock, as the token provider does.
    pub fn lock(&self, wait: Duration) -> LockResult {
        let start = Instant::now();
        loop {
            let lock = self.store.try_lock(&self.budget());
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() || !matches!(lock, LockResult::Busy) {
                return lock;
            }
            self.store.wait(start.elapsed(), left);
        }
    }

    /// Saves without the lock.
    pub fn save(&self, entry: &Entry) {
        self.store.save(entry, None, &self.budget());
    }

    pub fn remove(&self, token: &str) -> Removal {
        self.store.remove(token, &self.budget())
    }
}

/// A token that was requested now.
pub fn entry(token: &str) -> Entry {
    Entry { token: token.into(), issued: Clock::System.now(), lifetime: LONG }
}

/// What was logged.
#[derive(Clone)]
pub struct Lines {
    log: Log,
    lines: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Lines {
    /// How many lines say this.
    pub fn count(&self, text: &str) -> usize {
        self.log.deliver();
        self.lines.lock().unwrap().iter().filter(|(_, line)| line.contains(text)).count()
    }

    /// The warnings about the store.
    pub fn warnings(&self) -> Vec<String> {
        self.log.deliver();
        let lines = self.lines.lock().unwrap();
        let warnings = lines.iter().filter(|(level, line)| *level <= Level::Warning && line.starts_with("store: "));
        warnings.map(|(_, line)| line.clone()).collect()
    }
}

/// The files in a directory whose names have this ending.
pub fn files(directory: &TempDir, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.to_str().unwrap().ends_with(ending)).collect()
}

/// The one entry in the directory of a file store.
pub fn entry_file(directory: &TempDir) -> PathBuf {
    let mut files = files(directory, "");
    files.retain(|file| file.extension().is_none());
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

pub fn is_held(lock: &LockResult) -> bool {
    matches!(lock, LockResult::Held(_))
}

/// A child process, which is killed when the test drops it.
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    warnings: Vec<String>,
    /// Closed with the test: the child and its forked children wait for that.
    _input: ChildStdin,
}

/// The environment variables that tell the child process what to do, and with which settings.
pub const CHILD_MODE: &str = "AMP_STORE_TEST_MODE";
pub const CHILD_SETTINGS: &str = "AMP_STORE_TEST_SETTINGS";

/// A command that runs this test program as a child process. `program` starts it, with these arguments.
pub fn command(program: &str, arguments: &[&str], mode: &str, settings: &Settings) -> Command {
    let lines: Vec<_> = settings.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut command = Command::new(program);
    command.args(arguments).args(["--exact", "child::child_main", "--ignored", "--nocapture", "--test-threads=1"]);
    // Reading the system's certificates takes a debug build much of the time that a TLS handshake has.
    command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "");
    command.env(CHILD_MODE, mode).env(CHILD_SETTINGS, lines.join("\n"));
    command
}

impl Process {
    pub fn start(mode: &str, settings: &Settings) -> Self {
        let program = std::env::current_exe().unwrap();
        Process::run(&mut command(program.to_str().unwrap(), &[], mode, settings))
    }

    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let _input = child.stdin.take().unwrap();
        Process { child, output, warnings: Vec::new(), _input }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The rest of the next line of its output that begins with `word`.
    pub fn expect_line(&mut self, word: &str) -> String {
        let mut printed = String::new();
        loop {
            let start = printed.len();
            assert_ne!(self.output.read_line(&mut printed).unwrap(), 0, "it never printed {word}, but:\n{printed}");
            let Some(line) = printed[start..].strip_prefix("child: ") else { continue };
            if let Some(warning) = line.strip_prefix("warning ") {
                self.warnings.push(warning.trim().to_owned());
            }
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The warnings about the store that it printed before the lines that were expected.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.id()).unwrap();
        // SAFETY: it touches no memory; and the process is our child and not yet waited for, so that
        // its number cannot be another's.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Waits until it has ended. Whether it succeeded.
    pub fn wait_success(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
