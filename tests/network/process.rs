//! What only a process of its own can show: environment variables, limits and signals.

use crate::support::*;
use amp_token::config::NetworkOptions;
use amp_token::error::{Kind, Phase};
use amp_token::log::Log;
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::Transport;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[test]
fn the_systems_certificates_are_those_of_the_environment() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let port = server.address.port().to_string();
    let none = "no CA certificates were found on this machine";
    let unset = PathBuf::new();
    // An empty variable counts as unset: the system's certificates are read, if it has any.
    let systems = format!("the certificate of localhost:{port} is not from a trusted CA");
    let systems = if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() { &systems } else { none };
    let only = directory.path().join("directory");
    std::fs::create_dir(&only).unwrap();
    std::fs::write(only.join("ca.pem"), ca.pem()).unwrap();
    let marked = format!("\u{feff}{}{}", ca.pem(), authority("Other").pem());
    for (file, directories, expected) in [
        (file(&directory, "ca.pem", &ca.pem()), &unset, "200"),
        (file(&directory, "marked.pem", &marked), &unset, "200"),
        // What is not understood in it costs a warning, and not the rest.
        (
            file(&directory, "odd.pem", &format!("-----BEGIN PKCS7-----\nAA==\n-----END PKCS7-----\n{}", ca.pem())),
            &unset,
            "200",
        ),
        (unset.clone(), &only, "200"),
        (file(&directory, "empty.pem", ""), &only, "200"),
        (directory.path().join("missing.pem"), &unset, none),
        (file(&directory, "empty.pem", ""), &unset, none),
        (file(&directory, "escaped.pem", &ca.pem().replace('\n', "\\n")), &unset, none),
        (unset.clone(), &unset, systems),
    ] {
        alone("process::with_the_certificates_of_the_environment", |command| {
            command
                .env("SSL_CERT_FILE", file)
                .env("SSL_CERT_DIR", directories)
                .env("TEST_PORT", &port)
                .env("TEST_EXPECTED", expected)
                .env("TEST_CA", directory.path().join("ca.pem"));
        });
    }
}

#[test]
#[ignore = "run by the_systems_certificates_are_those_of_the_environment"]
fn with_the_certificates_of_the_environment() {
    let variable = |name| std::env::var(name).unwrap();
    let request = get(&format!("https://localhost:{}/", variable("TEST_PORT")));
    let outcome = match transport_in(&network(), &[]).send(&request, PATIENCE) {
        Ok(response) => response.status.to_string(),
        Err(error) => {
            assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::TlsHandshake));
            let text = error.to_string();
            assert!(text.contains("SSL_CERT_FILE") || text.contains("not from a trusted CA"), "{text}");
            assert!(!text.contains(['[', '{']), "{text}");
            text
        }
    };
    assert!(outcome.starts_with(&variable("TEST_EXPECTED")), "{outcome}");
    // With a ca_file the lack of others is only worth a warning.
    let options = NetworkOptions { ca_file: Some(variable("TEST_CA").into()), ..network() };
    assert!(transport_in(&options, &[]).send(&request, PATIENCE).is_ok());
}

/// Of the system's bundle those certificates are trusted first that may have issued the server's, and all that the
/// system has are read only for a server that they do not verify.
#[test]
#[cfg(target_os = "linux")]
fn the_systems_certificates_are_read_as_far_as_they_are_needed() {
    use crate::certificates::{intermediate, server};

    let (root, other, third) = (authority("Root"), authority("Other"), authority("Third"));
    let middle = intermediate("Middle", &third, |_| {});
    // The same CA once more, with another issuer, as after a change of root.
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = named("Test & Co", "Root");
    let cross_signed = params.signed_by(root.key(), &third).unwrap();
    let of = |authority, intermediates| server(&certificate(&["localhost"], Some(authority), |_| {}), intermediates);
    let servers = [
        of(&root, &[]),
        of(&other, &[]),
        of(&middle, &[]),
        of(&middle, &[middle.der()]),
        of(&root, &[cross_signed.der()]),
    ];
    let [root, other, third, middle] = [root, other, third, middle].map(|authority| authority.pem());
    let odd = "-----BEGIN PKCS7-----\nAA==\n-----END PKCS7-----\n";
    let (of_roots, all_accept) = (&servers[..2], "200 200");
    // The servers that are sent two requests each, the bundle, another file, the responses, and how often it is logged that
    // certificates were read: as far as they are needed, or all.
    for (servers, bundle, one, expected, reads) in [
        (of_roots, format!("{root}{other}"), &third, all_accept, 1),
        (of_roots, format!("{third}{other}{root}"), &third, all_accept, 1),
        // The CA was made anew, and both are trusted.
        (of_roots, format!("{}{other}{root}", authority("Root").pem()), &third, all_accept, 1),
        (of_roots, format!("{third}{other}{root}").replace('\n', "\r\n"), &third, all_accept, 1),
        (of_roots, format!("{third}{other}"), &root, all_accept, 2),
        (of_roots, format!("{third}{other}{root}{odd}"), &third, all_accept, 2),
        (of_roots, format!("{odd}{other}{root}"), &third, all_accept, 1),
        (of_roots, format!("{third}{}{root}", other.replace("MII", "M=I")), &other, all_accept, 2),
        (&servers[2..3], format!("{third}{middle}"), &root, "200", 2),
        (&servers[3..4], format!("{root}{third}"), &root, "200", 1),
        (&servers[4..], format!("{other}{root}"), &other, "200", 1),
        (of_roots, String::new(), &root, "200 not from a trusted CA", 2),
        // After each failure they are read again.
        (of_roots, third.clone(), &root, "200 not from a trusted CA", 4),
    ] {
        let ports: Vec<_> = servers.iter().map(|server| server.address.port().to_string()).collect();
        let directory = temp_dir();
        file(&directory, "ca-certificates.crt", &bundle);
        file(&directory, "one.pem", one);
        let mount = format!("mount --bind '{}' /etc/ssl/certs", directory.path().display());
        alone_unshared("--mount", &mount, "process::with_the_systems_directory", |command| {
            command
                .env_remove("SSL_CERT_FILE")
                .env_remove("SSL_CERT_DIR")
                .env("TEST_PORTS", ports.join(" "))
                .env("TEST_EXPECTED", expected)
                .env("TEST_READS", reads.to_string());
        });
    }
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "run by the_systems_certificates_are_read_as_far_as_they_are_needed"]
fn with_the_systems_directory() {
    let variable = |name| std::env::var(name).unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    let count = move |_, line: &str| {
        counter.fetch_add(
            usize::from(line.contains("CA certificates") && line.contains("are trusted")),
            Ordering::Relaxed,
        );
    };
    let options = NetworkOptions { log: Log::new(count), ..network() };
    let transport = transport_in(&options, &[]);
    let (ports, expected) = (variable("TEST_PORTS"), variable("TEST_EXPECTED"));
    let requests: Vec<_> = ports.split(' ').map(|port| get(&format!("https://localhost:{port}/"))).collect();
    // The second connection to a server needs no certificate that the first did not.
    for _ in 0..2 {
        for (request, expected) in requests.iter().zip(expected.splitn(2, ' ')) {
            let outcome = match transport.send(request, PATIENCE) {
                Ok(response) => response.status.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(outcome.contains(expected), "{outcome}");
        }
    }
    options.log.deliver();
    assert_eq!(reads.load(Ordering::Relaxed).to_string(), variable("TEST_READS"));
}

/// A variable that is not UTF-8 is not an unset one: that would be a direct connection.
#[test]
#[cfg(unix)]
fn proxy_passwords_in_the_environment_may_have_any_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let proxy = connect_proxy(SocketAddr::from(([127, 0, 0, 1], 1)), "HTTP/1.1 403 Forbidden\r\n\r\n");
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    for name in names {
        alone("process::with_the_proxy_of_the_environment", |command| {
            for other in names.into_iter().chain(["no_proxy", "NO_PROXY"]) {
                command.env_remove(other);
            }
            let value = [b"http://m\xe9:%ff@", proxy.address.to_string().as_bytes()].concat();
            command.env(name, std::ffi::OsString::from_vec(value));
        });
        // "m\xe9:\xff" in base64.
        assert!(proxy.requests().pop().unwrap().contains("\r\nProxy-Authorization: Basic bek6/w==\r\n"));
    }
}

#[test]
#[cfg(unix)]
#[ignore = "run by proxy_passwords_in_the_environment_may_have_any_bytes"]
fn with_the_proxy_of_the_environment() {
    let error = failure(&HttpTransport::new(&network()).unwrap(), &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Proxy, Phase::Tunnel, "could not connect to far.invalid:443");
}

#[test]
#[cfg(unix)]
fn a_lack_of_file_descriptors_is_a_local_problem() {
    alone("process::without_file_descriptors", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_lack_of_file_descriptors_is_a_local_problem"]
fn without_file_descriptors() {
    let server = RawServer::responding(OK);
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let secure_server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let request = secure(&secure_server, "localhost");
    let transport = transport_in(&trusting(&directory, &ca), &[]);
    let unattended = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut open = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        open.push(file);
    }
    let error = failure(&transport, &get(&server.url()), PATIENCE);
    assert_error(&error, Kind::Io, Phase::Connect, "too many open files");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    // Enough for the connection, which no server has to accept, but not for reading certificates.
    open.pop();
    let unaccepted = format!("https://{}/", unattended.local_addr().unwrap());
    let error = failure(&transport, &get(&unaccepted), PATIENCE);
    assert_error(&error, Kind::Io, Phase::TlsHandshake, "too many open files");
    drop(open);
    assert!(transport.send(&get(&server.url()), PATIENCE).is_ok());
    assert!(transport.send(&request, PATIENCE).is_ok());
}

/// The standard library's `write_vectored` raises it, and TLS would use that if it could.
#[test]
#[cfg(unix)]
fn a_broken_connection_raises_no_signal() {
    alone("process::with_sigpipe_as_in_a_c_program", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_broken_connection_raises_no_signal"]
fn with_sigpipe_as_in_a_c_program() {
    // SAFETY: sets the signal to its default, which every program but those of Rust starts with.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let secure_server = tls_server(server_config(&leaf, BOTH), |stream| read_head(stream).map(|_| ()));
    let plain_server = RawServer::start(|mut stream| read_head(&mut stream).map(|_| ()));
    let transport = transport_in(&trusting(&directory, &ca), &[]);
    for url in [plain_server.url(), secure(&secure_server, "localhost").url.as_str().to_owned()] {
        let error = failure(&transport, &post(&url, &vec![b'x'; 8 << 20]), PATIENCE);
        assert_error(&error, Kind::Connect, Phase::Send, "before it had read the whole request");
    }
}

#[test]
#[cfg(unix)]
fn a_forked_child_can_make_requests_of_its_own() {
    alone("process::while_forking", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_forked_child_can_make_requests_of_its_own"]
fn while_forking() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let options = trusting(&directory, &ca);
    let shared = Arc::new(transport_in(&options, &[]));
    let request = Arc::new(secure(&server, "localhost"));
    let busy = Arc::new(AtomicUsize::new(1));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (shared, request, busy) = (Arc::clone(&shared), Arc::clone(&request), Arc::clone(&busy));
            thread::spawn(move || {
                while busy.load(Ordering::SeqCst) == 1 {
                    assert_eq!(shared.send(&request, PATIENCE).unwrap().body.as_slice(), b"hi");
                }
            })
        })
        .collect();
    for _ in 0..20 {
        // SAFETY: the child only makes a request, and leaves by `_exit` without unwinding into the
        // test harness. The C library keeps its allocator and resolver usable after a fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let fresh = transport_in(&options, &[]).send(&request, PATIENCE);
            let inherited = shared.send(&request, PATIENCE);
            let good = [fresh, inherited]
                .iter()
                .all(|outcome| outcome.as_ref().is_ok_and(|response| response.body.as_slice() == b"hi"));
            // SAFETY: ends the child at once; nothing of its parent's is flushed or dropped twice.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: `child` is a child of this process and `status` a place for its outcome.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    busy.store(0, Ordering::SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
}
