//! The arguments: every command, every option and every text of help.
//!
//! Parsing, `--help`, the manual and the shells' completions are all made from [`command`]. The
//! options for settings are made from the library's table, so that none can be missing. They may
//! stand before and after the command's name.

use crate::exit::{CliError, EXIT_CODES};
use amp_token::config::settings::{SETTINGS, Setting, ValueType};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, ValueHint, value_parser};
use std::ffi::{OsStr, OsString};

/// The option for how long a token must be good.
pub const MIN_VALIDITY: &str = "min-validity";

/// The shells for which `completions` makes a script.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The headings under which `--help` lists settings and the options of every command.
pub const SETTINGS_HEADING: &str = "Settings";

const ABOUT: &str = "Always a valid Amplience access token, for the shell";

const LONG_ABOUT: &str = "\
Always a valid Amplience access token, for the shell.

A token is taken from a store that all processes of the user share, sealed; one that is missing or due
for renewal is asked for, by one process on behalf of all. So every step of a build just calls
amp-token when it needs a token, instead of passing one on that dies after five minutes.

Credentials are taken from AMPLIENCE_CLIENT_ID and AMPLIENCE_CLIENT_SECRET, from AMPLIENCE_PAT, from files
that settings name, or from the configuration of dc-cli; never from an argument.";

const EXAMPLES: &str = "\
Examples:
  amp-token request GET '/v2/content/hubs?size=100' > hubs.json
  amp-token exec -- ./publish.sh
  amp-token doctor";

/// The whole command line, without what is only kept for old callers.
pub fn command() -> Command {
    root()
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(format!("{EXAMPLES}\n\nUse --help, in place of -h, for the settings and exit statuses."))
        .after_long_help(format!("{EXAMPLES}\n\nExit statuses:\n{}", statuses()))
        .args(settings())
        .subcommands(COMMANDS.iter().map(Entry::command))
}

/// The former spelling of `man` and `completions`.
fn generate() -> Command {
    let what = Arg::new("what").required(true).value_parser(["man", "bash", "zsh", "fish"]);
    Command::new("generate").hide(true).about("Print the manual page, or the completions of a shell").arg(what)
}

/// The command line as far as it is needed when this is the first argument: if that is a command, no other
/// command and nothing that stands before one. Making them all takes longer than all else that `get` does.
pub fn command_for(first: Option<&OsStr>) -> Command {
    match COMMANDS.iter().find(|entry| first.is_some_and(|first| first == entry.name)) {
        Some(entry) => root().subcommand(entry.command()),
        None => command().subcommand(generate()),
    }
}

/// What every command line has.
fn root() -> Command {
    Command::new("amp-token")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args([
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .global(true)
                .help("Tell on standard error what happens to tokens; twice: each step"),
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .global(true)
                .conflicts_with("verbose")
                .help("Give no warnings on standard error"),
        ])
}

fn statuses() -> String {
    EXIT_CODES.iter().map(|(status, meaning)| format!("  {status:>3}  {meaning}\n")).collect()
}

/// A command.
struct Entry {
    name: &'static str,
    about: &'static str,
    /// What follows that in the long help.
    more: &'static str,
    /// Lines to try.
    examples: &'static str,
    /// Adds its options, once it is the command that was called.
    options: fn(Command) -> Command,
}

impl Entry {
    const fn new(
        name: &'static str,
        about: &'static str,
        more: &'static str,
        examples: &'static str,
        options: fn(Command) -> Command,
    ) -> Self {
        Entry { name, about, more, examples, options }
    }

    fn command(&self) -> Command {
        Command::new(self.name)
            .about(self.about)
            .long_about(format!("{}.\n\n{}", self.about, self.more))
            .after_help(format!("Examples:\n{}", self.examples))
            .defer(self.options)
    }
}

#[rustfmt::skip]
const COMMANDS: &[Entry] = &[
    Entry::new("get", "Print a token",
        "Prints an access token: the stored one while it is good, else a new one.",
        "  set +x    # a trace would show the token\n\
         \x20 token=$(amp-token get --min-validity 60) || exit",
        takes_token),
    Entry::new("header", "Print the header \"Authorization: Bearer ...\"",
        "Prints a line that curl 7.55 or later takes from its standard input, so that the token appears in no\n\
         argument list, where every user of the machine could read it. A pipe from amp-token itself would\n\
         hide its failure from the shell. \"amp-token request\" needs neither curl nor a variable.",
        "  (set +x    # a trace would show the token\n\
         \x20  header=$(amp-token header) && printf '%s\\n' \"$header\" |\n\
         \x20    curl -fsS -H @- https://api.amplience.net/v2/content/hubs)",
        takes_token),
    Entry::new("curl-config", "Print the header as a configuration of curl",
        "Prints a line for curl's option -K, to which more lines can be added.",
        "  (set +x    # a trace would show the token\n\
         \x20  config=$(amp-token curl-config) && printf '%s\\n' \"$config\" |\n\
         \x20    curl -fsS -K - https://api.amplience.net/v2/content/hubs)",
        takes_token),
    Entry::new("exec", "Run a command with AMPLIENCE_ACCESS_TOKEN set",
        "Becomes the command, with a token in its environment: signals and exit status are the command's own.\n\n\
         A token dies minutes later, and nothing can change the environment of a running process. A job\n\
         that runs for longer should call \"amp-token get\" each time that it needs a token. For that the\n\
         credentials stay in the command's environment, unless --clean is given.",
        "  amp-token exec --min-validity 120 -- ./publish.sh --all",
        |command| {
            takes_token(command)
                .arg(flag("clean", "Remove the variables that may hold secrets (AMPLIENCE_CLIENT_SECRET, AMPLIENCE_PAT, ...)"))
                .arg(
                    Arg::new("command")
                        .value_name("COMMAND")
                        .value_parser(value_parser!(OsString))
                        .value_hint(ValueHint::CommandWithArguments)
                        .num_args(1..)
                        .trailing_var_arg(true)
                        .required(true)
                        .help("The command and its arguments"),
                )
        }),
    Entry::new("hubs", "List the hubs that the credentials may see",
        "All of them, page by page: a table for people, JSON for programs.",
        "  amp-token hubs\n  amp-token hubs --json | jq -r '.[].id'",
        |command| takes_settings(command.arg(flag("json", "Answer in JSON")))),
    Entry::new("request", "Send a request to the Content Management API",
        "Prints the body of the reply. The path is taken below api_url; a whole URL must be of the same origin,\n\
         because the token goes nowhere else. A token that is refused is replaced once. Any HTTP status but\n\
         success is told on standard error and makes for an exit status other than 0.",
        "  amp-token request GET /v2/content/hubs\n\
         \x20 amp-token request POST /v2/content/content-repositories/ID/content-items -d @item.json",
        |command| {
            takes_settings(command.args([
                positional("method", "METHOD", "GET, POST, PUT, PATCH or DELETE"),
                positional("path", "PATH", "Such as /v2/content/hubs, with its query"),
                data("data", "The body: text, @FILE, or @- for standard input").short('d'),
                data("content-type", "The media type of the body; else application/json").value_name("TYPE"),
            ]))
        }),
    Entry::new("graphql", "Send a request to the GraphQL API",
        "Prints the body of the reply. Problems of GraphQL itself are in it, as \"errors\".",
        "  amp-token graphql '{ __typename }'\n  amp-token graphql @query.graphql --variables @variables.json",
        |command| {
            takes_settings(command.args([
                positional("query", "QUERY", "The query: text, @FILE, or @- for standard input"),
                data("variables", "Its variables, a JSON object: text, @FILE, or @- for standard input"),
            ]))
        }),
    Entry::new("pat", "Create a personal access token",
        "A personal access token does not expire and has the permissions of its user, who may have five per\n\
         organization. (How the API lists and deletes them is not documented; \"amp-token graphql\" can send\n\
         what you know of it.)",
        "  (umask 077; amp-token pat create 'build server' --organization ID > token)",
        |command| command.subcommand_required(true).subcommand(takes_settings(
            Command::new("create").about("Create one, and print it: nothing will ever show it again").args([
                positional("name", "NAME", "What to call it"),
                data("organization", "The organization that it is for").value_name("ID").required(true),
            ]),
        ))),
    Entry::new("status", "Show what a command would work with",
        "Shows where the credentials come from, the store, how long the stored token is good and when it\n\
         is renewed. Asks no server and shows no secret.",
        "  amp-token status --json | jq .token.expires_in",
        |command| takes_settings(command.arg(flag("json", "Answer in JSON")))),
    Entry::new("invalidate", "Drop the stored token",
        "The next command asks for a new one. With --stdin the token is only dropped if it is the one that\n\
         is read there, so that of many jobs whose token was refused, none drops its successor.",
        "  printenv AMPLIENCE_ACCESS_TOKEN | amp-token invalidate --stdin",
        |command| {
            takes_settings(command.arg(flag("stdin", "Only drop the token that is given on standard input")))
        }),
    Entry::new("config", "Show the settings in force, and where each is from",
        "A value that may hold a secret is shown as [secret]. An environment variable whose name looks like\n\
         that of a setting, but is not, is reported on standard error.",
        "  amp-token config\n  amp-token config --json | jq -r .auth_url.value",
        |command| {
            let json = flag("json", "Answer in JSON");
            let markdown = flag("markdown", "Print all settings with their defaults and variables, as a table in Markdown")
                .alias("table")
                .conflicts_with("json");
            takes_settings(command.args([json, markdown]))
        }),
    Entry::new("doctor", "Find out why there is no token",
        "Goes the way of a request: credentials, name lookup, proxy, TCP, TLS, clock, token, and a request\n\
         with that token; one line each, with the time it took. The first step that fails says what to do,\n\
         and the exit status tells its class. The store is not used, and no secret is shown.",
        "  amp-token doctor --timeout-ms 10000",
        takes_settings),
    #[cfg(feature = "emulator")]
    Entry::new("demo", "Show it all at work, without an account or a network",
        "Starts a server that stands in for Amplience, within this process, gets a token from it, lists hubs\n\
         with the token, and says what happened. Uses no setting and no store.",
        "  amp-token demo",
        |command| command),
    #[cfg(feature = "emulator")]
    Entry::new("emulator", "Run a local server that stands in for Amplience",
        "Prints what clients need to know, one name=value a line, and serves on the loopback interface until\n\
         it is told to end. It can be told to misbehave: see /_emulator/faults in its documentation.",
        "  amp-token emulator --port 8080 --expires-in 30",
        emulator),
    Entry::new("completions", "Print the completions of a shell",
        "Prints a script that completes commands and options when the tab key is pressed. The packages install it.",
        "  amp-token completions bash > ~/.local/share/bash-completion/completions/amp-token",
        |command| command.arg(positional("shell", "SHELL", "The shell").value_parser(SHELLS))),
    Entry::new("man", "Print the manual page",
        "Prints amp-token(1) in the format that man(1) reads.",
        "  amp-token man > amp-token.1; man ./amp-token.1",
        |command| command),
];

fn takes_token(command: Command) -> Command {
    let min_validity = Arg::new(MIN_VALIDITY)
        .long(MIN_VALIDITY)
        .value_name("SECONDS")
        .value_parser(value_parser!(u64))
        .help("The token must be good for at least so long");
    takes_settings(command.arg(min_validity))
}

/// Adds the options for settings. The help of a command names them only: `amp-token --help` describes them.
fn takes_settings(command: Command) -> Command {
    // One option for this is enough, where it can be given in seconds.
    let in_seconds = command.get_arguments().any(|option| option.get_id() == MIN_VALIDITY);
    let is_hidden = |option: &Arg| in_seconds && option.get_id() == "min_validity_ms";
    let options: Vec<_> = settings()
        .map(|option| {
            let hidden = is_hidden(&option);
            option.hide(hidden).hide_long_help(true)
        })
        .collect();
    let names = options.iter().filter(|option| !option.is_hide_set()).filter_map(Arg::get_long);
    let help = format!(
        "Settings (\"amp-token --help\" describes them):\n{}",
        paragraph(names.map(|name| format!("--{name}")))
    );
    let help = match command.get_after_help() {
        Some(examples) => format!("{examples}\n\n{help}"),
        None => help,
    };
    command.args(options).after_long_help(help)
}

/// Words in indented lines of at most 110 columns.
fn paragraph(words: impl Iterator<Item = String>) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in words {
        if width == 0 || width + 1 + word.len() > 110 {
            lines.push_str(if lines.is_empty() { "  " } else { "\n  " });
            width = 2 + word.len();
        } else {
            lines.push(' ');
            width += 1 + word.len();
        }
        lines.push_str(&word);
    }
    lines
}

#[cfg(feature = "emulator")]
fn emulator(command: Command) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command.args([
        option("port", "NUMBER", "Listen on this port; else on any that is free").value_parser(value_parser!(u16)),
        flag("tls", "Serve https, with a certificate by an authority of its own"),
        flag("mutual-tls", "And ask clients for a certificate by the same authority"),
        option("ca-file", "PATH", "Write the authority's certificate there; else to a temporary file"),
        option("expires-in", "SECONDS", "The lifetime of access tokens; else 300").value_parser(value_parser!(u64)),
        option("client-id", "TEXT", "The API key to accept; else a random one"),
        option("client-secret-file", "PATH", "The file that holds its secret; else a random one"),
    ])
}

fn positional(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).required(true).help(help)
}

fn data(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("DATA").help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The option for a setting, as it is typed.
pub fn option(setting: &Setting) -> String {
    format!("--{}", setting.name.replace('_', "-"))
}

/// An option for every setting that is no secret.
fn settings() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(|setting| setting.value_type != ValueType::Secret).map(|setting| {
        let (value, hint) = match setting.value_type {
            ValueType::Path if setting.name.ends_with("_dir") => ("PATH", ValueHint::DirPath),
            ValueType::Path => ("PATH", ValueHint::FilePath),
            ValueType::Url | ValueType::Proxy => ("URL", ValueHint::Url),
            ValueType::Milliseconds(..) => ("MILLISECONDS", ValueHint::Other),
            ValueType::Count(_) => ("NUMBER", ValueHint::Other),
            ValueType::Flag => ("true|false", ValueHint::Other),
            ValueType::Store => ("none|file|URL", ValueHint::Other),
            ValueType::Text | ValueType::Secret => ("TEXT", ValueHint::Other),
        };
        Arg::new(setting.name)
            .long(setting.name.replace('_', "-"))
            .value_name(value)
            .value_hint(hint)
            .help_heading(SETTINGS_HEADING)
            .hide_short_help(true)
            .help(format!("{} [{}; {}]", setting.description, default(setting), setting.environment.join(", ")))
    })
}

/// The default of a setting on the command line, in words.
pub fn default(setting: &Setting) -> String {
    match (setting.name, setting.default) {
        ("store", _) => format!("default {}", crate::context::STORE),
        (_, "") => format!("default: {}", setting.default_description),
        (_, value) => format!("default {value}"),
    }
}

/// What is wrong with the arguments. A secret that was put there is not repeated.
pub fn usage_error(error: &clap::Error) -> CliError {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && let Some(setting) = SETTINGS.iter().find(|setting| option(setting) == *unknown)
    {
        return if setting.value_type == ValueType::Secret {
            secret_in_argv(setting)
        } else {
            CliError::usage(format!("{unknown} means nothing to this command: leave it out"))
        };
    }
    let text = error.render().to_string();
    CliError::usage(text.strip_prefix("error: ").unwrap_or(&text))
}

/// Says why a secret is not taken from an argument.
pub fn secret_in_argv(setting: &Setting) -> CliError {
    let option = option(setting);
    let file = SETTINGS.iter().find(|file| file.name.strip_suffix("_file") == Some(setting.name));
    let file = file.map_or(String::new(), |file| format!(" or {}", self::option(file)));
    let variable = setting.environment[0];
    CliError::usage(format!("a secret in an argument ({option}) shows in ps: use {variable}{file}"))
}
