//! What somebody on this machine, or a web page in a browser on it, may try.

use super::*;
use crate::support::SECRET;

/// A page of a name that leads to this machine has that name in `Host`, in whatever way it is spelt.
#[test]
fn dns_rebinding_is_refused() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let port = serve.host().rsplit_once(':').unwrap().1.to_owned();
    let status = |target: &str, headers: &str| {
        let ticket = serve.ticket();
        serve
            .raw(&format!(
                "GET {target} HTTP/1.1\r\nAuthorization: Bearer {ticket}\r\nConnection: close\r\n{headers}\r\n"
            ))
            .status
    };
    // Every endpoint, not only the one that hands out tokens.
    for target in ["/oauth/token", "/v2/content/hubs", "/graphql", "/healthz", "/readyz", "/metrics", "/"] {
        assert_eq!(status(target, &format!("Host: evil.example:{port}\r\n")), 421, "{target}");
    }
    for (headers, expected) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        (format!("Host: LOCALHOST:{port}\r\n"), 200),
        (format!("Host: [::1]:{port}\r\n"), 200),
        (format!("Host: evil.example:{port}\r\n"), 421),
        (format!("Host: 127.0.0.1.evil.example:{port}\r\n"), 421),
        (format!("Host: localhost.evil.example:{port}\r\n"), 421),
        (format!("Host: 127.0.0.1:{port}@evil.example:{port}\r\n"), 421),
        (format!("Host: 192.0.2.1:{port}\r\n"), 421),
        ("Host: 127.0.0.1\r\n".to_owned(), 421),
        ("Host: 127.0.0.1:1\r\n".to_owned(), 421),
        (format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"), 400),
        (String::new(), 400),
    ] {
        assert_eq!(status("/v2/content/hubs", &headers), expected, "{headers}");
    }
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    assert_eq!(status(&format!("http://evil.example:{port}/v2/content/hubs"), &own), 421);
    assert_eq!(status(&format!("http://127.0.0.1:{port}/v2/content/hubs"), &own), 200);
    // No page of another origin may read a response or send more than a simple request.
    let preflight = format!(
        "OPTIONS /v2/content/hubs HTTP/1.1\r\n{own}Origin: http://evil.example\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n"
    );
    let answer = serve.raw(&preflight);
    assert_eq!((answer.status, answer.head.contains("access-control")), (401, false));
}

/// A guess costs a request and learns nothing: no answer is nearer than another.
#[test]
fn guessing_the_ticket_learns_nothing() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let ticket = serve.ticket().to_owned();
    let mut answers = std::collections::BTreeSet::new();
    for guess in [&ticket[..63], &ticket[..1], "", "x", &"a".repeat(64), &format!("{ticket}a"), "%00", SECRET] {
        let answer = serve.token_with(&amp_token::net::url::form_encode(guess));
        assert!(!answer.body.contains(&ticket), "{answer:?}");
        answers.insert((answer.status, answer.body));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

/// Two parsers that disagree about where a request ends: the API sees one request for each that was authenticated.
#[test]
fn requests_are_not_smuggled() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let (host, ticket) = (serve.host(), serve.ticket());
    let hidden = format!("GET /v2/content/hubs/hidden HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = hidden.len();
    let head = |framing: &str| {
        format!(
            "POST /v2/content/smuggle HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ticket}\r\nConnection: close\r\n{framing}\r\n"
        )
    };
    for (row, framing, body) in [
        (
            "CL.TE",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + length),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "TE.CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(),
            format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
        ),
        (
            "TE.TE",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        ("TE, odd", "Transfer-Encoding: xchunked\r\n".to_owned(), format!("0\r\n\r\n{hidden}")),
        ("TE, odd space", "Transfer-Encoding : chunked\r\n".to_owned(), format!("0\r\n\r\n{hidden}")),
        ("CL, two", format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), hidden.clone()),
        ("CL, list", format!("Content-Length: 0, {length}\r\n"), hidden.clone()),
        ("CL, signed", "Content-Length: +0\r\n".to_owned(), hidden.clone()),
        ("chunk, huge", "Transfer-Encoding: chunked\r\n".to_owned(), format!("ffffffffffffffff1\r\n{hidden}")),
        ("fold", "X: y\r\n Content-Length: 5\r\n".to_owned(), hidden.clone()),
    ] {
        env.emulator.reset_statistics();
        let answer = serve.raw(&format!("{}{body}", head(&framing)));
        let seen = env.emulator.requests();
        let hidden_seen = seen.iter().filter(|request| format!("{request:?}").contains("/hidden")).count();
        // In TE.CL the hidden request is the body, which is data.
        let is_data = row == "TE.CL";
        assert!(hidden_seen == 0 || is_data && seen.len() == 1, "{row}: {seen:?}");
        assert!(seen.len() <= 1, "{row}: {seen:?}");
        assert!([0, 400, 404, 405].contains(&answer.status), "{row}: {answer:?}");
    }
}

#[test]
fn a_head_has_a_limit() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let large = format!("X: {}\r\n", "x".repeat(100_000));
    assert_eq!(serve.get("/healthz", &large).status, 431);
    let many = "X: y\r\n".repeat(200);
    assert_eq!(serve.get("/healthz", &many).status, 431);
    let long = format!("/{}", "x".repeat(100_000));
    assert!([414, 431].contains(&serve.get(&long, "").status));
    assert_eq!(serve.get("/healthz", "").status, 200);
}

/// Clients that send a byte now and then, or nothing: each is dropped, and nobody else waits.
#[test]
fn slow_clients_are_dropped() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let host = serve.host().to_owned();
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n";
    let starts = [
        String::new(),
        "GET /healthz HTTP/1.1\r\nX: ".to_owned(),
        format!("POST /oauth/token HTTP/1.1\r\nHost: {host}\r\n{form}\r\n"),
        // A connection that has had a response and is kept.
        format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ];
    std::thread::scope(|scope| {
        let slow: Vec<_> = starts
            .iter()
            .map(|start| {
                scope.spawn(|| {
                    let mut stream = serve.connect();
                    stream.write_all(start.as_bytes()).unwrap();
                    let mut drip = stream.try_clone().unwrap();
                    let is_dripping = start.contains("X: ") || start.contains("/oauth/token");
                    let dripping = scope.spawn(move || {
                        while is_dripping && drip.write_all(b"x").is_ok() {
                            std::thread::sleep(Duration::from_millis(200));
                        }
                    });
                    // The server closes it.
                    let answer = Answer::read(&stream);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    dripping.join().unwrap();
                    answer.status
                })
            })
            .collect();
        assert_eq!((serve.get("/healthz", "").status, serve.token().status), (200, 200));
        let statuses: Vec<_> = slow.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!([0, 408].contains(&statuses[0]) && [0, 408].contains(&statuses[1]), "{statuses:?}");
        assert_eq!(statuses[2..], [408, 200]);
    });
    wait_until("they are gone", || serve.metric("amp_token_serve_connections") <= 1.0);
}

/// More idle connections than there may be: the newest client is served all the same.
#[test]
fn idle_connections_cost_memory_and_nothing_else() {
    let env = TestEnv::new();
    let serve = Serve::start(&env, &[]);
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", serve.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    serve.token();
    let before = memory();
    let count = 800;
    let idle: Vec<_> = (0..count).map(|_| serve.connect()).collect();
    wait_until("they are open", || serve.metric("amp_token_serve_connections") >= f64::from(count));
    let grown = memory() - before;
    assert_eq!(serve.token().status, 200);
    // Some kilobytes for each, in a build that is not optimized.
    assert!(grown < 800 * 32, "{grown} KiB");
    drop(idle);
}

/// With few descriptors, the connections that wait for longest make room.
#[test]
fn a_flood_of_connections_does_not_lock_others_out() {
    let env = TestEnv::new();
    let shell = format!("ulimit -n 128; exec {} serve", crate::support::AMP_TOKEN);
    let mut command = env.shell(&shell);
    let serve = Serve::run(&mut command);
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(serve.connect());
        if flood.len() % 50 == 0 {
            // Long before one of them has been idle for so long that it is closed anyway, after 10 s.
            let stream = serve.connect();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", serve.host());
            (&stream).write_all(request.as_bytes()).unwrap();
            assert_eq!(Answer::read(&stream).status, 200, "{}", flood.len());
        }
    }
    assert!(serve.metric("amp_token_serve_connections") <= 64.0);
}
