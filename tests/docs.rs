//! Facts that several files state are the same in all of them, and the pages are complete and link to each other.

use amp_token::config::settings::SETTINGS;
use amp_token::config::sources::{SOURCES, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rows of the table in docs/configuration.md, as the table of settings has them.
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

/// AMP_UPDATE_DOCS=1 rewrites the table.
#[test]
fn the_documentation_has_the_table_of_settings() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("| name | default | meaning |\n| --- | --- | --- |\n").unwrap();
    let (kept, after) = rest.split_once("<!-- end of settings -->").unwrap();
    if std::env::var_os("AMP_UPDATE_DOCS").is_some() {
        let head = "| name | default | meaning |\n| --- | --- | --- |\n";
        std::fs::write(path, format!("{before}{head}{}<!-- end of settings -->{after}", rows())).unwrap();
        return;
    }
    assert_eq!(kept, rows(), "AMP_UPDATE_DOCS=1 cargo test --test docs");
}

/// AMP_UPDATE_DOCS=1 rewrites the tables.
#[test]
fn the_documentation_has_the_order_of_sources() {
    const HEAD: &str = "| | source | what is read |\n| --- | --- | --- |\n";
    const END: &str = "<!-- end of sources -->";
    let row =
        |(number, source): (usize, &Source)| format!("| {} | {} | {} |\n", number + 1, source.name, source.description);
    let table: String = SOURCES.iter().enumerate().map(row).collect();
    for page in ["README.md", "docs/configuration.md", "docs/credentials.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(HEAD).unwrap();
        let (kept, after) = rest.split_once(END).unwrap();
        if std::env::var_os("AMP_UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{HEAD}{table}{END}{after}")).unwrap();
        } else {
            assert_eq!(kept, table, "{page}: AMP_UPDATE_DOCS=1 cargo test --test docs");
        }
    }
}

#[test]
fn the_header_names_every_statistic() {
    let header = include_str!("../include/amp_token.h");
    for (name, _) in amp_token::token::cache::STATISTICS {
        assert!(header.contains(&format!("\"{name}\"")), "{name}");
    }
}

/// A function that the fuzzer does not call has never been called in an unusual order.
#[test]
fn the_fuzzer_calls_every_function() {
    let target = include_str!("../fuzz/fuzz_targets/c_abi.rs");
    // After what declares them.
    let (_, calls) = target.split_once("\n}\n").unwrap();
    for name in include_str!("exports.txt").lines() {
        assert!(calls.contains(&format!("{name}(")), "fuzz/fuzz_targets/c_abi.rs does not call {name}");
    }
}

/// Each `test` that a table of these pages names exists: a function, a module and a function, a file, or a target of
/// the Makefile.
#[test]
fn tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut directories = vec![root.join("src"), root.join("tests"), root.join("bindings/python/tests")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension().and_then(|ending| ending.to_str()) {
                None if entry.is_dir() => directories.push(entry),
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
    assert!(missing.is_empty(), "named, but does not exist: {missing:?}");
}

/// The name, version and features of each dependency that a package always has, but on Windows.
fn dependencies(metadata: &serde_json::Value, package: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|one| one["name"] == package).unwrap();
    let mut found = BTreeMap::new();
    for one in package["dependencies"].as_array().unwrap() {
        let has = |name: &str, text: &str| one[name].as_str().is_some_and(|value| value.contains(text));
        if !one["kind"].is_null() || one["optional"] == true || has("target", "windows") || has("target", "shuttle") {
            continue;
        }
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let (_, features) = found.entry(text(&one["name"])).or_insert_with(|| (text(&one["req"]), BTreeSet::default()));
        features.extend(one["features"].as_array().unwrap().iter().map(text));
    }
    found
}

/// It compiles the library's source as a package of its own. Built beside the library, it gets the features that the
/// library asks for, and only `cargo run -p simulator` shows one that is missing.
#[test]
fn the_simulator_has_the_dependencies_of_the_library() {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let simulator = dependencies(&metadata, "simulator");
    for (name, (version, features)) in dependencies(&metadata, "amp_token") {
        let (their_version, their_features) = simulator.get(&name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(*their_version, version, "{name}");
        let missing: Vec<_> = features.difference(their_features).collect();
        assert!(missing.is_empty(), "{name} lacks the features {missing:?}");
    }
}

/// The pages that link to each other: those at the top, and those under docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].iter().map(|page| root.join(page)).collect();
    for directory in ["docs", "docs/bench"] {
        let entries = std::fs::read_dir(root.join(directory)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    pages.push(root.join("bindings/recipes/README.md"));
    let recipes = std::fs::read_dir(root.join("bindings/recipes")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(recipes.filter(|path| path.is_dir()).map(|path| path.join("README.md")));
    pages
}

/// The anchors of a page's headings, as forges and MkDocs make them: lower case, words joined by hyphens.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// Each relative link of a page leads to a file of the repository, and its anchor to a heading.
fn broken_links(path: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        // In a line of prose every other piece between backquotes is code.
        let pieces = line.split('`').enumerate().map(|(index, piece)| if index % 2 == 0 { piece } else { "code" });
        let prose = pieces.collect::<String>();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if in_code || link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.to_owned() } else { path.parent().unwrap().join(file) };
            let has_anchor = || {
                let page = if file.is_empty() { text.to_owned() } else { std::fs::read_to_string(&target).unwrap() };
                anchors(&page).iter().any(|heading| heading == anchor)
            };
            if !target.exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    broken
}

#[test]
fn links_between_pages_lead_somewhere() {
    let broken: Vec<_> =
        pages().iter().flat_map(|path| broken_links(path, &std::fs::read_to_string(path).unwrap())).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // The check finds a file and an anchor that do not exist, and nothing in code.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text =
        "# A heading\n[a](#a-heading) [b](LICENSE-MIT) `[c](none.md)` [d](none.md) [e](#none) [f](https://a.b/)\n";
    let found = broken_links(&page, text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("none.md") && found[1].ends_with("#none"), "{found:?}");
}

/// docs/README.md is the index: it links to every page under docs/.
#[test]
fn the_index_links_to_every_page() {
    let index = include_str!("../docs/README.md");
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        let in_docs = page.parent().is_some_and(|parent| parent.ends_with("docs"));
        assert!(
            !in_docs || name == "README.md" || index.contains(&format!("]({name})")),
            "docs/README.md lacks {name}"
        );
    }
}

/// docs/troubleshooting.md has a section for each status that a call can fail with.
#[test]
fn every_status_is_explained() {
    let page = include_str!("../docs/troubleshooting.md");
    let header = include_str!("../include/amp_token.h");
    let (_, statuses) = header.split_once("AMP_OK = 0,").unwrap();
    let (statuses, _) = statuses.split_once("} amp_status;").unwrap();
    let names: Vec<_> =
        statuses.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(name, _)| name).collect();
    assert_eq!(names.len(), 16);
    for name in names {
        assert!(page.contains(&format!("\n## {name}\n")), "docs/troubleshooting.md has no section {name}");
    }
}
