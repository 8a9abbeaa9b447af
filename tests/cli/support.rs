//! An emulator, an empty home directory, and processes that use them.

use crate::shared::copy_for_every_user;
use amp_emulator::Emulator;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The command under test.
pub const AMP_TOKEN: &str = env!("CARGO_BIN_EXE_amp-token");

/// A secret that cannot occur in any output by chance.
pub const SECRET: &str = "se+cret/41&b7=%é";

/// An emulator, and an empty home directory that is removed at the end.
pub struct TestEnv {
    pub home: PathBuf,
    pub emulator: Emulator,
}

impl TestEnv {
    pub fn new() -> Self {
        TestEnv::with(Emulator::builder().client("the-id", SECRET).start().unwrap())
    }

    pub fn with_tls() -> Self {
        TestEnv::with(Emulator::builder().tls(true).client("the-id", SECRET).start().unwrap())
    }

    pub fn with(emulator: Emulator) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("amp-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        TestEnv { home, emulator }
    }

    /// The command, in an environment with the credentials and URLs of the emulator and nothing else.
    pub fn command(&self) -> Command {
        self.configured(AMP_TOKEN)
    }

    /// The same as another user.
    pub fn command_as(&self, user: u32) -> Command {
        let mut command = self.configured(self.program_for_every_user().to_str().unwrap());
        command.uid(user);
        command
    }

    /// A copy of the command that every user can run; it is removed at the end.
    pub fn program_for_every_user(&self) -> PathBuf {
        let directory = self.home.with_extension("bin");
        let copy = directory.join("amp-token");
        if copy.exists() { copy } else { copy_for_every_user(AMP_TOKEN.as_ref(), &directory) }
    }

    fn configured(&self, program: &str) -> Command {
        let mut command = self.bare(program);
        command
            .env("AMPLIENCE_CLIENT_ID", "the-id")
            .env("AMPLIENCE_CLIENT_SECRET", SECRET)
            .env("AMPLIENCE_AUTH_URL", self.emulator.url())
            .env("AMPLIENCE_API_URL", self.emulator.url())
            .env("AMPLIENCE_RETRIES", "0");
        command
    }

    pub fn bare(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", &self.home)
            .stdin(Stdio::null());
        command
    }

    /// A shell line in which `amp-token` is the command under test.
    pub fn shell(&self, line: &str) -> Command {
        let mut path = std::ffi::OsString::from(Path::new(AMP_TOKEN).parent().unwrap());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut shell = self.command();
        let environment: Vec<_> =
            shell.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        shell = self.bare("sh");
        for (name, value) in environment {
            shell.env(name, value.unwrap_or_default());
        }
        shell.env("PATH", path).arg("-c").arg(line);
        shell
    }

    pub fn run(&self, arguments: &[&str]) -> CommandResult {
        CommandResult::of(self.command().args(arguments))
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
        let _ = fs::remove_dir_all(self.home.with_extension("bin"));
    }
}

/// The exit status and the output of a process.
pub struct CommandResult {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandResult {
    pub fn of(command: &mut Command) -> Self {
        CommandResult::from(command.output().unwrap())
    }

    pub fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let output = CommandResult { status: status.code(), stdout: text(stdout), stderr: text(stderr) };
        output.shows_no_secret();
        output
    }

    pub fn shows_no_secret(&self) {
        let encoded = amp_token::net::url::form_encode(SECRET);
        for text in [&self.stdout, &self.stderr] {
            assert!(!text.contains(SECRET) && !text.contains(&encoded), "{text}");
        }
    }

    /// The standard output of a run that succeeded and printed nothing on standard error.
    #[track_caller]
    pub fn stdout_ok(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Asserts that the run failed with this status and message, and printed nothing on standard output.
    #[track_caller]
    pub fn assert_failed(&self, status: i32, says: &str) {
        assert_eq!((self.status, self.stdout.as_str()), (Some(status), ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("amp-token: "), "{}", self.stderr);
        assert!(self.stderr.contains(says), "{says:?} is not in {:?}", self.stderr);
    }
}
