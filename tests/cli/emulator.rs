//! `amp-token demo` and `amp-token emulator`.

use crate::support::{AMP_TOKEN, CommandResult, SECRET, TestEnv};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

#[test]
fn the_demo_needs_nothing() {
    let env = TestEnv::new();
    // The settings in the environment have no effect.
    let text = env.run(&["demo"]).stdout_ok();
    assert!(text.contains("The server saw 1 token request and 1 API request."), "{text}");
    assert!(text.contains("lists 2 hubs") && !text.contains("eyJ"), "{text}");
    assert_eq!(env.emulator.stats().connections, 0);
    env.run(&["--timeout-ms", "5", "demo"]).assert_failed(2, "--timeout-ms cannot be used with demo");
    env.run(&["demo", "--timeout-ms", "5"]).assert_failed(2, "--timeout-ms cannot be used with this command");
}

#[test]
fn the_emulator_names_the_port_that_is_in_use() {
    let env = TestEnv::new();
    let port = env.emulator.port().to_string();
    let output = env.run(&["emulator", "--port", &port]);
    output.assert_failed(6, &format!("cannot listen on port {port}: "));
    assert!(output.stderr.ends_with("; choose another --port\n"), "{}", output.stderr);
}

#[test]
fn the_emulator_serves_until_sigterm() {
    let env = TestEnv::new();
    let secret = env.home.join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    // Ends the process even if an assertion fails.
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }
    let child = env
        .bare(AMP_TOKEN)
        .args(["emulator", "--expires-in", "60", "--client-id", "the-id", "--client-secret-file"])
        .arg(&secret)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let lines: Vec<_> = BufReader::new(child.0.stdout.take().unwrap()).lines().take(7).map(Result::unwrap).collect();
    let url = lines[0].strip_prefix("url=").unwrap();
    assert_eq!(lines[3], "client_id=the-id");
    assert!(lines[5].starts_with("hub_id=0") && lines[6].starts_with("repository_id=0"), "{lines:?}");
    env.run(&["get", "--auth-url", url]).stdout_ok();
    let output = Command::new("kill").arg(child.0.id().to_string()).status().unwrap();
    assert!(output.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_emulator_runs_a_command_and_ends_with_its_status() {
    let env = TestEnv::new();
    let other = env.home.join("other");
    // Nothing of the environment may lead elsewhere, and nothing is left.
    let run = |options: &str, script: &str| {
        let mut shell = env.shell(&format!("exec amp-token emulator {options} -- sh -c \"$0\""));
        shell
            .arg(script)
            .env("TMPDIR", &env.home)
            .env("AMPLIENCE_PAT", "amp_pat_x")
            .env("AMPLIENCE_CLIENT_SECRET", SECRET);
        shell.env("AMPLIENCE_PROXY", "http://127.0.0.1:1").env("HTTPS_PROXY", "http://127.0.0.1:1");
        shell.env("AMPLIENCE_CA_FILE", &other).env("AMPLIENCE_CONFIG_FILE", &other);
        CommandResult::of(&mut shell)
    };
    let script = "amp-token hubs --json && amp-token get >1 && amp-token get >2 && cmp 1 2 && amp-token status && \
                  amp-token request POST /v2/content/content-repositories/$AMP_EMULATOR_REPOSITORY_ID/content-items -d {} \
                  && amp-token request GET /v2/content/hubs/$AMP_EMULATOR_HUB_ID >/dev/null && curl -fsS $AMP_EMULATOR_URL/_emulator/stats";
    for options in ["", "--mutual-tls --client-id me"] {
        let script = if options.is_empty() { script.to_owned() } else { script.replace("curl", ": curl") };
        let output = run(options, &format!("cd \"$HOME\"; {script}")).stdout_ok();
        assert!(output.contains("Emulated test hub") && output.contains("amp-token-emulator-"), "{output}");
        assert!(options.is_empty() == output.contains("\"token_requests\":1"), "{output}");
        assert_eq!(output.contains("API key me,"), !options.is_empty(), "{output}");
    }
    assert_eq!(env.emulator.stats().connections, 0, "the emulator of the environment is another one");
    assert_eq!(run("", "exit 7").status, Some(7));
    assert_eq!(run("", "kill -KILL $$").status, Some(137));
    CommandResult::of(&mut env.shell("amp-token emulator -- no-such-program"))
        .assert_failed(127, "cannot run no-such-program");
    let left: Vec<_> = fs::read_dir(&env.home).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("emulator")), "{left:?}");
}

#[test]
fn the_emulator_passes_signals_on_to_its_command() {
    let env = TestEnv::new();
    let mut shell = env.shell(
        "exec amp-token emulator -- sh -c 'trap \"echo asked; exit 5\" TERM; echo ready; while :; do sleep 0.05; done'",
    );
    let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(lines.next().unwrap(), "asked");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
