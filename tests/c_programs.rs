//! C and C++ programs, compiled as users compile theirs and run against this build's library: the
//! examples under bindings/, and the tests under tests/c. AMP_C_SANITIZERS=1 builds them with the
//! compiler's address and undefined-behaviour sanitizers.

mod support;

use amp_emulator::{Emulator, Fault};
use amp_token::api::{self, ApiRequest};
use amp_token::config::Config;
use amp_token::token::cache::TokenCache;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::net::{ESTABLISHED, connect_proxy};
use support::{C_FLAGS, CPP_FLAGS, compile, library_dir, program, require_header, require_tool, root, run, scratch};

/// A secret with the characters that encoders get wrong.
const NASTY_SECRET: &str = "a+secret/with=chars &%~é";

fn flags(base: &[&'static str]) -> Vec<&'static str> {
    let sanitized = std::env::var_os("AMP_C_SANITIZERS").is_some();
    let extra: &[&str] = if sanitized { &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] } else { &[] };
    [base, extra].concat()
}

/// A directory of this test's own: tests run in parallel, and some compile the same program.
fn own_directory() -> PathBuf {
    let directory = scratch("programs").join(std::thread::current().name().unwrap_or("main"));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Compiles a C program of the repository.
fn built(source: &str, libraries: &[&str]) -> PathBuf {
    let source = root().join(source);
    let target = own_directory().join(source.file_stem().unwrap());
    compile("cc", &flags(C_FLAGS), &source, &target, libraries);
    target
}

/// A program with the credentials of an emulator in its environment.
fn with_credentials(path: &Path, emulator: &Emulator) -> Command {
    let mut command = program(path);
    command
        .env("AMPLIENCE_CLIENT_ID", emulator.client_id())
        .env("AMPLIENCE_CLIENT_SECRET", emulator.client_secret())
        .env("AMPLIENCE_AUTH_URL", emulator.url())
        .env("AMPLIENCE_API_URL", emulator.url());
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

#[test]
fn get_token_prints_a_token_over_http_and_https() {
    let get_token = built("bindings/c/get_token.c", &[]);
    let emulator = Emulator::builder().client("some id", NASTY_SECRET).start().unwrap();
    let token = stdout(&mut with_credentials(&get_token, &emulator));
    assert!(token.starts_with("eyJ") && token.len() > 1000, "{token}");
    let tls = Emulator::builder().tls(true).client("some id", NASTY_SECRET).start().unwrap();
    let token = stdout(with_credentials(&get_token, &tls).env("AMPLIENCE_CA_FILE", tls.ca_file()));
    assert!(token.starts_with("eyJ"), "{token}");
    assert_eq!((emulator.stats().token_requests, tls.stats().token_requests), (1, 1));
}

#[test]
fn get_token_says_what_is_wrong_and_nothing_secret() {
    let get_token = built("bindings/c/get_token.c", &[]);
    let emulator = Emulator::builder().start().unwrap();
    for (change, value, status, says) in [
        ("AMPLIENCE_CLIENT_SECRET", "hush-hush", 3, "AMP_CREDENTIALS_REJECTED"),
        ("AMPLIENCE_CLIENT_SECRET", "", 3, "set AMPLIENCE_CLIENT_SECRET"),
        ("AMPLIENCE_PAT", "amp_pat_hush-hush", 2, "are both set"),
        ("AMPLIENCE_AUTH_URL", "http://127.0.0.1:1", 4, "AMP_CONNECT"),
        ("AMPLIENCE_RETRIES", "many", 2, "AMPLIENCE_RETRIES is \"many\""),
    ] {
        let output =
            with_credentials(&get_token, &emulator).env(change, value).env("AMPLIENCE_TIMEOUT_MS", "20000").output();
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{change}={value}: {error}");
        assert!(error.contains(says), "{change}={value}: {error}");
        assert!(output.stdout.is_empty() && !error.contains("hush-hush") && !error.contains(&emulator.client_secret()));
    }
}

/// A token endpoint like that of other servers: with `token_type`, a refresh token and a scope, without
/// `session_expires_in`.
#[test]
fn get_token_works_with_any_server_of_the_standard() {
    let get_token = built("bindings/c/get_token.c", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/realms/example/oauth/token", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&request).ends_with("client_credentials") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&piece[..read]);
        }
        let body = r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"Bearer","expires_in":3600,"refresh_token":"x","scope":"a b"}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8(request).unwrap()
    });
    let mut command = program(&get_token);
    command
        .env("AMPLIENCE_CLIENT_ID", "i d")
        .env("AMPLIENCE_CLIENT_SECRET", NASTY_SECRET)
        .env("AMPLIENCE_AUTH_URL", url);
    assert_eq!(stdout(&mut command), "2YotnFZFEjr1zCsicMWpAA\n");
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /realms/example/oauth/token HTTP/1.1\r\n"), "{request}");
    let body = "client_id=i+d&client_secret=a%2Bsecret%2Fwith%3Dchars+%26%25%7E%C3%A9&grant_type=client_credentials";
    assert!(request.ends_with(body), "{request}");
}

#[test]
fn list_hubs_uses_the_token() {
    if !require_header("curl/curl.h") {
        return;
    }
    let list_hubs = built("bindings/c/list_hubs.c", &["-lcurl"]);
    let emulator = Emulator::builder().start().unwrap();
    let listing = stdout(&mut with_credentials(&list_hubs, &emulator));
    assert!(listing.contains("hub"), "{listing}");
    assert_eq!(emulator.stats().token_requests, 1);
    assert_eq!(emulator.stats().rejected, 0);
    // An expired token is replaced, a missing permission is reported.
    for (fault, code, listed, tokens) in
        [(expired(), 0, "HTTP 200", 2), (Fault::status(403).for_path("/v2/"), 1, "HTTP 403", 1)]
    {
        emulator.reset();
        emulator.faults([fault]);
        let output = with_credentials(&list_hubs, &emulator).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), emulator.stats().token_requests), (Some(code), tokens), "{listing}");
        assert!(listing.starts_with(listed), "{listing}");
    }
}

#[test]
fn curl_transport_authenticates_to_proxies() {
    if !require_header("curl/curl.h") {
        return;
    }
    let curl_transport = built("bindings/c/curl_transport.c", &["-lcurl"]);
    let emulator = Emulator::builder().client("some id", NASTY_SECRET).start().unwrap();
    let token = stdout(&mut with_credentials(&curl_transport, &emulator));
    assert!(token.starts_with("eyJ"), "{token}");
    // The failure of a server is that of the library's own client.
    let mut command = with_credentials(&curl_transport, &emulator);
    let output = command.env("AMPLIENCE_CLIENT_SECRET", "wrong").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("rejected the client id and secret (HTTP 400, invalid_client"), "{message}");

    let tls = Emulator::builder().tls(true).start().unwrap();
    let proxy = connect_proxy(TcpListener::bind("127.0.0.1:0").unwrap(), None, |head| {
        match head.contains("\r\nProxy-Authorization: Digest username=\"me\"") {
            true => ESTABLISHED,
            false => {
                "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"x\", nonce=\"y\", qop=\"auth\"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            }
        }
    });
    let through_proxy = |path: &Path| {
        let mut command = with_credentials(path, &tls);
        command.env("AMPLIENCE_CA_FILE", tls.ca_file()).env("HTTPS_PROXY", format!("http://me:pass@{}", proxy.address));
        command
    };
    let token = stdout(&mut through_proxy(&curl_transport));
    assert!(token.starts_with("eyJ"), "{token}");
    let output = through_proxy(&built("bindings/c/get_token.c", &[])).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("requires authentication by Digest, which this library does not support"), "{message}");
    assert!(message.contains("bindings/c/curl_transport.c"), "{message}");
}

/// A content repository of the emulator's first hub.
fn repository(emulator: &Emulator) -> String {
    let mut config = Config::new();
    for (name, value) in [
        ("auth_url", emulator.url()),
        ("api_url", emulator.url()),
        ("client_id", emulator.client_id()),
        ("client_secret", emulator.client_secret()),
        ("proxy", "none".to_owned()),
    ] {
        config.set(name, Some(&value)).unwrap();
    }
    let cache = TokenCache::new(&config).unwrap();
    let get = |path: &str| {
        let call = ApiRequest { method: "GET", path, content_type: None, body: b"" };
        serde_json::from_slice::<serde_json::Value>(&api::request(&cache, &call).unwrap().body).unwrap()
    };
    let hubs = get("/v2/content/hubs");
    let link = hubs["_embedded"]["hubs"][0]["_links"]["content-repositories"]["href"].as_str().unwrap();
    let repositories = get(link.split('{').next().unwrap());
    repositories["_embedded"]["content-repositories"][0]["id"].as_str().unwrap().to_owned()
}

const ITEMS: &str = "/v2/content/content-repositories/";

/// The 403 by which Amplience reports an expired token.
fn expired() -> Fault {
    let body = serde_json::json!({"errors": [{"code": "FORBIDDEN", "message": "Authorization required."}]});
    Fault::status(403).body(body).for_path("/v2/")
}

/// A file with a content item.
fn item_file() -> PathBuf {
    let file = own_directory().join("item.json");
    std::fs::write(&file, r#"{"label":"Grüße","body":{"_meta":{"name":"a"}}}"#).unwrap();
    file
}

#[test]
fn upload_item_repeats_what_is_safe_to_repeat() {
    if !require_header("curl/curl.h") {
        return;
    }
    let upload_item = built("bindings/c/upload_item.c", &["-lcurl"]);
    let emulator = Emulator::builder().start().unwrap();
    let (repository, item) = (repository(&emulator), item_file());
    // The exit status with these faults, the output, and how many requests and tokens it took.
    let upload = |faults: &[Fault]| {
        emulator.reset();
        emulator.faults(faults.iter().cloned());
        let output = with_credentials(&upload_item, &emulator).arg(&repository).arg(&item).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let stats = emulator.stats();
        (output.status.code().unwrap(), said, stats.api_requests, stats.token_requests)
    };
    let (code, said, requests, tokens) = upload(&[]);
    assert!(said.contains(r#""label":"Grüße""#) && said.contains(r#""id":"#), "{said}");
    assert_eq!((code, requests, tokens), (0, 1, 1));
    for (faults, expected) in [
        // Revoked or expired meanwhile: retried once, with the next token.
        (vec![Fault::status(401).for_path(ITEMS)], (0, 2, 2)),
        (vec![expired()], (0, 2, 2)),
        // A missing permission: no token is replaced.
        (vec![Fault::status(403).for_path(ITEMS)], (1, 1, 1)),
        (vec![Fault::status(401).for_path(ITEMS), Fault::status(401).for_path(ITEMS)], (1, 2, 2)),
        // Rate limited: retried, but not forever.
        (vec![Fault::status(429).for_path(ITEMS), Fault::status(429).for_path(ITEMS).retry_after(1)], (0, 3, 1)),
        (vec![Fault::status(429).for_path(ITEMS).forever()], (1, 5, 1)),
        // A request that the server may have processed is not sent again.
        (vec![Fault::status(503).for_path(ITEMS).retry_after(1)], (1, 1, 1)),
        (vec![Fault::close().for_path(ITEMS)], (1, 1, 1)),
        (vec![Fault::status(400)], (2, 0, 1)),
    ] {
        let (code, said, requests, tokens) = upload(&faults);
        assert_eq!((code, requests, tokens), expected, "{faults:?}: {said}");
        assert!(!said.contains(&emulator.client_secret()) && (code == 0 || !said.is_empty()), "{said}");
    }
    for arguments in [vec![], vec!["../hubs", "/dev/null"], vec![repository.as_str(), "/nonexistent"]] {
        let output = with_credentials(&upload_item, &emulator).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
    }
}

#[test]
fn publish_publishes_each_item_once() {
    if !require_header("curl/curl.h") || !require_tool("c++") {
        return;
    }
    let publish = built_cpp("c++", "bindings/cpp/publish.cpp", "-std=c++11");
    let upload_item = built("bindings/c/upload_item.c", &["-lcurl"]);
    let emulator = Emulator::builder().start().unwrap();
    let (repository, item) = (repository(&emulator), item_file());
    let upload = |_| {
        let created = stdout(with_credentials(&upload_item, &emulator).arg(&repository).arg(&item));
        let created: serde_json::Value = serde_json::from_str(&created).unwrap();
        created["id"].as_str().unwrap().to_owned()
    };
    let ids: Vec<String> = (0..24).map(upload).collect();
    let run = |workers: &str, ids: &[String]| {
        let mut child = with_credentials(&publish, &emulator)
            .arg(workers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Fails if the program has ended already.
        let _ = child.stdin.take().unwrap().write_all((ids.join("\n") + "\n").as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said, emulator.stats().publications, emulator.stats().token_requests)
    };
    let fresh = |faults: Vec<Fault>| {
        // The items that were uploaded stay.
        emulator.reset_statistics();
        emulator.faults(faults);
    };
    let path = "/v2/content/content-items/";

    fresh(vec![]);
    let (code, said, publications, tokens) = run("8", &ids);
    assert_eq!((code, publications, tokens), (0, 24, 1), "{said}");
    assert!(said.contains("24 published, 0 not; 1 token(s)"), "{said}");

    // Some requests are rate limited, and one token is rejected meanwhile.
    fresh(vec![Fault::status(401).for_path(path), Fault::status(429).for_path(path).times(5)]);
    let (code, said, publications, tokens) = run("16", &ids);
    assert_eq!((code, publications, tokens), (0, 24, 2), "{said}");

    // Failures are listed, and the rest continues; a request on a broken connection is not retried.
    fresh(vec![Fault::close().for_path(path)]);
    let (code, said, publications, _) = run("1", &[&ids[..3], &["0".to_owned(), "../hubs".to_owned()]].concat());
    assert_eq!((code, publications), (1, 2), "{said}");
    assert!(said.contains("2 published, 3 not") && said.contains("../hubs: this is no id"), "{said}");
    assert!(said.contains(&format!("{}: ", ids[0])) && said.contains("0: HTTP 404"), "{said}");

    fresh(vec![Fault::status(400).forever()]);
    let (code, said, publications, _) = run("8", &ids);
    assert_eq!((code, publications), (2, 0), "{said}");
    assert!(said.contains("AMP_CREDENTIALS_REJECTED"), "{said}");
    assert_eq!(run("none", &ids).0, 2);
}

#[test]
fn the_cpp_example_works_in_every_standard() {
    if !require_tool("c++") {
        return;
    }
    let emulator = Emulator::builder().start().unwrap();
    for standard in ["-std=c++11", "-std=c++14", "-std=c++17", "-std=c++20", "-std=c++23"] {
        let get_token = built_cpp("c++", "bindings/cpp/get_token.cpp", standard);
        let token = stdout(&mut with_credentials(&get_token, &emulator));
        assert!(token.starts_with("eyJ"), "{token}");
    }
}

#[test]
fn the_cpp_examples_for_other_programs_work() {
    if !require_tool("c++") {
        return;
    }
    let emulator = Emulator::builder().start().unwrap();
    let without = compiled_cpp("bindings/cpp/without_exceptions.cpp", &["-std=c++11", "-fno-exceptions", "-fno-rtti"]);
    let event_loop = compiled_cpp("bindings/cpp/event_loop.cpp", &["-std=c++17"]);
    let hubs = stdout(&mut with_credentials(&without, &emulator));
    assert!(hubs.starts_with("HTTP 200 {") && hubs.contains("hubs"), "{hubs}");
    let printed = stdout(&mut with_credentials(&event_loop, &emulator));
    assert!(printed.starts_with("got token ") && printed.contains("Bearer eyJ… for "), "{printed}");
    for program in [&without, &event_loop] {
        let output = with_credentials(program, &emulator).env("AMPLIENCE_CLIENT_SECRET", "wrong").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("rejected the client id and secret"), "{said}");
    }
    emulator.faults([Fault::status(500).for_path("/v2/").forever()]);
    assert_eq!(with_credentials(&without, &emulator).output().unwrap().status.code(), Some(2));
}

/// Two libraries of one process use the header. A function that the linker merges would read the function object of
/// the other one, which has another layout if the C++ runtimes differ.
#[test]
fn two_libraries_with_the_cpp_header_do_not_meet() {
    if !require_tool("c++") || !require_tool("nm") {
        return;
    }
    let source = root().join("tests/c/cpp_runtime.cpp");
    let (half, program) = (own_directory().join("libother_half.so"), own_directory().join("halves"));
    let build = |compiler: &str, extra: &[&str], target: &Path, libraries: &[&str]| {
        compile(compiler, &[CPP_FLAGS, extra].concat(), &source, target, libraries);
    };
    build("c++", &["-std=c++11", "-DNAME=other_half", "-fPIC", "-shared"], &half, &[]);
    let symbols = stdout(Command::new("nm").args(["-D", "--defined-only"]).arg(&half));
    assert!(symbols.contains("other_half") && !symbols.contains("amp_token_hpp_"), "{symbols}");
    let version = symbols.lines().filter(|line| line.contains("3amp")).find(|line| !line.contains("v1_libstdcxx"));
    assert_eq!(version, None, "a symbol does not name the C++ runtime");

    let libcxx = ["-std=c++11", "-stdlib=libc++"];
    let probe = own_directory().join("probe.cpp");
    std::fs::write(&probe, "#include <string>\nint main() { return std::string().size() != 0; }\n").unwrap();
    let mut compiler = Command::new("clang++");
    let has_libcxx = support::has("clang++")
        && compiler
            .args(libcxx)
            .arg(&probe)
            .arg("-o")
            .arg(own_directory().join("probe"))
            .output()
            .unwrap()
            .status
            .success();
    if !has_libcxx {
        println!("there is no clang++ with libc++ here: only the symbols were checked");
        return;
    }
    let path = format!("-Wl,-rpath,{}", own_directory().display());
    build(
        "clang++",
        &[&libcxx[..], &["-DNAME=first_half", "-DWITH_MAIN"]].concat(),
        &program,
        &[half.to_str().unwrap(), &path],
    );
    run(&mut self::program(&program));
}

/// Each program under tests/c is a test: it exits with 0, or reports what is wrong.
macro_rules! programs {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            let built = built(concat!("tests/c/", stringify!($name), ".c"), &["-ldl"]);
            let output = run(program(&built).arg(library_dir().join("libamp_token.so")));
            println!("{}", String::from_utf8_lossy(&output.stdout));
        }
    )*};
}
programs!(lifecycle, threads, callbacks, environment, fork, dlopen, two_copies, exit_during_call);

/// Compiles a C++ program of the repository with these options.
fn compiled_cpp(source: &str, options: &[&'static str]) -> PathBuf {
    let source = root().join(source);
    let target = own_directory().join(source.file_stem().unwrap());
    compile("c++", &[flags(CPP_FLAGS), options.to_vec()].concat(), &source, &target, &[]);
    target
}

/// Compiles a C++ program of the repository.
fn built_cpp(compiler: &str, source: &str, standard: &'static str) -> PathBuf {
    let source = root().join(source);
    let target = own_directory().join(format!("{}-{compiler}{standard}", source.file_stem().unwrap().display()));
    compile(compiler, &[flags(CPP_FLAGS), vec![standard]].concat(), &source, &target, &[]);
    target
}

#[test]
fn the_cpp_binding() {
    if !require_tool("c++") {
        return;
    }
    for standard in ["-std=c++11", "-std=c++14", "-std=c++17", "-std=c++20", "-std=c++23"] {
        run(&mut program(&built_cpp("c++", "tests/c/cpp_test.cpp", standard)));
    }
}

/// Clang has other warnings than GCC. Nothing else needs it.
#[test]
fn the_cpp_binding_with_clang() {
    if !support::has("clang++") {
        println!("there is no clang++ here: left out");
        return;
    }
    if std::env::var_os("AMP_C_SANITIZERS").is_some() {
        return; // its sanitizers are in another package
    }
    for standard in ["-std=c++11", "-std=c++17", "-std=c++20"] {
        run(&mut program(&built_cpp("clang++", "tests/c/cpp_test.cpp", standard)));
    }
}

/// No memory error and no leak in whole programs, including TLS.
#[test]
fn valgrind_finds_nothing() {
    if std::env::var_os("AMP_C_SANITIZERS").is_some() {
        return; // valgrind cannot run them; CI runs this test without sanitizers too
    }
    if !require_tool("valgrind") || !require_tool("c++") {
        return;
    }
    let tls = Emulator::builder().tls(true).start().unwrap();
    for source in ["bindings/c/get_token.c", "tests/c/lifecycle.c", "tests/c/cpp_test.cpp"] {
        let built =
            if source.ends_with("cpp") { built_cpp("c++", source, "-std=c++17") } else { built(source, &["-ldl"]) };
        let example = source.starts_with("bindings");
        let mut settings = if example { with_credentials(&built, &tls) } else { program(&built) };
        settings.env("AMPLIENCE_CA_FILE", tls.ca_file());
        let mut command = Command::new("valgrind");
        support::without_settings(&mut command);
        for (name, value) in settings.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        run(command
            .args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9"])
            .arg(format!("--suppressions={}", root().join("tests/c/valgrind.supp").display()))
            .arg(&built)
            .arg(library_dir().join("libamp_token.so")));
    }
}
