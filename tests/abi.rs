//! The binary interface: programs that were built against an earlier version keep running.
//!
//! tests/abi has one directory for each released version: its header, a program that was written for it,
//! and a dump of its interface (by libabigail, as a C compiler understands the header). The library's own
//! debug information is not suitable: it describes the Rust types behind the pointers, which change with
//! each compiler. tests/header.rs compares the header with the library.
//!
//! A release adds a directory: AMP_ADD_ABI=1 cargo test --test abi. docs/abi.md says what it may change.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{C_FLAGS, compile, header, program, prototypes, require_tool, root, run, scratch};

/// A shared library with the interface of this header, whose functions abort.
fn stub_library(name: &str, header: &str) -> PathBuf {
    let directory = scratch("abi").join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("amp_token.h"), header).unwrap();
    let mut source = "#include \"amp_token.h\"\n#include <stdlib.h>\n".to_owned();
    for function in prototypes(header) {
        let parameters: Vec<_> =
            function.parameters.iter().enumerate().map(|(at, kind)| format!("{kind} p{at}")).collect();
        let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        writeln!(source, "{} {}({parameters}) {{ abort(); }}", function.returns, function.name).unwrap();
    }
    // No function takes or returns this type. Log functions compare with its values.
    source.push_str("amp_log_level log_level;\n");
    fs::write(directory.join("stub.c"), source).unwrap();
    let library = directory.join("libamp_token.so");
    run(Command::new("cc")
        .args(["-std=c99", "-g", "-fno-eliminate-unused-debug-types", "-shared", "-fPIC", "-w"])
        .args(["-Wl,-soname,libamp_token.so.0", "-o"])
        .arg(&library)
        .arg(directory.join("stub.c")));
    library
}

/// What a program built with `old` misses in `new`: empty, or libabigail's report. Additional functions
/// and enum values are not reported.
fn losses(old: &Path, new: &Path) -> String {
    let output = Command::new("abidiff").arg("--no-added-syms").args([old, new]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // The bits of the exit status: 1 and 2 are usage errors, 4 is a change, 8 an incompatible one.
    match output.status.code() {
        Some(0) => String::new(),
        Some(4 | 12) => said,
        other => panic!("abidiff ended with {other:?}: {said}"),
    }
}

/// The directories of the versions, including this one's if it exists.
fn versions() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(root().join("tests/abi")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn nothing_is_lost_of_any_version() {
    if !require_tool("abidiff") {
        return;
    }
    let today = stub_library("today", &header());
    if std::env::var_os("AMP_ADD_ABI").is_some() {
        let directory = root().join("tests/abi").join(env!("CARGO_PKG_VERSION"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("amp_token.h"), header()).unwrap();
        run(Command::new("abidw")
            .args(["--no-show-locs", "--no-corpus-path", "--no-comp-dir-path", "--out-file"])
            .arg(directory.join("library.abi"))
            .arg(&today));
    }
    for version in versions() {
        let losses = losses(&version.join("library.abi"), &today);
        assert!(losses.is_empty(), "incompatible with {}:\n{losses}", version.display());
    }
}

/// The check above can fail: it reports each of these changes.
#[test]
fn what_breaks_programs_is_found() {
    if !require_tool("abidiff") {
        return;
    }
    let header = header();
    let old = stub_library("before", &header);
    for (name, from, to) in [
        ("a narrower parameter", "int64_t min_validity_ms", "int32_t min_validity_ms"),
        ("a pointer parameter that became a value", "size_t *length", "size_t length"),
        ("another result type", "int64_t amp_token_expires_in(", "int32_t amp_token_expires_in("),
        ("a status with another number", "AMP_TIMEOUT = 34", "AMP_TIMEOUT = 35"),
        ("a log level with another number", "AMP_LOG_DEBUG = 4", "AMP_LOG_DEBUG = 5"),
        ("a callback with another parameter", "(*amp_log_fn)(int32_t level", "(*amp_log_fn)(int64_t level"),
        ("a removed function", "amp_token_clone(", "amp_token_copy_of("),
    ] {
        assert!(header.contains(from), "the header has no {from:?}");
        let new = stub_library("after", &header.replace(from, to));
        assert!(!losses(&old, &new).is_empty(), "{name} was not found");
    }
    let more = header.replace("AMP_TIMEOUT = 34,", "AMP_TIMEOUT = 34,\n    AMP_SOMETHING_NEW = 99,");
    let more = more.replace(
        "AMP_API const char *amp_version(void);",
        "AMP_API const char *amp_version(void);\n/** */\nAMP_API int amp_new(void);",
    );
    assert_eq!(losses(&old, &stub_library("more", &more)), "", "additions are allowed");
}

#[test]
fn programs_of_all_versions_run() {
    for version in versions() {
        let target = scratch("abi").join("program");
        // The version's own header is included: the compiler searches the directory of the source file first.
        compile("cc", C_FLAGS, &version.join("program.c"), &target, &[]);
        println!("{}", String::from_utf8_lossy(&run(&mut program(&target)).stdout));
    }
}
