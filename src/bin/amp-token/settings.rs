//! `amp-token config`: the settings in force and where each is from, or the table of all there are.

use crate::context::{Context, unread_variables};
use crate::exit::Outcome;
use crate::output;
use amp_token::config::settings::{SETTINGS, Setting, display_value};
use amp_token::sanitize::printable;
use clap::ArgMatches;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// See the module's documentation.
pub fn run(session: &Context, arguments: &ArgMatches) -> Outcome<()> {
    for line in unread_variables() {
        session.config.log.warning(|| line);
    }
    let text = if arguments.get_flag("markdown") {
        markdown()
    } else if arguments.get_flag("json") {
        output::json(&machine(session))
    } else {
        human(session)
    };
    output::answer(&text)
}

/// The value in force, as it may be shown; empty: there is none.
fn value<'a>(session: &'a Context, setting: &Setting) -> Cow<'a, str> {
    match session.config.text(setting.name) {
        Some(text) => display_value(setting, text),
        None => setting.default.into(),
    }
}

fn machine(session: &Context) -> Value {
    let entry = |setting: &Setting| {
        let value = Some(value(session, setting)).filter(|value| !value.is_empty());
        (setting.name.to_owned(), json!({ "value": value, "from": session.origin(setting) }))
    };
    Value::Object(SETTINGS.iter().map(entry).collect::<Map<_, _>>())
}

fn human(session: &Context) -> String {
    let rows: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let value = match value(session, setting) {
                value if value.is_empty() => format!("({})", setting.default_description),
                value => printable(&value),
            };
            (setting.name, value, session.origin(setting))
        })
        .collect();
    let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (first, second) = (width(|row| row.0.len()), width(|row| row.1.chars().count()));
    rows.iter().map(|(name, value, origin)| format!("{name:<first$}  {value:<second$}  {origin}\n")).collect()
}

/// The table of docs/configuration.md.
fn markdown() -> String {
    let row = |setting: &Setting| {
        let variables: Vec<_> = setting.environment.iter().map(|variable| format!("`{variable}`")).collect();
        let default = match setting.default {
            "" => setting.default_description.to_owned(),
            default => format!("`{default}`"),
        };
        format!("| `{}` | {default} | {} | {} |\n", setting.name, variables.join(", "), setting.description)
    };
    let head = "| setting | default | environment variable | meaning |\n| --- | --- | --- | --- |\n";
    SETTINGS.iter().map(row).fold(head.to_owned(), |table, row| table + &row)
}
