//! `amp-token doctor`, with one failure at a time.

use crate::shared::require_tool;
use crate::support::{CommandResult, TestEnv};
use amp_emulator::{CertificateKind, Fault};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A run of the doctor and its expected last line and exit status.
struct Case<'a> {
    name: &'a str,
    arguments: Vec<String>,
    /// The last step and its result.
    last: (&'a str, &'a str),
    says: &'a str,
    status: i32,
}

#[test]
fn the_doctor_names_the_step_that_fails() {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (plain, tls, untrusted) = (TestEnv::new(), TestEnv::with_tls(), TestEnv::with_tls());
    untrusted.emulator.set_certificate(CertificateKind::UnknownAuthority).unwrap();
    let trusting = text(&["--ca-file", tls.emulator.ca_file().to_str().unwrap()]);
    let mistaken = text(&["--ca-file", untrusted.emulator.ca_file().to_str().unwrap()]);
    let tables: [(&TestEnv, Vec<Case>); 3] = [
        (
            &plain,
            vec![
                Case { name: "healthy", arguments: vec![], last: ("request", "ok"), says: "lists 2 hubs", status: 0 },
                Case {
                    name: "a proxy, and http",
                    arguments: text(&["--proxy", "http://127.0.0.1:1"]),
                    last: ("request", "ok"),
                    says: "lists 2 hubs",
                    status: 0,
                },
                Case {
                    name: "unreachable proxy",
                    arguments: text(&["--auth-url", "https://auth.invalid", "--proxy", "http://127.0.0.1:1"]),
                    last: ("proxy", "FAILED"),
                    says: "check the proxy setting",
                    status: 4,
                },
                Case {
                    name: "unreachable server",
                    arguments: text(&["--auth-url", "http://127.0.0.1:1"]),
                    last: ("tcp", "FAILED"),
                    says: "check the host and port",
                    status: 4,
                },
                Case {
                    name: "no such name",
                    arguments: text(&["--auth-url", "https://no-such-host.invalid"]),
                    last: ("dns", "FAILED"),
                    says: "check the host name",
                    status: 4,
                },
                Case {
                    name: "unreachable API",
                    arguments: text(&["--api-url", "http://127.0.0.1:1"]),
                    last: ("request", "FAILED"),
                    says: "cannot connect to 127.0.0.1:1",
                    status: 4,
                },
                Case {
                    name: "no credentials",
                    arguments: text(&["--client-certificate", "x"]),
                    last: ("credentials", "FAILED"),
                    says: "set both, or neither",
                    status: 2,
                },
                Case {
                    name: "not TLS",
                    arguments: text(&["--auth-url", &plain.emulator.url().replace("http:", "https:")]),
                    last: ("tls", "FAILED"),
                    says: "check that the port is an https port",
                    status: 4,
                },
                Case {
                    name: "not TLS, with the scheme in upper case",
                    arguments: text(&["--auth-url", &plain.emulator.url().replace("http:", "HTTPS:")]),
                    last: ("tls", "FAILED"),
                    says: "check that the port is an https port",
                    status: 4,
                },
            ],
        ),
        (
            &tls,
            vec![Case {
                name: "healthy https",
                arguments: trusting,
                last: ("request", "ok"),
                says: "lists 2 hubs",
                status: 0,
            }],
        ),
        (
            &untrusted,
            vec![Case {
                name: "unknown CA",
                arguments: mistaken,
                last: ("tls", "FAILED"),
                says: "set ca_file to its certificate",
                status: 4,
            }],
        ),
    ];
    for (env, cases) in &tables {
        for case in cases {
            let output = CommandResult::of(env.command().arg("doctor").args(&case.arguments));
            let last = output.stdout.lines().last().unwrap_or_default();
            let words: Vec<_> = last.split_whitespace().take(2).collect();
            assert_eq!(words, [case.last.1, case.last.0], "{}: {}", case.name, output.stdout);
            assert!(last.contains(case.says), "{}: {last}", case.name);
            assert_eq!(output.status, Some(case.status), "{}", case.name);
        }
    }
}

#[test]
fn the_doctor_reports_each_step() {
    let env = TestEnv::with_tls();
    let ca_file = env.emulator.ca_file().to_str().unwrap();
    let text = env.run(&["doctor", "--ca-file", ca_file]).stdout_ok();
    let about = text.lines().next().unwrap();
    assert!(about.starts_with(concat!("amp-token ", env!("CARGO_PKG_VERSION"), "; ")), "{about}");
    assert!(about.contains(std::env::consts::ARCH) && about.ends_with(" GMT"), "{about}");
    let steps: Vec<_> = text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(
        steps,
        ["credentials", "store", "dns", "proxy", "tcp", "tls", "clock", "token", "permissions", "request"]
    );
    assert!(text.contains("TLS 1.3") && text.contains("amp-emulator CA"), "{text}");
    assert!(!text.contains("eyJ"), "{text}");
    assert_eq!((env.emulator.stats().token_requests, env.emulator.stats().api_requests), (1, 1));
}

#[test]
fn the_doctor_sends_each_request_once_and_explains_a_failure() {
    let env = TestEnv::new();
    for (fault, last, says, status) in [
        (Fault::status(503), "token", "try again later", 5),
        (Fault::close(), "token", "without a response", 4),
        (Fault::status(400), "token", "check client_id and client_secret", 3),
        (Fault::status(403).for_path("/v2/"), "request", "check what the API key", 3),
        (Fault::status(429).for_path("/v2/"), "request", "is rate limiting requests", 5),
        (Fault::not_json().for_path("/v2/"), "request", "check api_url", 5),
        (
            Fault::status(302).header("Location", "https://elsewhere.example/").for_path("/v2/"),
            "request",
            "elsewhere.example",
            5,
        ),
    ] {
        env.emulator.reset();
        env.emulator.fault(fault);
        let output = env.run(&["doctor", "--retries", "3"]);
        let line = output.stdout.lines().last().unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), ["FAILED", last]);
        assert!(line.contains(says), "{line}");
        assert_eq!((output.status, env.emulator.stats().token_requests), (Some(status), 1));
    }
}

#[test]
fn the_doctor_continues_after_a_wrong_clock() {
    let env = TestEnv::new();
    for (skew, says) in [(-3600, "s ahead of the server's; set it"), (3600, "s behind the server's; set it")] {
        env.emulator.fault(Fault::date_skew_s(skew));
        let output = env.run(&["doctor"]);
        let failed: Vec<_> = output.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(failed.len() == 1 && failed[0].contains("clock") && failed[0].contains(says), "{}", output.stdout);
        assert!(output.stdout.lines().last().unwrap().contains("lists 2 hubs"));
        assert_eq!(output.status, Some(6));
    }
}

#[test]
fn the_doctor_checks_personal_access_tokens() {
    let env = TestEnv::new();
    let good = env.run(&["get", "--store", "none"]).stdout_ok();
    // The three causes that the documentation of Amplience has.
    const REJECTED: &str = "rejected the personal access token: it was deleted, its user was removed from the \
                            organization, or an administrator has not approved it yet";
    for (token, last, status) in [(good.trim(), "lists 2 hubs", 0), ("amp_pat_0123456789abcdefghijkl.x", REJECTED, 3)] {
        let mut command = env.command();
        command.env_remove("AMPLIENCE_CLIENT_ID").env_remove("AMPLIENCE_CLIENT_SECRET").env("AMPLIENCE_PAT", token);
        let output = CommandResult::of(command.args(["-q", "doctor"]));
        assert!(output.stdout.contains("from AMPLIENCE_PAT") && output.stdout.contains("not needed"));
        assert!(output.stdout.lines().last().unwrap().contains(last), "{}", output.stdout);
        assert!(!output.stdout.contains(token));
        assert_eq!(output.status, Some(status));
    }
    assert_eq!(env.emulator.stats().token_requests, 1);
}

/// A proxy that connects every client, or rejects them with this status.
fn proxy(rejection: Option<u16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut lines = (&mut reader).lines().map(Result::unwrap);
            let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let _ = lines.find(String::is_empty);
            if let Some(status) = rejection {
                write!(client, "HTTP/1.1 {status} No\r\n\r\n").unwrap();
                continue;
            }
            let mut server = TcpStream::connect(target).unwrap();
            client.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").unwrap();
            let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back, &mut forth));
            thread::spawn(move || std::io::copy(&mut client, &mut server));
        }
    });
    url
}

#[test]
fn the_doctor_reports_the_steps_through_a_proxy() {
    let env = TestEnv::with_tls();
    let ca_file = env.emulator.ca_file().to_str().unwrap();
    let port = env.emulator.port();
    let open = proxy(None);
    let text = env.run(&["doctor", "--ca-file", ca_file, "--proxy", &open]).stdout_ok();
    let line = |step: &str| text.lines().find(|line| line.split_whitespace().nth(1) == Some(step)).unwrap();
    assert!(line("dns").ends_with("127.0.0.1 is an IP address"), "{text}");
    assert!(line("proxy").contains(&format!("{open} at")), "{text}");
    assert!(line("proxy").ends_with(&format!("connects to localhost:{port}")), "{text}");
    assert!(line("tcp").ends_with(&format!("localhost:{port}, through the proxy")), "{text}");
    assert!(line("tls").contains("TLS 1.3") && line("request").contains("lists 2 hubs"), "{text}");

    for (status, says) in [(403, "ask its operator"), (407, "requires a user name and password (HTTP 407)")] {
        let output = env.run(&["doctor", "--ca-file", ca_file, "--proxy", &proxy(Some(status))]);
        let last = output.stdout.lines().last().unwrap();
        assert!(last.starts_with("FAILED  proxy") && last.contains(says), "{last}");
        assert_eq!(output.status, Some(4));
    }
}

#[test]
fn the_doctor_has_a_time_limit() {
    let env = TestEnv::new();
    env.emulator.fault(Fault::silent());
    let output = env.run(&["doctor", "--timeout-ms", "200"]);
    let last = output.stdout.lines().last().unwrap();
    assert!(last.starts_with("FAILED  token") && last.contains("sent no response within 200 ms"), "{last}");
    assert_eq!(output.status, Some(4));
}

#[test]
fn the_doctor_fails_where_get_fails() {
    // The settings of both commands, what makes the service fail, and the step and status that must be reported.
    let slow = || Fault::expires_in(1).delayed_by_ms(1100);
    let cases: [(&str, Option<Fault>, &str, i32); 3] = [
        ("AMPLIENCE_STORE=redis://user@127.0.0.1", None, "store", 2),
        ("AMPLIENCE_MIN_VALIDITY_MS=400000", None, "token", 2),
        ("AMPLIENCE_RETRIES=0", Some(slow()), "token", 5),
    ];
    for (setting, fault, step, status) in cases {
        let env = TestEnv::new();
        let (name, value) = setting.split_once('=').unwrap();
        let run = |command: &str| {
            if let Some(fault) = &fault {
                env.emulator.fault(fault.clone());
            }
            CommandResult::of(env.command().env(name, value).arg(command))
        };
        let report = run("doctor");
        let failed: Vec<_> = report.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert_eq!(failed.len(), 1, "{setting}: {}", report.stdout);
        assert_eq!(failed[0].split_whitespace().nth(1), Some(step), "{setting}");
        let get = run("get");
        assert_eq!((report.status, get.status), (Some(status), Some(status)), "{setting}: {}", get.stderr);
        // Both say the same.
        let reason = get.stderr.trim_start_matches("amp-token: ").trim_end();
        assert!(failed[0].ends_with(reason), "{reason} is not in {}", failed[0]);
    }
}

#[test]
fn the_doctor_reports_a_store_that_cannot_be_used() {
    let env = TestEnv::new();
    for (name, value, says) in [
        ("AMPLIENCE_STORE_DIR", "/proc/nowhere", "cannot create /proc/nowhere: "),
        ("AMPLIENCE_STORE", "redis://127.0.0.1:1", "127.0.0.1:1"),
        ("AMPLIENCE_CLIENT_SECRET", "short", "too short"),
    ] {
        let output = CommandResult::of(env.command().env(name, value).arg("doctor"));
        let line = output.stdout.lines().find(|line| line.split_whitespace().nth(1) == Some("store")).unwrap();
        assert!(line.starts_with("FAILED  store ") && line.contains(says), "{}", output.stdout);
        assert!(line.ends_with("; until that is fixed, each command requests a token"), "{line}");
        // All other steps are checked, and the first failure determines the status.
        assert!(output.stdout.contains("  token  ") && output.status == Some(6), "{}", output.stdout);
        assert_eq!(output.stderr, "");
    }
    let off = env.run(&["doctor", "--store", "none"]).stdout_ok();
    assert!(off.contains("-       store ") && off.contains("off: each command requests a token"), "{off}");
    // The token is stored: the next command needs no other one.
    let first = env.run(&["doctor"]).stdout_ok();
    assert!(first.contains(" holds no token"), "{first}");
    let second = env.run(&["doctor"]).stdout_ok();
    assert!(second.contains(" holds a token that expires in "), "{second}");
    let before = env.emulator.stats().token_requests;
    env.run(&["get"]).stdout_ok();
    assert_eq!(env.emulator.stats().token_requests, before);
}

#[test]
fn the_doctor_reports_as_json_and_without_passwords() {
    let env = TestEnv::new();
    let report = |password: &str, arguments: &[&str]| {
        let mut command = env.command();
        command.env("HTTPS_PROXY", format!("http://me:{password}@proxy.example:3128")).env("NO_PROXY", "a.example,b");
        command.env("ALL_PROXY", format!("nonsense://{password}")).env("SSL_CERT_FILE", "/no/such/file");
        let result = CommandResult::of(command.arg("doctor").args(arguments));
        assert!(!result.stdout.contains(password), "{}", result.stdout);
        result.stdout
    };
    let json: serde_json::Value = serde_json::from_str(&report("hidden", &["--json"])).unwrap();
    assert_eq!(json["about"]["version"], env!("CARGO_PKG_VERSION"));
    let environment = &json["about"]["environment"];
    assert_eq!(environment["HTTPS_PROXY"], "http://proxy.example:3128");
    assert_eq!((&environment["NO_PROXY"], &environment["ALL_PROXY"]), (&"a.example,b".into(), &"[not a proxy]".into()));
    let steps: Vec<_> = json["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        ["credentials", "store", "dns", "proxy", "tcp", "tls", "clock", "token", "permissions", "request"]
    );
    assert!(json["steps"][0]["milliseconds"].is_number() && json["steps"][0]["result"] == "ok");
    assert_eq!(json["status"], 0);
    let first = report("hidden", &[]);
    let about =
        "; HTTPS_PROXY=http://proxy.example:3128; ALL_PROXY=[not a proxy]; NO_PROXY=a.example,b; SSL_CERT_FILE=/";
    assert!(first.lines().next().unwrap().contains(about), "{first}");
    // A failure is part of the object, and determines the exit status.
    let failed = env.run(&["doctor", "--json", "--auth-url", "http://127.0.0.1:1"]);
    let json: serde_json::Value = serde_json::from_str(&failed.stdout).unwrap();
    let last = json["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((failed.status, &json["status"], &last["result"]), (Some(4), &4.into(), &"failed".into()));
    assert!(last["text"].as_str().unwrap().contains("check the host and port"), "{last}");
}

#[test]
fn colours_are_for_terminals_that_have_them() {
    if !require_tool("script") {
        return;
    }
    let env = TestEnv::new();
    let coloured = |variables: &[(&str, &str)]| {
        let mut shell = env.shell("exec script -qec 'amp-token doctor' /dev/null");
        shell.envs(variables.iter().copied());
        let output = CommandResult::of(&mut shell);
        assert!(output.stdout.contains("lists 2 hubs"), "{}", output.stdout);
        output.stdout.contains("\x1b[")
    };
    assert!(coloured(&[("TERM", "xterm")]) && coloured(&[("TERM", "xterm"), ("NO_COLOR", "")]));
    for plain in [&[("TERM", "dumb")][..], &[("TERM", "")], &[("TERM", "xterm"), ("NO_COLOR", "1")]] {
        assert!(!coloured(plain), "{plain:?}");
    }
    assert!(!env.run(&["doctor"]).stdout_ok().contains('\x1b'));
}
