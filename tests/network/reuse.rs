//! Connections that are kept for another request.

use crate::support::*;
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::{Request, Transport};
use amp_token::sys::secret::Secret;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// Answers the requests of a connection until the client closes it.
fn answer_all(stream: &mut (impl Read + Write)) -> io::Result<()> {
    loop {
        read_request(stream)?;
        stream.write_all(OK.as_bytes())?;
        stream.flush()?;
    }
}

fn with_token(method: &str, url: &str) -> Request {
    let mut request = get(url);
    request.method = method.to_owned();
    request.headers.push(("Authorization".into(), Secret::from("Bearer token").into()));
    request
}

fn send_all(transport: &HttpTransport, requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        assert_eq!(transport.send(&request, PATIENCE).unwrap().body.as_slice(), b"hi");
    }
}

#[test]
fn idempotent_requests_with_a_token_share_a_connection() {
    let requests = |url: &str| ["GET", "PUT", "DELETE", "GET"].map(|method| with_token(method, url));
    let server = RawServer::start(|mut stream| answer_all(&mut stream));
    let transport = transport_in(&network(), &[]);
    send_all(&transport, requests(&server.url()));
    assert_eq!(server.connections(), 1);
    // Another cache has connections of its own.
    send_all(&transport_in(&network(), &[]), requests(&server.url()));
    assert_eq!(server.connections(), 2);

    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost", "far.invalid"], Some(&ca), |_| {});
    for versions in [ONLY_1_2, ONLY_1_3] {
        let server = tls_server(server_config(&leaf, versions), answer_all);
        let transport = transport_in(&trusting(&directory, &ca), &[]);
        send_all(&transport, requests(&format!("https://localhost:{}/", server.address.port())));
        assert_eq!(server.connections(), 1);
        let proxy = connect_proxy(server.address, ESTABLISHED);
        let url = format!("http://{}", proxy.address);
        let transport = transport_in(&trusting(&directory, &ca), &[("https_proxy", &url)]);
        send_all(&transport, requests("https://far.invalid/"));
        assert_eq!(proxy.requests().len(), 1);
    }
}

#[test]
fn requests_that_must_not_be_repeated_or_have_a_secret_have_their_own_connection() {
    let server = RawServer::start(|mut stream| answer_all(&mut stream));
    let transport = transport_in(&network(), &[]);
    let url = server.url();
    send_all(&transport, [with_token("GET", &url)]);
    send_all(
        &transport,
        [with_token("POST", &url), with_token("PATCH", &url), post(&url, b"client_secret=s"), get(&url)],
    );
    assert_eq!(server.connections(), 5);
    // The first one is still open.
    send_all(&transport, [with_token("GET", &url)]);
    assert_eq!(server.connections(), 5);
}

#[test]
fn a_connection_is_not_kept_after_every_response() {
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        // The line that is dropped may be a misspelled one.
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, and more",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let server = RawServer::start(move |mut stream| {
            read_request(&mut stream)?;
            stream.write_all(response.as_bytes())?;
            read_until_eof(&mut stream)
        });
        let transport = transport_in(&network(), &[]);
        send_all(&transport, [with_token("GET", &server.url()), with_token("GET", &server.url())]);
        assert_eq!(server.connections(), 2, "{response}");
    }
}

/// What the server sends then is not the response to the next request.
#[test]
fn a_connection_on_which_something_arrives_in_between_is_not_used() {
    let ((ask, asked), (sent, arrived)) = (mpsc::channel(), mpsc::channel());
    let (asked, sent) = (Mutex::new(asked), Mutex::new(sent));
    let server = RawServer::start(move |mut stream| {
        read_request(&mut stream)?;
        stream.write_all(OK.as_bytes())?;
        if asked.lock().unwrap().recv().is_ok() {
            stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")?;
            sent.lock().unwrap().send(()).unwrap();
        }
        read_until_eof(&mut stream)
    });
    let transport = transport_in(&network(), &[]);
    send_all(&transport, [with_token("GET", &server.url())]);
    ask.send(()).unwrap();
    arrived.recv().unwrap();
    drop(ask);
    send_all(&transport, [with_token("GET", &server.url())]);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_that_the_server_closed_is_replaced_once() {
    // Closed after the response, which the client may see before its next request, or after it.
    let server = RawServer::responding(OK);
    let transport = transport_in(&network(), &[]);
    send_all(&transport, (0..20).map(|_| with_token("GET", &server.url())));
    assert_eq!(server.connections(), 20);

    // Closed when the next request has arrived.
    let server = RawServer::start(|mut stream| {
        read_request(&mut stream)?;
        stream.write_all(OK.as_bytes())?;
        read_request(&mut stream).map(|_| ())
    });
    let transport = transport_in(&network(), &[]);
    send_all(&transport, (0..3).map(|_| with_token("PUT", &server.url())));
    assert_eq!(server.connections(), 3);

    // Closed before any response, on a new connection too.
    let count = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&count);
    let server = RawServer::start(move |mut stream| {
        loop {
            read_request(&mut stream)?;
            if requests.fetch_add(1, Ordering::SeqCst) > 0 {
                return Ok(());
            }
            stream.write_all(OK.as_bytes())?;
        }
    });
    let transport = transport_in(&network(), &[]);
    send_all(&transport, [with_token("GET", &server.url())]);
    transport.send(&with_token("GET", &server.url()), PATIENCE).unwrap_err();
    assert_eq!((server.connections(), count.load(Ordering::SeqCst)), (2, 3));
}

#[test]
#[cfg(unix)]
fn a_forked_child_does_not_use_a_kept_connection() {
    alone("reuse::forking_with_a_kept_connection", |_| {});
}

#[test]
#[cfg(unix)]
#[ignore = "run by a_forked_child_does_not_use_a_kept_connection"]
fn forking_with_a_kept_connection() {
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), answer_all);
    let transport = transport_in(&trusting(&directory, &ca), &[]);
    let request = || with_token("GET", &format!("https://localhost:{}/", server.address.port()));
    send_all(&transport, [request()]);
    // SAFETY: the child only makes a request, and leaves by `_exit` without unwinding into the test harness. The C
    // library keeps its allocator usable after a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let is_good = transport.send(&request(), PATIENCE).is_ok();
        drop(transport);
        // SAFETY: ends the child at once; nothing of its parent's is flushed or dropped twice.
        unsafe { libc::_exit(i32::from(!is_good)) };
    }
    let mut status = -1;
    // SAFETY: `child` is a child of this process and `status` a place for its outcome.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!((status, server.connections()), (0, 2));
    // The child has not ended the parent's.
    send_all(&transport, [request()]);
    assert_eq!(server.connections(), 2);
}
