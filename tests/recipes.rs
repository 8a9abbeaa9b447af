//! The recipes and the conformance runners of other languages against include/amp_token.json: each name that they use
//! exists, and each function that they declare has the parameters and the result that it has. scripts/test-recipes.sh
//! runs the recipes.

mod support;

use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use support::root;

#[derive(Deserialize)]
struct Interface {
    functions: Vec<Function>,
    callbacks: Vec<Named>,
    constants: Vec<Named>,
    enumerations: Vec<Enumeration>,
    opaque_types: Vec<String>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    returns: String,
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    r#type: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Enumeration {
    name: String,
    values: Vec<Named>,
}

fn interface() -> Interface {
    serde_json::from_str(&std::fs::read_to_string(root().join("include/amp_token.json")).unwrap()).unwrap()
}

/// How a value is passed: what a declaration of another language must not confuse.
fn passed_as(c_type: &str) -> &'static str {
    match c_type {
        "void" => "nothing",
        "bool" => "int or bool",
        "int32_t" | "uint32_t" => "int",
        "int64_t" => "64 bits",
        "size_t" => "size",
        kind if kind.ends_with('*') || kind.ends_with("_fn") => "pointer",
        kind if kind.starts_with("amp_") => "int", // an enumeration
        other => panic!("add {other} to tests/recipes.rs"),
    }
}

/// The same for the type of a declaration, in any of the languages.
fn declared_as(declared: &str) -> Vec<&'static str> {
    match declared.trim_end_matches(['?', '!']) {
        "void" => vec!["nothing"],
        "int" | "sint32" | "uint" => vec!["int", "int or bool"],
        "bool" | "boolean" => vec!["int or bool"],
        "long" | "long long" | "sint64" => vec!["64 bits"],
        "size_t" | "NativeLong" | "UIntPtr" => vec!["size"],
        _ => vec!["pointer"],
    }
}

/// Splits at commas, except in brackets.
fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// A C-like declaration, `TYPE NAME(TYPE …, …)`, at `name`. The parameters may have names if `named`.
fn c_like(line: &str, start: &str, named: bool) -> Option<(String, String, Vec<String>)> {
    let (_, declaration) = line.split_once(start)?;
    let (head, rest) = declaration.split_once('(')?;
    let (parameters, _) = rest.split_once(')')?;
    let name = head.rsplit([' ', '*']).next()?;
    let returns = head[..head.len() - name.len()].trim().to_owned();
    let types = list(parameters).into_iter().map(|parameter| match parameter.rsplit_once(' ') {
        Some((kind, _)) if named => kind.to_owned(),
        _ => parameter.to_owned(),
    });
    Some((name.to_owned(), returns, types.collect()))
}

/// FFI::Platypus: `['NAME', ['TYPE', …], 'TYPE']`.
fn perl(line: &str) -> Option<(String, String, Vec<String>)> {
    let (_, rest) = line.split_once("['amp_")?;
    let (name, rest) = rest.split_once("', [")?;
    let (parameters, rest) = rest.split_once(']')?;
    let unquoted = |text: &str| text.trim_matches(['\'', ' ', ']', ',', ';']).to_owned();
    Some((format!("amp_{name}"), unquoted(rest), list(parameters).into_iter().map(unquoted).collect()))
}

/// What a file declares. PHP, LuaJIT and Go read the declarations of the library.
fn declarations(path: &Path, text: &str) -> Vec<(String, String, Vec<String>)> {
    text.lines()
        .filter_map(|line| match path.extension()?.to_str()? {
            "rb" => c_like(line, "extern '", false),
            "java" => c_like(line, "static native ", true),
            "cs" => c_like(line, "static extern ", true),
            "pm" | "pl" => perl(line),
            _ => None,
        })
        .collect()
}

/// What a file has in common with the interface and does not agree with.
fn problems(path: &Path, text: &str, interface: &Interface) -> Vec<String> {
    let mut found = Vec::new();
    let functions: HashMap<_, _> =
        interface.functions.iter().map(|function| (function.name.as_str(), function)).collect();
    let values = interface.enumerations.iter().flat_map(|list| &list.values).chain(&interface.constants);
    let types = interface.enumerations.iter().map(|list| &list.name).chain(&interface.opaque_types);
    let mut known: HashSet<&str> = functions.keys().copied().collect();
    known.extend(values.chain(&interface.callbacks).map(|value| value.name.as_str()));
    known.extend(types.map(String::as_str));
    // Names of files and variables, and the scope that a preloaded header has in PHP.
    known.extend(["amp_token", "AMP_TOKEN_I", "AMP_TOKEN"]);
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if (word.starts_with("amp_") || word.starts_with("AMP_")) && !known.contains(word) {
            found.push(format!("{}: {word} is not in the interface", path.display()));
        }
    }
    for (name, returns, parameters) in declarations(path, text) {
        let Some(function) = functions.get(name.as_str()) else { continue };
        let expected: Vec<_> =
            std::iter::once(&function.returns).chain(function.parameters.iter().map(|one| &one.r#type)).collect();
        let declared: Vec<_> = std::iter::once(&returns).chain(&parameters).collect();
        let agrees = expected.len() == declared.len()
            && expected.iter().zip(&declared).all(|(c, other)| declared_as(other).contains(&passed_as(c)));
        if !agrees {
            found.push(format!("{}: {name} is declared as {declared:?}, not {expected:?}", path.display()));
        }
    }
    found
}

/// The sources of the recipes, and of the conformance runners in their languages.
fn sources() -> Vec<PathBuf> {
    let mut directories = vec![root().join("bindings/recipes"), root().join("tests/conformance/runners")];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_source = path
                .extension()
                .is_some_and(|ending| "rb pm pl php lua go java cs".split(' ').any(|one| ending == one));
            if path.is_dir() {
                directories.push(path);
            } else if is_source {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn recipes_agree_with_the_interface() {
    let interface = interface();
    let (mut found, mut declared) = (Vec::new(), 0);
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        declared += declarations(&path, &text).len();
        found.extend(problems(path.strip_prefix(root()).unwrap(), &text, &interface));
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(declared > 50, "only {declared} declarations were found");
}

#[test]
fn wrong_declarations_are_found() {
    let interface = interface();
    for (file, right, wrong) in [
        ("a.rb", "extern 'char *amp_status_name(int)'", "extern 'char *amp_status_names(int)'"),
        ("a.rb", "extern 'char *amp_status_name(int)'", "extern 'char *amp_status_name(long long)'"),
        ("a.rb", "extern 'void *amp_config_new()'", "extern 'int amp_config_new()'"),
        (
            "a.java",
            "static native int amp_config_load(Pointer c, Pointer e);",
            "static native int amp_config_load(Pointer c);",
        ),
        (
            "a.cs",
            "static extern long amp_token_expires_in(IntPtr t);",
            "static extern int amp_token_expires_in(IntPtr t);",
        ),
        ("a.pl", "['amp_token_length', ['opaque'], 'size_t'],", "['amp_token_length', ['opaque'], 'int'],"),
        ("a.lua", "if status == C.AMP_OK then", "if status == C.AMP_OKAY then"),
    ] {
        assert_eq!(problems(Path::new(file), right, &interface), Vec::<String>::new());
        assert_eq!(problems(Path::new(file), wrong, &interface).len(), 1, "{wrong}");
    }
}
