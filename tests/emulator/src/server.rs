//! The server: accepts connections, starts a thread for each, and sends responses, or fails as a fault says.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use socket2::SockRef;

use crate::admin;
use crate::faults::{Fault, Kind};
use crate::http::{Request, Response, read_request};
use crate::state::{MAX_DURATION, Shared};

/// How long a client may take to close a connection that the server has closed.
const LINGER: Duration = Duration::from_millis(500);
/// Small: there are many connections, and their threads need little stack.
const STACK: usize = 512 << 10;

/// A listening socket and the thread that accepts its connections. Dropping it stops the server.
pub(crate) struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on this port of the loopback interface; 0: any free port.
    pub fn start(shared: &Arc<Shared>, port: u16) -> io::Result<Server> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        shared.state().stopping = false;
        let acceptor = thread::Builder::new().name("amp-emulator".to_owned()).spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        })?;
        Ok(Server { address, shared: shared.clone(), acceptor: Some(acceptor) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.change(|state| state.stopping = true);
        // Only a connection wakes the acceptor. If no descriptor is left for one, the thread is not joined.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    // Weak: the socket must be closed when its thread ends, or a reset would not be sent.
    let mut connections: Vec<(Weak<TcpStream>, JoinHandle<()>)> = Vec::new();
    loop {
        let accepted = listener.accept();
        {
            let mut state = shared.state();
            if state.stopping {
                break;
            }
            state.stats.connections += u64::from(accepted.is_ok());
        }
        connections.retain(|(_, thread)| !thread.is_finished());
        let Ok((tcp, _)) = accepted else {
            // Most likely no descriptors are left: wait until connections end.
            let _ = shared.sleep(Duration::from_millis(10));
            continue;
        };
        let tcp = Arc::new(tcp);
        let connection = Arc::downgrade(&tcp);
        let shared = shared.clone();
        let builder = thread::Builder::new().name("amp-emulator-connection".to_owned()).stack_size(STACK);
        // Ignore errors: either the client disconnected or a fault closed the connection.
        let thread = builder.spawn(move || drop(Connection::serve(tcp, &shared)));
        connections.extend(thread.ok().map(|thread| (connection, thread)));
    }
    for (connection, _) in &connections {
        if let Some(tcp) = connection.upgrade() {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
    for (_, thread) in connections {
        let _ = thread.join();
    }
}

/// A TCP stream that can be read and written through a shared reference.
struct Socket(Arc<TcpStream>);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ServerConnection, Socket>>),
}

impl Stream {
    /// Whether the TLS handshake is incomplete. Writing would then wait for the client's part of it.
    fn is_handshaking(&self) -> bool {
        matches!(self, Stream::Tls(tls) if tls.conn.is_handshaking())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(buffer),
            Stream::Tls(tls) => tls.write(buffer),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// What happens after a response.
enum Next {
    Request,
    /// Close the connection cleanly.
    Close,
    /// Drop the connection immediately.
    Drop,
}

struct Connection<'a> {
    shared: &'a Shared,
    tcp: Arc<TcpStream>,
    stream: Stream,
}

impl Connection<'_> {
    fn serve(tcp: Arc<TcpStream>, shared: &Shared) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = Socket(tcp.clone());
        let config = shared.state().tls.clone();
        let stream = match config {
            None => Stream::Plain(socket),
            Some(config) => {
                let session = ServerConnection::new(config).map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        let mut connection = Connection { shared, tcp, stream };
        match connection.serve_requests() {
            Ok(Next::Drop) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => connection.send_bad_request(&error),
            _ => {}
        }
        connection.close()
    }

    /// Reads requests and sends responses until one side closes the connection.
    fn serve_requests(&mut self) -> io::Result<Next> {
        let (mut buffer, mut first) = (Vec::new(), true);
        while let Some(request) = read_request(&mut self.stream, &mut buffer)? {
            let next = if request.path.starts_with(admin::PATH) {
                if first {
                    let connections = &mut self.shared.state().stats.connections;
                    *connections = connections.saturating_sub(1);
                }
                let response = admin::handle(self.shared, &request);
                self.send(&response, 0, request.keep_alive)?
            } else {
                self.respond(&request)?
            };
            match next {
                Next::Request => first = false,
                end => return Ok(end),
            }
        }
        Ok(Next::Close)
    }

    /// Responds to a request as its fault allows.
    fn respond(&mut self, request: &Request) -> io::Result<Next> {
        let received = self.shared.receive(request);
        let response = match &received {
            Ok(fault) if fault.kind.has_response() => Some(self.shared.response(request, fault)),
            _ => None,
        };
        self.shared.record_response(&request.path, response.as_ref().map(|response| response.status));
        let fault = received?;
        match (fault.kind, response) {
            (Kind::Truncate, Some(response)) => self.send_half(&response, &fault),
            (Kind::Slow, Some(response)) => self.send_slowly(&response, &fault),
            (_, Some(response)) => self.send(&response, fault.date_skew_s, request.keep_alive),
            (Kind::Reset, None) => {
                SockRef::from(&*self.tcp).set_linger(Some(Duration::ZERO))?;
                Ok(Next::Drop)
            }
            (Kind::Silent, None) => self.read_until_close(),
            (Kind::SlowHeaders, None) => self.send_endless_headers(&fault),
            (_, None) => Ok(Next::Drop),
        }
    }

    fn send(&mut self, response: &Response, date_skew_s: i64, keep_alive: bool) -> io::Result<Next> {
        let mut bytes = self.head(response, date_skew_s, keep_alive);
        bytes.extend_from_slice(&response.body);
        self.write(&bytes)?;
        Ok(if keep_alive { Next::Request } else { Next::Close })
    }

    fn send_half(&mut self, response: &Response, fault: &Fault) -> io::Result<Next> {
        let mut bytes = self.head(response, fault.date_skew_s, false);
        bytes.extend_from_slice(&response.body[..response.body.len() / 2]);
        self.write(&bytes)?;
        Ok(Next::Drop)
    }

    fn send_slowly(&mut self, response: &Response, fault: &Fault) -> io::Result<Next> {
        let head = self.head(response, fault.date_skew_s, false);
        self.write(&head)?;
        for byte in &response.body {
            self.shared.sleep(fault.interval())?;
            self.write(&[*byte])?;
        }
        Ok(Next::Close)
    }

    fn send_endless_headers(&mut self, fault: &Fault) -> io::Result<Next> {
        self.write(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            self.write(b"X-Emulator-Slow: yes\r\n")?;
            self.shared.sleep(fault.interval())?;
        }
    }

    /// Sends nothing until the client closes the connection.
    fn read_until_close(&mut self) -> io::Result<Next> {
        while self.stream.read(&mut [0; 1024])? > 0 {}
        Ok(Next::Drop)
    }

    fn head(&self, response: &Response, date_skew_s: i64, keep_alive: bool) -> Vec<u8> {
        let (now, skew) = (self.shared.now(), Duration::from_secs(date_skew_s.unsigned_abs()).min(MAX_DURATION));
        response.head(if date_skew_s < 0 { now - skew } else { now + skew }, keep_alive)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Responds to data that is not HTTP. If TLS failed, rustls has already sent an alert.
    fn send_bad_request(&mut self, error: &io::Error) {
        if !self.stream.is_handshaking() {
            let response = Response { body: error.to_string().into_bytes(), ..Response::empty(400) };
            let _ = self.send(&response.with("Content-Type", "text/plain"), 0, false);
        }
    }

    /// Closes the connection cleanly. It first reads what the client still sends: closing a socket with unread
    /// data resets the connection, and the reset could overtake the response or the TLS alert.
    fn close(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tls(tls) if !tls.conn.is_handshaking() => {
                tls.conn.send_close_notify();
                tls.flush()?;
            }
            _ => {}
        }
        self.tcp.shutdown(Shutdown::Write)?;
        self.tcp.set_read_timeout(Some(LINGER))?;
        while (&*self.tcp).read(&mut [0; 1024])? > 0 {}
        Ok(())
    }
}
