//! The examples of bindings/pipelines, of the README and of `--help`, run as the tools run them, in their most
//! talkative modes too. None prints a token or a secret, or has one in an argument.

use crate::world::{Ended, SECRET, World};
use amp_emulator::Fault;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How an access token and a personal access token of the emulator begin, and the client secret.
const HIDDEN: [&str; 3] = ["eyJ", "amp_pat_", SECRET];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An example, quoted for the shell.
fn example(name: &str) -> String {
    format!("'{}'", repository("bindings/pipelines").join(name).display())
}

/// Writes a script into the world's directory, for a shell that is to read it.
fn script(world: &World, text: &str) {
    fs::write(world.home.join("step.sh"), text).unwrap();
}

/// A command, in the world's directory, that runs this command line and records the arguments of every process.
fn traced(world: &World, line: &str) -> Command {
    let mut command = world.shell(&format!("strace -f -qq -e trace=execve -s 1000000 -o arguments {line}"));
    command.current_dir(&world.home);
    command
}

/// Runs such a command. Neither its output nor an argument of any of its processes shows what is hidden.
#[track_caller]
fn run(world: &World, command: &mut Command) -> Ended {
    let ended = Ended::of(command);
    let arguments = fs::read_to_string(world.home.join("arguments")).expect("strace is needed: apt-get install strace");
    assert!(arguments.contains("execve("), "{arguments}");
    // What is no visible ASCII stands as an escape there.
    let (secret, _) = SECRET.split_at(SECRET.find(|c: char| !c.is_ascii()).unwrap());
    for hidden in HIDDEN.into_iter().chain([secret]) {
        for text in [&ended.stdout, &ended.stderr, &arguments] {
            assert!(!text.contains(hidden), "{command:?} shows {hidden}: {text}");
        }
    }
    ended
}

#[track_caller]
fn succeeds(world: &World, line: &str) -> Ended {
    let ended = run(world, &mut traced(world, line));
    assert_eq!(ended.status, Some(0), "{line}: {}{}", ended.stdout, ended.stderr);
    ended
}

/// The hubs that an example has listed.
#[track_caller]
fn hubs(world: &World, file: &str) -> usize {
    let path = world.home.join(file);
    let hubs: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    hubs["_embedded"]["hubs"].as_array().unwrap().len()
}

/// Each of the command lines lists the hubs, all with one token; the first, which is the quiet one, says nothing on
/// standard error. The last fails without credentials and where the API fails, and leaves no hubs.json then. It also
/// takes a personal access token.
#[track_caller]
fn lists_hubs(world: &World, lines: &[String]) {
    for (number, line) in lines.iter().enumerate() {
        let ended = succeeds(world, line);
        assert!(number > 0 || ended.stderr.is_empty(), "{line}: {}", ended.stderr);
        assert_eq!(hubs(world, "hubs.json"), 2);
    }
    let sent = lines.len() as u64;
    assert_eq!((world.emulator.stats().token_requests, world.emulator.stats().api_requests), (1, sent));

    let last = lines.last().unwrap();
    let ended = run(world, traced(world, last).env_remove("AMPLIENCE_CLIENT_SECRET"));
    assert_ne!(ended.status, Some(0), "{last}");
    assert!(ended.stderr.contains("AMPLIENCE_CLIENT_SECRET") || ended.stdout.contains("AMPLIENCE_CLIENT_SECRET"));
    assert!(!world.home.join("hubs.json").exists(), "{last}");
    assert_eq!(world.emulator.stats().api_requests, sent, "{last}");

    world.emulator.fault(Fault::status(500).on("/v2/"));
    let ended = run(world, &mut traced(world, last));
    assert_ne!(ended.status, Some(0), "{last}");
    assert!(!world.home.join("hubs.json").exists(), "{last}");

    let token = world.run(&["pat", "create", "build", "--organization", "o"]).answer();
    let mut personal = traced(world, last);
    personal.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_PAT", token.trim());
    let ended = run(world, &mut personal);
    assert_eq!(ended.status, Some(0), "{last}: {}{}", ended.stdout, ended.stderr);
    assert_eq!(hubs(world, "hubs.json"), 2);
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
    let path = example("hubs.sh");
    lists_hubs(&World::new(), &["sh ", "sh -v ", "bash -x ", "sh -x "].map(|shell| format!("{shell}{path}")));
}

#[test]
fn a_shell_script_with_curl() {
    let path = example("curl.sh");
    lists_hubs(&World::new(), &["sh ", "sh -v ", "bash -x ", "sh -xe "].map(|shell| format!("{shell}{path}")));
}

#[test]
fn parallel_jobs_of_make_share_one_token() {
    let path = example("hubs.mk");
    // The last has every recipe traced by its shell.
    for (number, options) in ["", "-d", "--trace", ".SHELLFLAGS=-xec"].into_iter().enumerate() {
        let world = World::new();
        succeeds(&world, &format!("make -n {options} -f {path}"));
        let ended = succeeds(&world, &format!("make --no-print-directory -j8 {options} -f {path}"));
        assert!(number > 0 || ended.stderr.is_empty(), "{}", ended.stderr);
        let listed: usize = (0..8).map(|page| hubs(&world, &format!("hubs-{page}.json"))).sum();
        assert_eq!(listed, 2);
        assert_eq!((world.emulator.stats().token_requests, world.emulator.stats().api_requests), (1, 8));
        // No file of a request that failed is left.
        world.emulator.fault(Fault::status(500).on("/v2/").forever());
        let ended = run(&world, &mut traced(&world, &format!("make -j8 -k {options} -f {path}")));
        assert_eq!(ended.status, Some(2));
        assert!((0..8).all(|page| !world.home.join(format!("hubs-{page}.json")).exists()));
    }
}

#[test]
fn cmake() {
    if is_installed("cmake") {
        let path = example("hubs.cmake");
        let options = ["", "--trace", "--debug-output --log-level=TRACE", "--trace-expand"];
        lists_hubs(&World::new(), &options.map(|options| format!("cmake {options} -P {path}")));
    }
}

#[test]
fn ant() {
    if is_installed("ant") {
        // Ant has to be told not to work in the directory of its file.
        let path = example("build.xml");
        let options = ["-q", "-v", "-d"];
        lists_hubs(&World::new(), &options.map(|options| format!("ant {options} -Dbasedir=. -f {path}")));
    }
    well_formed(&fs::read_to_string(repository("bindings/pipelines/build.xml")).unwrap());
}

#[test]
fn jenkins() {
    let file = fs::read_to_string(repository("bindings/pipelines/Jenkinsfile")).unwrap();
    let (_, rest) = file.split_once("sh '''").unwrap();
    let (step, _) = rest.split_once("'''").unwrap();
    // Between three single quotes Groovy still reads escapes.
    assert!(!step.contains('\\'));
    assert_eq!(file.matches('{').count(), file.matches('}').count());
    let world = World::new();
    script(&world, step);
    // Jenkins runs the last one.
    lists_hubs(&world, &["sh -e step.sh", "bash -xe step.sh", "sh -xe step.sh"].map(str::to_owned));
}

#[test]
fn a_github_workflow() {
    let file = fs::read_to_string(repository("bindings/pipelines/workflow.yml")).unwrap();
    let (_, rest) = file.split_once("run: |\n").unwrap();
    let step: Vec<_> = rest.lines().map_while(|line| line.strip_prefix("          ")).collect();
    let world = World::new();
    script(&world, &step.join("\n"));
    // The runner runs the first one, and the second where the workflow says `shell: bash`.
    lists_hubs(
        &world,
        &["bash -e step.sh", "bash --noprofile --norc -eo pipefail step.sh", "bash -xe step.sh"].map(str::to_owned),
    );
}

/// The lines of an example, with the emulator in place of Amplience.
fn against(world: &World, example: &str) -> String {
    example.replace("https://api.amplience.net", &world.emulator.url())
}

#[test]
fn the_examples_of_the_help() {
    // The commands whose examples handle a token or can be run as they are, and the API requests that they send.
    for (command, requests) in [("", 1), ("get", 0), ("header", 1), ("curl-config", 1), ("pat", 1), ("invalidate", 0)] {
        let world = World::new();
        let token = world.run(&["get"]).answer();
        let help = world.run(&[command, "-h"][usize::from(command.is_empty())..]).answer();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        let examples = examples.split("\n\n").next().unwrap();
        // `exec` needs a program of the user's; the exit status of `doctor` is another than that of the request.
        let lines: Vec<_> =
            examples.lines().filter(|line| !line.contains("exec") && !line.contains("doctor")).collect();
        // A line that fails has to stop a script that goes on after it.
        script(&world, &format!("{}\ntouch after\n", against(&world, &lines.join("\n"))));
        let went_on = || fs::remove_file(world.home.join("after")).is_ok();
        let sent = || world.emulator.stats().api_requests + world.emulator.stats().graphql_requests;
        let traced = || {
            let mut command = traced(&world, "sh -xe step.sh");
            command.env("AMPLIENCE_ACCESS_TOKEN", token.trim());
            command
        };
        let ended = run(&world, &mut traced());
        assert_eq!((ended.status, went_on()), (Some(0), true), "{command}: {}", ended.stderr);
        assert_eq!((world.emulator.stats().token_requests, sent()), (1, requests), "{command}");
        // The file of a personal access token is closed to other users from the start, not only in the end.
        let file = world.home.join("token");
        let is_closed = || fs::metadata(&file).unwrap().permissions().mode() & 0o077 == 0;
        assert!(if command == "pat" { is_closed() } else { !file.exists() });
        let _ = fs::remove_file(&file);
        let ended = run(&world, traced().env_remove("AMPLIENCE_CLIENT_SECRET"));
        assert_eq!((ended.status, went_on()), (Some(3), false), "{command}: {}", ended.stderr);
        assert_eq!(sent(), requests, "{command}");
        assert!(command != "pat" || is_closed());
    }
}

#[test]
fn the_examples_of_the_readmes() {
    for page in ["README.md", "bindings/pipelines/README.md"] {
        let text = fs::read_to_string(repository(page)).unwrap();
        for block in text.split("\n```").skip(1).step_by(2) {
            let (language, example) = block.split_once('\n').unwrap();
            let tool = match language {
                "make" => "make -f",
                "sh" if example.contains("amp-token ") => "sh -xe",
                _ => continue,
            };
            let world = World::new();
            script(&world, &against(&world, example));
            succeeds(&world, &format!("{tool} step.sh"));
            assert_eq!(hubs(&world, "hubs.json"), 2, "{page}");
            let ended = run(&world, traced(&world, &format!("{tool} step.sh")).env_remove("AMPLIENCE_CLIENT_SECRET"));
            assert_ne!(ended.status, Some(0), "{page}: {example}");
        }
    }
}

/// Every tag that is opened is closed, in its turn.
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
