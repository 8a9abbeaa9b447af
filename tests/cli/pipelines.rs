//! The examples of bindings/pipelines, run as they are.

use crate::world::{Ended, World};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings/pipelines").join(name)
}

/// Runs a line in the world's folder; nothing may be said on standard error.
fn run(world: &World, line: &str) {
    let ended = Ended::of(world.shell(line).current_dir(&world.home));
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{line}: {}", ended.stdout);
    assert!(!ended.stdout.contains("Authorization"), "{line}: {}", ended.stdout);
}

/// The hubs that an example has listed.
fn hubs(world: &World, file: &str) -> usize {
    let path = world.home.join(file);
    let hubs: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    hubs["_embedded"]["hubs"].as_array().unwrap().len()
}

/// An example lists the hubs twice with one token, and fails without credentials, leaving nothing behind.
fn lists_hubs(line: &str) {
    let world = World::new();
    for _ in 0..2 {
        run(&world, line);
        assert_eq!(hubs(&world, "hubs.json"), 2);
    }
    assert_eq!((world.emulator.stats().token_requests, world.emulator.stats().api_requests), (1, 2));
    let mut without = world.shell(line);
    let ended = Ended::of(without.env_remove("AMPLIENCE_CLIENT_SECRET").current_dir(&world.home));
    assert_ne!(ended.status, Some(0), "{line}");
    assert!(ended.stderr.contains("AMPLIENCE_CLIENT_SECRET") || ended.stdout.contains("AMPLIENCE_CLIENT_SECRET"));
    assert!(!world.home.join("hubs.json").exists());
    assert_eq!(world.emulator.stats().api_requests, 2);
}

/// Whether a program is here. Without it, its example is only looked at.
fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !here {
        eprintln!("there is no {program} here: its example was not run");
    }
    here
}

#[test]
fn a_shell_script() {
    lists_hubs(&format!("sh '{}'", example("hubs.sh").display()));
}

#[test]
fn parallel_jobs_of_make_share_one_token() {
    let world = World::new();
    run(&world, &format!("make --no-print-directory -j8 -f '{}'", example("hubs.mk").display()));
    let listed: usize = (0..8).map(|page| hubs(&world, &format!("hubs-{page}.json"))).sum();
    assert_eq!(listed, 2);
    assert_eq!((world.emulator.stats().token_requests, world.emulator.stats().api_requests), (1, 8));
}

#[test]
fn cmake() {
    if is_here("cmake") {
        lists_hubs(&format!("cmake -P '{}'", example("hubs.cmake").display()));
    }
}

#[test]
fn ant() {
    if is_here("ant") {
        // Ant has to be told not to work in the folder of its file.
        lists_hubs(&format!("ant -q -S -Dbasedir=. -f '{}'", example("build.xml").display()));
    }
    well_formed(&fs::read_to_string(example("build.xml")).unwrap());
}

#[test]
fn jenkins() {
    let file = fs::read_to_string(example("Jenkinsfile")).unwrap();
    let (_, rest) = file.split_once("sh '''").unwrap();
    let (script, _) = rest.split_once("'''").unwrap();
    // Between three single quotes Groovy still reads escapes.
    let script = script.replace("\\\\", "\\");
    assert_eq!(file.matches('{').count(), file.matches('}').count());
    // As Jenkins runs it.
    lists_hubs(&format!("sh -e -c '{}'", script.replace('\'', r"'\''")));
}

#[test]
fn a_github_workflow() {
    let file = fs::read_to_string(example("workflow.yml")).unwrap();
    let (_, rest) = file.split_once("run: |\n").unwrap();
    let script: Vec<_> = rest.lines().take_while(|line| line.starts_with("          ")).map(str::trim_start).collect();
    let script = script.join("\n");
    assert!(script.contains("::add-mask::"));
    // As the runner runs it, which reads what is printed: the line for the mask is a command to it.
    lists_hubs(&format!("bash -e -c '{}' >runner.log", script.replace('\'', r"'\''")));
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
