//! The header: it matches the source, compiles without warnings as C and C++, and is complete as a manual;
//! every function that it declares accepts NULL for every pointer.

mod support;

use amp_token::config::settings::{SETTINGS, ValueType};
use amp_token::token::cache::STATISTICS;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::Command;
use std::sync::LazyLock;
use support::{
    C_FLAGS, CPP_FLAGS, compile, header, library_dir, program, prototypes, require_tool, root, run, scratch,
};

/// AMP_UPDATE_HEADER=1 rewrites the files under include/, which users get. No build generates them.
fn assert_current(name: &str, made: &str) {
    let path = root().join("include").join(name);
    if std::env::var_os("AMP_UPDATE_HEADER").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == kept, "include/{name} is out of date: run make header");
}

fn generate(config: cbindgen::Config) -> String {
    let mut text = Vec::new();
    cbindgen::Builder::new().with_crate(root()).with_config(config).generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

fn cbindgen_config() -> cbindgen::Config {
    cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap()
}

/// include/amp_token.h.
static HEADER: LazyLock<String> = LazyLock::new(|| {
    let mut config = cbindgen_config();
    let version = format!(
        "\n/* The version of this header; amp_version() returns that of the library. */\n\
         #define AMP_TOKEN_VERSION \"{}\"\n\
         #define AMP_TOKEN_VERSION_MAJOR {}\n#define AMP_TOKEN_VERSION_MINOR {}\n#define AMP_TOKEN_VERSION_PATCH {}\n\
         \n/* The version of the binary interface that this header describes;\n\
         \x20* amp_abi_version() returns that of the library. */\n\
         #define AMP_TOKEN_ABI_VERSION 0\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH")
    );
    config.after_includes = Some(config.after_includes.unwrap_or_default() + &version);
    config.header = config.header.map(|text| text.trim().to_owned());
    generate(config)
});

#[test]
fn the_header_matches_the_source() {
    assert_current("amp_token.h", &HEADER);
}

/// include/amp_token.i: the header without comments and directives, each function on one line. For the parsers of
/// cffi, PHP's FFI and LuaJIT, which know `bool` and the fixed-width integers and have no preprocessor.
static DECLARATIONS: LazyLock<String> = LazyLock::new(|| {
    let mut config = cbindgen_config();
    config.header = None;
    config.after_includes = None;
    config.include_guard = None;
    config.sys_includes.clear();
    config.cpp_compat = false;
    config.documentation = false;
    config.line_length = 10_000;
    config.function.prefix = None;
    config.function.must_use = None;
    generate(config)
});

/// A parser without a preprocessor reads what a compiler reads.
#[test]
fn the_declarations_are_the_preprocessed_header() {
    assert_current("amp_token.i", &DECLARATIONS);
    if !require_tool("cc") {
        return;
    }
    let preprocessed = run(Command::new("cc")
        .args(["-E", "-P", "-DAMP_MUST_USE=", "-DAMP_API=", "-Dbool=bool"])
        .arg(root().join("include/amp_token.h")));
    let preprocessed = String::from_utf8(preprocessed.stdout).unwrap().replace("_Bool", "bool");
    // After what the system's headers declare.
    let own = &preprocessed[preprocessed.find("AMP_OK").unwrap()..];
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(own), words(&DECLARATIONS[DECLARATIONS.find("AMP_OK").unwrap()..]));
}

/// A declaration such as `int32_t f(const char *name)`, or that of a callback, as JSON.
fn described(declaration: &str) -> Value {
    let parts = |declaration: &str| {
        let split = declaration.rfind([' ', '*']).unwrap() + 1;
        (declaration[..split].trim().to_owned(), declaration[split..].to_owned())
    };
    let (head, parameters) = declaration.strip_suffix(");").unwrap().rsplit_once('(').unwrap();
    let (returns, name) = match head.split_once("(*") {
        Some((returns, name)) => (returns.trim().to_owned(), name.trim_end_matches(')').to_owned()),
        None => parts(head),
    };
    let parameters = parameters.split(", ").filter(|parameter| *parameter != "void").map(parts);
    let parameters: Vec<_> = parameters.map(|(kind, name)| json!({"name": name, "type": kind})).collect();
    json!({"name": name, "parameters": parameters, "returns": returns})
}

/// include/amp_token.json: what amp_token.i declares and the tables of the library, for programs that make bindings
/// or check them. Each entry is on a line of its own.
fn description() -> String {
    let (mut functions, mut callbacks, mut opaque_types) = (Vec::new(), Vec::new(), Vec::new());
    let (mut enumerations, mut values) = (Vec::new(), Vec::new());
    for line in DECLARATIONS.lines().filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.trim_end_matches(',').split_once(" = ") {
            values.push(json!({"name": name.trim(), "value": value.parse::<i32>().unwrap()}));
        } else if let Some(name) = line.strip_prefix("} ") {
            let values = std::mem::take(&mut values);
            enumerations.push(json!({"name": name.trim_end_matches(';'), "values": values}));
        } else if let Some(callback) = line.strip_prefix("typedef ").filter(|line| line.contains("(*")) {
            callbacks.push(described(callback));
        } else if let Some(name) = line.strip_prefix("typedef struct ") {
            opaque_types.push(json!(name.split_once(' ').unwrap().0));
        } else if line != "typedef enum {" {
            functions.push(described(line));
        }
    }
    let constants = HEADER.lines().filter_map(|line| line.strip_prefix("#define AMP_TOKEN_")?.split_once(' '));
    let constants = constants.map(|(name, value)| {
        json!({"name": format!("AMP_TOKEN_{name}"), "value": serde_json::from_str::<Value>(value).unwrap()})
    });
    let settings = SETTINGS.iter().map(|setting| {
        json!({
            "name": setting.name,
            "type": type_name(setting.value_type),
            "default": (!setting.default.is_empty()).then_some(setting.default),
            "default_description": setting.default_description,
            "secret": setting.value_type.is_secret(),
            "environment": setting.environment,
            "meaning": setting.description,
        })
    });
    let statistics = STATISTICS.iter().map(|(name, meaning)| json!({"name": name, "meaning": meaning}));
    let members: Vec<_> = [
        ("callbacks", callbacks),
        ("constants", constants.collect()),
        ("enumerations", enumerations),
        ("functions", functions),
        ("opaque_types", opaque_types),
        ("settings", settings.collect()),
        ("statistics", statistics.collect()),
    ]
    .iter()
    .map(|(name, entries)| {
        let lines: Vec<_> = entries.iter().map(|entry| format!("    {entry}")).collect();
        format!("  \"{name}\": [\n{}\n  ]", lines.join(",\n"))
    })
    .collect();
    format!("{{\n{}\n}}\n", members.join(",\n"))
}

/// What a binding makes of a setting's value.
fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Text | ValueType::Secret | ValueType::Store | ValueType::LogLevel => "string",
        ValueType::Path => "path",
        ValueType::Command => "command",
        ValueType::Url | ValueType::Proxy => "url",
        ValueType::Milliseconds(..) | ValueType::Count(_) => "integer",
        ValueType::Flag => "boolean",
    }
}

#[test]
fn the_description_matches_the_source() {
    let made = description();
    assert_current("amp_token.json", &made);
    // Nothing was lost on the way from the header.
    let names: Vec<_> = prototypes(&HEADER).into_iter().map(|function| function.name).collect();
    let description: Value = serde_json::from_str(&made).unwrap();
    let functions = description["functions"].as_array().unwrap();
    let described: Vec<_> = functions.iter().map(|function| function["name"].as_str().unwrap()).collect();
    assert_eq!(described, names);
}

#[test]
fn the_header_compiles_alone_and_twice_as_c_and_cpp() {
    if !require_tool("cc") || !require_tool("c++") {
        return;
    }
    let directory = scratch("header");
    let source = "#include \"amp_token.h\"\n#include \"amp_token.h\"\nint main(void) { return 0; }\n";
    for (file, compiler, flags, standards) in [
        ("alone.c", "cc", C_FLAGS, &["c99", "c11", "c17"][..]),
        ("alone.cpp", "c++", CPP_FLAGS, &["c++11", "c++14", "c++17", "c++20", "c++23"]),
    ] {
        let path = directory.join(file);
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
    if !require_tool("nm") {
        return;
    }
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
    // A release is compared with this list, in which lines are only added.
    let kept: Vec<_> = include_str!("exports.txt").lines().collect();
    assert_eq!(kept, declared, "tests/exports.txt differs: removing or renaming a function breaks programs");
}

/// A type of the library's own that cbindgen meets must not end up in the header.
#[test]
fn every_type_in_the_header_has_the_prefix() {
    let header = header();
    let types: Vec<_> = header
        .lines()
        .filter_map(|line| match line.strip_prefix("typedef ") {
            Some(callback) if callback.contains("(*") => callback.split("(*").nth(1)?.split(')').next(),
            Some(alias) => alias.strip_suffix(';')?.rsplit(' ').next(),
            None => line.strip_prefix("} ")?.strip_suffix(';'),
        })
        .collect();
    assert_eq!(types.len(), 14, "{types:?}");
    assert!(types.iter().all(|name| name.starts_with("amp_")), "{types:?}");
}

/// The lines at the end of a function's comment: what a caller must know before the call, in this order.
const FOOTER: &[&str] = &["Threads", "NULL", "Ownership", "Blocks", "Errors", "Example"];

/// A comment without its stars, line by line.
fn comment_lines(comment: &str) -> Vec<&str> {
    let text = comment.trim().trim_start_matches("/**").trim_start_matches("/*").trim_end_matches("*/");
    text.lines()
        .map(|line| line.trim_start().trim_start_matches('*'))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect()
}

/// The footer of a function's comment: the name of each entry and its text.
fn footer(comment: &str) -> Vec<(&'static str, String)> {
    let mut entries: Vec<(&str, String)> = Vec::new();
    for line in comment_lines(comment) {
        let entry = FOOTER.iter().find_map(|name| Some((*name, line.strip_prefix(name)?.strip_prefix(": ")?)));
        match (entry, entries.last_mut()) {
            (Some((name, text)), _) => entries.push((name, text.to_owned())),
            (None, Some((_, text))) => *text += &format!(" {}", line.trim()),
            (None, None) => {}
        }
    }
    entries
}

/// The names in a text that start with this prefix.
fn names<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(move |word| word.starts_with(prefix))
}

/// What is missing in the footers of a header's functions. A function's signature says which entries it
/// needs, and what they must name.
fn footer_problems(header: &str) -> Vec<String> {
    let functions = prototypes(header);
    let exists = |name: &str| functions.iter().any(|function| function.name == name);
    let mut problems = Vec::new();
    for function in &functions {
        let mut problem = |text: String| problems.push(format!("{}: {text}", function.name));
        let entries = footer(&function.comment);
        let entry = |name: &str| entries.iter().find(|(have, _)| *have == name).map(|(_, text)| text.as_str());
        let order = entries.iter().map(|(name, _)| FOOTER.iter().position(|known| known == name));
        if !order.is_sorted_by(|one, next| one < next) {
            problem(format!("the entries are not in the order {FOOTER:?}, once each"));
        }
        if entry("Threads").is_none() {
            problem("no Threads".to_owned());
        }
        let is_pointer = |kind: &str| kind.ends_with('*') || kind.ends_with("_fn");
        let parameters = function.parameters.iter().zip(&function.names);
        let pointers: Vec<_> =
            parameters.clone().filter(|(kind, _)| is_pointer(kind) && *kind != "amp_error **").collect();
        let null = entry("NULL").unwrap_or_default();
        if null.is_empty() && (!pointers.is_empty() || is_pointer(&function.returns)) {
            problem("no NULL".to_owned());
        }
        for (_, name) in &pointers {
            if !null.contains(&format!("`{name}`")) {
                problem(format!("NULL does not say what a NULL `{name}` means"));
            }
        }
        let ownership = entry("Ownership").unwrap_or_default();
        let handles = parameters.filter(|(kind, _)| kind.ends_with("**") && *kind != "amp_error **");
        for (kind, name) in handles {
            let free = format!("{}_free()", kind.trim_end_matches([' ', '*']));
            if !ownership.contains(&format!("free `*{name}` with {free}")) {
                problem(format!("Ownership does not say \"free `*{name}` with {free}\""));
            }
        }
        match function.returns.strip_suffix('*').map(str::trim) {
            Some(pointed) if pointed.starts_with("const ") => {
                let lender = pointers.iter().any(|(_, name)| ownership.contains(&format!("borrowed from `{name}`")));
                if !lender && !ownership.contains("static") {
                    problem("Ownership does not say what the result is borrowed from, or that it is static".to_owned());
                }
            }
            Some(handle) if !ownership.contains(&format!("free it with {handle}_free()")) => {
                problem(format!("Ownership does not say \"free it with {handle}_free()\""));
            }
            _ => {}
        }
        // amp_error_status returns the status of another call.
        if function.returns == "amp_status" && function.name != "amp_error_status" {
            let errors = entry("Errors").unwrap_or_default();
            if names(errors, "AMP_").next().is_none() && names(errors, "amp_").next().is_none() {
                problem("Errors names neither a status nor a function that has them".to_owned());
            }
        }
        let comment = comment_lines(&function.comment).join("\n");
        for called in names(&comment, "amp_").filter(|name| comment.contains(&format!("{name}()")) && !exists(name)) {
            problem(format!("there is no function {called}"));
        }
        for status in names(&comment, "AMP_").filter(|name| !header.contains(&format!("    {name} = "))) {
            if !header.contains(&format!("#define {status} ")) && status != "AMP_UNKNOWN" {
                problem(format!("there is no status {status}"));
            }
        }
    }
    problems
}

#[test]
fn every_function_has_the_footer_that_its_signature_needs() {
    assert_eq!(footer_problems(&header()), [] as [String; 0]);
}

#[test]
fn a_missing_footer_is_found() {
    let comment =
        "\n/**\n * Returns a token.\n *\n * NULL: never.\n * Threads: any.\n * Errors: those of another call.\n */\n";
    let declaration = "AMP_API amp_status amp_x(const amp_config *config, amp_token **token, amp_error **error);\n";
    let problems = footer_problems(&format!("{comment}{declaration}"));
    let found = |text: &str| problems.iter().any(|problem| problem.contains(text));
    assert!(found("order") && found("NULL `config`") && found("NULL `token`"), "{problems:?}");
    assert!(found("amp_token_free()") && found("Errors names") && problems.len() == 5, "{problems:?}");
    let declaration = "AMP_API const char *amp_y(const amp_token *token);\n";
    let comment = "\n/**\n * Like amp_none(): see AMP_NONE.\n */\n";
    let problems = footer_problems(&format!("{comment}{declaration}"));
    let found = |text: &str| problems.iter().any(|problem| problem.contains(text));
    assert!(found("no Threads") && found("no NULL") && found("`token`") && found("borrowed from"), "{problems:?}");
    assert!(found("no function amp_none") && found("no status AMP_NONE") && problems.len() == 6, "{problems:?}");
}

/// The code in a comment: what is indented by four spaces or more, unless it continues an entry of a list,
/// whose first line is indented by two.
fn code_blocks(comment: &str) -> Vec<String> {
    let (mut blocks, mut in_code, mut in_list) = (Vec::<String>::new(), false, false);
    for line in comment_lines(comment) {
        let indent = line.len() - line.trim_start().len();
        if line.is_empty() {
            if in_code && let Some(block) = blocks.last_mut() {
                block.push('\n');
            }
            continue;
        }
        in_list = indent == 2 || (in_list && indent > 2);
        let is_code = indent >= 4 && !in_list;
        if is_code && !in_code {
            blocks.push(String::new());
        }
        in_code = is_code;
        if is_code && let Some(block) = blocks.last_mut() {
            *block += &format!("{}\n", &line[4..]);
        }
    }
    blocks
}

/// A block of code is a whole program, or whole functions.
#[test]
fn the_code_in_the_header_compiles_without_warnings() {
    let header = header();
    let (top, _) = header.split_once("*/").unwrap();
    let comments = [top.to_owned()].into_iter().chain(prototypes(&header).into_iter().map(|function| function.comment));
    let blocks: Vec<_> = comments.flat_map(|comment| code_blocks(&comment)).collect();
    assert_eq!(blocks.len(), 6, "{blocks:?}");
    let directory = scratch("header_code");
    for (index, block) in blocks.iter().enumerate() {
        let path = directory.join(format!("{index}.c"));
        std::fs::write(&path, format!("#include <amp_token.h>\n#include <stdio.h>\n#include <string.h>\n{block}"))
            .unwrap();
        run(Command::new("cc")
            .args(C_FLAGS)
            .args(["-O2", "-c", "-o"])
            .arg(directory.join("object.o"))
            .arg("-I")
            .arg(root().join("include"))
            .arg(&path));
    }
    // The first one is the program that a reader copies: it runs, and reports a failure.
    compile("cc", C_FLAGS, &directory.join("0.c"), &directory.join("first"), &[]);
    let output = program(&directory.join("first")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{stderr}");
    assert!(stderr.starts_with("AMP_NO_CREDENTIALS: "), "{stderr}");
}

#[test]
fn the_header_lists_every_setting() {
    let header = header();
    let (_, list) = header.split_once("\n * Settings\n").unwrap();
    let (list, _) = list.split_once("*/").unwrap();
    let rows = comment_lines(list).into_iter().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let listed: Vec<_> = rows.map(|row| row.trim().split_once("  ").expect("a name and its meaning").0).collect();
    let settings: Vec<_> = amp_token::config::settings::SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(listed, settings, "the list of settings in cbindgen.toml");
}

/// A valid argument for a parameter of that type.
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
        "const char *const *" => "strings",
        "const void *" => "\"x\"",
        "void *" => "&anything",
        "char *" => "buffer",
        "size_t *" => "&length",
        "int32_t *" => "&level",
        "size_t" => "sizeof buffer",
        "int32_t" | "int64_t" => "0",
        "amp_log_fn" => "on_log",
        "amp_observer_fn" => "on_event",
        "amp_transport_fn" => "on_request",
        "amp_write_fn" => "on_piece",
        // Only the library creates these, and only during a callback: see tests/c/fake_server.h.
        "const amp_http_request *" | "amp_http_reply *" => "NULL",
        other => panic!("add a valid argument of type {other} to tests/header.rs"),
    }
}

/// Parameters that may be NULL, by function and position, and what NULL means.
const MAY_BE_NULL: &[(&str, usize)] = &[
    ("amp_config_set", 2),          // unsets the setting
    ("amp_config_set_logger", 1),   // disables logging
    ("amp_config_set_logger", 2),   // user data is anything
    ("amp_config_set_observer", 1), // removes the observer
    ("amp_config_set_observer", 2),
    ("amp_config_set_transport", 1), // restores the built-in client
    ("amp_config_set_transport", 2),
    ("amp_token_cache_copy", 3), // no length is returned
    ("amp_api_graphql", 2),      // no variables
    ("amp_api_download", 3),     // user data is anything
    ("amp_api_send", 3),         // no headers, and so no body
];

/// Calls every function with NULL for all pointers at once, and for each alone with the others valid. NULL
/// for a required argument is AMP_INVALID_ARGUMENT with a message that names it. Nothing crashes.
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
        // The effects of one call must not change the next.
        calls.push_str("    reset();\n");
    }
    let source = include_str!("c/null_arguments.c.in").replace("@CALLS@", &calls);
    let directory = scratch("nulls");
    std::fs::write(directory.join("nulls.c"), source).unwrap();
    compile("cc", C_FLAGS, &directory.join("nulls.c"), &directory.join("nulls"), &[]);
    let output = run(&mut program(&directory.join("nulls")));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The version is written once, in Cargo.toml.
#[test]
fn versions_agree() {
    let header = include_str!("../include/amp_token.h");
    assert!(header.contains(&format!("#define AMP_TOKEN_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))));
    let package: Value = serde_json::from_str(include_str!("../bindings/node/package.json")).unwrap();
    let lock: Value = serde_json::from_str(include_str!("../bindings/node/package-lock.json")).unwrap();
    assert_eq!((&package["version"], &lock["version"]), (&json!(env!("CARGO_PKG_VERSION")), &package["version"]));
    let changelog = include_str!("../CHANGELOG.md");
    assert!(
        changelog.contains(&format!("## {}", env!("CARGO_PKG_VERSION"))),
        "CHANGELOG.md has no section for this version"
    );
}
