//! What is written in several places is the same in all of them.

use amp_token::settings::SETTINGS;

/// The rows of the README's table, as the table of settings has them.
fn rows() -> String {
    SETTINGS
        .iter()
        .map(|setting| {
            let default = match setting.default {
                "" => setting.default_words.to_owned(),
                value => format!("`{value}`"),
            };
            format!("| `{}` | {default} | {} |\n", setting.name, setting.meaning)
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
    assert_eq!(kept, rows(), "AMP_UPDATE_README=1 cargo test --test documents");
}

#[test]
fn the_header_names_every_statistic() {
    let header = include_str!("../include/amp_token.h");
    for (name, _) in amp_token::cache::STATISTICS {
        assert!(header.contains(&format!("\"{name}\"")), "{name}");
    }
}
