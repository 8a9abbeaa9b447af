//! The binary interface: programs that were built against an earlier version keep running.
//!
//! tests/abi has one folder for each version that was released: its header, a program that was written
//! for it, and a dump of its interface (libabigail's, as a C compiler understands the header). The
//! library's own debug information would not do: it speaks of the Rust types behind the pointers, which
//! change with each compiler. What ties header and library together is tests/header.rs.
//!
//! A release adds a folder: AMP_ADD_ABI=1 cargo test --test abi. What it may change: docs/abi.md.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{C_FLAGS, compile, header, program, prototypes, root, run, scratch};

/// A shared library with the interface of this header, and nothing behind it.
fn shell(name: &str, header: &str) -> PathBuf {
    let folder = scratch("abi").join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("amp_token.h"), header).unwrap();
    let mut source = "#include \"amp_token.h\"\n#include <stdlib.h>\n".to_owned();
    for function in prototypes(header) {
        let parameters: Vec<_> =
            function.parameters.iter().enumerate().map(|(at, kind)| format!("{kind} p{at}")).collect();
        let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        writeln!(source, "{} {}({parameters}) {{ abort(); }}", function.returns, function.name).unwrap();
    }
    // No function takes or returns this one, which log functions compare with.
    source.push_str("amp_log_level log_level;\n");
    fs::write(folder.join("shell.c"), source).unwrap();
    let library = folder.join("libamp_token.so");
    run(Command::new("cc")
        .args(["-std=c99", "-g", "-fno-eliminate-unused-debug-types", "-shared", "-fPIC", "-w"])
        .args(["-Wl,-soname,libamp_token.so.0", "-o"])
        .arg(&library)
        .arg(folder.join("shell.c")));
    library
}

/// What a program of the interface `old` would miss in `new`: empty, or libabigail's report. More
/// functions and more values of an enum are no loss.
fn losses(old: &Path, new: &Path) -> String {
    let output = Command::new("abidiff").arg("--no-added-syms").args([old, new]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // Bits: 1 and 2 are mistakes of use, 4 a change, 8 one that is surely incompatible.
    match output.status.code() {
        Some(0) => String::new(),
        Some(4 | 12) => said,
        other => panic!("abidiff ended with {other:?}: {said}"),
    }
}

/// The folders of the versions, this one's too once it is there.
fn versions() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(root().join("tests/abi")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn nothing_is_lost_of_any_version() {
    let today = shell("today", &header());
    if std::env::var_os("AMP_ADD_ABI").is_some() {
        let folder = root().join("tests/abi").join(env!("CARGO_PKG_VERSION"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("amp_token.h"), header()).unwrap();
        run(Command::new("abidw")
            .args(["--no-show-locs", "--no-corpus-path", "--no-comp-dir-path", "--out-file"])
            .arg(folder.join("library.abi"))
            .arg(&today));
    }
    for version in versions() {
        let losses = losses(&version.join("library.abi"), &today);
        assert!(losses.is_empty(), "incompatible with {}:\n{losses}", version.display());
    }
}

/// The check above can fail: each of these changes is found.
#[test]
fn what_breaks_programs_is_found() {
    let header = header();
    let old = shell("before", &header);
    for (name, from, to) in [
        ("a parameter that became narrower", "int64_t min_validity_ms", "int32_t min_validity_ms"),
        ("a parameter that became a value", "size_t *length", "size_t length"),
        ("a result of another type", "int64_t amp_token_expires_in(", "int32_t amp_token_expires_in("),
        ("a status with another number", "AMP_TIMEOUT = 34", "AMP_TIMEOUT = 35"),
        ("a log level with another number", "AMP_LOG_DEBUG = 4", "AMP_LOG_DEBUG = 5"),
        ("a callback with another parameter", "(*amp_log_fn)(int32_t level", "(*amp_log_fn)(int64_t level"),
        ("a function that is gone", "amp_token_clone(", "amp_token_copy_of("),
    ] {
        assert!(header.contains(from), "the header has no {from:?}");
        let new = shell("after", &header.replace(from, to));
        assert!(!losses(&old, &new).is_empty(), "{name} was not found");
    }
    let more = header.replace("AMP_TIMEOUT = 34,", "AMP_TIMEOUT = 34,\n    AMP_SOMETHING_NEW = 99,");
    let more = more.replace(
        "AMP_API const char *amp_version(void);",
        "AMP_API const char *amp_version(void);\n/** */\nAMP_API int amp_new(void);",
    );
    assert_eq!(losses(&old, &shell("more", &more)), "", "additions are allowed");
}

#[test]
fn programs_of_all_versions_run() {
    for version in versions() {
        let target = scratch("abi").join("program");
        // Its own header comes first: a file's folder is searched before all others.
        compile("cc", C_FLAGS, &version.join("program.c"), &target, &[]);
        println!("{}", String::from_utf8_lossy(&run(&mut program(&target)).stdout));
    }
}
