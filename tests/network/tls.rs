//! TLS: certificates of the server and of the client, and handshakes that fail.

use crate::support::*;
use amp_token::config::NetworkOptions;
use amp_token::error::{Kind, Phase};
use amp_token::log::Log;
use amp_token::net::http::ConnectionTrace;
use amp_token::net::transport::Transport;
use amp_token::sys::secret::Secret;
use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

#[test]
fn a_connection_to_a_trusted_server_is_traced() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost", "127.0.0.1"], Some(&ca), |_| {});
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let options = NetworkOptions {
        log: Log::new(move |_, line| kept.lock().unwrap().push(line.to_owned())),
        ..trusting(&directory, &ca)
    };
    let transport = transport_in(&options, &[]);
    for (versions, version) in [(BOTH, "TLS 1.3"), (ONLY_1_3, "TLS 1.3"), (ONLY_1_2, "TLS 1.2")] {
        let server = tls_server(server_config(&leaf, versions), answer_inside);
        for host in ["localhost", "127.0.0.1"] {
            let mut observed = ConnectionTrace::default();
            let mut request = secure(&server, host);
            request.headers.push(("Authorization".into(), Secret::from("Bearer hush").into()));
            let response = transport.send_traced(&request, PATIENCE, &mut observed).unwrap();
            assert_eq!(response.body.as_slice(), b"hi");
            assert_eq!(observed.address, Some(server.address));
            assert_eq!(observed.proxy, None);
            let identity = observed.tls.unwrap();
            assert_eq!(identity.version, version);
            assert_eq!(identity.issuer, "\"Root\" of \"Test & Co\"");
            assert_eq!(identity.subject, "\"leaf\" of \"Shop\"");
        }
    }
    options.log.deliver();
    let lines = lines.lock().unwrap().join("\n");
    for words in
        ["directly", "connected to localhost", "TLS 1.2", "issued by \"Root\"", "responded with status 200 and 2 bytes"]
    {
        assert!(lines.contains(words), "{words} in {lines}");
    }
    assert!(!lines.contains("hush"), "{lines}");
}

#[test]
fn an_untrusted_certificate_is_reported_with_reason_and_issuer() {
    let (directory, ca, stranger) = (temp_dir(), authority("Root"), authority("Inspector"));
    let transport = transport_in(&trusting(&directory, &ca), &[]);
    let local = &["localhost"][..];
    let cases = [
        (
            certificate(local, Some(&ca), |params| params.not_after = date_time_ymd(2020, 2, 29)),
            "expired on 29 Feb 2020 (issued by \"Root\" of \"Test & Co\")",
            "clock",
        ),
        (
            certificate(local, Some(&ca), |params| params.not_before = date_time_ymd(4000, 1, 2)),
            "not valid before 02 Jan 4000",
            "clock",
        ),
        (
            certificate(&["other.example", "www.example"], Some(&ca), |_| {}),
            "for other hosts (other.example, www.example)",
            "host name",
        ),
        (
            certificate(local, Some(&stranger), |_| {}),
            "not from a trusted CA (issued by \"Inspector\" of \"Test & Co\")",
            "ca_file",
        ),
        (certificate(local, None, |_| {}), "self-signed", "ca_file"),
        (certificate(local, None, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "", ""),
    ];
    for versions in [ONLY_1_2, ONLY_1_3] {
        for (leaf, words, advice) in &cases {
            let server = tls_server(server_config(leaf, versions), answer_inside);
            let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
            println!("{error}");
            assert_error(&error, Kind::Tls, Phase::TlsHandshake, words);
            assert!(error.to_string().contains("localhost:"), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
            assert!(!error.is_retryable());
        }
    }
}

#[test]
fn a_self_signed_certificate_works_once_it_is_in_ca_file() {
    let directory = temp_dir();
    let leaf = certificate(&["localhost"], None, |_| {});
    let options = NetworkOptions { ca_file: Some(file(&directory, "ca.pem", &leaf.certificate.pem())), ..network() };
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let transport = transport_in(&options, &[]);
    assert!(transport.send(&secure(&server, "localhost"), PATIENCE).is_ok());
}

#[test]
fn a_client_certificate_is_sent_to_a_server_that_requests_it() {
    let (directory, ca, stranger) = (temp_dir(), authority("Root"), authority("Stranger"));
    let server_leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let with = |name: &str, leaf: &Certificate| NetworkOptions {
        client_certificate: Some((
            file(&directory, &format!("{name}.pem"), &leaf.certificate.pem()),
            file(&directory, &format!("{name}.key"), &leaf.key.serialize_pem()),
        )),
        ..trusting(&directory, &ca)
    };
    let client = certificate(&["client"], Some(&ca), |_| {});
    let unknown = certificate(&["client"], Some(&stranger), |_| {});
    for versions in [ONLY_1_2, ONLY_1_3] {
        let config = server_builder(versions)
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(
                vec![server_leaf.certificate.der().clone()],
                PrivateKeyDer::try_from(server_leaf.key.serialize_der()).unwrap(),
            )
            .unwrap();
        let server = tls_server(config, answer_inside);
        // A large body: the rejection then arrives while the request is still being sent.
        let request = post(secure(&server, "localhost").url.as_str(), &vec![b'x'; 4 << 20]);
        let response = transport_in(&with("good", &client), &[]).send(&request, PATIENCE);
        assert_eq!(response.unwrap().status, 200);
        let error = failure(&transport_in(&trusting(&directory, &ca), &[]), &request, PATIENCE);
        assert_error(&error, Kind::Tls, Phase::TlsHandshake, "requires a client certificate");
        assert!(error.to_string().contains("set client_certificate and client_key"), "{error}");
        let error = failure(&transport_in(&with("unknown", &unknown), &[]), &request, PATIENCE);
        assert_error(&error, Kind::Tls, Phase::TlsHandshake, "rejected the client certificate");
    }

    // Files that do not fit, or are none.
    let server = tls_server(server_config(&server_leaf, BOTH), answer_inside);
    let pem = file(&directory, "c.pem", &client.certificate.pem());
    let key = file(&directory, "c.key", &client.key.serialize_pem());
    let other_key = file(&directory, "o.key", &unknown.key.serialize_pem());
    let missing = directory.path().join("missing");
    for (certificate, key, words) in [
        (&pem, &other_key, "client_key"),
        (&pem, &missing, "client_key"),
        (&pem, &pem, "client_key"),
        (&missing, &key, "client_certificate"),
        (&key, &key, "client_certificate"),
    ] {
        let options = NetworkOptions {
            client_certificate: Some((certificate.clone(), key.clone())),
            ..trusting(&directory, &ca)
        };
        let error = failure(&transport_in(&options, &[]), &secure(&server, "localhost"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Config, Phase::Setup, &format!("{words} ("));
    }
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    let plain = RawServer::responding(OK);
    for (path, words) in [
        (directory.path().join("missing.pem"), "missing.pem"),
        (file(&directory, "empty.pem", ""), "no certificate"),
        (file(&directory, "key.pem", &leaf.key.serialize_pem()), "no certificate"),
        (file(&directory, "own.pem", &ca.pem().replace("CERTIFICATE", "TRUSTED CERTIFICATE")), "openssl x509 -in"),
        (file(&directory, "indented.pem", &format!("{}  {}", ca.pem(), ca.pem())), "is not a valid BEGIN or END line"),
        (file(&directory, "cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"), "PEM"),
        (
            file(&directory, "odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "certificate 1",
        ),
    ] {
        let options = NetworkOptions { ca_file: Some(path.clone()), ..network() };
        let transport = transport_in(&options, &[]);
        let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
        println!("{error}");
        assert_error(&error, Kind::Config, Phase::Setup, words);
        // Where no TLS is needed, none is set up.
        assert!(transport.send(&get(&plain.url()), PATIENCE).is_ok());
        // The next request tries again.
        std::fs::write(&path, ca.pem()).unwrap();
        assert!(transport.send(&secure(&server, "localhost"), PATIENCE).is_ok());
    }
}

/// As PowerShell writes it, and as OpenSSL named it long ago.
#[test]
fn no_certificate_of_ca_file_is_lost() {
    let (directory, ca, other) = (temp_dir(), authority("Root"), authority("Other"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_inside);
    for text in [
        format!("\u{feff}{}", ca.pem()),
        format!("\u{feff}{}{}", ca.pem(), other.pem()),
        format!("{}{}", other.pem(), ca.pem().replace("CERTIFICATE", "X509 CERTIFICATE")),
    ] {
        let options = NetworkOptions { ca_file: Some(file(&directory, "ca.pem", &text)), ..network() };
        assert!(transport_in(&options, &[]).send(&secure(&server, "localhost"), PATIENCE).is_ok(), "{text}");
    }
}

#[test]
fn a_port_without_tls_and_a_broken_handshake_have_their_own_errors() {
    let transport = transport_in(&network(), &[]);
    let server = RawServer::start(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        read_until_eof(&mut stream)
    });
    let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Tls, Phase::TlsHandshake, "did not respond with TLS");
    let server = RawServer::start(|mut stream| stream.read_exact(&mut [0; 16]));
    let error = failure(&transport, &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Connect, Phase::TlsHandshake, "during the TLS handshake");
    assert!(error.is_retryable());
}

#[test]
fn an_endless_handshake_ends_at_the_connect_timeout() {
    let server = RawServer::start(|mut stream| read_until_eof(&mut stream));
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let error = failure(&transport_in(&hasty, &[]), &secure(&server, "localhost"), PATIENCE);
    assert_error(&error, Kind::Timeout, Phase::TlsHandshake, "did not finish the TLS handshake within 1.0 s");
    // A record that never ends, byte by byte.
    let server = RawServer::start(|mut stream| {
        stream.write_all(&[0x16, 3, 3, 0x3f, 0xff])?;
        send_slowly(&mut stream, &[0])
    });
    let error = failure(&transport_in(&hasty, &[]), &secure(&server, "localhost"), PATIENCE);
    assert_eq!(error.phase(), Phase::TlsHandshake, "{error}");
    assert!(matches!(error.kind(), Kind::Timeout | Kind::Tls), "{error}");
}

/// Without close_notify, an attacker on the path may have truncated the response.
#[test]
fn a_body_without_a_length_requires_close_notify() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let transport = transport_in(&trusting(&directory, &ca), &[]);
    for polite in [true, false] {
        let server = tls_server(server_config(&leaf, BOTH), move |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf?")?;
            if polite {
                stream.conn.send_close_notify();
            }
            stream.flush()
        });
        match transport.send(&secure(&server, "localhost"), PATIENCE) {
            Ok(response) => assert!(polite && response.body.as_slice() == b"half?"),
            Err(error) => {
                assert!(!polite, "{error}");
                assert_error(&error, Kind::Connect, Phase::ReceiveBody, "in the middle of its response");
            }
        }
    }
}
