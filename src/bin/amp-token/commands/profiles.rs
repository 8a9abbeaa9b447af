//! `amp-token profiles`: the accounts that `--profile` can choose.

use crate::context::Context;
use crate::exit::CliResult;
use crate::output;
use amp_token::config::profiles::{self, DEFAULT, Listed};
use amp_token::sanitize::printable;
use clap::ArgMatches;
use serde_json::{Value, json};

/// `amp-token profiles`
pub fn run(context: &Context, arguments: &ArgMatches) -> CliResult<()> {
    let config = &context.config;
    let timeout = config.text("timeout_ms").and_then(|text| text.trim().parse().ok()).unwrap_or(30_000);
    let timeout = std::time::Duration::from_millis(timeout);
    let found = profiles::list(&config.environment, timeout, &context.log())?;
    if arguments.get_flag("names") {
        // For completions: a name on more than one line could not be completed.
        let names = found.iter().map(|profile| &profile.name).filter(|name| printable(name) == **name);
        return output::answer(&names.map(|name| format!("{name}\n")).collect::<String>());
    }
    let chosen = config.text("profile").unwrap_or(DEFAULT);
    let is_chosen = |profile: &Listed| profile.name == chosen || profile.hub_id.as_deref() == Some(chosen);
    if arguments.get_flag("json") {
        let row = |profile: &Listed| {
            json!({
                "name": profile.name, "hub_id": profile.hub_id, "client_id": profile.client_id,
                "credentials": profile.credentials, "file": profile.file.display().to_string(),
                "chosen": is_chosen(profile),
            })
        };
        return output::answer(&output::json(&Value::Array(found.iter().map(row).collect())));
    }
    let text = |value: &Option<String>| value.as_deref().map_or("-".to_owned(), printable);
    let rows: Vec<_> = found
        .iter()
        .map(|profile| {
            [
                format!("{}{}", printable(&profile.name), if is_chosen(profile) { " *" } else { "" }),
                text(&profile.hub_id),
                text(&profile.client_id),
                profile.credentials.unwrap_or("none").to_owned(),
                printable(&profile.file.display().to_string()),
            ]
        })
        .collect();
    output::answer(&output::table(["name", "hub", "client", "credentials", "file"], &rows))
}
