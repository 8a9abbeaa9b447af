//! Every call ends by its deadline, whatever the server does.

use crate::support::*;
use amp_token::config::NetworkOptions;
use amp_token::error::{Kind, Phase};
use amp_token::net::transport::Transport;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn no_server_can_make_a_call_outlast_its_deadline() {
    type Treatment = fn(TcpStream) -> io::Result<()>;
    #[rustfmt::skip]
    let cases: [(&str, Treatment, Phase); 6] = [
        ("silent", |mut stream| read_until_eof(&mut stream), Phase::AwaitResponse),
        ("headers byte by byte", |mut stream| send_slowly(&mut stream, b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyy"), Phase::ReceiveBody),
        ("headers without end", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            send_slowly(&mut stream, b"X: y\r\n")
        }, Phase::ReceiveBody),
        ("a body byte by byte", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            send_slowly(&mut stream, b"x")
        }, Phase::ReceiveBody),
        ("chunks byte by byte", |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            send_slowly(&mut stream, b"1\r\nx\r\n")
        }, Phase::ReceiveBody),
        ("interim replies without end", |mut stream| send_slowly(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n"), Phase::ReceiveBody),
    ];
    let transport = transport_in(&network(), &[]);
    run_parallel(cases, |(name, treat, phase)| {
        let server = RawServer::start(treat);
        let error = failure(&transport, &get(&server.url()), SHORT);
        println!("{name}: {error}");
        assert_error(&error, Kind::Timeout, phase, "within 1.0 s");
        assert!(error.is_retryable());
        assert_eq!(server.connections(), 1);
    });
}

/// So many that they fill the buffer for headers; which of the two limits is met first is chance.
#[test]
fn a_flood_of_interim_responses_is_cut_off() {
    let server = RawServer::start(|mut stream| {
        loop {
            stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100))?;
        }
    });
    let error = failure(&transport_in(&network(), &[]), &get(&server.url()), SHORT);
    assert!(matches!(error.kind(), Kind::Protocol | Kind::Timeout), "{error}");
}

#[test]
fn a_server_that_does_not_read_cannot_delay_a_call() {
    let transport = transport_in(&network(), &[]);
    run_parallel([false, true], |reads_a_little| {
        let server = RawServer::start(move |mut stream| {
            let started = Instant::now();
            while started.elapsed() < PATIENCE {
                // A bit at a time: each makes room for a bit more to be sent.
                if reads_a_little && stream.read(&mut [0; 4096])? == 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let request = post(&server.url(), &vec![b'x'; 32 << 20]);
        let error = failure(&transport, &request, SHORT);
        assert_error(&error, Kind::Timeout, Phase::Send, "did not read the whole request");
    });
}

#[test]
fn a_server_that_accepts_no_connection_is_a_timeout() {
    let (listener, _waiting) = full_listener("127.0.0.1");
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/");
    let error = failure(&transport_in(&network(), &[]), &get(&url), SHORT);
    assert_error(&error, Kind::Timeout, Phase::Connect, "cannot connect to");
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let error = failure(&transport_in(&hasty, &[]), &get(&url), PATIENCE);
    assert_error(&error, Kind::Timeout, Phase::Connect, "within 1.0 s");
}

#[test]
fn the_connect_timeout_does_not_limit_the_response() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream)?;
        thread::sleep(SHORT + SHORT / 4);
        stream.write_all(OK.as_bytes())
    });
    let hasty = NetworkOptions { connect_timeout: SHORT, ..network() };
    let response = transport_in(&hasty, &[]).send(&get(&server.url()), PATIENCE);
    assert_eq!(response.unwrap().status, 200);
}

#[test]
fn without_time_left_nothing_is_sent() {
    let server = RawServer::responding(OK);
    let error = failure(&transport_in(&network(), &[]), &get(&server.url()), Duration::ZERO);
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(server.connections(), 0);
}
