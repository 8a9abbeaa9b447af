//! What can be wrong with a command, a directory, a profile or a file, and the exact message for it.

use crate::{Home, ID, SECRET, support};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

const BY_HAND: &str = "run it by hand, as the same user and without a terminal";
const ONE_LINE: &str = "it must print the secret on one line, or a JSON object";
const MEMBERS: &str = "it must have client_id and client_secret, or personal_access_token";

fn get(home: &Home) -> Command {
    home.amp_token(&["get", "--store", "none"])
}

#[test]
fn a_command_that_prints_no_credentials() {
    let home = Home::new();
    home.file("secret", SECRET);
    for (script, status, message) in [
        ("", 3, format!("credential_command x printed nothing; {ONE_LINE}")),
        ("echo", 3, format!("credential_command x printed nothing; {ONE_LINE}")),
        ("cat ~/secret; echo; echo user: me", 3, format!("credential_command x printed 2 lines; {ONE_LINE}")),
        ("printf '\\377\\376'", 3, format!("credential_command x printed something that is not UTF-8; {ONE_LINE}")),
        (
            "cat /dev/zero",
            3,
            "credential_command x printed more than 65536 bytes; it must print the secret alone, or a JSON object".into(),
        ),
        ("exit 3", 3, format!("credential_command x ended with status 3; {BY_HAND}")),
        (
            "echo 'Error: the vault is sealed' >&2; exit 2",
            3,
            format!("credential_command x ended with status 2: Error: the vault is sealed; {BY_HAND}"),
        ),
        // It knows the secret, and shows it.
        (
            "set -x; s=$(cat ~/secret); echo \"$s\"; exit 2",
            3,
            format!("credential_command x ended with status 2: + cat ~/secret + s=[redacted] echo [redacted] exit 2; {BY_HAND}"),
        ),
        ("kill -TERM $$", 3, format!("credential_command x was ended by signal 15; {BY_HAND}")),
        (
            "printf '{\\n  \"client_id\": \"a\",\\n  \"client_secret\" \"'; cat ~/secret; printf '\"}'",
            3,
            format!("credential_command x printed JSON that is not valid: expected `:` (line 3, column 19); {MEMBERS}"),
        ),
        (
            "printf '{\"client_secret\": [\"'; cat ~/secret; printf '\"]}'",
            3,
            format!(
                "credential_command x printed JSON that is not valid: a value has another type than expected (line 1, column 18); {MEMBERS}"
            ),
        ),
        ("echo '{\"client_id\": \"a\"}'", 3, format!("credential_command x printed JSON without a client_secret; {MEMBERS}")),
        (
            "printf '{\"client_id\":\"another\",\"client_secret\":\"'; cat ~/secret; echo '\"}'",
            2,
            format!(
                "credential_command x is of client another, but AMPLIENCE_CLIENT_ID is {ID}; unset AMPLIENCE_CLIENT_ID, or use the credentials of that client"
            ),
        ),
        (
            "echo amp_pat_0123456789abcdefghijkl.x",
            2,
            "credential_command x has a personal access token, but AMPLIENCE_CLIENT_ID is set; unset AMPLIENCE_CLIENT_ID, or use the secret of that client".into(),
        ),
    ] {
        home.program("x", script);
        let mut command = get(&home);
        home.fails(command.env("AMPLIENCE_CREDENTIAL_COMMAND", "x").env("AMPLIENCE_CLIENT_ID", ID), status, &message);
    }
    home.program("x", "cat ~/secret");
    home.fails(
        get(&home).env("AMPLIENCE_CREDENTIAL_COMMAND", "x"),
        3,
        "credential_command x printed a secret, but there is no client_id; set client_id, or let it print a JSON object with client_id and client_secret",
    );
    assert_eq!(home.emulator.stats().token_requests, 0);
}

#[test]
fn a_command_that_cannot_be_run() {
    let home = Home::new();
    let install = "install the program, or use its whole path";
    let not_executable = home.file("bin/data", "");
    for (value, problem) in [
        ("nowhere", "credential_command nowhere cannot be run: there is no such program in PATH".to_owned()),
        ("data", "credential_command data cannot be run: there is no such program in PATH".to_owned()),
        ("/nowhere/at/all", "credential_command all cannot be run: /nowhere/at/all does not exist".to_owned()),
        (&not_executable, "credential_command data cannot be run: Permission denied (os error 13)".to_owned()),
    ] {
        let mut command = get(&home);
        home.fails(command.env("AMPLIENCE_CREDENTIAL_COMMAND", value), 2, &format!("{problem}; {install}"));
    }
    // Without `#!`, a shell would run it.
    let path = home.program("text", "");
    fs::write(&path, "echo hush\n").unwrap();
    home.fails(
        get(&home).env("AMPLIENCE_CREDENTIAL_COMMAND", "text"),
        2,
        &format!("credential_command text cannot be run: Exec format error (os error 8); {install}"),
    );
    home.fails(
        get(&home).env("AMPLIENCE_CREDENTIAL_COMMAND", "pass show x"),
        2,
        "AMPLIENCE_CREDENTIAL_COMMAND has spaces or quotation marks, and no shell splits it into words; use a JSON array such as [\"pass\", \"show\", \"amplience\"]",
    );
}

#[test]
fn a_directory_without_credentials_or_with_too_many() {
    let home = Home::new();
    let directory = home.path("mounted");
    fs::create_dir(&directory).unwrap();
    let run = || {
        let mut command = get(&home);
        command.env("AMPLIENCE_CREDENTIALS_DIR", &directory);
        command
    };
    home.fails(
        &mut run(),
        3,
        "credentials_dir ~/mounted has none of the files client_id, client_secret, personal_access_token; check the path, and the names of the files",
    );
    home.file("mounted/client_id", ID);
    home.fails(&mut run(), 3, "~/mounted has a client_id, but no client_secret; add the file client_secret");
    home.file("mounted/client_secret", " \n");
    home.fails(&mut run(), 3, "credentials_dir ~/mounted/client_secret is empty; write the secret into it");
    home.file("mounted/client_secret", SECRET);
    home.fails(
        run().env("AMPLIENCE_CLIENT_ID", "another"),
        2,
        &format!(
            "~/mounted is of client {ID}, but AMPLIENCE_CLIENT_ID is another; unset AMPLIENCE_CLIENT_ID, or use the credentials of that client"
        ),
    );
    home.file("mounted/personal_access_token", "amp_pat_x");
    home.fails(
        &mut run(),
        2,
        "~/mounted/client_secret and personal_access_token beside it are both set; unset one of them, in the program, in its environment, or in config.toml",
    );
    fs::remove_file(directory.join("personal_access_token")).unwrap();
    assert!(home.succeeds(&mut run()).starts_with("eyJ"));
    fs::remove_file(directory.join("client_id")).unwrap();
    home.fails(
        &mut run(),
        3,
        "~/mounted has a client_secret, but no client_id; add the file client_id, or set client_id",
    );
    assert!(home.succeeds(run().env("AMPLIENCE_CLIENT_ID", ID)).starts_with("eyJ"));
    fs::write(home.path("id"), format!("{ID}\r\n")).unwrap();
    assert!(home.succeeds(run().env("AMPLIENCE_CLIENT_ID_FILE", home.path("id"))).starts_with("eyJ"));
    // Everybody can read it.
    fs::set_permissions(directory.join("client_secret"), fs::Permissions::from_mode(0o644)).unwrap();
    for above in [directory.as_path(), home.directory.path()] {
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (status, _, stderr) = home.result(run().env("AMPLIENCE_CLIENT_ID", ID));
    let warning =
        "warning: ~/mounted/client_secret contains a secret and is readable by all users; run chmod go= on it";
    assert_eq!((status, stderr.as_str()), (Some(0), warning));
}

#[test]
fn systemd_passes_credentials_unless_a_setting_names_some() {
    let home = Home::new();
    fs::create_dir(home.path("unit")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = home.amp_token(arguments);
        command.env("CREDENTIALS_DIRECTORY", home.path("unit"));
        command
    };
    let (status, _, stderr) = home.result(&mut run(&["get"]));
    assert_eq!(status, Some(3));
    assert!(stderr.starts_with("no credentials were found, neither in the settings nor in ~/.amplience"), "{stderr}");
    home.file("unit/client_id", ID);
    home.file("unit/client_secret", SECRET);
    assert!(home.succeeds(&mut run(&["get", "--store", "none"])).starts_with("eyJ"));
    let status = home.succeeds(&mut run(&["status"]));
    assert!(status.starts_with(&format!("credentials  API key {ID}, from ~/unit\n")), "{status}");
    // An id of another source is named.
    fs::remove_file(home.path("unit/client_id")).unwrap();
    let with_id = home.succeeds(run(&["status"]).env("AMPLIENCE_CLIENT_ID", ID));
    let both = format!("credentials  API key {ID}, from ~/unit, with the client id from AMPLIENCE_CLIENT_ID\n");
    assert!(with_id.starts_with(&both), "{with_id}");
    home.file("unit/client_id", ID);
    // It comes before dc-cli's files, and after all settings.
    home.file(
        ".amplience/dc-cli-config.json",
        r#"{"clientId":"of-dc-cli","clientSecret":"a secret that is long enough"}"#,
    );
    assert_eq!(home.succeeds(&mut run(&["status"])), status);
    home.config("[default]\nclient_id = 'of-the-profile'\nclient_secret = 'a secret that is long enough'\n");
    let status = home.succeeds(&mut run(&["status"]));
    let expected = "credentials  API key of-the-profile, from profile default in ~/.config/amp-token/config.toml\n";
    assert!(status.starts_with(expected), "{status}");
    let mut command = run(&["status"]);
    command
        .env("AMPLIENCE_CLIENT_ID", "of-the-environment")
        .env("AMPLIENCE_CLIENT_SECRET", "a secret that is long enough");
    let status = home.succeeds(&mut command);
    let expected = "credentials  API key of-the-environment, from AMPLIENCE_CLIENT_SECRET\n";
    assert!(status.starts_with(expected), "{status}");
}

#[test]
fn a_profile_that_does_not_exist_or_is_not_the_only_one() {
    let home = Home::new();
    let run = |profile: &str| home.amp_token(&["status", "--profile", profile]);
    home.fails(
        &mut run("production"),
        2,
        "there is no profile production in ~/.config/amp-token/config.toml or ~/.amplience/hubs.json; there are no profiles yet",
    );
    home.config("[production]\nclient_id = 'p'\nclient_secret = 'a secret that is long enough'\n[shared]\nclient_id = 's'\nclient_secret = 'a secret that is long enough'\n");
    let hub = |id: &str, name: &str, client: &str| {
        format!(
            r#"{{"hubId":"{id}","name":"{name}","clientId":"{client}","clientSecret":"a secret that is long enough"}}"#
        )
    };
    let (one, other) = ("000000000000000000000001", "000000000000000000000002");
    let hubs = [hub(one, "staging", "a"), hub(other, "staging", "b"), hub("3", "shared", "c"), hub("4", one, "d")];
    home.hubs(&format!("[{}]", hubs.join(",")));
    home.fails(
        &mut run("prodution"),
        2,
        "there is no profile prodution in ~/.config/amp-token/config.toml or ~/.amplience/hubs.json; did you mean production?",
    );
    home.fails(
        &mut run("x"),
        2,
        "there is no profile x in ~/.config/amp-token/config.toml or ~/.amplience/hubs.json; the profiles are production, shared, staging, staging, shared, 000000000000000000000001",
    );
    home.fails(
        &mut run("staging"),
        2,
        "profile staging is the name or ID of 2 hubs in ~/.amplience/hubs.json; use the ID of one of them: 000000000000000000000001, 000000000000000000000002",
    );
    home.fails(
        &mut run("shared"),
        2,
        "profile shared is both a section of ~/.config/amp-token/config.toml and a hub in ~/.amplience/hubs.json; rename the section, or use the ID of the hub",
    );
    // The ID of one hub is the name of another.
    home.fails(
        &mut run(one),
        2,
        "profile 000000000000000000000001 is the name or ID of 2 hubs in ~/.amplience/hubs.json; rename one of them, or add the hub again with dc-cli",
    );
    for (profile, client) in [(other, "b"), ("3", "c"), ("4", "d"), ("production", "p")] {
        let status = home.succeeds(&mut run(profile));
        assert!(
            status.starts_with(&format!("credentials  API key {client}, from profile {profile} in ~/")),
            "{status}"
        );
    }
    // Credentials of two places are an error if neither comes before the other.
    let mut command = home.amp_token(&["status"]);
    command.env("AMPLIENCE_PROFILE", "production").env("AMPLIENCE_CLIENT_SECRET", "y");
    home.fails(
        &mut command,
        2,
        "AMPLIENCE_CLIENT_SECRET and client_secret of profile production in ~/.config/amp-token/config.toml are both set; unset one of them, in the program, in its environment, or in config.toml",
    );
    let mut command = home.amp_token(&["status"]);
    command.env("AMPLIENCE_PROFILE", other).env("AMPLIENCE_CLIENT_ID", "another");
    home.fails(
        &mut command,
        2,
        &format!("profile {other} in ~/.amplience/hubs.json is of client b, but AMPLIENCE_CLIENT_ID is another; unset AMPLIENCE_CLIENT_ID, or use the credentials of that client"),
    );
    home.fails(
        &mut home.amp_token(&["status", "--profile", "production", "--client-id", "another"]),
        2,
        "client_id names another client than profile production in ~/.config/amp-token/config.toml; unset it, or choose the profile of that client",
    );
    home.fails(
        &mut home.amp_token(&["status", "--profile", "production", "--config-file", "f"]),
        2,
        "config_file and profile production in ~/.config/amp-token/config.toml are both set; unset one of them, in the program, in its environment, or in config.toml",
    );
    // The option comes before the environment, which is not silent.
    let mut command = home.amp_token(&["status", "--profile", "production"]);
    command.env("AMPLIENCE_CLIENT_ID", "another").env("AMPLIENCE_CLIENT_SECRET", "y");
    let (status, stdout, stderr) = home.result(&mut command);
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("credentials  API key p, from profile production"), "{stdout}");
    assert_eq!(
        stderr,
        "warning: AMPLIENCE_CLIENT_SECRET is not used: the program has chosen profile production in ~/.config/amp-token/config.toml\n\
         warning: AMPLIENCE_CLIENT_ID is not used: the program has chosen profile production in ~/.config/amp-token/config.toml"
    );
}

#[test]
fn files_that_do_not_parse() {
    let home = Home::new();
    let run = || home.amp_token(&["status", "--profile", "p"]);
    let example =
        "it has a section for each profile, such as [production], and below it lines such as client_id = \"…\"";
    let file = "~/.config/amp-token/config.toml";
    for (content, message) in [
        (
            "[p]\nclient_id = x\n",
            format!(
                "{file} cannot be used: string values must be quoted, expected literal string (line 2, column 13); {example}"
            ),
        ),
        (
            "[p]\nclient_secret = \"hush\n",
            format!("{file} cannot be used: invalid basic string, expected `\"` (line 2, column 22); {example}"),
        ),
        ("[p\n", format!("{file} cannot be used: unclosed table, expected `]` (line 1, column 3); {example}")),
        ("[p]\n[p]\n", format!("{file} cannot be used: duplicate section (line 2, column 2); {example}")),
        (
            "client_id = 'x'\n",
            format!("{file} cannot be used: a setting outside of a section (line 1, column 1); {example}"),
        ),
        (
            "[p]\nretries = [1]\n",
            format!("retries has a value of another type than expected ({file}, line 2); use a whole number"),
        ),
        (
            "[p]\nclient_id = 1.5\n",
            format!("client_id has a value of another type than expected ({file}, line 2); use a string"),
        ),
        ("[p]\n\nretries = 1000\n", format!("retries is \"1000\" ({file}, line 3); use a whole number from 0 to 100")),
        ("[p]\nprofile = 'q'\n", format!("a profile cannot name another one ({file}, line 2); remove it")),
        (
            "[p]\ncredential_command = ['pass', 1]\n",
            format!(
                "credential_command has a value of another type than expected ({file}, line 2); use a string or an array of strings"
            ),
        ),
        (
            "[p]\ncredential_command = 'pass show x'\n",
            format!(
                "credential_command has spaces or quotation marks, and no shell splits it into words ({file}, line 2); use a JSON array such as [\"pass\", \"show\", \"amplience\"]"
            ),
        ),
        (
            "[p]\nclient_secret = ''\n",
            format!(
                "client_secret is empty ({file}, line 2); set AMPLIENCE_CLIENT_SECRET or client_secret_file, or pass the API secret"
            ),
        ),
        (
            "[p]\nclient_secret = 'a'\nclient_secret_file = 'b'\n",
            format!(
                "client_secret of profile p in {file} and client_secret_file of profile p in {file} are both set; unset one of them, in the program, in its environment, or in config.toml"
            ),
        ),
    ] {
        home.config(content);
        home.fails(&mut run(), 2, &message);
    }
    home.config("[p]\nclient_idd = 'x'\n");
    let (status, _, stderr) = home.result(&mut run());
    let start =
        format!("there is no setting named \"client_idd\" ({file}, line 2); did you mean client_id? The others are ");
    assert!(status == Some(2) && stderr.starts_with(&start), "{stderr}");
    fs::write(home.path(".config/amp-token/config.toml"), b"[p]\nclient_id = '\xff'\n").unwrap();
    home.fails(&mut run(), 2, &format!("{file} is not UTF-8; save it in UTF-8 with a text editor"));
    fs::write(home.path(".config/amp-token/config.toml"), " ".repeat(64 * 1024 + 1)).unwrap();
    home.fails(&mut run(), 2, &format!("{file} is larger than 65536 bytes; check the path"));
    fs::remove_file(home.path(".config/amp-token/config.toml")).unwrap();
    let hint =
        "set config_file to a JSON file with clientId and clientSecret, or patToken, or set the credentials directly";
    for (content, problem) in [
        ("[{\"name\": \"p\",\n \"clientId\" \"x\"}]", "expected `:` (line 2, column 13)"),
        ("[{\"name\": \"p\"", "it ends too early (line 1, column 13)"),
        (
            "[{\"name\": \"p\", \"clientSecret\": 12345678}]",
            "a value has another type than expected (line 1, column 39)",
        ),
    ] {
        home.hubs(content);
        home.fails(
            &mut run(),
            2,
            &format!("~/.amplience/hubs.json is not a configuration of dc-cli: {problem}; {hint}"),
        );
    }
}

/// A file that others can change, or put another one in the place of, could run anything.
#[test]
fn a_command_of_a_file_that_others_can_write_is_not_run() {
    let home = Home::new();
    home.program("x", "touch ~/was-run");
    let file =
        home.config("[p]\nclient_id = 'x'\ncredential_command = 'x'\n[q]\nclient_id = 'x'\nclient_secret = 'a secret that is long enough'\n");
    let set_mode = |path: &str, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let hint = "run chmod go-w on it, so that nobody else chooses what you run";
    let directory = home.path(".config/amp-token").to_str().unwrap().to_owned();
    for (path, mode, shown) in
        [(&file, 0o620, "~/.config/amp-token/config.toml"), (&directory, 0o777, "~/.config/amp-token")]
    {
        let before = fs::metadata(path).unwrap().permissions().mode();
        set_mode(path, mode);
        let message = format!(
            "credential_command is not used: {shown} can be changed by other users (~/.config/amp-token/config.toml, line 3); {hint}"
        );
        home.fails(&mut home.amp_token(&["get", "--profile", "p"]), 2, &message);
        // The other settings run nothing.
        assert!(home.succeeds(&mut home.amp_token(&["status", "--profile", "q"])).contains("API key x"));
        set_mode(path, before);
    }
    assert!(!home.path("was-run").exists());
    // A link to it is what it leads to.
    let target = home.file("elsewhere.toml", "[p]\nclient_id = 'x'\ncredential_command = 'x'\n");
    fs::remove_file(&file).unwrap();
    symlink(&target, &file).unwrap();
    set_mode(&target, 0o602);
    let (status, _, stderr) = home.result(&mut home.amp_token(&["get", "--profile", "p"]));
    assert!(status == Some(2) && stderr.contains("can be changed by other users"), "{stderr}");
    set_mode(&target, 0o600);
    let (status, ..) = home.result(&mut home.amp_token(&["get", "--profile", "p"]));
    assert_eq!(status, Some(3));
    assert!(home.path("was-run").exists());
    // Another user owns it.
    if support::is_root() {
        fs::remove_file(home.path("was-run")).unwrap();
        std::os::unix::fs::chown(&target, Some(65534), None).unwrap();
        let (status, _, stderr) = home.result(&mut home.amp_token(&["get", "--profile", "p"]));
        let expected = "credential_command is not used: ~/.config/amp-token/config.toml belongs to another user";
        assert!(status == Some(2) && stderr.starts_with(expected), "{stderr}");
        assert!(!home.path("was-run").exists());
    }
}
