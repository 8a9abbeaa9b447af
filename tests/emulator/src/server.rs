//! The server: accepts connections, a thread each, and carries replies out, or fails to as a fault demands.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use socket2::SockRef;

use crate::admin;
use crate::faults::{Fault, Kind};
use crate::http::{Reply, Request, read_request};
use crate::state::{MAX_DURATION, Shared};

/// How long a client may take to close a connection that the server has ended.
const LINGER: Duration = Duration::from_millis(500);
/// Connections are many and their threads do little.
const STACK: usize = 512 << 10;

/// A listening socket and the thread that serves it. Drop stops it.
pub(crate) struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on this port of the loopback interface; 0: any that is free.
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
        // Only a connection wakes the acceptor. Should there be no descriptor left for one, it is left behind.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    // Weak: a connection must end with its thread, for a reset to be one.
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
            // Most likely there are no more descriptors: wait for connections to end.
            let _ = shared.pause(Duration::from_millis(10));
            continue;
        };
        let tcp = Arc::new(tcp);
        let connection = Arc::downgrade(&tcp);
        let shared = shared.clone();
        let builder = thread::Builder::new().name("amp-emulator-connection".to_owned()).stack_size(STACK);
        // Errors are a client that went away, or a fault at work: neither is news.
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

/// A TCP stream that may be read and written through a shared reference.
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
    /// Whether TLS is not up yet: to write now would be to wait for the client's part of the handshake.
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

/// What follows a reply.
enum Next {
    Request,
    /// The end, in order.
    End,
    /// The end, at once.
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
        match connection.exchange() {
            Ok(Next::Drop) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => connection.refuse(&error),
            _ => {}
        }
        connection.end()
    }

    /// Requests and replies, until one side has had enough.
    fn exchange(&mut self) -> io::Result<Next> {
        let (mut buffer, mut first) = (Vec::new(), true);
        while let Some(request) = read_request(&mut self.stream, &mut buffer)? {
            let next = if request.path.starts_with(admin::PATH) {
                if first {
                    let connections = &mut self.shared.state().stats.connections;
                    *connections = connections.saturating_sub(1);
                }
                let reply = admin::answer(self.shared, &request);
                self.send(&reply, 0, request.keep_alive)?
            } else {
                self.answer(&request)?
            };
            match next {
                Next::Request => first = false,
                end => return Ok(end),
            }
        }
        Ok(Next::End)
    }

    /// Answers a request as well as its fault allows.
    fn answer(&mut self, request: &Request) -> io::Result<Next> {
        let received = self.shared.receive(request);
        let reply = match &received {
            Ok(fault) if fault.kind.has_reply() => Some(self.shared.reply(request, fault)),
            _ => None,
        };
        self.shared.depart(&request.path, reply.as_ref().map(|reply| reply.status));
        let fault = received?;
        match (fault.kind, reply) {
            (Kind::Truncate, Some(reply)) => self.send_half(&reply, &fault),
            (Kind::Slow, Some(reply)) => self.send_slowly(&reply, &fault),
            (_, Some(reply)) => self.send(&reply, fault.date_skew_s, request.keep_alive),
            (Kind::Reset, None) => {
                SockRef::from(&*self.tcp).set_linger(Some(Duration::ZERO))?;
                Ok(Next::Drop)
            }
            (Kind::Silent, None) => self.listen(),
            (Kind::SlowHeaders, None) => self.send_headers_for_ever(&fault),
            (_, None) => Ok(Next::Drop),
        }
    }

    fn send(&mut self, reply: &Reply, date_skew_s: i64, keep_alive: bool) -> io::Result<Next> {
        let mut bytes = self.head(reply, date_skew_s, keep_alive);
        bytes.extend_from_slice(&reply.body);
        self.write(&bytes)?;
        Ok(if keep_alive { Next::Request } else { Next::End })
    }

    fn send_half(&mut self, reply: &Reply, fault: &Fault) -> io::Result<Next> {
        let mut bytes = self.head(reply, fault.date_skew_s, false);
        bytes.extend_from_slice(&reply.body[..reply.body.len() / 2]);
        self.write(&bytes)?;
        Ok(Next::Drop)
    }

    fn send_slowly(&mut self, reply: &Reply, fault: &Fault) -> io::Result<Next> {
        let head = self.head(reply, fault.date_skew_s, false);
        self.write(&head)?;
        for byte in &reply.body {
            self.shared.pause(fault.interval())?;
            self.write(&[*byte])?;
        }
        Ok(Next::End)
    }

    fn send_headers_for_ever(&mut self, fault: &Fault) -> io::Result<Next> {
        self.write(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            self.write(b"X-Emulator-Slow: yes\r\n")?;
            self.shared.pause(fault.interval())?;
        }
    }

    /// Says nothing until the client has gone.
    fn listen(&mut self) -> io::Result<Next> {
        while self.stream.read(&mut [0; 1024])? > 0 {}
        Ok(Next::Drop)
    }

    fn head(&self, reply: &Reply, date_skew_s: i64, keep_alive: bool) -> Vec<u8> {
        let (now, skew) = (self.shared.now(), Duration::from_secs(date_skew_s.unsigned_abs()).min(MAX_DURATION));
        reply.head(if date_skew_s < 0 { now - skew } else { now + skew }, keep_alive)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Answers what is not HTTP. If it is TLS that went wrong, rustls has told the client already.
    fn refuse(&mut self, error: &io::Error) {
        if !self.stream.is_handshaking() {
            let reply = Reply { body: error.to_string().into_bytes(), ..Reply::empty(400) };
            let _ = self.send(&reply.with("Content-Type", "text/plain"), 0, false);
        }
    }

    /// Ends the connection in order. What the client still sends is read: to close over it would reset the
    /// connection, and the reset could overtake the reply or the TLS alert that tells the client why.
    fn end(&mut self) -> io::Result<()> {
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
