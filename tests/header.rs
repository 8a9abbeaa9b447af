//! The header: in sync with the source, clean in C and C++, complete as a manual, and safe against
//! NULL in every place, for every function that it declares, today's and tomorrow's.

mod common;

use common::{C_FLAGS, CPP_FLAGS, compile, header, library_dir, program, prototypes, root, run, scratch};
use std::fmt::Write;
use std::process::Command;

#[test]
fn the_header_is_the_one_that_the_source_makes() {
    let made = include_str!(concat!(env!("OUT_DIR"), "/amp_token.h"));
    let kept = include_str!("../include/amp_token.h");
    assert!(made == kept, "include/amp_token.h is out of date: run AMP_UPDATE_HEADER=1 cargo build");
}

#[test]
fn the_header_compiles_alone_and_twice_as_c_and_cpp() {
    let folder = scratch("header");
    let source = "#include \"amp_token.h\"\n#include \"amp_token.h\"\nint main(void) { return 0; }\n";
    for (file, compiler, flags, standards) in [
        ("alone.c", "cc", C_FLAGS, &["c99", "c11", "c17"][..]),
        ("alone.cpp", "c++", CPP_FLAGS, &["c++11", "c++14", "c++17", "c++20", "c++23"]),
    ] {
        let path = folder.join(file);
        std::fs::write(&path, source).unwrap();
        for standard in standards {
            run(Command::new(compiler)
                .args(flags)
                .arg(format!("-std={standard}"))
                .arg("-fsyntax-only")
                .arg("-I")
                .arg(root().join("include"))
                .arg(&path));
        }
    }
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let output = run(Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(library_dir().join("libamp_token.so")));
    let mut exported: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    exported.sort();
    let mut declared: Vec<_> = prototypes(&header()).into_iter().map(|function| function.name).collect();
    declared.sort();
    assert_eq!(exported, declared);
    // The list that a release is compared with: lines are only ever added.
    let kept: Vec<_> = include_str!("exports.txt").lines().collect();
    assert_eq!(kept, declared, "tests/exports.txt differs: removing or renaming a function breaks programs");
}

#[test]
fn every_comment_answers_what_a_caller_asks() {
    for function in prototypes(&header()) {
        let comment = function.comment.split_whitespace().filter(|word| *word != "*").collect::<Vec<_>>().join(" ");
        let says = |words: &[&str]| words.iter().any(|word| comment.contains(word));
        let name = &function.name;
        if function.returns == "amp_status" && !name.starts_with("amp_error") {
            assert!(says(&["AMP_", "Fails as"]), "{name} does not say how it fails");
        }
        if function.returns.ends_with('*') && !name.contains("_http_request") {
            assert!(says(&["NULL"]), "{name} does not say when it is NULL");
            assert!(says(&["borrowed", "frees", "static", "valid until"]), "{name} does not say who owns the result");
        }
        let locks_nothing = ["_free", "_new", "amp_config", "_http_"].iter().any(|part| name.contains(part));
        if !locks_nothing && function.returns != "amp_status" && name != "amp_token_cache_invalidate" {
            assert!(says(&["Any thread"]), "{name} does not say which threads may call it");
        }
    }
}

/// What to pass for a parameter of that type, when it is valid.
fn valid(kind: &str) -> &'static str {
    match kind {
        "amp_config *" | "const amp_config *" => "config",
        "const amp_token_cache *" => "cache",
        "const amp_token *" => "held",
        "const amp_error *" => "an_error",
        "amp_response **" => "&response",
        "const amp_response *" => "a_response",
        "amp_error **" => "&error",
        "amp_token **" => "&token",
        "amp_token_cache **" => "&new_cache",
        "const char *" => "\"x\"",
        "const void *" => "\"x\"",
        "void *" => "&anything",
        "char *" => "buffer",
        "size_t *" => "&length",
        "size_t" => "sizeof buffer",
        "int32_t" | "int64_t" => "0",
        "amp_log_fn" => "on_log",
        "amp_transport_fn" => "on_request",
        "amp_write_fn" => "on_piece",
        // Only the library makes these, for the time of a callback: see tests/c/transport.c.
        "const amp_http_request *" | "amp_http_reply *" => "NULL",
        other => panic!("say in tests/header.rs what a valid {other} is"),
    }
}

/// Parameters that may be NULL, by function and position, with what the call then comes to.
const MAY_BE_NULL: &[(&str, usize)] = &[
    ("amp_config_set", 2),           // unsets
    ("amp_config_set_logger", 1),    // switches off
    ("amp_config_set_logger", 2),    // user data is anything
    ("amp_config_set_transport", 1), // switches off
    ("amp_config_set_transport", 2),
    ("amp_token_cache_copy", 3), // the length is not wanted
    ("amp_api_graphql", 2),      // no variables
    ("amp_api_download", 3),     // user data is anything
];

/// Calls every function with NULL in every pointer parameter: all at once, and each alone with the
/// others valid. A required NULL is AMP_INVALID_ARGUMENT with a message that names it; nothing
/// crashes.
#[test]
fn no_null_does_harm() {
    let mut calls = String::new();
    for function in prototypes(&header()) {
        let nullable = |kind: &str| kind.ends_with('*') || kind.ends_with("_fn");
        let pointers: Vec<_> =
            (0..function.parameters.len()).filter(|at| nullable(&function.parameters[*at])).collect();
        let argument = |at: usize, null: bool| match function.parameters[at].as_str() {
            kind if null && nullable(kind) => "NULL",
            kind => valid(kind),
        };
        let mut call = |nulls: &[usize], required: bool| {
            let arguments: Vec<_> =
                (0..function.parameters.len()).map(|at| argument(at, nulls.contains(&at))).collect();
            let (name, arguments) = (&function.name, arguments.join(", "));
            match function.returns.as_str() {
                "amp_status" if !name.starts_with("amp_error") => {
                    let expected = if required { "AMP_INVALID_ARGUMENT" } else { "-1" };
                    writeln!(calls, "    CHECK({expected}, {name}({arguments}));").unwrap();
                }
                "void" => writeln!(calls, "    {name}({arguments});").unwrap(),
                "amp_config *" => writeln!(calls, "    amp_config_free({name}({arguments}));").unwrap(),
                "amp_token *" => writeln!(calls, "    amp_token_free({name}({arguments}));").unwrap(),
                _ => writeln!(calls, "    (void)!{name}({arguments});").unwrap(),
            }
        };
        call(&pointers, !pointers.is_empty());
        if !function.name.ends_with("_free") {
            for at in &pointers {
                let is_error = function.parameters[*at] == "amp_error **";
                let optional = is_error || MAY_BE_NULL.contains(&(&function.name, *at));
                call(&[*at], !optional);
            }
        }
        // What was set or made on the way must not change what the next call does.
        calls.push_str("    reset();\n");
    }
    let source = include_str!("c/null_arguments.c.in").replace("@CALLS@", &calls);
    let folder = scratch("nulls");
    std::fs::write(folder.join("nulls.c"), source).unwrap();
    compile("cc", C_FLAGS, &folder.join("nulls.c"), &folder.join("nulls"), &[]);
    let output = run(&mut program(&folder.join("nulls")));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The version is written once, in Cargo.toml.
#[test]
fn versions_agree() {
    let header = include_str!("../include/amp_token.h");
    assert!(header.contains(&format!("#define AMP_TOKEN_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))));
    let changelog = include_str!("../CHANGELOG.md");
    assert!(
        changelog.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))),
        "CHANGELOG.md has no section for this version"
    );
}
