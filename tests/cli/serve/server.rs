//! Starting, sockets, the token file, hooks, and the end.

use super::*;
use crate::support::{AMP_TOKEN, SECRET};
use amp_emulator::Emulator;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

fn short(seconds: u64) -> TestEnv {
    TestEnv::with(Emulator::builder().expires_in(seconds).client("the-id", SECRET).start().unwrap())
}

#[test]
fn the_lines_are_what_clients_need() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let names: Vec<_> = serve.lines.iter().map(|(name, _)| name.as_str()).collect();
    let of_socket = ["auth_url", "token_url", "api_url"];
    assert_eq!(names, [&of_socket[..], &of_socket, &["client_id", "client_secret"]].concat());
    assert!(serve.lines[3].1.starts_with("http://[::1]:"), "{:?}", serve.lines);
    assert_eq!(serve.value("token_url"), format!("{}/oauth/token", serve.value("auth_url")));
    assert_eq!(serve.ticket().len(), 64);
    assert_ne!(Serve::start(&env, &[]).ticket(), serve.ticket());
    let help = env.run(&["help", "serve"]).stdout_ok();
    assert_eq!(help.matches("\n  amp-token serve ").count(), 3, "{help}");
}

#[test]
fn a_ticket_of_a_file_is_used_and_not_printed() {
    let env = TestEnv::new();
    let (ticket, weak) = (env.home.join("ticket"), env.home.join("weak"));
    fs::write(&ticket, "\u{feff}0123456789abcdef+/=\r\n").unwrap();
    fs::write(&weak, "short\n").unwrap();
    let serve = Serve::start(&env, &["--ticket-file", ticket.to_str().unwrap()]);
    assert_eq!(serve.value("client_secret_file"), ticket.to_str().unwrap());
    assert!(serve.lines.iter().all(|(_, value)| !value.contains("0123456789abcdef")));
    assert_eq!(serve.token_with("0123456789abcdef%2B%2F%3D").status, 200);
    refused(&env, &["--ticket-file", weak.to_str().unwrap()]).assert_failed(2, "can be guessed");
    refused(&env, &["--ticket-file", "/nonexistent"]).assert_failed(6, "cannot read the ticket from /nonexistent");
}

#[test]
fn an_address_that_others_reach_needs_more() {
    let env = TestEnv::new();
    refused(&env, &["--listen", "0.0.0.0:0"]).assert_failed(2, "other machines could connect");
    refused(&env, &["--listen", "nonsense"]).assert_failed(2, "use ADDRESS:PORT");
    refused(&env, &["--listen-anywhere", "--listen", "0.0.0.0:0"]).assert_failed(2, "--tls-certificate");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&env, &["--listen", &address]).assert_failed(6, "choose another port");
    assert_eq!(env.emulator.stats().token_requests, 0);
}

#[test]
fn other_machines_get_tls() {
    let env = TestEnv::new();
    let issued = rcgen::generate_simple_self_signed(vec!["serve.example".to_owned()]).unwrap();
    let (certificate, key) = (env.home.join("cert.pem"), env.home.join("key.pem"));
    fs::write(&certificate, issued.cert.pem()).unwrap();
    fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let serve = Serve::start(
        &env,
        &[
            "--listen",
            "0.0.0.0:0",
            "--listen-anywhere",
            "--tls-certificate",
            certificate,
            "--tls-key",
            key,
            "--allow-host",
            "serve.example",
        ],
    );
    let port = serve.host().rsplit_once(':').unwrap().1;
    if !crate::shared::require_tool("curl") {
        return;
    }
    let curl = |name: &str| {
        let mut curl = env.bare("curl");
        curl.args([
            "-sS",
            "--cacert",
            certificate,
            "--resolve",
            &format!("serve.example:{port}:127.0.0.1"),
            "-o",
            "/dev/null",
        ]);
        curl.args([
            "-w",
            "%{http_code}",
            "-H",
            &format!("Host: {name}:{port}"),
            &format!("https://serve.example:{port}/healthz"),
        ]);
        CommandResult::of(&mut curl).stdout
    };
    assert_eq!((curl("serve.example"), curl("other.example")), ("200".to_owned(), "421".to_owned()));
    // Plain HTTP gets no answer there, and a client that says nothing stops nobody.
    let _silent = serve.connect();
    assert_eq!(serve.get("/healthz", "").status, 0);
    assert_eq!(curl("serve.example"), "200");
}

#[test]
fn a_unix_socket_is_for_this_user() {
    let env = TestEnv::new();
    let path = env.home.join("socket");
    let listen = format!("unix:{}", path.display());
    let serve = Serve::start(&env, &["--listen", &listen]);
    assert_eq!(serve.value("socket"), path.to_str().unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // The same user needs no ticket, and no particular Host. A wrong one is wrong.
    let request =
        |headers: &str| format!("GET /v2/content/hubs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    assert_eq!(over_socket(&path, &request("")).status, 200);
    assert_eq!(over_socket(&path, &request("Authorization: Bearer wrong\r\n")).status, 401);
    let form = "grant_type=client_credentials";
    let post = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    assert_eq!(over_socket(&path, &post).status, 200);
    refused(&env, &["--listen", &listen]).assert_failed(6, "another process listens on it");
    assert_eq!(over_socket(&path, &request("")).status, 200);
    assert_eq!(serve.end().0, Some(0));
    assert!(!path.exists());
}

/// Another user needs the ticket even if the socket's mode lets them in.
#[test]
fn another_user_needs_the_ticket() {
    if !crate::shared::require(crate::shared::is_root() && crate::shared::has("setpriv"), "root and setpriv") {
        return;
    }
    let env = TestEnv::new();
    let path = env.home.join("socket");
    let serve = Serve::start(&env, &["--listen", &format!("unix:{}", path.display())]);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(&env.home, PermissionsExt::from_mode(0o755)).unwrap();
    let status = |header: &str| {
        let mut curl = env.bare("setpriv");
        curl.args([
            "--reuid=65534",
            "--clear-groups",
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
        ]);
        curl.arg(&path).args(["-H", header, "http://localhost/v2/content/hubs"]);
        CommandResult::of(&mut curl).stdout
    };
    assert_eq!(status("X: y"), "401");
    assert_eq!(status(&format!("Authorization: Bearer {}", serve.ticket())), "200");
}

/// kill -9 leaves a socket, which is replaced. Nothing else is.
#[test]
fn only_a_dead_socket_is_replaced() {
    let env = TestEnv::new();
    let path = env.home.join("socket");
    let listen = format!("unix:{}", path.display());
    let mut serve = Serve::start(&env, &["--listen", &listen]);
    serve.child.kill().unwrap();
    serve.child.wait().unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let serve = Serve::start(&env, &["--listen", &listen]);
    // Somebody has put another file in its place: it stays.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "thesis").unwrap();
    assert_eq!(serve.end().0, Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "thesis");
    refused(&env, &["--listen", &listen]).assert_failed(6, "is not a socket of this user");
    let link = env.home.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    refused(&env, &["--listen", &format!("unix:{}", link.display())]).assert_failed(6, "is not a socket of this user");
    assert_eq!(fs::read_to_string(&path).unwrap(), "thesis");
}

#[test]
fn the_token_file_is_valid_or_not_there() {
    let env = short(2);
    let path = env.home.join("token");
    let serve = Serve::start(
        &env,
        &["--retries", "0", "--token-file", path.to_str().unwrap(), "--token-file-format", "header"],
    );
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    // It is renewed although no client comes, and never half there.
    wait_until("it is renewed", || {
        let text = read();
        let is_whole = text.starts_with("Authorization: Bearer eyJ") && text.ends_with('\n');
        assert!(is_whole || seen.is_empty() && text.is_empty(), "{text}");
        seen.insert(text);
        seen.len() > 3
    });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Renewals fail: the file stays while the token is valid, and goes with it.
    env.emulator.fault(amp_emulator::Fault::status(503).forever());
    wait_until("it has gone", || !path.exists());
    env.emulator.clear_faults();
    wait_until("it is back", || path.exists());
    assert_eq!(serve.end().0, Some(0));
    assert!(!path.exists());
}

/// kill -9 at any moment leaves a whole token, and perhaps an unfinished file that a later start removes.
#[test]
fn kill_9_leaves_no_half_of_a_token() {
    let env = short(1);
    let directory = env.home.join("d");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("token");
    for _ in 0..5 {
        let mut serve = Serve::start(&env, &["--store", "none", "--token-file", path.to_str().unwrap()]);
        wait_until("it is written", || path.exists());
        serve.child.kill().unwrap();
        serve.child.wait().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("eyJ") && text.ends_with('\n'), "{text}");
    }
    assert!(fs::read_dir(&directory).unwrap().count() <= 6);
}

#[test]
fn a_token_file_that_cannot_be_written_is_an_error_at_once() {
    let env = TestEnv::new();
    let path = |name: &str| env.home.join(name).to_str().unwrap().to_owned();
    fs::write(path("key"), "-----BEGIN\nKEY\n").unwrap();
    std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
    for (file, says) in [
        (path("missing/token"), "No such file or directory"),
        (path("key"), "is not a token"),
        (path("link"), "symbolic link"),
        ("/proc/token".to_owned(), "cannot write the token to /proc/token"),
    ] {
        refused(&env, &["--token-file", &file]).assert_failed(6, says);
    }
    assert_eq!(fs::read_to_string(path("key")).unwrap(), "-----BEGIN\nKEY\n");
    refused(&env, &["--token-file", &path("t"), "--mode", "0666"]).assert_failed(2, "0600");
    refused(&env, &["--once"]).assert_failed(2, "--token-file");
    assert_eq!(env.emulator.stats().token_requests, 0);
}

#[test]
fn once_writes_the_file_and_ends() {
    let env = TestEnv::new();
    let (path, mark) = (env.home.join("token"), env.home.join("mark"));
    let hook = format!("cat {} > {}", path.display(), mark.display());
    let options = ["--once", "--token-file-format", "json", "--mode", "0640", "--on-renewal", &hook];
    let mut command = env.command();
    command.arg("serve").args(options).arg("--token-file").arg(&path);
    assert_eq!(CommandResult::of(&mut command).stdout_ok(), "");
    let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(json["access_token"].as_str().unwrap().starts_with("eyJ"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read(&path).unwrap(), fs::read(&mark).unwrap());
}

/// The hook runs after the file was written, without the token and the credentials.
#[test]
fn a_hook_runs_after_each_renewal_and_gets_no_secret() {
    let env = short(2);
    let (path, log) = (env.home.join("token"), env.home.join("log"));
    let hook = format!(
        "{{ echo run; cat {}; env; tr '\\0' ' ' </proc/$$/cmdline; ulimit -n; }} >> {}",
        path.display(),
        log.display()
    );
    let serve = Serve::start(&env, &["--token-file", path.to_str().unwrap(), "--on-renewal", &hook]);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("it ran twice", || text().matches("run\n").count() >= 2 && text().contains("cmdline"));
    let text = text();
    assert!(!text.contains(SECRET) && !text.contains("AMPLIENCE_CLIENT_SECRET"), "{text}");
    // Each token is in it once, from the file.
    let tokens: Vec<_> = text.lines().filter(|line| line.starts_with("eyJ")).collect();
    assert!(tokens.iter().all(|token| text.matches(token).count() == 1), "{text}");
    assert_eq!(serve.end().0, Some(0));
    let failing = Serve::start(&env, &["--on-renewal", "exit 3"]);
    assert_eq!(failing.token().status, 200);
    wait_until("it is reported", || failing.metric("amp_token_refreshes_total") > 1.0);
    assert!(failing.end().1.contains("the command of --on-renewal failed: exit status: 3"));
}

#[test]
fn a_process_gets_a_signal_after_each_renewal() {
    let env = short(2);
    let log = env.home.join("log");
    let script = format!("trap 'echo usr1 >> {}' USR1; echo ready; while :; do sleep 0.05; done", log.display());
    let mut target = env.bare("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(target.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let pid = target.id().to_string();
    let serve = Serve::start(&env, &["--signal", "SIGUSR1", "--pid", &pid]);
    wait_until("it got signals", || fs::read_to_string(&log).unwrap_or_default().lines().count() >= 2);
    assert_eq!(serve.end().0, Some(0));
    target.kill().unwrap();
    target.wait().unwrap();
    refused(&env, &["--signal", "USR1", "--pid", &pid]).assert_failed(6, "cannot send signals to process");
    refused(&env, &["--signal", "KILL", "--pid", "1"]).assert_failed(2, "--signal takes one of");
}

#[test]
fn requests_in_progress_end_before_the_server_does() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    env.emulator.fault(amp_emulator::Fault::latency_ms(400).for_path("/v2/content"));
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| serve.api("/v2/content/hubs"));
        wait_until("it is in progress", || serve.metric("amp_token_serve_in_flight") >= 2.0);
        serve.signal(libc::SIGINT);
        answer.join().unwrap()
    });
    assert_eq!(answer.status, 200);
    let mut serve = serve;
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
}

/// systemd is told when clients can connect.
#[test]
fn readiness_is_notified() {
    let env = TestEnv::new();
    let path = env.home.join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = env.command();
    let _serve = Serve::run(command.env("NOTIFY_SOCKET", &path).arg("serve"));
    let mut message = [0; 64];
    let count = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..count], b"READY=1");
}

/// The metrics have names, types and help, as Prometheus's own checker wants them.
#[test]
fn the_metrics_are_in_the_text_format() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    serve.api("/v2/content/hubs");
    serve.token_with("wrong");
    let answer = serve.get("/metrics", "");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{answer:?}");
    for line in [
        "# TYPE amp_token_refresh_duration_seconds histogram",
        "# TYPE amp_token_refreshes_total counter",
        "amp_token_refreshes_total 1",
        "amp_token_serve_requests_total{endpoint=\"proxy\",status=\"200\"} 1",
        "amp_token_serve_requests_total{endpoint=\"token\",status=\"400\"} 1",
        "amp_token_serve_proxied_total{class=\"2xx\"} 1",
    ] {
        assert!(answer.body.lines().any(|have| have == line), "{line}: {}", answer.body);
    }
    for (name, _) in amp_token::token::cache::STATISTICS {
        assert!(answer.body.contains(&format!("\namp_token_{name}")), "{name}");
    }
    assert!(!answer.body.contains(serve.ticket()));
    if crate::shared::has("promtool") {
        let mut check = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success());
    }
}

/// `nohup` has a server survive the end of its terminal.
#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let env = TestEnv::new();
    let mut command = env.shell(&format!("trap '' HUP; exec {AMP_TOKEN} serve"));
    let serve = Serve::run(&mut command);
    serve.signal(libc::SIGHUP);
    assert_eq!(serve.token().status, 200);
    assert_eq!(serve.end().0, Some(0));
    let serve = Serve::start(&env, &[]);
    serve.signal(libc::SIGHUP);
    let mut serve = serve;
    assert_eq!(serve.child.wait().unwrap().code(), Some(0));
}
