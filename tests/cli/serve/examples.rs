//! The examples under packaging/serve, as far as a machine without systemd, containers and a forge can check them.

use super::*;
use crate::shared::{require, require_tool, root};
use std::fs;

fn example(name: &str) -> std::path::PathBuf {
    root().join("packaging/serve").join(name)
}

/// The unit, with the command under test in place of the installed one.
#[test]
fn systemd_accepts_the_unit() {
    if !require_tool("systemd-analyze") {
        return;
    }
    let env = TestEnv::new();
    let unit = env.home.join("amp-token.service");
    let text = fs::read_to_string(example("amp-token.service")).unwrap();
    fs::write(&unit, text.replace("/usr/bin/amp-token", crate::support::AMP_TOKEN)).unwrap();
    let mut verify = env.bare("systemd-analyze");
    assert_eq!(CommandResult::of(verify.arg("verify").arg(&unit)).stdout_ok(), "");
    fs::write(&unit, text.replace("/usr/bin/amp-token", "/usr/bin/no-such-command")).unwrap();
    let mut verify = env.bare("systemd-analyze");
    assert_ne!(CommandResult::of(verify.arg("verify").arg(&unit)).status, Some(0));
}

/// The command lines of the examples are ones that this command accepts.
#[test]
fn the_command_lines_of_the_examples_start_a_server() {
    let env = TestEnv::new();
    let (ticket, secret) = (env.home.join("ticket"), env.home.join("client-secret"));
    fs::write(&ticket, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(&secret, crate::support::SECRET).unwrap();
    let unit = fs::read_to_string(example("amp-token.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/amp-token ")).unwrap();
    let mut lines = vec![line.replace("${CREDENTIALS_DIRECTORY}", env.home.to_str().unwrap())];
    for (name, before) in [("kubernetes.yaml", "args: ["), ("compose.yaml", "command: [")] {
        let text = fs::read_to_string(example(name)).unwrap();
        let (_, rest) = text.split_once(before).unwrap();
        let line = rest.split_once(']').unwrap().0.replace(", ", " ").replace('"', "");
        lines.push(line.replace("/ticket/ticket", "HOME/ticket").replace("/run/secrets/", "HOME/"));
    }
    for line in lines {
        let line = line.replace("HOME", env.home.to_str().unwrap()).replace("127.0.0.1:8400", "127.0.0.1:0");
        let mut command = env.command();
        command.env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_CLIENT_SECRET_FILE", &secret);
        let serve = Serve::run(command.args(line.split_whitespace()));
        assert_eq!(serve.token_with("0123456789abcdef0123456789abcdef").status, 200, "{line}");
    }
}

#[test]
fn the_other_examples_are_well_formed() {
    let env = TestEnv::new();
    let yaml = ["kubernetes.yaml", "compose.yaml", "workflow.yml"].map(example);
    let has_yaml = || CommandResult::of(env.bare("python3").args(["-c", "import yaml"])).status == Some(0);
    if require(crate::shared::has("python3") && has_yaml(), "python3 with yaml") {
        let check = "import sys, yaml\nfor path in sys.argv[1:]: assert list(yaml.safe_load_all(open(path)))";
        assert_eq!(CommandResult::of(env.bare("python3").args(["-c", check]).args(&yaml)).stdout_ok(), "");
    }
    for script in ["packaging/serve/publish.sh", "tests/javascript/serve.sh", "tests/javascript/run.sh"] {
        assert_eq!(CommandResult::of(env.bare("sh").arg("-n").arg(root().join(script))).stdout_ok(), "");
    }
    if crate::shared::has("docker-compose") {
        let mut compose = env.bare("docker-compose");
        compose.env("AMPLIENCE_CLIENT_ID", "x").env("TICKET", "y").arg("-f").arg(&yaml[1]).args(["config", "-q"]);
        let result = CommandResult::of(&mut compose);
        assert_eq!(result.status, Some(0), "{}", result.stderr);
    }
}

/// publish.sh, with a dc-cli that shows what it gets: no argument has the ticket.
#[test]
fn the_script_of_the_pipelines_passes_no_secret_in_an_argument() {
    let env = TestEnv::new();
    let bin = env.home.join("bin");
    fs::create_dir(&bin).unwrap();
    let fake = "#!/bin/sh\necho \"$@\"; cat \"$4\"; stat -c %a \"$4\"; echo \"$AUTH_URL\"\n";
    fs::write(bin.join("dc-cli"), fake).unwrap();
    fs::set_permissions(bin.join("dc-cli"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = env.command();
    command.env("PATH", path).env("AMPLIENCE_HUB_ID", "h").args(["exec", "--serve", "--"]).arg(example("publish.sh"));
    let printed = CommandResult::of(&mut command).stdout_ok();
    let lines: Vec<_> = printed.lines().collect();
    let [arguments, config, mode, url] = lines[..] else { panic!("{printed}") };
    assert!(arguments.starts_with("content-repository list --config /"), "{arguments}");
    let config: Value = serde_json::from_str(config).unwrap();
    assert_eq!((&config["clientId"], &config["hubId"], mode), (&"amp-token".into(), &"h".into(), "600"));
    assert!(!arguments.contains(config["clientSecret"].as_str().unwrap()));
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
}
