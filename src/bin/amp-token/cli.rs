//! The command line: all commands and options, and their help.
//!
//! Parsing, `--help`, the manual page and the completions of shells are all derived from [`command`]. The
//! options for settings are derived from the library's table of settings, so that none is missing. They
//! can be given before or after the name of the command.

use crate::commands::format::FORMATS;
use crate::exit::{CliError, EXIT_CODES};
use amp_token::config::settings::{SETTINGS, Setting, ValueType};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, ValueHint, value_parser};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The default of the setting `store` for this command. A library must not write files without being asked to.
/// But a build runs this command a thousand times, and without a store each run would request a token.
pub const DEFAULT_STORE: &str = "file";

/// The default of `log_level`.
pub const DEFAULT_LOG_LEVEL: &str = "warning";

/// The environment variable that contains the token for the command that `exec` runs.
pub const TOKEN_VARIABLE: &str = "AMPLIENCE_ACCESS_TOKEN";

/// The option for how long a token must be valid.
pub const MIN_VALIDITY: &str = "min-validity";

/// The shells for which `completions` makes a script.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The heading under which `--help` lists the settings.
pub const SETTINGS_HEADING: &str = "Settings";

const ABOUT: &str = "Get and use Amplience access tokens from the shell";

const LONG_ABOUT: &str = "\
Get and use Amplience access tokens from the shell.

Tokens are kept in an encrypted store that all processes of a user share. If no token is stored, or the
stored one is due for refresh, one process requests a new token, and the others use it too. So each step of
a build can call amp-token when it needs a token. It need not pass on a token that expires after five
minutes.

The credentials come from AMPLIENCE_CLIENT_ID and AMPLIENCE_CLIENT_SECRET, from AMPLIENCE_PAT, from files or a
program that settings name, from a profile, or from the configuration of dc-cli. They are never taken from an
argument.";

const EXAMPLES: &str = "\
Examples:
  amp-token request GET '/v2/content/hubs?size=100' > hubs.json
  amp-token exec -- ./publish.sh
  amp-token doctor";

/// The whole command line, without what is only kept for old callers.
pub fn command() -> Command {
    root()
        .about(ABOUT)
        .long_about(joined(LONG_ABOUT))
        .after_help(format!("{EXAMPLES}\n\n--help describes the settings and exit statuses, too."))
        .after_long_help(format!("{EXAMPLES}\n\nExit statuses:\n{}", statuses()))
        .args(settings())
        .subcommands(COMMANDS.iter().map(Entry::command))
}

/// The former spelling of `man` and `completions`.
fn generate() -> Command {
    let what = Arg::new("what").required(true).value_parser(["man", "bash", "zsh", "fish"]);
    Command::new("generate").hide(true).about("Print the manual page, or the completions of a shell").arg(what)
}

/// The part of the command line that is needed if this is the first argument: only that command, if it is
/// the name of one. To build all commands takes longer than everything else that `get` does.
pub fn command_for(first: Option<&OsStr>) -> Command {
    match COMMANDS.iter().find(|entry| first.is_some_and(|first| first == entry.name)) {
        Some(entry) => root().subcommand(entry.command()),
        None => command().subcommand(generate()),
    }
}

/// The part that all commands have in common.
fn root() -> Command {
    Command::new("amp-token")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        // Longer lines are hard to read, however wide the terminal is.
        .max_term_width(100)
        .args([
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .global(true)
                .help("Report on standard error what happens to tokens; given twice, report each step"),
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .overrides_with("quiet")
                .global(true)
                .conflicts_with("verbose")
                .help("Print no warnings on standard error"),
        ])
}

fn statuses() -> String {
    EXIT_CODES.iter().map(|(status, meaning)| format!("  {status:>3}  {meaning}\n")).collect()
}

/// A command.
struct Entry {
    name: &'static str,
    about: &'static str,
    /// The rest of the long help.
    more: &'static str,
    /// Command lines, indented by two spaces.
    examples: &'static str,
    /// Adds the options. Only called if this is the command that runs.
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
            .long_about(format!("{}.\n\n{}", self.about, joined(self.more)))
            .after_help(format!("Examples:\n{}", self.examples))
            .defer(self.options)
    }
}

#[rustfmt::skip]
const COMMANDS: &[Entry] = &[
    Entry::new("get", "Print a token",
        "Prints an access token: the stored one while it is valid, otherwise a new one.",
        "  set +x    # a trace would show the token\n\
         \x20 token=$(amp-token get --min-validity 60) || exit\n\
         \x20 amp-token get --format json | jq .expires_in",
        |command| {
            let names = FORMATS.map(|(name, what)| PossibleValue::new(name).help(what));
            let help = format!("What to print: {} (default: plain)", FORMATS.map(|(name, _)| name).join(", "));
            let format = Arg::new("format").long("format").value_name("FORMAT").help(help);
            // Completions show what each of them is for.
            let format = format.value_parser(PossibleValuesParser::new(names)).hide_possible_values(true);
            takes_token(command.arg(format))
        }),
    Entry::new("header", "Print the header \"Authorization: Bearer ...\"",
        "Prints a line that curl 7.55 or later reads from its standard input. The token is then in no argument\n\
         list, which every user of the machine can read. Do not pipe amp-token itself into curl: the shell\n\
         would ignore a failure of amp-token. \"amp-token request\" needs neither curl nor a variable.",
        "  (set +x    # a trace would show the token\n\
         \x20  header=$(amp-token header) && printf '%s\\n' \"$header\" |\n\
         \x20    curl -fsS -H @- https://api.amplience.net/v2/content/hubs)",
        takes_token),
    Entry::new("curl-config", "Print the header as a configuration of curl",
        "Prints a line for curl's option -K. More lines can be added to it.",
        "  (set +x    # a trace would show the token\n\
         \x20  config=$(amp-token curl-config) && printf '%s\\n' \"$config\" |\n\
         \x20    curl -fsS -K - https://api.amplience.net/v2/content/hubs)",
        takes_token),
    Entry::new("exec", "Run a command with AMPLIENCE_ACCESS_TOKEN set",
        "Replaces itself with the command, which has a token in its environment. Signals and exit status are\n\
         those of the command.\n\n\
         A token expires after minutes, and the environment of a running process cannot be changed. A job\n\
         that runs longer should call \"amp-token get\" each time it needs a token. For that purpose the\n\
         credentials stay in the environment of the command, unless --clean is given.\n\n\
         With --serve, the command gets no token and no credentials, but the address of a local token\n\
         endpoint and a secret for it, in AUTH_URL, AMPLIENCE_AUTH_URL, AMPLIENCE_CLIENT_ID and\n\
         AMPLIENCE_CLIENT_SECRET. The endpoint serves valid tokens until the command ends.",
        "  amp-token exec --min-validity 120 -- ./publish.sh --all\n  amp-token exec --serve -- terraform apply",
        |command| {
            #[cfg(all(unix, feature = "serve"))]
            let command = command.args([
                flag("serve", "Serve tokens to the command, which gets no credentials (see \"amp-token help serve\")")
                    .conflicts_with(MIN_VALIDITY),
                flag("rewrite-links", "Have the command use the APIs through the server, too, and follow links to it")
                    .requires("serve"),
            ]);
            takes_token(command)
                .arg(flag("clean", "Remove the variables of settings that hold secrets or name files with one. HTTPS_PROXY stays"))
                .arg(trailing_command("The command and its arguments").required(true))
        }),
    Entry::new("hubs", "List the hubs that the credentials can access",
        "Lists all of them, page by page, as a table or as JSON.",
        "  amp-token hubs\n  amp-token hubs --json | jq -r '.[].id'",
        |command| takes_settings(command.arg(flag("json", "Print JSON")))),
    Entry::new("request", "Send a request to the Content Management API",
        "Prints the body of the response. The path is relative to api_url. A complete URL must have the same\n\
         origin, because the token is sent to no other server. If the token is rejected, it is replaced and\n\
         the request repeated, once. An HTTP status other than success is reported on standard error, and\n\
         the exit status is then not 0.",
        "  amp-token request GET /v2/content/hubs\n\
         \x20 amp-token request POST /v2/content/content-repositories/ID/content-items -d @item.json",
        |command| {
            takes_settings(command.args([
                positional("method", "METHOD", "GET, POST, PUT, PATCH or DELETE"),
                positional("path", "PATH", "The path and query, such as /v2/content/hubs"),
                data("data", "The body: a string, @FILE, or @- for standard input")
                    .short('d')
                    .value_parser(value_parser!(OsString)),
                data("content-type", "The media type of the body (default: application/json)").value_name("TYPE"),
            ]))
        }),
    Entry::new("graphql", "Send a request to the GraphQL API",
        "Prints the body of the response. Errors of GraphQL are part of it, as \"errors\". If there are errors and\n\
         no data, the exit status is 7.",
        "  amp-token graphql '{ __typename }'\n  amp-token graphql @query.graphql --variables @variables.json",
        |command| {
            takes_settings(command.args([
                positional("query", "QUERY", "The query: a string, @FILE, or @- for standard input")
                    .value_parser(value_parser!(OsString)),
                data("variables", "Its variables, a JSON object: a string, @FILE, or @- for standard input")
                    .value_parser(value_parser!(OsString)),
            ]))
        }),
    Entry::new("pat", "Create a personal access token",
        "A personal access token does not expire and has the permissions of its user. A user can have five per\n\
         organization. (The requests that list and delete them are not documented. If you know them,\n\
         \"amp-token graphql\" can send them.)",
        "  amp-token pat create 'build server' --output token",
        |command| command.subcommand_required(true).subcommand(takes_settings(
            Command::new("create").about("Create a token and print it. It cannot be retrieved again").args([
                positional("name", "NAME", "The name of the token"),
                data("organization", "The organization of the token (default: the only one there is)").value_name("ID"),
                data("output", "Write the token to this new file, which only you can read, instead of printing it")
                    .short('o')
                    .value_name("PATH")
                    .value_parser(value_parser!(PathBuf))
                    .value_hint(ValueHint::FilePath),
            ]),
        ))),
    Entry::new("organizations", "List the organizations of the credentials",
        "Lists the ID and name of each, as a table or as JSON. \"pat create\" needs the ID if there are several.",
        "  amp-token organizations\n  amp-token organizations --json | jq -r '.[].id'",
        |command| takes_settings(command.arg(flag("json", "Print JSON")))),
    Entry::new("permissions", "Show what the token says that the API key may do",
        "Prints what the claim \"permissions\" of the token lists: the areas, the kinds of objects in them, and the\n\
         rights. The claim is not documented, so this may explain why a request is rejected with 403, but only\n\
         the server knows what is permitted. Nothing is decided by it.",
        "  amp-token permissions\n  amp-token permissions --json | jq .",
        |command| takes_settings(command.arg(flag("json", "Print JSON")))),
    Entry::new("profiles", "List the accounts that --profile can choose",
        "Lists the sections of config.toml and the hubs of dc-cli, and where each has its credentials. Shows no\n\
         secret. A profile is chosen with --profile or AMPLIENCE_PROFILE, by the name, or by the ID of a hub.",
        "  amp-token profiles\n  amp-token --profile production hubs",
        |command| takes_settings(command.args([
            flag("json", "Print JSON"),
            flag("names", "Print the names only, one per line").hide(true).conflicts_with("json"),
        ]))),
    Entry::new("status", "Show the credentials, the store and the stored token",
        "Shows where the credentials come from, where the store is, how long the stored token is valid and\n\
         when it is refreshed. Asks no server but that of the store, runs no credential_command, and shows no secret.",
        "  amp-token status --json | jq .token.expires_in",
        |command| takes_settings(command.arg(flag("json", "Print JSON")))),
    Entry::new("invalidate", "Remove the stored token",
        "The next command requests a new token. With --stdin the stored token is only removed if it is the\n\
         one on standard input. So if a token is rejected, and several jobs report that, none of them\n\
         removes the token that replaced it.",
        "  printenv AMPLIENCE_ACCESS_TOKEN | amp-token invalidate --stdin",
        |command| {
            takes_settings(command.arg(flag("stdin", "Only remove the token that standard input contains")))
        }),
    Entry::new("config", "Show the settings and where each one comes from",
        "A value that may hold a secret is shown as [secret]. An environment variable whose name resembles\n\
         that of a setting, but is not one, is reported on standard error.",
        "  amp-token config\n  amp-token config --json | jq -r .auth_url.value",
        |command| {
            let json = flag("json", "Print JSON");
            let markdown = flag("markdown", "Print all settings with their defaults and variables, as a table in Markdown")
                .alias("table")
                .conflicts_with("json");
            takes_settings(command.args([json, markdown]))
        }),
    Entry::new("doctor", "Check each step of a request and explain a failure",
        "Checks the credentials, store, DNS, proxy, TCP, TLS, clock, token, and a request to the API with that\n\
         token. Prints a line about this machine, and one for each step, with the time it took. The line of the\n\
         first step that fails says what to do, and the exit status is that of its class of failure. The\n\
         token is stored as \"get\" would store it. No secret is shown, so the report can be passed on.",
        "  amp-token doctor --timeout-ms 10000\n  amp-token doctor --json | jq -r '.steps[] | select(.result == \"failed\").text'",
        |command| takes_settings(command.arg(flag("json", "Print JSON")))),
    #[cfg(all(unix, feature = "serve"))]
    Entry::new("serve", "Serve tokens to programs that cannot use the library",
        "Serves POST /oauth/token as Amplience does, for every tool whose token URL can be set, and the APIs\n\
         below /v2/content and /graphql with the token added. Clients authenticate with the ticket, a local\n\
         secret that is new at each start, in place of the client secret. The token is renewed early enough\n\
         that clients always have a valid one. Also serves /healthz, /readyz and /metrics.\n\n\
         When it is ready, prints what clients need, one name=value per line: auth_url, token_url, api_url,\n\
         client_id and client_secret. Serves until it receives SIGTERM or SIGINT.",
        "  amp-token serve --listen 127.0.0.1:8400 --ticket-file ticket\n\
         \x20 amp-token serve --listen unix:$XDG_RUNTIME_DIR/amp-token.sock --rewrite-links\n\
         \x20 amp-token serve --token-file token --token-file-format header --on-renewal 'systemctl --user reload app'",
        serve),
    #[cfg(feature = "emulator")]
    Entry::new("demo", "Show a token at work, without an account or a network",
        "Starts an emulator of Amplience within this process, gets a token from it, lists hubs with the token,\n\
         and prints what happened. Uses no settings and no store.",
        "  amp-token demo",
        |command| command),
    #[cfg(feature = "emulator")]
    Entry::new("emulator", "Run a local emulator of Amplience",
        "With a command, runs it with the settings of a client in its environment (AMPLIENCE_AUTH_URL and so\n\
         on), and ends with its exit status. AMP_EMULATOR_URL, AMP_EMULATOR_HUB_ID and\n\
         AMP_EMULATOR_REPOSITORY_ID are set, too.\n\n\
         Without a command, prints the settings of a client and these IDs, one name=value per line, and serves\n\
         on the loopback interface until it receives SIGTERM or SIGINT.\n\n\
         A POST to /_emulator/faults makes requests fail as its body describes, GET /_emulator/stats counts\n\
         requests, and POST /_emulator/reset restores the start. The page \"Testing your program\" of the\n\
         documentation describes all of them.",
        "  amp-token emulator -- ctest\n\
         \x20 amp-token emulator --expires-in 2 -- ./my-program\n\
         \x20 amp-token emulator --port 8080",
        emulator),
    Entry::new("completions", "Print a completion script for a shell",
        "Prints a script with which bash, zsh or fish completes commands and options. The packages install it.",
        "  amp-token completions bash > ~/.local/share/bash-completion/completions/amp-token",
        |command| command.arg(positional("shell", "SHELL", "The shell").value_parser(SHELLS))),
    Entry::new("man", "Print the manual page",
        "Prints amp-token(1) in the format that man(1) reads. The packages install it.",
        "  amp-token man > amp-token.1; man ./amp-token.1",
        |command| command),
];

fn takes_token(command: Command) -> Command {
    let min_validity = Arg::new(MIN_VALIDITY)
        .long(MIN_VALIDITY)
        .value_name("SECONDS")
        .value_parser(value_parser!(u64))
        .help("The token must be valid for at least this long");
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
    let names: Vec<_> = names.map(|name| format!("--{name}")).collect();
    let help = format!("Settings (\"amp-token --help\" describes them):\n{}", names.join(" "));
    let help = match command.get_after_help() {
        Some(examples) => format!("{examples}\n\n{help}"),
        None => help,
    };
    command.args(options).after_long_help(help)
}

/// Paragraphs in one line each: the width of the terminal is known later.
fn joined(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

#[cfg(all(unix, feature = "serve"))]
fn serve(command: Command) -> Command {
    use crate::serve::token_file::{FORMATS, parse_mode};
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let path =
        |name, help| option(name, "PATH", help).value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath);
    let formats = FORMATS.map(|(name, what)| PossibleValue::new(name).help(what));
    let formats = PossibleValuesParser::new(formats);
    takes_settings(
        command.args([
            option(
                "listen",
                "ADDRESS:PORT|unix:PATH",
                "Where to listen; may be repeated (default: 127.0.0.1 and any free port)",
            )
            .action(ArgAction::Append),
            path("ticket-file", "Use the ticket in this file instead of a new one, and do not print it"),
            path("token-file", "Keep a valid token in this file, and remove it at the end"),
            option("token-file-format", "FORMAT", "The form of the file: plain, header, curl, json (default: plain)")
                .value_parser(formats)
                .hide_possible_values(true)
                .requires("token-file"),
            option("mode", "MODE", "The permissions of the file (default: 0600)")
                .value_parser(|text: &str| parse_mode(text))
                .requires("token-file"),
            option("on-renewal", "COMMAND", "Run this in sh after each renewal; it does not get the token")
                .value_parser(value_parser!(OsString)),
            option("signal", "NAME", "Send this signal after each renewal: HUP, USR1, USR2 or CONT")
                .requires("pid")
                .conflicts_with("on-renewal"),
            option("pid", "NUMBER", "The process that gets the signal")
                .value_parser(value_parser!(i32))
                .requires("signal"),
            flag("once", "Write the token file once, run the hook, and end; the file stays").requires("token-file"),
            flag("rewrite-links", "Have the links of responses lead to this server"),
            flag("listen-anywhere", "Allow --listen with an address that other machines can reach")
                .requires("tls-certificate"),
            path("tls-certificate", "Serve https with this certificate (PEM)").requires("tls-key"),
            path("tls-key", "The private key of the certificate (PEM)").requires("tls-certificate"),
            option("allow-host", "NAME", "Also accept this name in Host; may be repeated").action(ArgAction::Append),
        ]),
    )
}

#[cfg(feature = "emulator")]
fn emulator(command: Command) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command.args([
        option("port", "NUMBER", "Listen on this port (default: any free port)").value_parser(value_parser!(u16)),
        flag("tls", "Serve https, with a certificate signed by the emulator's own CA"),
        flag("mutual-tls", "Serve https and require a client certificate signed by the same CA"),
        option("ca-file", "PATH", "Write the CA certificate to this file (default: a temporary file)")
            .value_parser(value_parser!(PathBuf)),
        option("expires-in", "SECONDS", "The lifetime of access tokens (default: 300)")
            .value_parser(value_parser!(u64)),
        option("client-id", "TEXT", "The client ID (API key) to accept (default: random)"),
        option("client-secret-file", "PATH", "A file that contains the client secret to accept (default: random)")
            .value_parser(value_parser!(PathBuf)),
        trailing_command("Run this command, and end with its exit status"),
    ])
}

fn trailing_command(help: &'static str) -> Arg {
    Arg::new("command")
        .value_name("COMMAND")
        .value_parser(value_parser!(OsString))
        .value_hint(ValueHint::CommandWithArguments)
        .num_args(1..)
        .trailing_var_arg(true)
        .help(help)
}

fn positional(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).required(true).help(help)
}

fn data(name: &'static str, help: &'static str) -> Arg {
    // A body may be a negative number.
    Arg::new(name).long(name).value_name("DATA").allow_hyphen_values(true).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The option for a setting, as on the command line.
pub fn option(setting: &Setting) -> String {
    format!("--{}", setting.name.replace('_', "-"))
}

/// An option for each setting that is not a secret.
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
            ValueType::LogLevel => ("LEVEL", ValueHint::Other),
            ValueType::Command => ("PROGRAM|JSON", ValueHint::CommandName),
            ValueType::Text if setting.name == "profile" => ("NAME", ValueHint::Other),
            ValueType::Text | ValueType::Secret => ("TEXT", ValueHint::Other),
        };
        let parser = match setting.value_type {
            ValueType::Path => value_parser!(OsString),
            _ => value_parser!(String),
        };
        Arg::new(setting.name)
            .long(setting.name.replace('_', "-"))
            .value_parser(parser)
            .value_name(value)
            .value_hint(hint)
            .help_heading(SETTINGS_HEADING)
            .hide_short_help(true)
            .help(format!("{} [{}; {}]", setting.description, default(setting), setting.environment.join(", ")))
    })
}

/// The default of a setting on the command line, for the help.
pub fn default(setting: &Setting) -> String {
    match (setting.name, setting.default) {
        ("store", _) => format!("default {DEFAULT_STORE}"),
        ("log_level", _) => format!("default {DEFAULT_LOG_LEVEL}"),
        (_, "") => format!("default: {}", setting.default_description),
        (_, value) => format!("default {value}"),
    }
}

/// The error for invalid arguments. It does not repeat a secret that is one of them.
pub fn usage_error(error: &clap::Error) -> CliError {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && let Some(setting) = SETTINGS.iter().find(|setting| option(setting) == *unknown)
    {
        return if setting.value_type == ValueType::Secret {
            secret_in_argv(setting)
        } else {
            CliError::usage(format!("{unknown} cannot be used with this command"))
        };
    }
    let text = error.render().to_string();
    CliError::usage(text.strip_prefix("error: ").unwrap_or(&text))
}

/// The error for a secret in an argument.
pub fn secret_in_argv(setting: &Setting) -> CliError {
    let option = option(setting);
    let file = SETTINGS.iter().find(|file| file.name.strip_suffix("_file") == Some(setting.name));
    let file = file.map_or(String::new(), |file| format!(" or {}", self::option(file)));
    let variable = setting.environment[0];
    CliError::usage(format!("a secret in an argument ({option}) is visible to all users in ps; use {variable}{file}"))
}
