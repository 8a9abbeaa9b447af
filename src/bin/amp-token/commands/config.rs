//! `amp-token config`: the settings and where each value comes from, or a table of all settings.

use crate::context::{Context, misspelled_variables};
use crate::exit::CliResult;
use crate::output;
use amp_token::config::settings::{SETTINGS, Setting, display_value};
use amp_token::config::sources::{SOURCES, Source};
use amp_token::sanitize::printable;
use clap::ArgMatches;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// `amp-token config`
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<()> {
    for line in misspelled_variables() {
        context.log().warning(|| line);
    }
    context.config.unused().iter().for_each(|line| context.log().warning(|| line));
    let text = if arguments.get_flag("markdown") {
        to_markdown()
    } else if arguments.get_flag("json") {
        output::json(&to_json(context))
    } else {
        to_table(context)
    };
    output::answer(&text)
}

/// The value of a setting, without secrets. It is empty if there is none.
fn value<'a>(context: &'a Context, setting: &Setting) -> Cow<'a, str> {
    match context.config.text(setting.name) {
        Some(text) => display_value(setting, text),
        None => setting.default.into(),
    }
}

fn to_json(context: &Context) -> Value {
    let entry = |setting: &Setting| {
        let value = Some(value(context, setting)).filter(|value| !value.is_empty());
        (setting.name.to_owned(), json!({ "value": value, "from": context.origin(setting) }))
    };
    Value::Object(SETTINGS.iter().map(entry).collect::<Map<_, _>>())
}

fn to_table(context: &Context) -> String {
    let rows: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let value = match value(context, setting) {
                value if value.is_empty() => format!("({})", setting.default_description),
                value => printable(&value),
            };
            (setting.name, value, context.origin(setting))
        })
        .collect();
    let width = |column: fn(&(&str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (first, second) = (width(|row| row.0.len()), width(|row| row.1.chars().count()));
    let settings = rows.iter().map(|(name, value, origin)| format!("{name:<first$}  {value:<second$}  {origin}\n"));
    settings.collect::<String>() + &sources()
}

/// The order of the sources of credentials.
fn sources() -> String {
    let head =
        "\nCredentials are those of the first of these sources that has some (status shows which one):\n".to_owned();
    let line = |(number, source): (usize, &Source)| {
        format!("{}. {}: {}\n", number + 1, source.name, source.description.replace('`', ""))
    };
    SOURCES.iter().enumerate().map(line).fold(head, |text, line| text + &line)
}

/// The table of docs/configuration.md.
fn to_markdown() -> String {
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
