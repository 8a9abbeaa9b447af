//! Where credentials are kept: profiles, programs that print them, mounted directories. The command, C and Python.
#![cfg(all(feature = "cli", feature = "emulator", unix))]

mod bad_input;
mod processes;
mod recipes;
mod rotation;
#[path = "../support/mod.rs"]
mod support;

use amp_emulator::Emulator;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The client of the recipes in docs/credentials.md.
const ID: &str = "4e7e72f5-9bd5-4d2c-9b0c-1c7e3c1f7f4e";

/// A secret that cannot occur in any output by chance.
const SECRET: &str = "94a4c32749110a75f7be94a4c32749110a75f7be94a4c32749110a75f7be5e04";

/// An emulator, and a user with a home directory and programs.
struct Home {
    directory: TempDir,
    emulator: Emulator,
}

impl Home {
    fn new() -> Self {
        let emulator = Emulator::builder().client(ID, SECRET).start().unwrap();
        let home = Home { directory: support::temp_dir(), emulator };
        for directory in ["bin", ".config/amp-token", ".amplience", "run"] {
            fs::create_dir_all(home.path(directory)).unwrap();
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only this user can read.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn config(&self, content: &str) -> String {
        self.file(".config/amp-token/config.toml", content)
    }

    fn hubs(&self, content: &str) -> String {
        self.file(".amplience/hubs.json", content)
    }

    /// Writes a program in the shell's language, which is found by its name.
    fn program(&self, name: &str, script: &str) -> String {
        let path = self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// A command of this user, with the URLs of the emulator and no credentials.
    fn run(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("AMPLIENCE_AUTH_URL", self.emulator.url())
            .env("AMPLIENCE_API_URL", self.emulator.url())
            .env("AMPLIENCE_RETRIES", "0")
            .stdin(Stdio::null());
        command
    }

    fn amp_token(&self, arguments: &[&str]) -> Command {
        let mut command = self.run(env!("CARGO_BIN_EXE_amp-token"));
        command.args(arguments);
        command
    }

    /// The exit status, the standard output and the standard error of the command; the last without its name, and
    /// with `~` in place of the home directory.
    fn result(&self, command: &mut Command) -> (Option<i32>, String, String) {
        let output = command.output().unwrap();
        let home = self.directory.path().to_str().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(home, "~");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
        (output.status.code(), stdout, stderr.replace("amp-token: ", "").trim_end().to_owned())
    }

    /// Asserts that a command fails with this status and exactly this message.
    #[track_caller]
    fn fails(&self, command: &mut Command, status: i32, message: &str) {
        let (ended, stdout, stderr) = self.result(command);
        assert_eq!((ended, stdout.as_str(), stderr.as_str()), (Some(status), "", message));
    }

    /// The standard output of a command that succeeds and says nothing else.
    #[track_caller]
    fn succeeds(&self, command: &mut Command) -> String {
        let (ended, stdout, stderr) = self.result(command);
        assert_eq!((ended, stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    }
}

/// A program that uses the library from C, compiled once.
fn get_token_in_c(directory: &Path) -> PathBuf {
    let program = directory.join("get_token");
    support::compile("cc", support::C_FLAGS, &support::root().join("bindings/c/get_token.c"), &program, &[]);
    program
}
