//! HTTP and SOCKS proxies.

use crate::support::*;
use amp_token::config::NetworkOptions;
use amp_token::error::{Kind, Phase};
use amp_token::net::http::{ConnectionTrace, HttpTransport};
use amp_token::net::transport::Transport;
use amp_token::sys::secret::Secret;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[test]
fn a_proxy_receives_the_name_and_the_password() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["far.invalid"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let proxy = connect_proxy(server.address, ESTABLISHED);
    let url = format!("http://me:p%40ss@{}", proxy.address);
    let transport = transport_in(&trusting(&directory, &ca), &[("HTTPS_PROXY", &url)]);
    let mut observed = ConnectionTrace::default();
    let request = get("https://far.invalid/oauth/token");
    let response = transport.send_traced(&request, PATIENCE, &mut observed).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    assert_eq!(observed.proxy, Some(format!("http://{}", proxy.address)));
    assert_eq!(observed.address, Some(proxy.address));
    assert_eq!(
        proxy.requests(),
        [
            "CONNECT far.invalid:443 HTTP/1.1\r\nHost: far.invalid:443\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        ]
    );
    // The setting beats the environment.
    let options = NetworkOptions { proxy: Some(Secret::from(url.as_str())), ..trusting(&directory, &ca) };
    let transport = transport_in(&options, &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(transport.send(&request, PATIENCE).is_ok());
}

#[test]
fn a_rejection_by_a_proxy_is_reported_as_such() {
    let server = RawServer::responding(OK);
    for (reply, words, status, retryable) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nhush",
            "rejected the user name and password",
            Some(407),
            false,
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "could not connect to far.invalid:443", Some(403), false),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "could not connect to", Some(502), true),
        ("", "closed the connection", None, true),
        ("nonsense\r\n\r\n", "not HTTP", None, false),
    ] {
        let proxy = connect_proxy(server.address, reply);
        let url = format!("http://me:hush@{}", proxy.address);
        let transport = transport_in(&network(), &[("https_proxy", &url)]);
        let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Proxy, Phase::Tunnel, words);
        assert!(error.to_string().contains(&format!("the proxy http://{}", proxy.address)));
        assert_eq!(error.http_status(), status);
        assert_eq!(error.is_retryable(), retryable, "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_failed_connection_to_a_proxy_is_reported_as_such() {
    let port = ClosedPort::new();
    let closed = port.address().to_string();
    for scheme in ["http", "https", "socks4a", "socks5h"] {
        for (host, phase) in [(closed.as_str(), Phase::Connect), (UNKNOWN_HOST, Phase::Resolve)] {
            let url = format!("{scheme}://me:hush@{host}");
            let transport = transport_in(&network(), &[("ALL_PROXY", &url)]);
            let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
            assert_error(&error, Kind::Proxy, phase, &format!("the proxy {scheme}://"));
            assert!(
                error.to_string().contains(if phase == Phase::Resolve {
                    "cannot resolve"
                } else {
                    "cannot connect to"
                }),
                "{error}"
            );
            assert!(error.is_retryable());
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}

#[test]
fn a_proxy_cannot_make_a_call_outlast_its_deadline() {
    let transport_for = |url: &str, connect_timeout| {
        transport_in(&NetworkOptions { connect_timeout, ..network() }, &[("https_proxy", url)])
    };
    let silent = RawServer::start(|mut stream| read_until_eof(&mut stream));
    let slow = RawServer::start(|mut stream| {
        send_slowly(&mut stream, b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy")
    });
    let slow_socks = RawServer::start(|mut stream| {
        stream.write_all(&[5, 0, 5, 0, 0, 3, 255])?;
        send_slowly(&mut stream, b"x")
    });
    let cases = [
        ("http", &silent, Phase::Tunnel, "accepted the connection"),
        ("socks5h", &silent, Phase::Tunnel, "accepted the connection"),
        ("socks4a", &silent, Phase::Tunnel, "accepted the connection"),
        ("https", &silent, Phase::TlsHandshake, "the TLS handshake"),
        ("http", &slow, Phase::Tunnel, "accepted the connection"),
        ("socks5h", &slow_socks, Phase::Tunnel, "accepted the connection"),
    ];
    run_parallel(cases, |(scheme, proxy, phase, words)| {
        let url = format!("{scheme}://{}", proxy.address);
        // The handshake is limited by the connection's own timeout, the tunnel by that of the call.
        let (call, connecting) = if phase == Phase::Tunnel { (SHORT, SHORT / 10) } else { (PATIENCE, SHORT) };
        let error = failure(&transport_for(&url, connecting), &get("https://far.invalid/"), call);
        assert_error(&error, Kind::Timeout, phase, words);
        assert!(error.to_string().contains("within 1.0 s"), "{error}");
        let name = format!("the proxy {url} ");
        assert!(error.to_string().starts_with(&name), "{error}");
    });
}

/// A retry would have to begin again.
#[test]
fn a_proxy_may_take_longer_than_the_connect_timeout() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["far.invalid"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let address = server.address;
    let proxy = RawServer::start(move |mut stream| {
        read_head(&mut stream)?;
        std::thread::sleep(SHORT + SHORT / 4);
        stream.write_all(ESTABLISHED.as_bytes())?;
        relay(&stream, &TcpStream::connect(address)?);
        Ok(())
    });
    let url = format!("http://{}", proxy.address);
    let hasty = NetworkOptions { connect_timeout: SHORT, ..trusting(&directory, &ca) };
    let response = transport_in(&hasty, &[("https_proxy", &url)]).send(&get("https://far.invalid/"), PATIENCE);
    assert_eq!(response.unwrap().body.as_slice(), b"hi");
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn an_inspecting_proxy_is_named_and_works_once_trusted() {
    let (directory, inspector, other) = (temp_dir(), authority("Inspector"), authority("Root"));
    let forged = certificate(&["far.invalid"], Some(&inspector), |_| {});
    let inside = tls_server(server_config(&forged, BOTH), answer_inside);
    let proxy = connect_proxy(inside.address, ESTABLISHED);
    let url = format!("http://{}", proxy.address);
    let environment = [("https_proxy", url.as_str())];
    let request = get("https://far.invalid/");
    let error = failure(&transport_in(&trusting(&directory, &other), &environment), &request, PATIENCE);
    assert_error(&error, Kind::Tls, Phase::TlsHandshake, "issued by \"Inspector\" of \"Test & Co\"");
    assert!(error.to_string().contains("inspects TLS, set ca_file"), "{error}");
    let transport = transport_in(&trusting(&directory, &inspector), &environment);
    assert!(transport.send(&request, PATIENCE).is_ok());
}

#[test]
fn a_proxy_inside_tls_leads_to_a_server_inside_tls() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let server_leaf = certificate(&["far.invalid"], Some(&ca), |_| {});
    let server = tls_server(server_config(&server_leaf, BOTH), answer_inside);
    let inner = connect_proxy(server.address, ESTABLISHED);
    let inner_address = inner.address;
    let proxy_leaf = certificate(&["localhost"], Some(&ca), |_| {});
    // The outer layer only opens the TLS, for a client that waits for each answer in turn.
    let proxy = tls_server(server_config(&proxy_leaf, BOTH), move |outside| {
        let mut inside = TcpStream::connect(inner_address)?;
        inside.set_read_timeout(Some(Duration::from_millis(100)))?;
        outside.conn.complete_io(&mut outside.sock)?;
        outside.sock.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut buffer = [0; 4096];
        loop {
            for outward in [false, true] {
                let count = match if outward { inside.read(&mut buffer) } else { outside.read(&mut buffer) } {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    other => other?,
                };
                if count == 0 {
                    return Ok(());
                }
                if outward {
                    outside.write_all(&buffer[..count])?;
                    outside.flush()?;
                } else {
                    inside.write_all(&buffer[..count])?;
                }
            }
        }
    });
    let url = format!("https://me:pass@localhost:{}", proxy.address.port());
    let transport = transport_in(&trusting(&directory, &ca), &[("https_proxy", &url)]);
    let response = transport.send(&get("https://far.invalid/"), PATIENCE).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    assert!(inner.requests()[0].contains("Proxy-Authorization: Basic bWU6cGFzcw=="));
    // A proxy that is not trusted gets no password.
    let transport = transport_in(&network(), &[("https_proxy", &url)]);
    let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Tls, Phase::TlsHandshake, "the certificate of the proxy https://localhost");
    assert_eq!(inner.requests().len(), 1);
}

/// A proxy that asks for a client certificate, and whether each client showed it one. `insists`: without one
/// there is no connection.
fn asking_proxy(
    leaf: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
    ca: &Authority,
    insists: bool,
) -> (RawServer, mpsc::Receiver<bool>) {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if insists { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
    let config = server_builder(versions)
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![leaf.certificate.der().clone()],
            PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap(),
        )
        .unwrap();
    let (shown, seen) = mpsc::channel();
    let proxy = tls_server(config, move |stream| {
        let outcome = stream.conn.complete_io(&mut stream.sock);
        shown.send(stream.conn.peer_certificates().is_some()).unwrap();
        outcome?;
        read_head(stream)?;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")?;
        stream.flush()
    });
    (proxy, seen)
}

#[test]
fn a_client_certificate_is_not_sent_to_a_proxy() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let (proxy_leaf, client) =
        (certificate(&["localhost"], Some(&ca), |_| {}), certificate(&["client"], Some(&ca), |_| {}));
    let set = NetworkOptions {
        client_certificate: Some((
            file(&directory, "client.pem", &client.certificate.pem()),
            file(&directory, "client.key", &client.key.serialize_pem()),
        )),
        ..trusting(&directory, &ca)
    };
    for versions in [ONLY_1_2, ONLY_1_3] {
        for (insists, options) in [(false, &set), (true, &set), (true, &trusting(&directory, &ca))] {
            let (proxy, seen) = asking_proxy(&proxy_leaf, versions, &ca, insists);
            let url = format!("https://localhost:{}", proxy.address.port());
            let error =
                failure(&transport_in(options, &[("https_proxy", &url)]), &get("https://far.invalid/"), PATIENCE);
            if insists {
                let words = format!("the proxy {url} requires a client certificate, which is only sent to the servers");
                assert_error(&error, Kind::Tls, Phase::TlsHandshake, &words);
                // It would not help.
                assert!(!error.to_string().contains("set client_certificate"), "{error}");
            } else {
                assert_error(&error, Kind::Proxy, Phase::Tunnel, "could not connect to far.invalid:443");
            }
            assert_eq!(seen.recv_timeout(PATIENCE), Ok(false));
        }
    }
}

#[test]
fn socks_proxies_work_and_their_rejections_are_reported() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["far.invalid", "localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let options = trusting(&directory, &ca);

    // With socks5h the proxy resolves the name.
    let proxy = socks5_proxy(Some(server.address), Some("pass"), 0);
    let url = format!("socks5h://me:pass@{}", proxy.address);
    let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
    let response = transport.send(&get("https://far.invalid/"), PATIENCE).unwrap();
    assert_eq!(response.body.as_slice(), b"hi");
    // With socks5 the library does, and sends the address.
    let url = format!("socks5://me:pass@{}", proxy.address);
    let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
    assert!(transport.send(&get("https://localhost/"), PATIENCE).is_ok());
    assert_eq!(proxy.requests(), ["far.invalid:443", "127.0.0.1:443"]);
    let error = failure(&transport, &get(&format!("https://{UNKNOWN_HOST}/")), PATIENCE);
    assert_eq!(error.kind(), Kind::Resolve, "{error}");

    for (login, code, words) in [
        ("me:wrong@", 0, "rejected the user name and password"),
        ("", 0, "requires a user name and password"),
        ("me:pass@", 5, "connection refused"),
    ] {
        let proxy = socks5_proxy(Some(server.address), Some("pass"), code);
        let url = format!("socks5h://{login}{}", proxy.address);
        let transport = transport_in(&options, &[("ALL_PROXY", &url)]);
        let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
        assert_error(&error, Kind::Proxy, Phase::Tunnel, words);
    }
}

/// A proxy on this machine, such as an SSH tunnel, may lead to the loopback address of another one.
#[test]
fn plain_http_goes_through_no_proxy() {
    let server = RawServer::responding(OK);
    let proxy = connect_proxy(server.address, ESTABLISHED);
    let direct = |options: &NetworkOptions, environment: &[(&str, &str)]| {
        let mut observed = ConnectionTrace::default();
        let transport = transport_in(options, environment);
        assert!(transport.send_traced(&get(&server.url()), PATIENCE, &mut observed).is_ok());
        assert_eq!(observed.proxy, None);
    };
    for scheme in ["http", "socks5h"] {
        let url = format!("{scheme}://{}", proxy.address);
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            direct(&network(), &[(name, &url)]);
        }
        direct(&NetworkOptions { proxy: Some(Secret::from(url.as_str())), ..network() }, &[]);
    }
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn an_invalid_proxy_setting_is_rejected_at_once() {
    let options = NetworkOptions { proxy: Some(Secret::from("gopher://me:hush@h")), ..network() };
    let error = HttpTransport::with_environment(&options, |_| None).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(!error.to_string().contains("hush"), "{error}");
    let transport = transport_in(&network(), &[("https_proxy", "gopher://me:hush@h")]);
    assert!(!format!("{transport:?}").contains("hush"));
    let error = failure(&transport, &get("https://far.invalid/"), PATIENCE);
    assert_error(&error, Kind::Config, Phase::Setup, "https_proxy is not");
}
