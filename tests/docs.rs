//! What is written in several places is the same in all of them.

use amp_token::config::settings::SETTINGS;

/// The rows of the README's table, as the table of settings has them.
fn rows() -> String {
    SETTINGS
        .iter()
        .map(|setting| {
            let default = match setting.default {
                "" => setting.default_description.to_owned(),
                value => format!("`{value}`"),
            };
            format!("| `{}` | {default} | {} |\n", setting.name, setting.description)
        })
        .collect()
}

/// AMP_UPDATE_README=1 rewrites the table.
#[test]
fn the_readme_has_the_table_of_settings() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (before, rest) = readme.split_once("| --- | --- | --- |\n").unwrap();
    let (kept, after) = rest.split_once("<!-- end of settings -->").unwrap();
    if std::env::var_os("AMP_UPDATE_README").is_some() {
        std::fs::write(path, format!("{before}| --- | --- | --- |\n{}<!-- end of settings -->{after}", rows()))
            .unwrap();
        return;
    }
    assert_eq!(kept, rows(), "AMP_UPDATE_README=1 cargo test --test docs");
}

#[test]
fn the_header_names_every_statistic() {
    let header = include_str!("../include/amp_token.h");
    for (name, _) in amp_token::token::cache::STATISTICS {
        assert!(header.contains(&format!("\"{name}\"")), "{name}");
    }
}

/// A function that the fuzzer never calls is one that nobody has tried in odd orders.
#[test]
fn the_fuzzer_calls_every_function() {
    let target = include_str!("../fuzz/fuzz_targets/c_abi.rs");
    // After what declares them.
    let (_, calls) = target.split_once("\n}\n").unwrap();
    for name in include_str!("exports.txt").lines() {
        assert!(calls.contains(&format!("{name}(")), "fuzz/fuzz_targets/c_abi.rs does not call {name}");
    }
}

/// Each `test` that a table of these pages names exists: a function, a module and a function, a file, or
/// something to make.
#[test]
fn tests_that_are_named_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("bindings/python/tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension().and_then(|ending| ending.to_str()) {
                None if entry.is_dir() => folders.push(entry),
                Some("rs" | "py" | "c") => sources.push_str(&std::fs::read_to_string(&entry).unwrap()),
                _ => {}
            }
        }
    }
    let makefile = include_str!("../Makefile");
    let mut missing = Vec::new();
    for (page, heading) in [("SECURITY.md", "| promise | test |"), ("docs/bug-log.md", "| test that keeps it fixed |")]
    {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let (_, table) = text.split_once(heading).unwrap();
        for row in table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|')) {
            let cell = row.trim_end_matches([' ', '|']).rsplit_once(" | ").unwrap().1;
            for name in cell.split('`').skip(1).step_by(2) {
                let is_file = name.contains('/') && root.join(name).exists();
                let function = name.rsplit("::").next().unwrap();
                let is_function =
                    ["fn ", "def ", "static void "].iter().any(|word| sources.contains(&format!("{word}{function}(")));
                let is_target =
                    name.strip_prefix("make ").is_some_and(|target| makefile.contains(&format!("\n{target}:")));
                if !is_file && !is_function && !is_target {
                    missing.push(format!("{page}: {name}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "named, but not there: {missing:?}");
}
