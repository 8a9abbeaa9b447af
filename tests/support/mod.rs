//! Code that several integration tests share: the C compiler, the built library, a directory for programs, and tools
//! that a machine may lack.
#![allow(dead_code, reason = "each test uses its own part")]

pub mod net;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The root directory of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory in which cargo put the libraries of this build.
pub fn library_dir() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A directory for the files that a test makes. It stays after the test.
pub fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// A directory that only this user may use, as the file store requires it; removed when it is dropped.
pub fn temp_dir() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("amp-test-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir().unwrap()
}

/// Runs a command and returns its output; fails with that output if it does not end with success.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// C code of this repository must compile without these warnings.
pub const C_FLAGS: &[&str] =
    &["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes", "-Werror", "-g", "-O1"];

/// The same for C++.
pub const CPP_FLAGS: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1"];

/// Compiles one source file to a program that uses the library, as a user would.
pub fn compile(compiler: &str, flags: &[&str], source: &Path, program: &Path, libraries: &[&str]) {
    let include = root().join("include");
    run(Command::new(compiler)
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(program)
        .arg("-I")
        .arg(include)
        .arg("-I")
        .arg(root().join("bindings/cpp"))
        .arg("-L")
        .arg(library_dir())
        // A program that only loads the library at run time is not bound to it.
        .args(["-Wl,--as-needed", "-lamp_token", "-lpthread"])
        .args(libraries));
}

/// A command that runs a program with the library of this build, and without the settings of the environment.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    without_settings(&mut command);
    command.env("LD_LIBRARY_PATH", library_dir());
    command
}

/// Removes the variables that the library reads from a command's environment.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AMPLIENCE_") || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent");
}

/// Whether this process may do everything, so that permissions of files do not bind it.
#[cfg(unix)]
pub fn is_root() -> bool {
    // SAFETY: the function has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Copies a program into a directory, and lets every user enter that and run the copy. Where it was built, others often
/// cannot: below the home of root, or if the umask is 077.
#[cfg(unix)]
pub fn copy_for_every_user(program: &Path, directory: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = directory.join(program.file_name().unwrap());
    std::fs::create_dir_all(directory).unwrap();
    std::fs::copy(program, &copy).unwrap();
    for path in [directory, &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// Whether this tool can be run.
pub fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Whether the current test can use this tool. A test returns if not, so that `cargo test` passes on a machine that
/// lacks the tool; with AMP_REQUIRE_TOOLS=1, as `make test` and `.ci/run` set it, the absence is a failure.
#[must_use]
pub fn require_tool(tool: &str) -> bool {
    require(has(tool), tool)
}

/// Like [`require_tool`], for a header of the C compiler's search path.
#[must_use]
pub fn require_header(header: &str) -> bool {
    let compiler = Command::new("cc")
        .args(["-E", "-include", header, "-x", "c", "/dev/null"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    require(compiler.is_ok_and(|status| status.success()), header)
}

/// Reports what the current test lacks.
#[must_use]
pub fn require(is_there: bool, what: &str) -> bool {
    if !is_there {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("a test");
        assert!(std::env::var_os("AMP_REQUIRE_TOOLS").is_none(), "{name} needs {what}");
        report_skipped(&format!("{name} needs {what}"));
    }
    is_there
}

/// Reports a test, or a part of it, that is not run.
pub fn report_skipped(what: &str) {
    // Not with eprintln!, whose output the test harness shows only for a test that fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A message without what differs from run to run: `directory` becomes `…`, ports, times and names of entries become
/// `N` or `NAME`. A vertical bar would end a table's cell and becomes `/`.
pub fn normalize(message: &str, directory: &Path) -> String {
    let message = without_dates(message.replace(&directory.display().to_string(), "…").replace('|', "/"));
    let mut parts = message.split(" (next attempt in ");
    let first = parts.next().unwrap_or_default().to_owned();
    let message = parts.fold(first, |kept, part| kept + part.split_once(')').map_or("", |(_, after)| after));
    let is_name = |word: &str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (mut normal, mut rest) = (String::new(), message.as_str());
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let end = rest[start..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        // The digits, points and hyphens of an address, a date or a number with decimals.
        let number_length = rest[start..].find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
        let number = &rest[start..number_length.map_or(rest.len(), |length| start + length)];
        let after = &rest[start + number.len()..];
        let is_time = after.starts_with(" s") || after.starts_with(" ms");
        let is_long = number.bytes().filter(u8::is_ascii_digit).count() >= 4 && !number.starts_with("127.");
        normal.push_str(&rest[..start]);
        let (replacement, length) = if is_name(word) {
            ("NAME", word.len())
        } else if number.is_empty() {
            (word, word.len())
        } else {
            (if is_time || is_long { "N" } else { number }, number.len())
        };
        normal.push_str(replacement);
        rest = &rest[start + length..];
    }
    normal + rest
}

/// Replaces dates such as `31 Jan 2026`, which are others tomorrow.
fn without_dates(mut message: String) -> String {
    let is_number = |text: Option<&str>| text.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    for month in ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"] {
        let month = format!(" {month} ");
        let Some(middle) = message.find(&month) else { continue };
        let (start, year) = (middle.saturating_sub(2), middle + month.len());
        if is_number(message.get(start..middle)) && is_number(message.get(year..year + 4)) {
            message.replace_range(start..year + 4, "DATE");
        }
    }
    message
}

/// One function of the header.
pub struct Prototype {
    pub returns: String,
    pub name: String,
    /// Types, without the parameters' names.
    pub parameters: Vec<String>,
    /// The parameters' names.
    pub names: Vec<String>,
    /// The comment before it.
    pub comment: String,
}

/// The current header.
pub fn header() -> String {
    std::fs::read_to_string(root().join("include/amp_token.h")).unwrap()
}

/// Every function that a header declares, in its order.
pub fn prototypes(header: &str) -> Vec<Prototype> {
    let mut found = Vec::new();
    for (start, _) in header.match_indices("\nAMP_API") {
        let comment_start = header[..start].rfind("/**").unwrap();
        let declaration = &header[start..start + header[start..].find(");").unwrap()];
        let declaration = declaration
            .replace("AMP_API", " ")
            .replace("AMP_MUST_USE", " ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let (head, parameters) = declaration.split_once('(').unwrap();
        let split = head.rfind([' ', '*']).unwrap() + 1;
        let (parameters, names) = match parameters.trim() {
            "void" => Default::default(),
            parameters => parameters
                .split(',')
                .map(|parameter| {
                    let parameter = parameter.trim();
                    let (kind, name) = parameter.split_at(parameter.rfind([' ', '*']).unwrap() + 1);
                    (kind.trim().to_owned(), name.to_owned())
                })
                .unzip(),
        };
        found.push(Prototype {
            returns: head[..split].trim().to_owned(),
            name: head[split..].to_owned(),
            parameters,
            names,
            comment: header[comment_start..start].to_owned(),
        });
    }
    found
}
