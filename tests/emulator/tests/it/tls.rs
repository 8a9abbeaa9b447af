//! HTTPS with valid and invalid certificates, verified by rustls.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use amp_emulator::{CertificateKind, Emulator, Fault};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Response, connect, exchange, request, token_request};

fn connect_tls(emulator: &Emulator, with_certificate: bool) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(emulator.ca_file()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = if with_certificate {
        let certificate = CertificateDer::from_pem_file(emulator.client_certificate_file().unwrap()).unwrap();
        let key = PrivateKeyDer::from_pem_file(emulator.client_key_file().unwrap()).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(session, connect(emulator))
}

fn fetch_token(emulator: &Emulator, with_certificate: bool) -> io::Result<Response> {
    let bytes = exchange(connect_tls(emulator, with_certificate), &token_request(emulator))?;
    Ok(Response::parse(&bytes))
}

#[test]
fn https_works_and_links_are_https() {
    let emulator = Emulator::builder().tls(true).start().unwrap();
    assert!(emulator.url().starts_with("https://localhost:"));
    assert_eq!(std::fs::read_to_string(emulator.ca_file()).unwrap(), emulator.ca_pem());
    let token = fetch_token(&emulator, false).unwrap().json()["access_token"].as_str().unwrap().to_owned();
    let hubs = request("GET", "/v2/content/hubs", &format!("Authorization: Bearer {token}\r\n"), "");
    let hubs = Response::parse(&exchange(connect_tls(&emulator, false), &hubs).unwrap());
    assert_eq!(hubs.json()["_links"]["self"]["href"], "https://emulator.test:1/v2/content/hubs");

    let dir = emulator.ca_file().parent().unwrap().to_owned();
    drop(emulator);
    assert!(!dir.exists());
}

#[test]
fn each_invalid_certificate_fails_for_its_own_reason() {
    let emulator = Emulator::builder().tls(true).certificate(CertificateKind::Expired).start().unwrap();
    let error = || fetch_token(&emulator, false).unwrap_err().to_string();
    assert!(error().contains("expired"), "{}", error());
    for (kind, reason) in [
        (CertificateKind::WrongHost, "not valid for"),
        (CertificateKind::SelfSigned, "invalid peer certificate"),
        (CertificateKind::UnknownAuthority, "UnknownIssuer"),
    ] {
        emulator.set_certificate(kind).unwrap();
        assert!(error().contains(reason), "{kind:?}: {}", error());
    }
    emulator.set_certificate(CertificateKind::Valid).unwrap();
    assert_eq!(fetch_token(&emulator, false).unwrap().status, 200);
    let plain = Emulator::builder().start().unwrap();
    assert!(plain.set_certificate(CertificateKind::Valid).is_err());
}

#[test]
fn mutual_tls_requires_a_client_certificate() {
    let emulator = Emulator::builder().mutual_tls(true).start().unwrap();
    assert_eq!(fetch_token(&emulator, true).unwrap().status, 200);
    let error = fetch_token(&emulator, false).unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[test]
fn transport_faults_work_below_tls() {
    let emulator = Emulator::builder().tls(true).start().unwrap();
    emulator.faults([Fault::reset(), Fault::close(), Fault::truncate(), Fault::slow(1).body("slow")]);
    assert_eq!(fetch_token(&emulator, false).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(fetch_token(&emulator, false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(fetch_token(&emulator, false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(fetch_token(&emulator, false).unwrap().body, "slow");
}

#[test]
fn plain_http_on_the_tls_port_is_harmless() {
    let emulator = Emulator::builder().tls(true).start().unwrap();
    let _ = exchange(connect(&emulator), &token_request(&emulator));
    assert_eq!(fetch_token(&emulator, false).unwrap().status, 200);
}
