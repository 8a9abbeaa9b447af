//! What several integration tests need: a C compiler, the built library, and a place for programs.
#![allow(dead_code, reason = "each test uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo put the libraries of this very build.
pub fn library_dir() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// A folder for what a test makes.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
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

/// The warnings that C code of ours must be free of.
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

/// A program that finds the library of this build, and no settings of the machine.
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    without_settings(&mut command);
    command.env("LD_LIBRARY_PATH", library_dir());
    command
}

/// Takes the variables that the library reads out of a command's environment.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("AMPLIENCE_") || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/nonexistent");
}

/// Whether a tool can be run.
pub fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// One function of the header.
pub struct Prototype {
    pub returns: String,
    pub name: String,
    /// Types, without the parameters' names.
    pub parameters: Vec<String>,
    /// The parameters' names.
    pub names: Vec<String>,
    /// The comment in front of it.
    pub comment: String,
}

/// The header of today.
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
