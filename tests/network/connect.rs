//! Hosts with several addresses, and machines that cannot connect to some or all of them.

use crate::support::*;
use amp_token::error::{Kind, Phase};
use amp_token::net::http::ConnectionTrace;
use std::net::TcpListener;

/// `localhost` has two addresses.
#[test]
fn one_address_is_enough() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return println!("left out, because this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    let server = RawServer::serve(listener, |mut stream| {
        read_request(&mut stream)?;
        std::io::Write::write_all(&mut stream, OK.as_bytes())
    });
    let mut observed = ConnectionTrace::default();
    let request = get(&format!("http://localhost:{port}/"));
    transport_in(&network(), &[]).send_traced(&request, PATIENCE, &mut observed).unwrap();
    assert_eq!(observed.address, Some(server.address));
}

#[test]
fn a_local_problem_is_not_reported_as_one_of_the_server() {
    alone_in_own_network("connect::in_an_own_network");
}

#[test]
#[ignore = "run by a_local_problem_is_not_reported_as_one_of_the_server"]
fn in_an_own_network() {
    let transport = transport_in(&network(), &[]);
    let local = |port: u16| get(&format!("http://localhost:{port}/"));

    for interface in ["all", "lo"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
    }
    let error = failure(&transport, &local(9), PATIENCE);
    assert_error(&error, Kind::Connect, Phase::Connect, "connection refused (127.0.0.1), this machine has no address");
    let (silent, waiting) = full_listener("127.0.0.1");
    let error = failure(&transport, &local(silent.local_addr().unwrap().port()), SHORT);
    assert_error(&error, Kind::Timeout, Phase::Connect, "within 1.0 s: no response (127.0.0.1), this machine has no");
    drop(waiting);
    let error = failure(&transport, &get("http://[::1]:9/"), PATIENCE);
    assert_error(&error, Kind::Connect, Phase::Connect, "this machine has no address of that family");
    let error = failure(&transport, &get("https://192.0.2.1/"), PATIENCE);
    assert_error(&error, Kind::Connect, Phase::Connect, "no route to the host");

    let server = RawServer::responding(OK);
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
    let mut connections = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect(server.address) {
        connections.push(stream);
    }
    for request in [get(&server.url()), local(server.address.port())] {
        let error = failure(&transport, &request, PATIENCE);
        assert_error(&error, Kind::Io, Phase::Connect, "no free port left on this machine; ");
        assert!(!error.is_retryable());
    }
}
