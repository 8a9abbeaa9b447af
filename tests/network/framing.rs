//! What is sent, what comes back, and connections that break.

use crate::support::*;
use amp_token::error::{Kind, Phase};
use amp_token::net::transport::Transport;
use amp_token::sys::secret::Secret;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

#[test]
fn a_request_has_only_the_given_headers_and_body() {
    let seen = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&seen);
    let server = RawServer::start(move |mut stream| {
        *kept.lock().unwrap() = Some(read_request(&mut stream)?);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nX-Request-Id: 7\r\ncontent-length: 3\r\n\r\nno!")
    });
    let mut request = post(&server.url(), b"client_secret=hush");
    request.headers =
        vec![("User-Agent".into(), "tests/1".into()), ("Authorization".into(), Secret::from("Bearer token").into())];
    let response = send(&request).unwrap();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("x-request-id"), Some("7"));
    assert_eq!(response.body.as_slice(), b"no!");

    let (head, body) = seen.lock().unwrap().take().unwrap();
    assert_eq!(body, b"client_secret=hush");
    let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /oauth/token HTTP/1.1");
    assert_eq!(
        lines,
        [
            &format!("Host: {}", server.address),
            "User-Agent: tests/1",
            "Authorization: Bearer token",
            "Content-Length: 18",
            "Connection: close",
        ]
    );
}

#[test]
fn responses_of_every_framing_are_read() {
    for (reply, body) in [
        (OK, "hi"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\nA: b\r\n\r\n", "hi yo"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.0 200 OK\r\n\r\nold", "old"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "hi",
        ),
    ] {
        let response = send(&get(&RawServer::responding(reply).url())).unwrap();
        assert_eq!(response.body.as_slice(), body.as_bytes(), "{reply}");
    }
    // The oddities of names, values and status lines that curl accepts too.
    for head in [
        "HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A:\r\n\tone\r\nContent-Length :2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX@A: b\r\nX-B: \u{1}\r\n: c\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1  200\nContent-Length:\n 2\n\n",
        "HTTP/1.1 100 Continue\r\nServer: Microsoft-IIS/10.0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 199 B\r\nC: d\r\n e\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n",
    ] {
        let tail = if head.ends_with("2\r\n") { "hi\r\n0\r\n\r\n" } else { "hi" };
        let response = send(&get(&RawServer::responding(format!("{head}{tail}")).url())).unwrap();
        assert_eq!(response.body.as_slice(), b"hi", "{head}");
    }
    let folded = "HTTP/1.1 200 OK\r\nX-A: one\r\n\t two \r\n three\r\nContent-Length: 0\r\n\r\n";
    let response = send(&get(&RawServer::responding(folded).url())).unwrap();
    assert_eq!(response.header("x-a"), Some("one two three"));
    let server = RawServer::responding(OK);
    let loud = format!("HTTP://{}?x=y#z", server.address);
    assert_eq!(send(&get(&loud)).unwrap().status, 200);
    let mut request = get(&RawServer::responding("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").url());
    request.method = "HEAD".to_owned();
    assert!(send(&request).unwrap().body.is_empty());
}

#[test]
fn a_body_of_any_size_comes_whole() {
    for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let expected: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for head in ["".to_owned(), format!("Content-Length: {size}\r\n")] {
            let reply = [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), &expected].concat();
            let response = send(&get(&RawServer::responding(reply).url())).unwrap();
            assert_eq!(response.body.as_slice(), expected, "{size} {head}");
        }
    }
    let large = vec![b'x'; 1 << 20];
    let server = RawServer::start(|mut stream| {
        let (_, body) = read_request(&mut stream)?;
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{}", body.len())
    });
    let response = send(&post(&server.url(), &large)).unwrap();
    assert_eq!(response.body.as_slice(), b"1048576");
}

#[test]
fn a_redirect_is_returned_like_any_other_response() {
    let elsewhere = RawServer::responding(OK);
    for (status, tail) in [(302, "Content-Length: 0\r\n\r\n"), (301, "\r\nmoved"), (307, "Content-Length: 1\r\n\r\nx")]
    {
        let reply = format!("HTTP/1.1 {status} Moved\r\nLocation: {}\r\n{tail}", elsewhere.url());
        let server = RawServer::responding(reply);
        let response = send(&post(&server.url(), b"client_secret=hush")).unwrap();
        assert_eq!(response.status, status);
        assert_eq!(server.connections(), 1);
    }
    let response = send(&get(&RawServer::responding("HTTP/1.1 302 No Location\r\nContent-Length: 0\r\n\r\n").url()));
    assert_eq!(response.unwrap().status, 302);
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn an_early_response_is_read_before_the_request_is_complete() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        // Closing with the body unread resets the connection.
    });
    let large = vec![b'x'; 8 << 20];
    let response = send(&post(&server.url(), &large)).unwrap();
    assert_eq!(response.status, 413);

    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["localhost"], Some(&ca), |_| {});
    let server = tls_server(server_config(&leaf, BOTH), |stream| {
        read_head(stream)?;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")?;
        stream.flush()
    });
    let request = post(secure(&server, "localhost").url.as_str(), &large);
    let response = transport_in(&trusting(&directory, &ca), &[]).send(&request, PATIENCE);
    assert_eq!(response.unwrap().status, 413);
}

/// A banner that is not HTTP is reported at once, although its sender waits.
#[test]
fn a_response_of_another_protocol_is_not_waited_for() {
    for banner in ["SSH-2.0-OpenSSH_9.2\r\n", "220 mail.example ESMTP", "HTTP/4 200 \r\nserver: x\r\n"] {
        let server = RawServer::start(move |mut stream| {
            read_head(&mut stream)?;
            stream.write_all(banner.as_bytes())?;
            read_until_eof(&mut stream)
        });
        let error = send(&get(&server.url())).unwrap_err();
        assert_error(&error, Kind::Protocol, Phase::ReceiveBody, "invalid HTTP response");
    }
}

#[test]
fn a_refused_connection_is_reported_as_such() {
    let port = ClosedPort::new();
    let address = port.address();
    let error = send(&get(&format!("http://{address}/"))).unwrap_err();
    assert_error(&error, Kind::Connect, Phase::Connect, "connection refused");
    assert_eq!(error.host(), Some(address.to_string().as_str()));
    assert!(error.is_retryable());
}

#[test]
fn an_unknown_host_is_a_resolve_error() {
    let error = send(&get(&format!("https://{UNKNOWN_HOST}/"))).unwrap_err();
    assert_error(&error, Kind::Resolve, Phase::Resolve, UNKNOWN_HOST);
    assert!(error.is_retryable());
}

#[test]
fn a_truncated_response_is_an_error_and_is_not_retried() {
    for (reply, words) in [
        ("", "without a response"),
        ("HTTP/1.1 200 OK\r\nContent-", "in the middle of its response"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "in the middle of its response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "in the middle of its response"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "in the middle of its response"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "in the middle of its response"),
    ] {
        let server = RawServer::responding(reply);
        let error = send(&post(&server.url(), b"x")).unwrap_err();
        assert_error(
            &error,
            Kind::Connect,
            if reply.is_empty() { Phase::AwaitResponse } else { Phase::ReceiveBody },
            words,
        );
        assert!(error.is_retryable());
        assert_eq!(server.connections(), 1, "{reply:?}");
    }
}

/// The end of such a body is the end of the connection: a reset must not pass for it.
#[test]
fn a_reset_does_not_complete_a_body_without_a_length() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream)?;
        // Where one byte of the body is, there is the rest, which fits one packet.
        stream.read_exact(&mut [0])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")?;
        // Closing with the request's body unread resets the connection.
        Ok(())
    });
    let error = send(&post(&server.url(), &vec![b'x'; 1000])).unwrap_err();
    assert_error(&error, Kind::Connect, Phase::ReceiveBody, "in the middle of its response");
}
