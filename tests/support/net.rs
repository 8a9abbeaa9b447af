//! Addresses, servers and proxies on this machine.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The longest that a server waits for a client: a client without a deadline fails its test then, and does not hang it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A host name that does not resolve, and for which no name server is asked: a label has at most 63 letters.
pub const UNKNOWN_HOST: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

/// A port that rejects connections for as long as this lives. It is the local port of a connected socket: no other
/// socket can be bound to it, and none listens on it.
pub struct ClosedPort {
    connected: TcpStream,
    _listener: TcpListener,
}

impl ClosedPort {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ClosedPort { connected: TcpStream::connect(listener.local_addr().unwrap()).unwrap(), _listener: listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.connected.local_addr().unwrap()
    }
}

/// A server on a port of its own that runs a function for each connection, each in its own thread.
pub struct RawServer {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl RawServer {
    pub fn start(handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        RawServer::serve(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    pub fn serve(listener: TcpListener, handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, handle) = (Arc::clone(&connections), Arc::new(handle));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                // Data that is held back would be lost when the server closes the connection with unread input.
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let handle = Arc::clone(&handle);
                // The client's test decides whether the exchange ended as it should.
                thread::spawn(move || handle(stream));
            }
        });
        RawServer { address, connections }
    }

    /// A server that reads a request and then sends `response`, whatever it is.
    pub fn responding(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        RawServer::start(move |mut stream| {
            read_request(&mut stream)?;
            stream.write_all(&response)
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/oauth/token", self.address)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads up to the end of the headers, byte by byte, so that nothing after them is lost.
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

/// Waits until the peer has closed the connection.
pub fn read_until_eof(stream: &mut impl Read) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(|_| ())
}

/// Carries bytes in both directions until both sides have ended.
pub fn relay(a: &TcpStream, b: &TcpStream) {
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from, to);
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(b, a));
        copy(a, b);
    });
}

/// The response with which a proxy opens a tunnel.
pub const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A proxy, and the requests that it has received: heads of CONNECT requests, or `host:port` of SOCKS requests.
pub struct Proxy {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An HTTP proxy that sends what `respond` returns for the head of a CONNECT request. A response with status 200
/// opens a tunnel to `server`, or else to the requested port of this machine.
pub fn connect_proxy(
    listener: TcpListener,
    server: Option<SocketAddr>,
    respond: impl Fn(&str) -> &'static str + Send + Sync + 'static,
) -> Proxy {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let proxy = RawServer::serve(listener, move |mut stream| {
        let head = read_head(&mut stream)?;
        let port = head.split([' ', ':']).nth(2).and_then(|port| port.parse().ok());
        let response = respond(&head);
        kept.lock().unwrap().push(head);
        if !response.starts_with("HTTP/1.1 200") {
            return stream.write_all(response.as_bytes());
        }
        let here = || SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a port")));
        let server = TcpStream::connect(server.unwrap_or_else(here))?;
        stream.write_all(response.as_bytes())?;
        relay(&stream, &server);
        Ok(())
    });
    Proxy { address: proxy.address, requests }
}

/// A SOCKS 5 proxy that requires a password if there is one, and responds with `code`. The code 0 opens a tunnel to
/// `server`, or else to the requested port of this machine.
pub fn socks5_proxy(server: Option<SocketAddr>, password: Option<&'static str>, code: u8) -> Proxy {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let proxy = RawServer::start(move |mut stream| {
        let field = |stream: &mut TcpStream| {
            let mut length = [0];
            stream.read_exact(&mut length)?;
            let mut bytes = vec![0; length[0].into()];
            stream.read_exact(&mut bytes)?;
            io::Result::Ok(bytes)
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
                let is_valid = field(&mut stream)? == password.as_bytes() && user == b"me";
                stream.write_all(&[1, u8::from(!is_valid)])?;
            }
        }
        let mut request = [0; 4];
        stream.read_exact(&mut request)?;
        let host = match request[3] {
            3 => String::from_utf8(field(&mut stream)?).unwrap(),
            _ => {
                let mut address = [0; 4];
                stream.read_exact(&mut address)?;
                Ipv4Addr::from(address).to_string()
            }
        };
        let mut port = [0; 2];
        stream.read_exact(&mut port)?;
        let port = u16::from_be_bytes(port);
        kept.lock().unwrap().push(format!("{host}:{port}"));
        stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
        if code == 0 {
            relay(&stream, &TcpStream::connect(server.unwrap_or((Ipv4Addr::LOCALHOST, port).into()))?);
        }
        Ok(())
    });
    Proxy { address: proxy.address, requests }
}
