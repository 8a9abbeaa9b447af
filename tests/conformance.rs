//! Each binding behaves alike: the scenarios of tests/conformance, run through a small program per language, and the
//! table of the results in docs/conformance.md. tests/conformance/README.md describes scenarios and programs.
//!
//! A language is one row of [`RUNNERS`]. AMP_UPDATE_DOCS=1 rewrites the table; AMP_CONFORMANCE=C runs one language only.

#![cfg(all(feature = "emulator", unix))]

mod support;

use amp_emulator::{Emulator, Fault, PausedRequests};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::{C_FLAGS, CPP_FLAGS, has, library_dir, report_skipped, require, root, run, scratch, temp_dir};

/// The program of one language. In its strings `{root}` is the repository, `{target}` cargo's target directory,
/// `{library}` the directory of the built library, and `{out}` a directory for what the program is built to.
struct Runner {
    language: &'static str,
    /// The commands and files that it needs. Without them the language is skipped. A command that does not know
    /// --version is given with arguments.
    needs: &'static [&'static str],
    /// Whether it is a recipe: its tools are required only by scripts/test-recipes.sh, which installs them and sets
    /// AMP_REQUIRE_RECIPES.
    recipe: bool,
    /// The commands that build it, words separated by blanks.
    build: &'static [&'static str],
    /// The command that runs it.
    run: &'static str,
    /// Variables of its environment, in addition to LD_LIBRARY_PATH and AMP_TOKEN_LIBRARY.
    environment: &'static [(&'static str, &'static str)],
}

const RUNNERS: &[Runner] = &[
    Runner {
        language: "C",
        needs: &["cc"],
        recipe: false,
        build: &["cc {c_flags} -I{root}/include {root}/tests/conformance/runners/runner.c -o {out}/runner \
                  -L{library} -lamp_token -lpthread"],
        run: "{out}/runner",
        environment: &[],
    },
    Runner {
        language: "C++",
        needs: &["c++"],
        recipe: false,
        build: &["c++ -std=c++11 {cpp_flags} -I{root}/include -I{root}/bindings/cpp \
                  {root}/tests/conformance/runners/runner.cpp -o {out}/runner -L{library} -lamp_token -lpthread"],
        run: "{out}/runner",
        environment: &[],
    },
    Runner {
        language: "Python",
        needs: &["python3"],
        recipe: false,
        build: &[],
        run: "python3 {root}/tests/conformance/runners/runner.py",
        environment: &[("PYTHONPATH", "{root}/bindings/python"), ("PYTHONDONTWRITEBYTECODE", "1")],
    },
    // The package that bindings/node/build.sh has put together, with the library of this build.
    Runner {
        language: "Node.js",
        needs: &["node", "{target}/node/prebuilds/linux-x64-gnu/amp_token.node"],
        recipe: false,
        build: &["cp {library}/libamp_token.so {out}/libamp_token.so.0"],
        run: "node {root}/tests/conformance/runners/runner.mjs",
        environment: &[("AMP_TOKEN_PACKAGE", "{target}/node"), ("LD_LIBRARY_PATH", "{out}")],
    },
    // The recipes. They load the library by its full name.
    Runner {
        language: "C#",
        needs: &["mcs", "mono"],
        recipe: true,
        build: &[
            "ln -sf {library}/libamp_token.so {out}/libamp_token.so.0",
            "mcs -out:{out}/runner.exe {root}/bindings/recipes/csharp/AmpToken.cs \
                  {root}/tests/conformance/runners/Runner.cs",
        ],
        run: "mono {out}/runner.exe",
        environment: &[("LD_LIBRARY_PATH", "{out}")],
    },
    Runner {
        language: "Go",
        needs: &["go version", "cc"],
        recipe: true,
        build: &[
            "env CGO_CFLAGS=-I{root}/include CGO_LDFLAGS=-L{library} go build -o {out}/runner {root}/tests/conformance/runners/runner.go",
        ],
        run: "{out}/runner",
        environment: &[],
    },
    Runner {
        language: "Java",
        needs: &["javac", "/usr/share/java/jna.jar"],
        recipe: true,
        build: &[
            "ln -sf {library}/libamp_token.so {out}/libamp_token.so.0",
            "javac -cp /usr/share/java/jna.jar -d {out} {root}/bindings/recipes/java/AmpToken.java \
                  {root}/tests/conformance/runners/Runner.java",
        ],
        run: "java -XX:TieredStopAtLevel=1 -cp /usr/share/java/jna.jar:{out} Runner",
        environment: &[("LD_LIBRARY_PATH", "{out}")],
    },
    Runner {
        language: "LuaJIT",
        needs: &["luajit -v"],
        recipe: true,
        build: &["ln -sf {library}/libamp_token.so {out}/libamp_token.so.0"],
        run: "luajit {root}/tests/conformance/runners/runner.lua",
        environment: &[("LD_LIBRARY_PATH", "{out}"), ("AMP_TOKEN_I", "{root}/include/amp_token.i")],
    },
    Runner {
        language: "Perl",
        needs: &["perl -MFFI::Platypus -e 1"],
        recipe: true,
        build: &["ln -sf {library}/libamp_token.so {out}/libamp_token.so.0"],
        run: "perl {root}/tests/conformance/runners/runner.pl",
        environment: &[("LD_LIBRARY_PATH", "{out}")],
    },
    Runner {
        language: "PHP",
        needs: &["php"],
        recipe: true,
        build: &["ln -sf {library}/libamp_token.so {out}/libamp_token.so.0"],
        run: "php {root}/tests/conformance/runners/runner.php",
        environment: &[("LD_LIBRARY_PATH", "{out}"), ("AMP_TOKEN_I", "{root}/include/amp_token.i")],
    },
    Runner {
        language: "Ruby",
        needs: &["ruby"],
        recipe: true,
        build: &["ln -sf {library}/libamp_token.so {out}/libamp_token.so.0"],
        run: "ruby {root}/tests/conformance/runners/runner.rb",
        environment: &[("LD_LIBRARY_PATH", "{out}")],
    },
];

/// One file of tests/conformance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What is shown, as a sentence without a full stop.
    title: String,
    /// Whether the server speaks https.
    #[serde(default)]
    tls: bool,
    /// Variables of the program's environment, or null for those to remove.
    #[serde(default)]
    environment: BTreeMap<String, Option<String>>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// The command to run once.
    r#do: Option<String>,
    /// The command to repeat until the answer, or with `until_requests` the number of requests, is the expected one.
    repeat: Option<String>,
    answer: Option<String>,
    until_requests: Option<u64>,
    /// Which of several processes runs the command.
    #[serde(default)]
    process: usize,
    server: Option<Change>,
    /// The token requests that the server must have seen, after waiting for that many.
    requests: Option<u64>,
}

/// What changes at the server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    faults: Option<Vec<Fault>>,
    expires_in: Option<u64>,
    #[serde(default)]
    revoke: bool,
    pause: Option<bool>,
}

/// How long anything may take that a correct program does much faster.
const LIMIT: Duration = Duration::from_secs(60);

/// A running program.
struct Process {
    child: Child,
    answers: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Process { child, answers }
    }

    fn ask(&mut self, command: &str) -> Result<String, String> {
        let broken = |error| format!("{command}: the program ended: {error}");
        writeln!(self.child.stdin.as_ref().unwrap(), "{command}").map_err(broken)?;
        self.answers.recv_timeout(LIMIT).map_err(|error| format!("{command}: no answer: {error}"))
    }

    /// Closes the program's input, after which it must end.
    fn end(mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            match self.child.try_wait().unwrap() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the program ended with {status}")),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err("the program did not end".to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the words of an answer are those of a pattern; words after them are not compared. `*` is any word,
/// `A..B` a number from A to B, `$name` the word that the name had first, `!name` another word than that.
fn matches(pattern: &str, answer: &str, names: &mut HashMap<String, String>) -> bool {
    let mut words = answer.split(' ');
    pattern.split(' ').all(|expected| {
        let Some(word) = words.next() else { return false };
        if let Some((least, most)) = expected.split_once("..") {
            let range: (i64, i64) = (least.parse().unwrap(), most.parse().unwrap());
            word.parse::<i64>().is_ok_and(|number| (range.0..=range.1).contains(&number))
        } else if let Some(name) = expected.strip_prefix('$') {
            names.entry(name.to_owned()).or_insert_with(|| word.to_owned()) == word
        } else if let Some(name) = expected.strip_prefix('!') {
            names[name] != word
        } else {
            expected == "*" || expected == word
        }
    })
}

/// An answer with the ends of its tokens only.
fn shortened(answer: &str) -> String {
    let words = answer.split(' ').map(|word| if word.len() > 60 { &word[word.len() - 10..] } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    /// The language, or its runner, has no such thing.
    Unsupported,
}

/// Runs one scenario in one language.
fn play(scenario: &Scenario, runner: &Runner, out: &Path) -> Result<Outcome, String> {
    let emulator = Emulator::builder().tls(scenario.tls).start().unwrap();
    let store = temp_dir();
    let ca_file = if scenario.tls { emulator.ca_file().display().to_string() } else { String::new() };
    let settings = [("{ca_file}", ca_file), ("{store_dir}", store.path().display().to_string())];
    let start = || {
        let mut command = command(runner.run, out);
        support::without_settings(&mut command);
        command
            .env("LD_LIBRARY_PATH", library_dir())
            .env("AMP_TOKEN_LIBRARY", library_dir().join("libamp_token.so"))
            .envs(runner.environment.iter().map(|(name, value)| (name, filled(value, out))))
            .env("AMPLIENCE_CLIENT_ID", emulator.client_id())
            .env("AMPLIENCE_CLIENT_SECRET", emulator.client_secret())
            .env("AMPLIENCE_AUTH_URL", emulator.url())
            .env("AMPLIENCE_API_URL", emulator.url());
        for (name, value) in &scenario.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Process::start(&mut command)
    };
    let mut processes: Vec<Process> = Vec::new();
    let mut names = HashMap::new();
    let mut paused: Option<PausedRequests> = None;
    for (index, step) in scenario.steps.iter().enumerate() {
        let wrong = |what: String| format!("step {}: {what}", index + 1);
        if let Some(change) = &step.server {
            if let Some(faults) = &change.faults {
                emulator.faults(faults.iter().cloned());
            }
            if let Some(seconds) = change.expires_in {
                emulator.set_expires_in(seconds);
            }
            if change.revoke {
                emulator.revoke_all();
            }
            if let Some(pause) = change.pause {
                paused = pause.then(|| emulator.pause_token_requests());
            }
        }
        if let Some(text) = step.r#do.as_ref().or(step.repeat.as_ref()) {
            let text = settings.iter().fold(text.clone(), |text, (name, value)| text.replace(name, value));
            while processes.len() <= step.process {
                processes.push(start());
            }
            let pattern = step.answer.as_deref().unwrap_or("AMP_OK");
            let begin = Instant::now();
            loop {
                let answer = processes[step.process].ask(&text).map_err(wrong)?;
                if answer == "unsupported" {
                    return Ok(Outcome::Unsupported);
                }
                let is_right = matches(pattern, &answer, &mut names);
                let is_late = begin.elapsed() > LIMIT;
                let goes_on = match step.until_requests {
                    Some(requests) => is_right && emulator.stats().token_requests < requests && !is_late,
                    None => step.repeat.is_some() && !is_right && !is_late,
                };
                if !goes_on && (!is_right || is_late) {
                    let names = names.iter().map(|(name, word)| format!("; ${name} is {}", shortened(word)));
                    let (answer, names) = (shortened(&answer), names.collect::<String>());
                    return Err(wrong(format!("{text:?} answered {answer:?} instead of {pattern:?}{names}")));
                }
                if !goes_on {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Some(requests) = step.requests {
            let came = emulator.wait_for_token_requests(requests, LIMIT);
            let seen = emulator.stats().token_requests;
            if !came || seen != requests {
                return Err(wrong(format!("the server saw {seen} token requests instead of {requests}")));
            }
        }
    }
    for process in processes {
        process.end()?;
    }
    drop(paused);
    Ok(Outcome::Passed)
}

/// A string of [`Runner`] with its placeholders filled in.
fn filled(text: &str, out: &Path) -> String {
    text.replace("{root}", &root().display().to_string())
        .replace("{library}", &library_dir().display().to_string())
        .replace("{target}", &library_dir().join("../..").canonicalize().unwrap().display().to_string())
        .replace("{out}", &out.display().to_string())
}

fn command(text: &str, out: &Path) -> Command {
    let text = text.replace("{c_flags}", &C_FLAGS.join(" ")).replace("{cpp_flags}", &CPP_FLAGS.join(" "));
    let mut words = text.split_whitespace().map(|word| filled(word, out));
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// The scenarios, in the order of their files' names.
fn scenarios() -> Vec<(String, Scenario)> {
    let files = std::fs::read_dir(root().join("tests/conformance")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    files.sort();
    let parsed = files.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (name, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    parsed.collect()
}

/// Builds a runner and plays all scenarios; the outcomes by the names of the scenarios, or `None` if the language is
/// not installed.
fn play_all(runner: &Runner, scenarios: &[(String, Scenario)]) -> Option<Vec<Result<Outcome, String>>> {
    if std::env::var("AMP_CONFORMANCE").is_ok_and(|only| only != runner.language) {
        report_skipped(&format!("{}: not in AMP_CONFORMANCE", runner.language));
        return None;
    }
    let out = scratch("conformance").join(runner.language);
    std::fs::create_dir_all(&out).unwrap();
    for needed in runner.needs {
        let path = filled(needed, &out);
        let is_there = if path.contains(' ') {
            command(&path, &out).output().is_ok_and(|output| output.status.success())
        } else if path.contains('/') {
            Path::new(&path).exists()
        } else {
            has(&path)
        };
        let what = format!("{}: {path}", runner.language);
        if runner.recipe && !is_there && std::env::var_os("AMP_REQUIRE_RECIPES").is_none() {
            report_skipped(&what);
            return None;
        }
        if !require(is_there, &what) {
            return None;
        }
    }
    for text in runner.build {
        run(&mut command(text, &out));
    }
    Some(scenarios.iter().map(|(_, scenario)| play(scenario, runner, &out)).collect())
}

const PAGE: &str = "docs/conformance.md";
const END: &str = "<!-- end of scenarios -->";

#[test]
fn every_language_behaves_alike() {
    let scenarios = scenarios();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = RUNNERS.iter().map(|runner| scope.spawn(|| play_all(runner, &scenarios))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut failures = String::new();
    for (runner, outcomes) in RUNNERS.iter().zip(&outcomes) {
        for ((name, _), outcome) in scenarios.iter().zip(outcomes.iter().flatten()) {
            if let Err(problem) = outcome {
                writeln!(failures, "{}, {name}: {problem}", runner.language).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");

    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let before = page.split("| scenario |").next().unwrap();
    let (_, after) = page.split_once(END).unwrap();
    // The cells of a language that is not installed here are kept.
    let kept = |row: &str, column: usize| {
        let line = page.lines().find(|line| line.starts_with(&format!("| {row} |")));
        line.and_then(|line| line.split(" | ").nth(column + 1))
            .map_or("", |cell| cell.trim_end_matches(" |"))
            .to_owned()
    };
    let languages: Vec<_> = RUNNERS.iter().map(|runner| runner.language).collect();
    let mut table = format!("| scenario | {} |\n| --- |{}\n", languages.join(" | "), " --- |".repeat(languages.len()));
    for (row, (_, scenario)) in scenarios.iter().enumerate() {
        let cells: Vec<_> = outcomes
            .iter()
            .enumerate()
            .map(|(column, outcomes)| match outcomes {
                Some(outcomes) if outcomes[row] == Ok(Outcome::Unsupported) => "–".to_owned(),
                Some(_) => "yes".to_owned(),
                None => kept(&scenario.title, column),
            })
            .collect();
        writeln!(table, "| {} | {} |", scenario.title, cells.join(" | ")).unwrap();
    }
    let made = format!("{before}{table}{END}{after}");
    if std::env::var_os("AMP_UPDATE_DOCS").is_some() {
        std::fs::write(root().join(PAGE), &made).unwrap();
        return;
    }
    assert!(made == page, "AMP_UPDATE_DOCS=1 cargo test --features cli,emulator,redis --test conformance\n{table}");
}

#[test]
fn patterns_compare_words() {
    let mut names = HashMap::new();
    for (pattern, answer, expected) in [
        ("AMP_OK", "AMP_OK abc", true),
        ("AMP_OK $a", "AMP_OK abc", true),
        ("AMP_OK $a", "AMP_OK abd", false),
        ("AMP_OK !a", "AMP_OK abd", true),
        ("AMP_OK !a", "AMP_OK abc", false),
        ("AMP_OK", "AMP_TIMEOUT 0", false),
        ("* 1..9 true", "AMP_X 9 true", true),
        ("* 1..9", "AMP_X 10", false),
        ("* 1..9", "AMP_X -", false),
        ("AMP_X 0 false", "AMP_X 0", false),
    ] {
        assert_eq!(matches(pattern, answer, &mut names), expected, "{pattern} {answer}");
    }
}
