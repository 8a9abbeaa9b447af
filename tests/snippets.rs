//! Every code block of the README and the guides is compiled and run, against the emulator, and what it prints is
//! compared with the page.
//!
//! A page's blocks run in order, in one directory, with the credentials of one emulator in the environment and an
//! installed library (`pkg-config`, CMake, `amp-token` on the `PATH`). Blocks in `c`, `cpp`, `python`, `js`, `sh`, `make`
//! and `cmake` are run; `text`, `json`, `ini` and `toml` are not code. A `text` block right after a block is its output, standard
//! output before standard error: `…` stands for any text in a line, a line of `…` alone for any number of lines.
//! Tokens, ids, ports and numbers of milliseconds or seconds may differ. HTML comments right before a block say
//! what is special about it:
//!
//! - `<!-- not run: reason -->`: the block is only shown;
//! - `<!-- file: NAME -->`: later blocks of the page find the block's text in this file;
//! - `<!-- needs: MODULE -->`: a Python block that is left out where that module cannot be imported;
//! - `<!-- exit: N -->`: the block ends with this exit status.

#![cfg(all(feature = "cli", feature = "emulator", unix))]

mod support;

use amp_emulator::Emulator;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{C_FLAGS, CPP_FLAGS, compile, library_dir, require, require_tool, root, run, scratch, without_settings};

const LANGUAGES: [&str; 7] = ["c", "cpp", "python", "js", "sh", "make", "cmake"];
const NOT_CODE: [&str; 4] = ["text", "json", "ini", "toml"];

/// One fenced block of a page.
#[derive(Debug, Default)]
struct Snippet {
    line: usize,
    language: String,
    text: String,
    not_run: bool,
    file: Option<String>,
    needs: Option<String>,
    exit: i32,
    output: Option<String>,
}

/// The blocks of a page, or what is wrong with it.
fn snippets(page: &str) -> Result<Vec<Snippet>, String> {
    let mut found: Vec<Snippet> = Vec::new();
    let mut next = Snippet::default();
    let mut follows_a_snippet = false;
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            match comment.split_once(": ") {
                Some(("not run", reason)) if !reason.trim().is_empty() => next.not_run = true,
                Some(("file", name)) => next.file = Some(name.to_owned()),
                Some(("needs", module)) => next.needs = Some(module.to_owned()),
                Some(("exit", code)) => next.exit = code.parse().map_err(|_| format!("line {}: {line}", index + 1))?,
                _ => {}
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let text: String =
                lines.by_ref().take_while(|(_, line)| *line != "```").map(|(_, line)| format!("{line}\n")).collect();
            let snippet = Snippet { line: index + 1, language: language.to_owned(), text, ..std::mem::take(&mut next) };
            if language == "text" && follows_a_snippet {
                found.last_mut().unwrap().output = Some(snippet.text);
                follows_a_snippet = false;
            } else if LANGUAGES.contains(&language) {
                follows_a_snippet = !snippet.not_run;
                found.push(snippet);
            } else if NOT_CODE.contains(&language) || snippet.not_run {
                follows_a_snippet = false;
            } else {
                return Err(format!(
                    "line {}: {language:?} is no language that can be run: mark the block as not run",
                    index + 1
                ));
            }
        } else if !line.trim().is_empty() {
            follows_a_snippet = false;
            next = Snippet::default();
        }
    }
    Ok(found)
}

/// A word without what differs from run to run.
fn stable_word(word: &str, unit_follows: bool) -> String {
    if let Some(start) = word.find("eyJ") {
        return format!("{}TOKEN", &word[..start]);
    }
    if let Some(start) = word.find("amp_pat_") {
        return format!("{}TOKEN", &word[..start]);
    }
    if word.len() >= 36 && word.as_bytes()[8] == b'-' && word.as_bytes()[13] == b'-' && word.as_bytes()[18] == b'-' {
        return format!("ID{}", &word[36..]);
    }
    if let Some((before, after)) = word.split_once("127.0.0.1:") {
        return format!("{before}127.0.0.1:PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    let number = word.trim_start_matches('(');
    if unit_follows && number.parse::<f64>().is_ok() {
        return format!("{}N", &word[..word.len() - number.len()]);
    }
    word.to_owned()
}

/// A line without what differs from run to run, its columns one space apart.
fn stable(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = |index: usize| {
        words.get(index).is_some_and(|word| matches!(word.trim_end_matches([',', '.', ')', ';']), "ms" | "s" | "bytes"))
    };
    let words: Vec<_> = words.iter().enumerate().map(|(index, word)| stable_word(word, unit(index + 1))).collect();
    words.join(" ")
}

/// Whether a line is what the page shows, in which `…` stands for any text.
fn line_matches(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (stable(shown), stable(printed));
    let mut pieces = shown.split('…').map(str::trim);
    let Some(mut rest) = pieces.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let mut open_end = false;
    for piece in pieces {
        let Some(position) = rest.find(piece) else { return false };
        rest = &rest[position + piece.len()..];
        open_end = piece.is_empty();
    }
    open_end || rest.is_empty()
}

/// Whether the output is what the page shows, in which a line of `…` alone stands for any lines.
fn output_matches(shown: &str, printed: &str) -> bool {
    let shown: Vec<_> = shown.lines().collect();
    let printed: Vec<_> = printed.lines().collect();
    // Which numbers of shown lines may have been matched so far.
    let mut reached = vec![false; shown.len() + 1];
    reached[0] = true;
    let skip = |reached: &mut Vec<bool>| {
        for index in 0..shown.len() {
            if reached[index] && shown[index] == "…" {
                reached[index + 1] = true;
            }
        }
    };
    skip(&mut reached);
    for line in printed {
        let mut next = vec![false; shown.len() + 1];
        for index in 0..shown.len() {
            if reached[index] {
                if shown[index] == "…" {
                    next[index] = true;
                } else if line_matches(shown[index], line) {
                    next[index + 1] = true;
                }
            }
        }
        reached = next;
        skip(&mut reached);
    }
    reached[shown.len()]
}

/// This build's library as `make install` would arrange it.
fn installed() -> PathBuf {
    let prefix = scratch("snippets").join(format!("prefix-{:?}", std::thread::current().id()));
    let _ = std::fs::remove_dir_all(&prefix);
    let lib = prefix.join("lib");
    for directory in ["include", "lib"] {
        std::fs::create_dir_all(prefix.join(directory)).unwrap();
    }
    for header in ["include/amp_token.h", "bindings/cpp/amp_token.hpp"] {
        let header = root().join(header);
        std::fs::copy(&header, prefix.join("include").join(header.file_name().unwrap())).unwrap();
    }
    for library in ["libamp_token.so", "libamp_token.a"] {
        symlink(library_dir().join(library), lib.join(library)).unwrap();
    }
    symlink(library_dir().join("libamp_token.so"), lib.join("libamp_token.so.0")).unwrap();
    run(Command::new("make")
        .args(["--no-print-directory", "install-metadata"])
        .args([format!("PREFIX={}", prefix.display()), format!("LIBDIR={}", lib.display())])
        .arg(format!("INCLUDEDIR={}", prefix.join("include").display()))
        .env_remove("MAKEFLAGS")
        .current_dir(root()));
    prefix
}

/// The directory and the emulator that the blocks of one page share.
struct Page {
    directory: PathBuf,
    prefix: PathBuf,
    emulator: Emulator,
}

impl Page {
    fn new(name: &str) -> Self {
        let directory = scratch("snippets").join(name.replace('/', "-"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        Page { directory, prefix: installed(), emulator: Emulator::builder().start().unwrap() }
    }

    /// A command in the page's directory that finds the library, the command and the emulator.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        without_settings(&mut command);
        let mut path = OsString::from(Path::new(env!("CARGO_BIN_EXE_amp-token")).parent().unwrap());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        command
            .env("PATH", path)
            .env("HOME", &self.directory)
            .env("XDG_RUNTIME_DIR", &self.directory)
            .env("XDG_CACHE_HOME", &self.directory)
            .env("AMPLIENCE_CLIENT_ID", self.emulator.client_id())
            .env("AMPLIENCE_CLIENT_SECRET", self.emulator.client_secret())
            .env("AMPLIENCE_AUTH_URL", self.emulator.url())
            .env("AMPLIENCE_API_URL", self.emulator.url())
            .env("PKG_CONFIG_PATH", self.prefix.join("lib/pkgconfig"))
            .env("CMAKE_PREFIX_PATH", &self.prefix)
            .env("LD_LIBRARY_PATH", self.prefix.join("lib"))
            .env("PYTHONPATH", root().join("bindings/python"))
            .env("AMP_TOKEN_LIBRARY", library_dir().join("libamp_token.so"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // Those of `make test` are not meant for a make in a snippet.
            .env_remove("MAKEFLAGS")
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
    }

    /// What a block prints; `None` if it cannot be run here.
    fn outcome(&self, snippet: &Snippet) -> Option<(Option<i32>, String)> {
        let name = format!("snippet-{}", snippet.line);
        let source = |ending: &str| {
            let path = self.directory.join(format!("{name}{ending}"));
            std::fs::write(&path, &snippet.text).unwrap();
            path
        };
        let program = self.directory.join(&name);
        if snippet.text.contains("curl -") {
            require_tool("curl").then_some(())?;
        }
        let mut command = match snippet.language.as_str() {
            "c" => {
                compile("cc", C_FLAGS, &source(".c"), &program, &[]);
                self.command(&program)
            }
            "cpp" => {
                require_tool("c++").then_some(())?;
                compile("c++", &[CPP_FLAGS, &["-std=c++11"]].concat(), &source(".cpp"), &program, &[]);
                self.command(&program)
            }
            "python" => {
                let python = python(snippet)?;
                let mut command = self.command(python);
                command.arg(source(".py"));
                command
            }
            "js" => {
                let package = node_package()?;
                let modules = self.directory.join("node_modules");
                if !modules.exists() {
                    std::fs::create_dir_all(&modules).unwrap();
                    symlink(&package, modules.join("amp-token")).unwrap();
                    for module in ["axios", "dc-management-sdk-js", "undici"] {
                        symlink(package.join("node_modules").join(module), modules.join(module)).unwrap();
                    }
                }
                let mut command = self.command("node");
                command.arg(source(".mjs"));
                command
            }
            "sh" => {
                let mut command = self.command("sh");
                command.arg("-e").arg(source(".sh"));
                command
            }
            "make" => {
                let mut command = self.command("make");
                command.arg("-s").arg("-f").arg(source(".mk"));
                command
            }
            "cmake" => {
                require_tool("cmake").then_some(())?;
                std::fs::write(self.directory.join("CMakeLists.txt"), &snippet.text).unwrap();
                for arguments in [&["-S", ".", "-B", "cmake-build"][..], &["--build", "cmake-build"]] {
                    run(self.command("cmake").args(arguments));
                }
                self.command("true")
            }
            other => panic!("{other} cannot be run"),
        };
        let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let printed = [output.stdout, output.stderr].concat();
        Some((output.status.code(), String::from_utf8_lossy(&printed).into_owned()))
    }
}

/// The npm package that bindings/node/build.sh has put together.
fn node_package() -> Option<PathBuf> {
    let package = library_dir().join("../../node").canonicalize().unwrap_or_default();
    let is_built = package.join("prebuilds/linux-x64-gnu/amp_token.node").exists();
    (require_tool("node") && require(is_built, "bindings/node/build.sh")).then_some(package)
}

/// An interpreter for a block: the one of `make test` if only that has the module.
fn python(snippet: &Snippet) -> Option<PathBuf> {
    require_tool("python3").then_some(())?;
    let Some(module) = &snippet.needs else { return Some("python3".into()) };
    let venv = library_dir().join("../../venv/bin/python");
    let imports = |python: &Path| {
        Command::new(python)
            .args(["-c", &format!("import {module}")])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let found = [PathBuf::from("python3"), venv].into_iter().find(|python| imports(python));
    if found.is_none() {
        eprintln!("SKIPPED: the snippet in line {} needs the Python module {module}", snippet.line);
    }
    found
}

/// Runs the blocks of one page; what is wrong with them.
fn check(name: &str, text: &str) -> String {
    let found = match snippets(text) {
        Ok(found) => found,
        Err(problem) => return format!("{name}, {problem}\n"),
    };
    if found.iter().all(|snippet| snippet.not_run) {
        return String::new();
    }
    let page = Page::new(name);
    let mut problems = String::new();
    for snippet in found {
        if let Some(file) = &snippet.file {
            std::fs::write(page.directory.join(file), &snippet.text).unwrap();
        }
        if snippet.not_run {
            continue;
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| page.outcome(&snippet)));
        let (status, printed) = match outcome {
            Ok(Some(outcome)) => outcome,
            Ok(None) => continue,
            Err(panic) => (None, panic.downcast_ref::<String>().cloned().unwrap_or_default()),
        };
        let place = format!("{name}:{} ({})", snippet.line, snippet.language);
        if status != Some(snippet.exit) {
            writeln!(problems, "{place} ended with {status:?}:\n{printed}").unwrap();
        } else if snippet.output.as_ref().is_some_and(|shown| !output_matches(shown, &printed)) {
            writeln!(problems, "{place} printed\n{printed}which is not what the page shows").unwrap();
        }
    }
    problems
}

/// The README, the guides and the pages for contributors.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "bindings/node/README.md"]
        .iter()
        .map(|page| root().join(page))
        .collect();
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    // Its blocks run a command that is not there without the feature.
    pages.retain(|path| cfg!(feature = "serve") || !path.ends_with("docs/serve.md"));
    pages.sort();
    pages
}

#[test]
fn every_snippet_runs_and_prints_what_the_page_shows() {
    let pages: Vec<_> = pages()
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let problems: String = std::thread::scope(|scope| {
        let threads: Vec<_> = pages.iter().map(|(name, text)| scope.spawn(move || check(name, text))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(problems.is_empty(), "{problems}");
}

/// Each kind of mistake on a page is found.
#[test]
fn mistakes_in_snippets_are_found() {
    if !require_tool("python3") || !require_tool("c++") {
        return;
    }
    let c = "#include <amp_token.h>\nint main(void) { return amp_version() ? 0 : 1; }\n";
    let hubs = "```sh\namp-token hubs\n```\n\n```text\nid name label status\n…\n";
    for (page, problem) in [
        (format!("```c\n{c}```\n"), ""),
        (format!("```c\n{}```\n", c.replace("amp_version", "amp_versions")), "amp_versions"),
        (format!("```c\n{}```\n", c.replace("? 0 : 1", "? 1 : 0")), "ended with Some(1)"),
        (format!("<!-- exit: 1 -->\n```c\n{}```\n", c.replace("? 0 : 1", "? 1 : 0")), ""),
        ("```cpp\nint main() { return x; }\n```\n".to_owned(), "page:1 (cpp)"),
        ("```sh\nfalse\ntrue\n```\n".to_owned(), "ended with Some(1)"),
        (format!("{hubs}000000000005eed000000001 emulatedtest Emulated test hub ACTIVE\n```\n"), ""),
        (format!("{hubs}000000000005eed000000001 emulatedtest Emulated test hub …\n```\n"), ""),
        (format!("{hubs}000000000005eed000000000 emulated Emulated hub ACTIVE\n```\n"), "is not what the page shows"),
        ("```python\nimport amp_token\namp_token.TokenCaches\n```\n".to_owned(), "AttributeError"),
        ("```make\nall:\n\tfalse\n```\n".to_owned(), "ended with Some(2)"),
        ("```ruby\nputs 1\n```\n".to_owned(), "\"ruby\" is no language"),
        ("```\namp-token hubs\n```\n".to_owned(), "\"\" is no language"),
        ("<!-- not run: a reason -->\n```ruby\nputs 1\n```\n".to_owned(), ""),
        ("<!-- not run: -->\n```sh\nfalse\n```\n".to_owned(), "ended with Some(1)"),
        ("<!-- not run: a reason -->\nSome text.\n```sh\nfalse\n```\n".to_owned(), "ended with Some(1)"),
    ] {
        let found = check("page", &page);
        assert_eq!(found.is_empty(), problem.is_empty(), "{page}{found}");
        assert!(found.contains(problem), "{page}{found}");
    }
}
