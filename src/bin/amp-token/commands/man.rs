//! `amp-token man` and `amp-token completions`: both are derived from the definition of the command line.
//!
//! The manual page is written here and not by clap_mangen, which makes a page for each command. This is one
//! page for all of them, with the files, the environment variables and the exit statuses.

use crate::cli::{self, SETTINGS_HEADING, TOKEN_VARIABLE};
use crate::exit::{CliResult, EXIT_CODES};
use crate::output;
use amp_token::config::settings::{SETTINGS, ValueType};
use amp_token::config::sources::SOURCES;
use clap::{Arg, ArgMatches, Command};
use clap_complete::shells::{Bash, Fish, Zsh};
use std::fmt::Write;

/// `amp-token man`
pub fn page() -> CliResult<()> {
    output::answer(&manual(cli::command()))
}

/// `amp-token completions SHELL`
pub fn completions(arguments: &ArgMatches) -> CliResult<()> {
    script(arguments.get_one::<String>("shell").map_or("", String::as_str))
}

/// `amp-token generate`, the former spelling of both.
pub fn generate(arguments: &ArgMatches) -> CliResult<()> {
    match arguments.get_one::<String>("what").map(String::as_str) {
        Some("man") | None => page(),
        Some(shell) => script(shell),
    }
}

/// Prints the completions of a shell.
fn script(shell: &str) -> CliResult<()> {
    let mut command = cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    match shell {
        "fish" => clap_complete::generate(Fish, &mut command, name, &mut script),
        "zsh" => clap_complete::generate(Zsh, &mut command, name, &mut script),
        _ => clap_complete::generate(Bash, &mut command, name, &mut script),
    }
    output::answer(&with_profile_names(shell, &with_matching_labels(&String::from_utf8_lossy(&script))))
}

/// The names of profiles are known only when a name is completed, and clap_complete's scripts have only what is known
/// before: they are made to ask the command itself.
fn with_profile_names(shell: &str, script: &str) -> String {
    match shell {
        // Without a condition: those that clap_complete makes do not hold while a value is typed.
        "fish" => {
            format!("{script}complete -c amp-token -l profile -r -f -a '(amp-token profiles --names 2>/dev/null)'\n")
        }
        "zsh" => {
            const FUNCTION: &str = r#"(( $+functions[_amp-token_profiles] )) ||
_amp-token_profiles() {
    local -a names; names=("${(@f)$(amp-token profiles --names 2>/dev/null)}")
    compadd -a names
}

"#;
            let named =
                script.replace("AMPLIENCE_PROFILE\\]]:NAME:'", "AMPLIENCE_PROFILE\\]]:NAME:_amp-token_profiles'");
            named.replace("if [ \"$funcstack[1]\"", &format!("{FUNCTION}if [ \"$funcstack[1]\""))
        }
        _ => {
            const FUNCTION: &str = r#"_amp_token_profiles() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do
        if [[ "${name}" == "$1"* ]]; then
            COMPREPLY+=("$(printf '%q' "${name}")")
        fi
    done < <(amp-token profiles --names 2>/dev/null)
}

"#;
            const GENERATED: &str = r#"                --profile)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
"#;
            const OURS: &str = r#"                --profile)
                    _amp_token_profiles "${cur}"
"#;
            FUNCTION.to_owned() + &script.replace(GENERATED, OURS)
        }
    }
}

/// Works around a bug of clap_complete 4.6.11 (clap-rs/clap#6421): the script sets `cmd` to a label such as
/// `amp__token__subcmd__get`, but its `case` expects `amp__subcmd__token__subcmd__get`, so that bash completes no
/// option of any command. Changes nothing in a script without the bug.
fn with_matching_labels(script: &str) -> String {
    script.replace("amp__subcmd__token__subcmd__", "amp__token__subcmd__")
}

/// The environment variables that are read, or set, in addition to those of the settings.
const VARIABLES: &[(&str, &str)] = &[
    (TOKEN_VARIABLE, "the token, in the environment of the command that exec runs"),
    (
        "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "the proxy for https, with the meaning that they have for curl; also in lower case",
    ),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "certificates to trust instead of the system's"),
    (
        "XDG_RUNTIME_DIR, RUNTIME_DIRECTORY, XDG_CACHE_HOME, CACHE_DIRECTORY, HOME",
        "the directory of the store, unless store_dir is set: see FILES",
    ),
    ("CREDENTIALS_DIRECTORY", "the credentials that systemd passes to a service, unless credentials_dir is set"),
    ("NO_COLOR", "if it is set and not empty, doctor prints no colours"),
];

const FILES: &[(&str, &str)] = &[
    (
        "$XDG_RUNTIME_DIR/amp-token, $RUNTIME_DIRECTORY/amp-token, $XDG_CACHE_HOME/amp-token, $CACHE_DIRECTORY/amp-token, $HOME/.cache/amp-token, ~/.cache/amp-token",
        "the directory of the store, unless store_dir is set: the first of these that belongs to this user, or can be created. The last one is in the home directory that the user database has; the two without XDG_ are those of a service of systemd. On macOS, Library/Caches takes the place of .cache",
    ),
    (
        "$XDG_CONFIG_HOME/amp-token/config.toml, ~/.config/amp-token/config.toml",
        "the profiles: a section for each, with any settings",
    ),
    ("~/.amplience/dc-cli-config.json", "the configuration of dc-cli, where credentials are looked for last"),
    ("~/.amplience/hubs.json", "the hubs of dc-cli, which are profiles too, and are read after its configuration"),
];

const SEE_ALSO: &str = "curl(1), jq(1), the guide for pipelines among the documents of libamp_token, and dc-cli at https://github.com/amplience/dc-cli";

/// The manual page, in the language of man(7).
fn manual(mut command: Command) -> String {
    // Adds the options of the commands, which are deferred.
    command.build();
    let mut page = Page::default();
    let name = command.get_name().to_owned();
    let version = command.get_version().unwrap_or_default().to_owned();
    page.macros(&format!(".TH {} 1 \"\" \"{name} {version}\" \"libamp_token\"", name.to_uppercase()));
    page.section("Name");
    page.text(&format!("{name} - {}", plain(command.get_about())));
    page.section("Synopsis");
    page.macros(&format!(".B {}\n[settings] command [options]", escaped(&name)));
    page.section("Description");
    let about = plain(command.get_long_about());
    page.text(about.split_once("\n\n").map_or(about.as_str(), |(_, rest)| rest));
    page.section("Commands");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        page.subsection(sub.get_name());
        page.text(&plain(sub.get_long_about()));
        for option in sub.get_arguments().filter(|option| own(option)) {
            page.item(&usage(option), &plain(option.get_help()));
        }
        let example = plain(sub.get_after_help());
        page.example(example.split_once('\n').map_or("", |(_, example)| example));
    }
    page.section("Options");
    for option in command.get_arguments().filter(|option| option.is_global_set()) {
        page.item(&usage(option), &plain(option.get_help()));
    }
    page.section("Settings");
    page.text("They can be given before or after the command. An environment variable can be used instead of an option. Secrets are only taken from environment variables or files.");
    for setting in SETTINGS {
        let option = match setting.value_type {
            ValueType::Secret => setting.name.to_owned(),
            _ => cli::option(setting),
        };
        let default = cli::default(setting);
        page.item(
            &format!("{option}, {}", setting.environment.join(", ")),
            &format!("{} ({default}).", setting.description),
        );
    }
    page.section("Credentials");
    page.text("The first of these sources that has credentials is used. \"amp-token status\" shows which one that is.");
    for (number, source) in SOURCES.iter().enumerate() {
        page.item(&format!("{}. {}", number + 1, source.name), &source.description.replace('`', ""));
    }
    page.section("Environment");
    page.text("In addition to the variables of the settings:");
    VARIABLES.iter().for_each(|(name, meaning)| page.item(name, meaning));
    page.section("Files");
    FILES.iter().for_each(|(name, meaning)| page.item(name, meaning));
    page.section("Exit status");
    EXIT_CODES.iter().for_each(|(status, meaning)| page.item(&status.to_string(), meaning));
    page.text("The exit status of exec is that of the command it runs.");
    page.section("See also");
    page.text(SEE_ALSO);
    page.0
}

/// Whether an option is specific to a command.
fn own(option: &Arg) -> bool {
    let everywhere = option.is_global_set() || option.get_help_heading() == Some(SETTINGS_HEADING);
    !everywhere && !["help", "version"].contains(&option.get_id().as_str())
}

/// An option as on the command line.
fn usage(option: &Arg) -> String {
    let names = [option.get_short().map(|c| format!("-{c}")), option.get_long().map(|long| format!("--{long}"))];
    let names: Vec<_> = names.into_iter().flatten().collect();
    let values: Vec<_> = match option.get_action().takes_values() {
        true => option.get_value_names().into_iter().flatten().map(ToString::to_string).collect(),
        false => Vec::new(),
    };
    [names.join(", "), values.join(" ")].join(" ").trim().to_owned()
}

fn plain(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// A page, written from top to bottom.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A line for the formatter, such as a macro.
    fn macros(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.macros(&format!(".SH {}", title.to_uppercase()));
    }

    fn subsection(&mut self, title: &str) {
        self.macros(&format!(".SS {}", escaped(title)));
    }

    /// Paragraphs, separated by empty lines.
    fn text(&mut self, text: &str) {
        for paragraph in text.split("\n\n") {
            self.macros(".PP");
            self.macros(&escaped(paragraph));
        }
    }

    fn item(&mut self, tag: &str, text: &str) {
        self.macros(".TP");
        let _ = writeln!(self.0, "\\fB{}\\fR\n{}", escaped(tag), escaped(text));
    }

    fn example(&mut self, lines: &str) {
        self.macros(".PP\n.EX");
        self.macros(&escaped(lines.trim_end()));
        self.macros(".EE");
    }
}

/// Escapes all characters that have a meaning for the formatter.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_a_request_to_the_formatter() {
        assert_eq!(escaped(".a\n'b\nc.'\\-"), "\\&.a\n\\&'b\nc.'\\e\\-");
    }
}
