//! Completion in the shells themselves, with a person at a terminal: `completion.py` types, and looks at the screen.

use crate::shared::require_tool;
use crate::support::{AMP_TOKEN, CommandResult, TestEnv};
use std::fs;
use std::path::Path;

/// What is typed before the tab key, and what must be on the screen after it.
const TYPED: [(&str, &str); 9] = [
    ("amp-token stat", "amp-token status"),
    ("amp-token get --store-d", "amp-token get --store-dir"),
    ("amp-token get --forma", "amp-token get --format"),
    ("amp-token get --format exec-c", "amp-token get --format exec-credential"),
    ("amp-token exec --clea", "amp-token exec --clean"),
    ("amp-token pat create --organ", "amp-token pat create --organization"),
    ("amp-token emulator --expires", "amp-token emulator --expires-in"),
    ("amp-token get --profile stag", "amp-token get --profile staging"),
    ("amp-token --profile prod", "amp-token --profile production"),
];

fn completes(shell: &[&str], setup: &str) {
    if !require_tool("python3") || !require_tool(shell[0]) {
        return;
    }
    let env = TestEnv::new();
    let script = env.run(&["completions", shell[0]]).stdout_ok();
    fs::write(env.home.join("_amp-token"), script).unwrap();
    fs::create_dir_all(env.home.join(".config/amp-token")).unwrap();
    fs::write(env.home.join(".config/amp-token/config.toml"), "[staging]\n[production]\n").unwrap();
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/completion.py");
    for (typed, expected) in TYPED {
        let mut command = env.bare("python3");
        command.arg(&driver).args([setup, &format!("{typed}\t"), expected]).args(shell);
        // The command is on the PATH, as a shell expects.
        let path = format!("{}:{}", Path::new(AMP_TOKEN).parent().unwrap().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("TERM", "xterm").current_dir(&env.home);
        let result = CommandResult::of(&mut command);
        assert_eq!(result.status, Some(0), "{}: {typed}: {}{}", shell[0], result.stdout, result.stderr);
    }
}

#[test]
fn bash_completes_at_a_terminal() {
    completes(&["bash", "--norc", "--noprofile", "-i"], ". ./_amp-token; PS1='READ''Y> '");
}

#[test]
fn zsh_completes_at_a_terminal() {
    completes(&["zsh", "-f", "-i"], "fpath=($PWD $fpath); autoload -U compinit; compinit -u; PS1='READ''Y> '");
}

#[test]
fn fish_completes_at_a_terminal() {
    completes(
        &["fish", "--no-config", "-i"],
        "source ./_amp-token; function fish_prompt; echo -n READ; echo -n 'Y> '; end",
    );
}
