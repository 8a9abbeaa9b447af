//! Certificates that are rejected, and whether the message names the one that has to change.

use crate::support::*;
use amp_token::config::NetworkOptions;
use amp_token::error::{Error, Kind, Phase};
use amp_token::log::Log;
use amp_token::net::transport::Transport;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, GeneralSubtree, IsCa, KeyPair, NameConstraints,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::{Arc, Mutex};

/// A server that presents `leaf` and `chain`.
pub fn server(leaf: &Certificate, chain: &[&[u8]]) -> RawServer {
    let chain = std::iter::once(leaf.certificate.der().as_ref()).chain(chain.iter().copied());
    let chain = chain.map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let config: ServerConfig = server_builder(BOTH).with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls_server(config, answer_inside)
}

/// The error of a client that trusts what this file contains.
fn error_of(server: &RawServer, host: &str, ca_file: &str) -> Error {
    let directory = temp_dir();
    let options = NetworkOptions { ca_file: Some(file(&directory, "ca.pem", ca_file)), ..network() };
    let error = failure(&transport_in(&options, &[]), &secure(server, host), PATIENCE);
    println!("{error}");
    assert_eq!((error.kind(), error.phase()), (Kind::Tls, Phase::TlsHandshake), "{error}");
    assert!(!error.to_string().contains(['[', '{']), "{error}");
    error
}

#[track_caller]
fn assert_says(error: &Error, what: &str, hint: &str) {
    let text = error.to_string();
    assert!(text.contains(what) && text.contains(hint), "{text}");
}

/// An intermediate CA.
pub fn intermediate(name: &str, issuer: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = named("Test & Co", name);
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

/// Everyday, when a CA of a company, mitmproxy or mkcert is renewed. It is no attack.
#[test]
fn a_ca_that_was_made_anew_is_not_an_attack() {
    let (old, new) = (authority("Root"), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&new), |_| {});
    let what = "is not from a trusted CA: another one with the name \"Root\" of \"Test & Co\" is trusted";
    let error = error_of(&server(&leaf, &[]), "localhost", &old.pem());
    assert_says(&error, what, "update ca_file");
    assert!(!error.to_string().contains("tampered"), "{error}");
    // With a key of another type.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = named("Test & Co", "Root");
    let old = params.self_signed(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()).unwrap();
    assert_says(&error_of(&server(&leaf, &[]), "localhost", &old.pem()), what, "update ca_file");
    // A server whose self-signed certificate was renewed.
    let [old, new] = [(); 2].map(|()| certificate(&["localhost"], None, |_| {}));
    let error = error_of(&server(&new, &[]), "localhost", &old.certificate.pem());
    assert_says(&error, "another one with the name \"leaf\" of \"Shop\" is trusted", "update ca_file");
    // An intermediate of that name, in the chain.
    let (root, other) = (authority("Root"), authority("Other"));
    let issuer = intermediate("Middle", &root, |_| {});
    let wrong = intermediate("Middle", &other, |_| {});
    let leaf = certificate(&["localhost"], Some(&issuer), |_| {});
    let error = error_of(&server(&leaf, &[wrong.der()]), "localhost", &other.pem());
    assert_says(&error, "is not from a trusted CA", "the server sends another intermediate certificate");
}

#[test]
fn the_certificate_that_expired_is_named() {
    let root = authority("Root");
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 2, 29);
    let future = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 2);
    let middle = intermediate("Middle", &root, expired);
    let leaf = certificate(&["localhost"], Some(&middle), |_| {});
    let error = error_of(&server(&leaf, &[middle.der()]), "localhost", &root.pem());
    let what = "has a certificate in its chain, \"Middle\" of \"Test & Co\", that expired on 29 Feb 2020";
    assert_says(&error, what, "a newer intermediate certificate");
    let middle = intermediate("Middle", &root, future);
    let leaf = certificate(&["localhost"], Some(&middle), |_| {});
    let error = error_of(&server(&leaf, &[middle.der()]), "localhost", &root.pem());
    assert_says(&error, "in its chain, \"Middle\" of \"Test & Co\", that is not valid before 02 Jan 4000", "clock");
    let middle = intermediate("Middle", &root, |_| {});
    let leaf = certificate(&["localhost"], Some(&middle), expired);
    let error = error_of(&server(&leaf, &[middle.der()]), "localhost", &root.pem());
    assert_says(&error, &format!("{} expired on 29 Feb 2020", error.host().unwrap()), "a new certificate");
}

#[test]
fn a_name_that_does_not_count_is_named() {
    let root = authority("Root");
    let leaf = certificate(&[], Some(&root), |params| params.distinguished_name.push(DnType::CommonName, "localhost"));
    let error = error_of(&server(&leaf, &[]), "localhost", &root.pem());
    assert_says(&error, "no subject alternative name, only the common name", "its host name");
    let leaf = certificate(&[], Some(&root), |params| params.distinguished_name = rcgen::DistinguishedName::new());
    let error = error_of(&server(&leaf, &[]), "localhost", &root.pem());
    assert_says(&error, "is for no host at all", "its host name");
    // As squid makes it.
    let leaf = certificate(&[], Some(&root), |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("127.0.0.1".try_into().unwrap())];
    });
    let error = error_of(&server(&leaf, &[]), "127.0.0.1", &root.pem());
    assert_says(&error, "has the IP address as a DNS name", "the IP address as such");
    let leaf = certificate(&["::1", "127.0.0.2", "a.example"], Some(&root), |_| {});
    let error = error_of(&server(&leaf, &[]), "127.0.0.1", &root.pem());
    assert_says(&error, "is for other hosts (::1, 127.0.0.2, a.example)", "check the host name");
}

#[test]
fn a_certificate_of_a_server_in_ca_file_is_named() {
    let root = authority("Root");
    let leaf = certificate(&["localhost"], Some(&root), |_| {});
    let error = error_of(&server(&leaf, &[]), "localhost", &leaf.certificate.pem());
    assert_says(&error, "is itself in ca_file", "the certificate of the CA");
}

#[test]
fn what_is_not_supported_is_named() {
    let root = authority("Root");
    // A server that sends more than its chain.
    let leaf = certificate(&["localhost"], Some(&root), |_| {});
    let many: Vec<&[u8]> = vec![root.der(); 200];
    assert_says(&error_of(&server(&leaf, &many), "localhost", &root.pem()), "more certificates than", "of its chain");
    // Many trusted CAs of one name.
    let others: String = (0..101).map(|_| authority("Root").pem()).collect();
    let error = error_of(&server(&leaf, &[]), "localhost", &others);
    assert_says(&error, "about 100 trusted CAs or intermediate certificates have the same name", "ca_file");
    // A constraint of directory names, although the certificate satisfies it.
    let middle = intermediate("Middle", &root, |params| {
        let permitted_subtrees = vec![GeneralSubtree::DirectoryName(named("Shop", "leaf"))];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
    });
    let leaf = certificate(&["localhost"], Some(&middle), |_| {});
    let error = error_of(&server(&leaf, &[middle.der()]), "localhost", &root.pem());
    assert_says(&error, "directory names", "DNS names and IP addresses");
    // Not for servers.
    let leaf = certificate(&["localhost"], Some(&root), |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let error = error_of(&server(&leaf, &[]), "localhost", &root.pem());
    assert_says(&error, "is not for use by servers", "another certificate");
}

/// What a daily renewal of certificates does to a service that runs for months.
#[test]
fn files_that_change_are_read_again() {
    let (directory, old, new) = (temp_dir(), authority("Old"), authority("New"));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let options = NetworkOptions {
        log: Log::new(move |_, line| kept.lock().unwrap().push(line.to_owned())),
        ..trusting(&directory, &old)
    };
    let logged = |words: &str| {
        options.log.deliver();
        lines.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    };
    let transport = transport_in(&options, &[]);
    let [before, after] = [&old, &new].map(|issuer| server(&certificate(&["localhost"], Some(issuer), |_| {}), &[]));
    assert!(transport.send(&secure(&before, "localhost"), PATIENCE).is_ok());
    // The CA file is extended before the server changes: no request fails.
    let both = format!("{}{}", old.pem(), new.pem());
    std::fs::write(directory.path().join("ca.pem"), &both).unwrap();
    for server in [&after, &before, &after] {
        assert!(transport.send(&secure(server, "localhost"), PATIENCE).is_ok());
    }
    assert_eq!(logged("were read again"), 1);
    // A file that cannot be used costs a warning, and is read once it can be used.
    std::fs::write(directory.path().join("ca.pem"), "").unwrap();
    for _ in 0..2 {
        assert!(transport.send(&secure(&after, "localhost"), PATIENCE).is_ok());
    }
    assert_eq!(logged("the earlier ones are used"), 1);
    file(&directory, "renewed", &new.pem());
    std::fs::rename(directory.path().join("renewed"), directory.path().join("ca.pem")).unwrap();
    assert!(transport.send(&secure(&after, "localhost"), PATIENCE).is_ok());
    let error = failure(&transport, &secure(&before, "localhost"), PATIENCE);
    assert!(error.to_string().contains("not from a trusted CA"), "{error}");
}

/// A change that the times of the files do not show is seen after TLS has failed.
#[test]
fn files_are_read_again_after_a_failure() {
    let (directory, old, new) = (temp_dir(), authority("Old"), authority("New"));
    let options = trusting(&directory, &old);
    let transport = transport_in(&options, &[]);
    let after = server(&certificate(&["localhost"], Some(&new), |_| {}), &[]);
    let path = directory.path().join("ca.pem");
    // The same size and time, in the same file.
    let padded = |pem: String| format!("{pem}{}", " ".repeat(4096 - pem.len()));
    std::fs::write(&path, padded(old.pem())).unwrap();
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert!(transport.send(&secure(&after, "localhost"), PATIENCE).is_err());
    assert!(
        transport
            .send(&secure(&server(&certificate(&["localhost"], Some(&old), |_| {}), &[]), "localhost"), PATIENCE)
            .is_ok()
    );
    std::fs::write(&path, padded(new.pem())).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert!(transport.send(&secure(&after, "localhost"), PATIENCE).is_err());
    assert!(transport.send(&secure(&after, "localhost"), PATIENCE).is_ok());
}

#[test]
fn a_client_certificate_that_is_renewed_is_read_again() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let [old, new] = [authority("Old clients"), authority("New clients")];
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let accepting = |issuer: &Authority| {
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
        let builder = server_builder(BOTH).with_client_cert_verifier(verifier);
        tls_server(builder.with_single_cert(vec![leaf.certificate.der().clone()], key).unwrap(), answer_inside)
    };
    let [first, second] =
        [old, new].map(|issuer| (certificate(&["client"], Some(&issuer), |_| {}), accepting(&issuer)));
    let certificate_file = file(&directory, "client.pem", &first.0.certificate.pem());
    let key_file = file(&directory, "client.key", &first.0.key.serialize_pem());
    let options = NetworkOptions {
        client_certificate: Some((certificate_file.clone(), key_file.clone())),
        ..trusting(&directory, &ca)
    };
    let transport = transport_in(&options, &[]);
    assert!(transport.send(&secure(&first.1, "localhost"), PATIENCE).is_ok());
    // Between the two writes, the files do not fit together: the earlier ones are used.
    std::fs::write(&certificate_file, second.0.certificate.pem()).unwrap();
    assert!(transport.send(&secure(&first.1, "localhost"), PATIENCE).is_ok());
    std::fs::write(&key_file, second.0.key.serialize_pem()).unwrap();
    assert!(transport.send(&secure(&second.1, "localhost"), PATIENCE).is_ok());
}
