//! The recipes of docs/credentials.md, from the command, from C and from Python.

use crate::{Home, ID, get_token_in_c, support};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use support::{library_dir, require_tool, root};

/// Unlike that of other tests, it is in no variable of a process.
const SECRET: &str = "5b1d7c0e94a4c32749110a75f7be5b1d7c0e94a4c32749110a75f7be5e04aa17";

/// One recipe: the section, its name, and the program with its arguments.
struct Recipe {
    section: String,
    name: String,
    command: Vec<String>,
    /// Whether the client id is a setting, so that the program prints the secret alone.
    has_id: bool,
}

fn recipes() -> Vec<Recipe> {
    let page = fs::read_to_string(root().join("docs/credentials.md")).unwrap();
    let (_, page) = page.split_once("<!-- recipes: ").unwrap();
    let (page, _) = page.split_once("<!-- end of recipes -->").unwrap();
    let sections = page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    sections
        .map(|section| {
            let command = section.split_once("credential_command = ").unwrap().1.trim();
            Recipe {
                section: section.to_owned(),
                name: section.split(['[', ']']).nth(1).unwrap().to_owned(),
                // An array of strings without escapes is the same in TOML and JSON.
                command: serde_json::from_str(command).unwrap(),
                has_id: section.contains("client_id = "),
            }
        })
        .collect()
}

/// Looks at the arguments and the environment of all processes, again and again, from a process of its own, until its
/// input is closed.
struct Watcher(Child);

const WATCHER: &str = r#"
import os, sys, glob
wanted = [line.encode() for line in sys.stdin.readline().split()]
looks, found = 0, set()
print("ready", flush=True)
os.set_blocking(0, False)
own = str(os.getpid())
while True:
    for name in ("cmdline", "environ"):
        for path in glob.glob(f"/proc/[0-9]*/{name}"):
            if path.split("/")[2] == own:
                continue
            try:
                content = open(path, "rb").read()
            except OSError:
                continue
            found.update(text for text in wanted if text in content)
    looks += 1
    try:
        if os.read(0, 1) == b"":
            break
    except BlockingIOError:
        pass
print(looks, *sorted(text.decode() for text in found))
"#;

impl Watcher {
    fn start(strings: &[&str]) -> Self {
        let mut child =
            Command::new("python3").args(["-c", WATCHER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{}", strings.join(" ")).unwrap();
        Watcher(child)
    }

    /// How often it looked, and what it found.
    fn stop(mut self) -> (u64, Vec<String>) {
        let mut lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        drop(self.0.stdin.take());
        let line = lines.next().unwrap().unwrap();
        assert!(self.0.wait().unwrap().success());
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap().parse().unwrap(), words.collect())
    }
}

/// A program that prints what the recipe expects if it is called as the recipe says, and takes its time, so that there
/// is something to see.
fn stand_in(home: &Home, recipe: &Recipe) {
    let secret = home.file("secret", &format!("{SECRET}\n"));
    let object = home.file("object", &format!("{{\"client_id\": \"{ID}\", \"client_secret\": \"{SECRET}\"}}\n"));
    let expected: Vec<_> = recipe.command[1..].iter().map(|argument| format!("'{argument}'")).collect();
    let printed = if recipe.has_id { &secret } else { &object };
    let script = format!(
        "for expected in {}; do\n    [ \"$1\" = \"$expected\" ] || {{ echo \"unexpected: $1\" >&2; exit 64; }}\n    \
         shift\ndone\n[ $# = 0 ] || exit 64\ncat '{printed}'\nsleep 0.05",
        expected.join(" ")
    );
    home.program(&recipe.command[0], &script);
}

#[test]
fn each_recipe_works_from_the_command_c_and_python_and_no_process_shows_the_secret() {
    if !require_tool("cc") || !require_tool("python3") {
        return;
    }
    let home = Home::new();
    home.emulator.set_credentials(ID, SECRET);
    let in_c = get_token_in_c(home.directory.path());
    // The interpreter itself: a version manager's `python3` is a script that changes the PATH.
    let python3 =
        support::run(Command::new("python3").args(["-c", "import sys; print(sys.executable, end='')"])).stdout;
    let python3 = String::from_utf8(python3).unwrap();
    let recipes = recipes();
    let programs: Vec<_> = recipes.iter().map(|recipe| recipe.command[0].as_str()).collect();
    assert_eq!(programs, ["pass", "op", "vault", "secret-tool", "security", "pwsh", "aws", "gcloud"]);
    const CANARY: &str = "canary-7f0d6a";
    let watcher = Watcher::start(&[SECRET, CANARY]);
    let mut expected = 0;
    for recipe in &recipes {
        stand_in(&home, recipe);
        home.config(&recipe.section);
        let library = library_dir().join("libamp_token.so");
        let python =
            "import sys, amp_token\nwith amp_token.TokenCache(profile=sys.argv[1]) as cache: print(cache.get().value)";
        let commands = [
            home.amp_token(&["get", "--store", "none", "--profile", &recipe.name]),
            {
                let mut command = home.run(&in_c);
                command.env("LD_LIBRARY_PATH", library_dir()).env("AMPLIENCE_PROFILE", &recipe.name);
                command
            },
            {
                let mut command = home.run(&python3);
                command.args(["-c", python, &recipe.name]);
                command.env("PYTHONPATH", root().join("bindings/python")).env("AMP_TOKEN_LIBRARY", library);
                command
            },
        ];
        for mut command in commands {
            let token = home.succeeds(&mut command);
            assert!(token.starts_with("eyJ"), "{}: {command:?}: {token}", recipe.name);
            expected += 1;
            assert_eq!(home.emulator.stats().token_requests, expected, "{}: {command:?}", recipe.name);
        }
        // A program that is called in another way fails, and says so.
        let other = recipe
            .section
            .replace(&format!("\"{}\",", recipe.command[0]), &format!("\"{}\", \"other\",", recipe.command[0]));
        home.config(&other);
        home.fails(
            &mut home.amp_token(&["get", "--profile", &recipe.name]),
            3,
            &format!(
                "credential_command {} ended with status 64: unexpected: other; run it by hand, as the same user and without a terminal",
                recipe.command[0]
            ),
        );
    }
    // The control: what is in an argument is seen.
    let seen = Command::new("sh").args(["-c", "sleep 0.5; :", CANARY]).status().unwrap();
    assert!(seen.success());
    let (looks, found) = watcher.stop();
    assert_eq!(found, [CANARY], "in {looks} looks");
    assert!(looks > 10);
    println!("all processes were looked at {looks} times");
}

/// The same settings without a file, and a list in Python.
#[test]
fn the_command_is_a_setting_too() {
    let home = Home::new();
    home.emulator.set_credentials(ID, SECRET);
    home.file("secret", SECRET);
    let program = home.program("secret-of-mine", "cat \"$HOME/secret\"");
    for value in ["secret-of-mine".to_owned(), format!("[\"{program}\"]"), program.clone()] {
        let mut command = home.amp_token(&["get", "--store", "none", "--client-id", ID]);
        assert!(home.succeeds(command.env("AMPLIENCE_CREDENTIAL_COMMAND", &value)).starts_with("eyJ"), "{value}");
        let mut command =
            home.amp_token(&["get", "--store", "none", "--client-id", ID, "--credential-command", &value]);
        assert!(home.succeeds(&mut command).starts_with("eyJ"), "{value}");
    }
    if require_tool("python3") {
        let mut command = home.run("python3");
        let script = "import sys, amp_token\nprint(amp_token.get_token(client_id=sys.argv[1], credential_command=['sh', '-c', 'cat \"$HOME/secret\"']).value)";
        command.args(["-c", script, ID]).env("PYTHONPATH", root().join("bindings/python"));
        command.env("AMP_TOKEN_LIBRARY", library_dir().join("libamp_token.so"));
        assert!(home.succeeds(&mut command).starts_with("eyJ"));
    }
}
