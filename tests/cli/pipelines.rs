//! The examples of bindings/pipelines, of the README and of `--help`, run as their tools run them, also in the
//! most verbose modes. None prints a token or a secret, or passes one in an argument.

use crate::shared::require_tool;
use crate::support::{CommandResult, SECRET, TestEnv};
use amp_emulator::Fault;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first characters of an access token and of a personal access token of the emulator, and the client secret.
const HIDDEN: [&str; 3] = ["eyJ", "amp_pat_", SECRET];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An example, quoted for the shell.
fn example(name: &str) -> String {
    format!("'{}'", repository("bindings/pipelines").join(name).display())
}

/// Writes a script for a shell to the directory of the environment.
fn script(env: &TestEnv, text: &str) {
    fs::write(env.home.join("step.sh"), text).unwrap();
}

/// A command in the directory of the environment. It runs this command line and records the arguments of every
/// process.
fn traced(env: &TestEnv, line: &str) -> Command {
    let mut command = env.shell(&format!("strace -f -qq -e trace=execve -s 1000000 -o arguments {line}"));
    command.current_dir(&env.home);
    command
}

/// Runs such a command, and asserts that no token or secret is in its output or in an argument of its processes.
#[track_caller]
fn run(env: &TestEnv, command: &mut Command) -> CommandResult {
    let output = CommandResult::of(command);
    let arguments = fs::read_to_string(env.home.join("arguments")).expect("strace is needed: apt-get install strace");
    assert!(arguments.contains("execve("), "{arguments}");
    // strace escapes all characters that are not visible ASCII.
    let (secret, _) = SECRET.split_at(SECRET.find(|c: char| !c.is_ascii()).unwrap());
    for hidden in HIDDEN.into_iter().chain([secret]) {
        for text in [&output.stdout, &output.stderr, &arguments] {
            assert!(!text.contains(hidden), "{command:?} shows {hidden}: {text}");
        }
    }
    output
}

#[track_caller]
fn succeeds(env: &TestEnv, line: &str) -> CommandResult {
    let output = run(env, &mut traced(env, line));
    assert_eq!(output.status, Some(0), "{line}: {}{}", output.stdout, output.stderr);
    output
}

/// The number of hubs that an example has listed.
#[track_caller]
fn hubs(env: &TestEnv, file: &str) -> usize {
    let path = env.home.join(file);
    let hubs: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    hubs["_embedded"]["hubs"].as_array().unwrap().len()
}

/// Asserts that each of the command lines lists the hubs, all with one token, and that the first one prints nothing
/// on standard error. The last one is also run without credentials and with an API that fails: it then fails too, and
/// leaves no hubs.json. With a personal access token it lists the hubs.
#[track_caller]
fn lists_hubs(env: &TestEnv, lines: &[String]) {
    for (number, line) in lines.iter().enumerate() {
        let output = succeeds(env, line);
        assert!(number > 0 || output.stderr.is_empty(), "{line}: {}", output.stderr);
        assert_eq!(hubs(env, "hubs.json"), 2);
    }
    let sent = lines.len() as u64;
    assert_eq!((env.emulator.stats().token_requests, env.emulator.stats().api_requests), (1, sent));

    let last = lines.last().unwrap();
    let output = run(env, traced(env, last).env_remove("AMPLIENCE_CLIENT_SECRET"));
    assert_ne!(output.status, Some(0), "{last}");
    assert!(output.stderr.contains("AMPLIENCE_CLIENT_SECRET") || output.stdout.contains("AMPLIENCE_CLIENT_SECRET"));
    assert!(!env.home.join("hubs.json").exists(), "{last}");
    assert_eq!(env.emulator.stats().api_requests, sent, "{last}");

    env.emulator.fault(Fault::status(500).for_path("/v2/"));
    let output = run(env, &mut traced(env, last));
    assert_ne!(output.status, Some(0), "{last}");
    assert!(!env.home.join("hubs.json").exists(), "{last}");

    let token = env.run(&["pat", "create", "build", "--organization", "o"]).stdout_ok();
    let mut personal = traced(env, last);
    personal.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_PAT", token.trim());
    let output = run(env, &mut personal);
    assert_eq!(output.status, Some(0), "{last}: {}{}", output.stdout, output.stderr);
    assert_eq!(hubs(env, "hubs.json"), 2);
}

/// Whether a program is installed. If it is not, that its example was not run is reported, around what the test
/// harness captures.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !installed {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed: its example was not run");
    }
    installed
}

#[test]
fn a_shell_script() {
    if !require_tool("strace") {
        return;
    }
    let path = example("hubs.sh");
    lists_hubs(&TestEnv::new(), &["sh ", "sh -v ", "bash -x ", "sh -x "].map(|shell| format!("{shell}{path}")));
}

#[test]
fn a_shell_script_with_curl() {
    if !require_tool("strace") || !require_tool("curl") {
        return;
    }
    let path = example("curl.sh");
    lists_hubs(&TestEnv::new(), &["sh ", "sh -v ", "bash -x ", "sh -xe "].map(|shell| format!("{shell}{path}")));
}

#[test]
fn parallel_jobs_of_make_share_one_token() {
    if !require_tool("strace") {
        return;
    }
    let path = example("hubs.mk");
    // The last has every recipe traced by its shell.
    for (number, options) in ["", "-d", "--trace", ".SHELLFLAGS=-xec"].into_iter().enumerate() {
        let env = TestEnv::new();
        succeeds(&env, &format!("make -n {options} -f {path}"));
        let output = succeeds(&env, &format!("make --no-print-directory -j8 {options} -f {path}"));
        assert!(number > 0 || output.stderr.is_empty(), "{}", output.stderr);
        let listed: usize = (0..8).map(|page| hubs(&env, &format!("hubs-{page}.json"))).sum();
        assert_eq!(listed, 2);
        assert_eq!((env.emulator.stats().token_requests, env.emulator.stats().api_requests), (1, 8));
        // A request that failed leaves no file.
        env.emulator.fault(Fault::status(500).for_path("/v2/").forever());
        let output = run(&env, &mut traced(&env, &format!("make -j8 -k {options} -f {path}")));
        assert_eq!(output.status, Some(2));
        assert!((0..8).all(|page| !env.home.join(format!("hubs-{page}.json")).exists()));
    }
}

#[test]
fn cmake() {
    if require_tool("strace") && is_installed("cmake") {
        let path = example("hubs.cmake");
        let options = ["", "--trace", "--debug-output --log-level=TRACE", "--trace-expand"];
        lists_hubs(&TestEnv::new(), &options.map(|options| format!("cmake {options} -P {path}")));
    }
}

#[test]
fn ant() {
    if require_tool("strace") && is_installed("ant") {
        // By default Ant works in the directory of its file.
        let path = example("build.xml");
        let options = ["-q", "-v", "-d"];
        lists_hubs(&TestEnv::new(), &options.map(|options| format!("ant {options} -Dbasedir=. -f {path}")));
    }
    well_formed(&fs::read_to_string(repository("bindings/pipelines/build.xml")).unwrap());
}

#[test]
fn jenkins() {
    if !require_tool("strace") {
        return;
    }
    let file = fs::read_to_string(repository("bindings/pipelines/Jenkinsfile")).unwrap();
    let (_, rest) = file.split_once("sh '''").unwrap();
    let (step, _) = rest.split_once("'''").unwrap();
    // Groovy replaces escape sequences even between three single quotes.
    assert!(!step.contains('\\'));
    assert_eq!(file.matches('{').count(), file.matches('}').count());
    let env = TestEnv::new();
    script(&env, step);
    // Jenkins runs the last one.
    lists_hubs(&env, &["sh -e step.sh", "bash -xe step.sh", "sh -xe step.sh"].map(str::to_owned));
}

#[test]
fn a_github_workflow() {
    if !require_tool("strace") {
        return;
    }
    let file = fs::read_to_string(repository("bindings/pipelines/workflow.yml")).unwrap();
    let (_, rest) = file.split_once("run: |\n").unwrap();
    let step: Vec<_> = rest.lines().map_while(|line| line.strip_prefix("          ")).collect();
    let env = TestEnv::new();
    script(&env, &step.join("\n"));
    // The runner runs the first one, and the second where the workflow says `shell: bash`.
    lists_hubs(
        &env,
        &["bash -e step.sh", "bash --noprofile --norc -eo pipefail step.sh", "bash -xe step.sh"].map(str::to_owned),
    );
}

/// The lines of an example, with the emulator in place of Amplience.
fn against(env: &TestEnv, example: &str) -> String {
    example.replace("https://api.amplience.net", &env.emulator.url())
}

#[test]
fn the_examples_of_the_help() {
    if !require_tool("strace") || !require_tool("curl") {
        return;
    }
    // The commands whose examples handle a token or can be run as they are, and the API requests that they send.
    for (command, requests) in [("", 1), ("get", 0), ("header", 1), ("curl-config", 1), ("pat", 2), ("invalidate", 0)] {
        let env = TestEnv::new();
        let token = env.run(&["get"]).stdout_ok();
        let help = env.run(&[command, "-h"][usize::from(command.is_empty())..]).stdout_ok();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        let examples = examples.split("\n\n").next().unwrap();
        // `exec` needs a program of the user, and `doctor` ends with another exit status than a request.
        let lines: Vec<_> =
            examples.lines().filter(|line| !line.contains("exec") && !line.contains("doctor")).collect();
        // A line that fails must end the script before its next line.
        script(&env, &format!("{}\ntouch after\n", against(&env, &lines.join("\n"))));
        let went_on = || fs::remove_file(env.home.join("after")).is_ok();
        let sent = || env.emulator.stats().api_requests + env.emulator.stats().graphql_requests;
        let traced = || {
            let mut command = traced(&env, "sh -xe step.sh");
            command.env("AMPLIENCE_ACCESS_TOKEN", token.trim());
            command
        };
        let output = run(&env, &mut traced());
        assert_eq!((output.status, went_on()), (Some(0), true), "{command}: {}", output.stderr);
        assert_eq!((env.emulator.stats().token_requests, sent()), (1, requests), "{command}");
        // Other users cannot read the file of a personal access token, from its creation on.
        let file = env.home.join("token");
        let is_closed = || fs::metadata(&file).unwrap().permissions().mode() & 0o077 == 0;
        assert!(if command == "pat" { is_closed() } else { !file.exists() });
        let _ = fs::remove_file(&file);
        let output = run(&env, traced().env_remove("AMPLIENCE_CLIENT_SECRET"));
        assert_eq!((output.status, went_on()), (Some(3), false), "{command}: {}", output.stderr);
        assert_eq!(sent(), requests, "{command}");
        assert!(!file.exists(), "no file is left of a token that was not created");
    }
}

#[test]
fn the_examples_of_the_readmes() {
    if !require_tool("strace") {
        return;
    }
    for page in ["README.md", "bindings/pipelines/README.md"] {
        let text = fs::read_to_string(repository(page)).unwrap();
        for block in text.split("\n```").skip(1).step_by(2) {
            let (language, example) = block.split_once('\n').unwrap();
            let tool = match language {
                "make" => "make -f",
                "sh" if example.contains("> hubs.json") || example.contains(">hubs.json") => "sh -xe",
                _ => continue,
            };
            let env = TestEnv::new();
            script(&env, &against(&env, example));
            succeeds(&env, &format!("{tool} step.sh"));
            assert_eq!(hubs(&env, "hubs.json"), 2, "{page}");
            let output = run(&env, traced(&env, &format!("{tool} step.sh")).env_remove("AMPLIENCE_CLIENT_SECRET"));
            assert_ne!(output.status, Some(0), "{page}: {example}");
        }
    }
}

/// Asserts that every opening tag has its closing tag.
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    for piece in xml.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap();
        let name = tag.split_whitespace().next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if name.starts_with(['?', '!']) || tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
