//! Servers, proxies, certificates and clients for the tests of this directory.

#[path = "../support/mod.rs"]
mod shared;

pub use shared::net::{
    ClosedPort, ESTABLISHED, Proxy, RawServer, UNKNOWN_HOST, read_head, read_request, read_until_eof, relay,
    socks5_proxy,
};
pub use shared::temp_dir;

use amp_token::config::NetworkOptions;
use amp_token::error::{Error, Kind, Phase};
use amp_token::log::Log;
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::{Request, Response, Transport};
use amp_token::net::url::Url;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// The timeout of a call that must reach its deadline.
pub const SHORT: Duration = Duration::from_secs(1);

/// The timeout of a call that must not reach its deadline, and the longest that any call may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `piece` again and again, one byte at a time, until the peer has closed the connection.
pub fn send_slowly(stream: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    let started = Instant::now();
    for byte in piece.iter().cycle() {
        if started.elapsed() > PATIENCE {
            break;
        }
        stream.write_all(&[*byte])?;
        stream.flush()?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A complete response.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

pub fn network() -> NetworkOptions {
    NetworkOptions {
        environment: amp_token::config::Environment::read(),
        connect_timeout: PATIENCE,
        ca_file: None,
        client_certificate: None,
        proxy: None,
        log: Log::default(),
    }
}

/// A transport that sees only these environment variables.
pub fn transport_in(network: &NetworkOptions, environment: &[(&str, &str)]) -> HttpTransport {
    HttpTransport::with_environment(network, |name| {
        let (_, value) = environment.iter().find(|(have, _)| *have == name)?;
        Some(value.into())
    })
    .unwrap()
}

pub fn get(url: &str) -> Request {
    Request {
        method: "GET".to_owned(),
        url: Url::parse(url).unwrap(),
        headers: Vec::new(),
        body: Zeroizing::default(),
        max_response_bytes: 1 << 20,
    }
}

pub fn post(url: &str, body: &[u8]) -> Request {
    Request { method: "POST".to_owned(), body: Zeroizing::new(body.to_vec()), ..get(url) }
}

pub fn send(request: &Request) -> Result<Response, Error> {
    transport_in(&network(), &[]).send(request, PATIENCE)
}

/// The error of a call that must fail, and must end.
pub fn failure(transport: &HttpTransport, request: &Request, timeout: Duration) -> Error {
    let started = Instant::now();
    let error = transport.send(request, timeout).unwrap_err();
    assert!(started.elapsed() < PATIENCE, "{error}");
    error
}

/// Runs cases in parallel; most of their time is waiting.
pub fn run_parallel<T: Send, const N: usize>(cases: [T; N], run: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let run = &run;
            scope.spawn(move || run(case));
        }
    });
}

#[track_caller]
pub fn assert_error(error: &Error, kind: Kind, phase: Phase, words: &str) {
    assert_eq!((error.kind(), error.phase()), (kind, phase), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Writes a file in a directory.
pub fn file(directory: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

pub fn named(organization: &str, name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::OrganizationName, organization);
    names.push(DnType::CommonName, name);
    names
}

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = named("Test & Co", name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
pub struct Certificate {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

/// A certificate for `hosts`, changed by `change`, issued by `issuer` or else self-signed.
pub fn certificate(
    hosts: &[&str],
    issuer: Option<&Authority>,
    change: impl FnOnce(&mut CertificateParams),
) -> Certificate {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = named("Shop", "leaf");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    Certificate { certificate: certificate.unwrap(), key }
}

pub type ServerTls = StreamOwned<ServerConnection, TcpStream>;

pub fn server_config(leaf: &Certificate, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    server_builder(versions)
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.certificate.der().clone()],
            PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap(),
        )
        .unwrap()
}

pub fn server_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
}

/// A server that runs a function for each connection, inside TLS.
pub fn tls_server(
    config: ServerConfig,
    treat: impl Fn(&mut ServerTls) -> io::Result<()> + Send + Sync + 'static,
) -> RawServer {
    let config = Arc::new(config);
    RawServer::start(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        treat(&mut StreamOwned::new(connection, stream))
    })
}

pub fn answer_inside(stream: &mut ServerTls) -> io::Result<()> {
    read_request(stream)?;
    stream.write_all(OK.as_bytes())?;
    stream.flush()
}

pub const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
pub const ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Settings that trust this authority in addition to the system's.
pub fn trusting(directory: &TempDir, authority: &Authority) -> NetworkOptions {
    NetworkOptions { ca_file: Some(file(directory, "ca.pem", &authority.pem())), ..network() }
}

pub fn secure(server: &RawServer, host: &str) -> Request {
    get(&format!("https://{host}:{}/", server.address.port()))
}

/// A proxy that answers `CONNECT` with `response`, and that connects to `server` whatever host is requested.
pub fn connect_proxy(server: SocketAddr, response: &'static str) -> Proxy {
    shared::net::connect_proxy(TcpListener::bind("127.0.0.1:0").unwrap(), Some(server), move |_| response)
}

/// A listener on this address that leaves every further attempt to connect unanswered, until the connections that fill
/// its queue are accepted.
pub fn full_listener(address: &str) -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, SHORT) {
        waiting.push(stream);
    }
    (listener, waiting)
}

/// Runs one of the `#[ignore]`d tests below in a process of its own.
pub fn alone(test: &str, change: impl FnOnce(&mut Command)) {
    run_alone(Command::new(std::env::current_exe().unwrap()), test, change);
}

/// Like [`alone`], with root's rights in a network of its own that has nothing but a loopback interface. Does nothing on
/// a machine that does not permit that.
pub fn alone_in_own_network(test: &str) {
    alone_unshared("--net", "ip link set lo up", test, |_| {});
}

/// Like [`alone`], with root's rights in a namespace of its own, once the shell command `prepare` has run there. Does
/// nothing on a machine that does not permit that.
pub fn alone_unshared(namespace: &str, prepare: &str, test: &str, change: impl FnOnce(&mut Command)) {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args([namespace, "--map-root-user", "sh", "-c"]);
        command
    };
    match unshare().arg(prepare).output() {
        Ok(output) if output.status.success() => {}
        other => return println!("left out, because this machine does not permit it: {other:?}"),
    }
    let mut command = unshare();
    command.arg(format!("{prepare} && exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
    run_alone(command, test, change);
}

fn run_alone(mut command: Command, test: &str, change: impl FnOnce(&mut Command)) {
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    change(&mut command);
    let output = command.output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
