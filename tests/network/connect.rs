//! Hosts with several addresses, and machines that cannot connect to some or all of them.

use crate::support::*;
use amp_token::error::{Kind, Phase};
use amp_token::net::http::ConnectionTrace;
use amp_token::net::transport::Transport;
use rustls::{ServerConnection, StreamOwned};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, mpsc};

/// `localhost` has two addresses.
#[test]
fn one_address_is_enough() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return println!("left out, because this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    let server = RawServer::serve(listener, |mut stream| {
        read_request(&mut stream)?;
        stream.write_all(OK.as_bytes())
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

    // A link-local address is only valid with the interface that leads to it, which is not sent to the server.
    let added = Command::new("ip").args(["address", "add", "fe80::1/64", "dev", "lo", "nodad"]).status().unwrap();
    assert!(added.success());
    let (directory, ca) = (temp_dir(), authority("Root"));
    let leaf = certificate(&["fe80::1"], Some(&ca), |_| {});
    let (sender, heads) = mpsc::channel();
    let config = Arc::new(server_config(&leaf, BOTH));
    let server = RawServer::serve(TcpListener::bind("[fe80::1%1]:0").unwrap(), move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        sender.send((read_head(&mut stream)?, stream.conn.server_name().map(str::to_owned))).unwrap();
        stream.write_all(OK.as_bytes())
    });
    let port = server.address.port();
    // The system adds the route some time after the address.
    while TcpStream::connect(server.address).is_err() {
        std::thread::yield_now();
    }
    for zone in ["%25lo", "%lo", "%251"] {
        let request = get(&format!("https://[fe80::1{zone}]:{port}/x"));
        assert_eq!(transport_in(&trusting(&directory, &ca), &[]).send(&request, PATIENCE).unwrap().status, 200);
        let (head, name) = heads.recv().unwrap();
        assert!(head.contains(&format!("\r\nHost: [fe80::1]:{port}\r\n")), "{head}");
        assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
        assert_eq!(name, None);
    }
    let error = failure(&transport, &get("https://[fe80::1%25eth9]/"), PATIENCE);
    let words = "cannot resolve [fe80::1%25eth9]:443: this machine has no network interface eth9";
    assert_error(&error, Kind::Resolve, Phase::Resolve, words);

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
    while let Ok(stream) = TcpStream::connect(server.address) {
        connections.push(stream);
    }
    for request in [get(&server.url()), local(server.address.port())] {
        let error = failure(&transport, &request, PATIENCE);
        assert_error(&error, Kind::Io, Phase::Connect, "no free port left on this machine; ");
        assert!(!error.is_retryable());
    }
}
