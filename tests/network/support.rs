//! Servers, proxies, certificates and clients for the tests of this directory.

use amp_token::config::settings::NetworkOptions;
use amp_token::error::{Error, Kind, Phase};
use amp_token::log::Log;
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::{Request, Response, Transport};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// What a call that must run into its deadline is given.
pub const SHORT: Duration = Duration::from_secs(1);

/// What a call that must not run into its deadline is given, and the longest that one may take that must.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A host name that no lookup finds, and that none is sent out for: a label has at most 63 letters.
pub const UNKNOWN_HOST: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

/// A server on a port of its own that treats each connection as told, in a thread each.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(treat: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, treat) = (Arc::clone(&connections), Arc::new(treat));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                // What is held back would be lost when the server closes with something unread.
                stream.set_nodelay(true).unwrap();
                // A client without a deadline is to fail its test, not to hang it.
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let treat = Arc::clone(&treat);
                // How the conversation ends is the client's to judge.
                thread::spawn(move || treat(stream));
            }
        });
        Server { address, connections }
    }

    /// A server that reads a request and then sends `parse_token_response`, whatever it is.
    pub fn replying(reply: impl Into<Vec<u8>>) -> Server {
        let reply = reply.into();
        Server::start(move |mut stream| {
            read_request(&mut stream)?;
            stream.write_all(&reply)
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/oauth/token", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads up to the end of the headers, byte by byte so that nothing behind them is lost.
pub fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Reads a request with a `Content-Length`, or without a body: its head and its body.
pub fn read_request(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let head = read_head(stream)?;
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

/// Waits until the other side has gone.
pub fn outlast(stream: &mut impl Read) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(|_| ())
}

/// Sends `piece` again and again, one byte at a time, until the other side has gone.
pub fn drip(stream: &mut impl Write, piece: &[u8]) -> io::Result<()> {
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

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

pub fn network() -> NetworkOptions {
    NetworkOptions {
        connect_timeout: PATIENCE,
        ca_file: None,
        client_certificate: None,
        proxy: None,
        log: Log::default(),
    }
}

/// A transport that sees no environment but this.
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
        url: url.to_owned(),
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

/// The error of a call that must fail, and must not take for ever.
pub fn failure(transport: &HttpTransport, request: &Request, timeout: Duration) -> Error {
    let started = Instant::now();
    let error = transport.send(request, timeout).unwrap_err();
    assert!(started.elapsed() < PATIENCE, "{error}");
    error
}

/// Runs cases that mostly wait at the same time.
pub fn together<T: Send, const N: usize>(cases: [T; N], run: impl Fn(T) + Sync) {
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

/// A folder of its own for the files of one test, removed in the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::SeqCst);
            let name = format!("amp-transport-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Folder(path),
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
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
pub struct Paper {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

/// A certificate for `format_sans`, changed by `change`, issued by `issuer` or else by itself.
pub fn paper(hosts: &[&str], issuer: Option<&Authority>, change: impl FnOnce(&mut CertificateParams)) -> Paper {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = named("Shop", "leaf");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    Paper { certificate: certificate.unwrap(), key }
}

pub type ServerTls = StreamOwned<ServerConnection, TcpStream>;

pub fn server_config(paper: &Paper, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    server_builder(versions)
        .with_no_client_auth()
        .with_single_cert(
            vec![paper.certificate.der().clone()],
            PrivateKeyDer::try_from(paper.key.serialize_der()).unwrap(),
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

/// A server that treats what it hears inside TLS as told.
pub fn tls_server(
    config: ServerConfig,
    treat: impl Fn(&mut ServerTls) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    let config = Arc::new(config);
    Server::start(move |stream| {
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

/// Settings that trust this authority besides the system's.
pub fn trusting(folder: &Folder, authority: &Authority) -> NetworkOptions {
    NetworkOptions { ca_file: Some(folder.file("ca.pem", &authority.pem())), ..network() }
}

pub fn secure(server: &Server, host: &str) -> Request {
    get(&format!("https://{host}:{}/", server.address.port()))
}

/// What a proxy was asked.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// Carries bytes both ways until one side ends.
pub fn splice(client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let _ = io::copy(&mut from_client, &mut to_server);
    let _ = to_server.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
    Ok(())
}

/// A proxy that answers `CONNECT` with `parse_token_response`, and leads to `server` whatever it was asked for.
pub fn connect_proxy(server: SocketAddr, reply: &'static str) -> (Server, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let proxy = Server::start(move |mut stream| {
        kept.lock().unwrap().push(read_head(&mut stream)?);
        stream.write_all(reply.as_bytes())?;
        if reply.starts_with("HTTP/1.1 200") {
            splice(stream, server)?;
        }
        Ok(())
    });
    (proxy, asked)
}

pub const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A SOCKS 5 proxy that wants a password if there is one, and answers with `code`.
pub fn socks_proxy(server: SocketAddr, password: Option<&'static str>, code: u8) -> (Server, Asked) {
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    let proxy = Server::start(move |mut stream| {
        let field = |stream: &mut TcpStream| {
            let mut length = [0];
            stream.read_exact(&mut length)?;
            let mut text = vec![0; length[0].into()];
            stream.read_exact(&mut text)?;
            io::Result::Ok(text)
        };
        let mut version = [0];
        stream.read_exact(&mut version)?;
        field(&mut stream)?;
        match password {
            None => stream.write_all(&[5, 0])?,
            Some(password) => {
                stream.write_all(&[5, 2])?;
                stream.read_exact(&mut version)?;
                let user = field(&mut stream)?;
                let fits = field(&mut stream)? == password.as_bytes() && user == b"me";
                stream.write_all(&[1, u8::from(!fits)])?;
            }
        }
        let mut request = [0; 4];
        stream.read_exact(&mut request)?;
        let host = match request[3] {
            3 => String::from_utf8(field(&mut stream)?).unwrap(),
            _ => {
                let mut address = [0; 4];
                stream.read_exact(&mut address)?;
                std::net::Ipv4Addr::from(address).to_string()
            }
        };
        let mut port = [0; 2];
        stream.read_exact(&mut port)?;
        kept.lock().unwrap().push(format!("{host}:{}", u16::from_be_bytes(port)));
        stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
        if code == 0 {
            splice(stream, server)?;
        }
        Ok(())
    });
    (proxy, asked)
}

/// Runs one of the `#[ignore]`d tests below in a process of its own.
pub fn alone(test: &str, change: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
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
