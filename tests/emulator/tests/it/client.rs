//! A client that sends what it is given and shows what came back, whatever that is.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amp_emulator::Emulator;
use serde_json::Value;

/// A reply that could be read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Reply {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub fn connect(emulator: &Emulator) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", emulator.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// All bytes up to the end of the connection. An end out of order is an error, with the bytes lost.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: emulator.test:1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

pub fn send(emulator: &Emulator, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    Reply::parse(&exchange(connect(emulator), &request(method, path, headers, body)).unwrap())
}

pub const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

pub fn credentials(emulator: &Emulator) -> String {
    format!(
        "client_id={}&client_secret={}&grant_type=client_credentials",
        emulator.client_id(),
        emulator.client_secret()
    )
}

pub fn token_request(emulator: &Emulator) -> String {
    request("POST", "/oauth/token", FORM, &credentials(emulator))
}

pub fn ask(emulator: &Emulator) -> Reply {
    send(emulator, "POST", "/oauth/token", FORM, &credentials(emulator))
}

pub fn token(emulator: &Emulator) -> String {
    ask(emulator).json()["access_token"].as_str().expect("a token").to_owned()
}

pub fn get(emulator: &Emulator, path: &str, token: &str) -> Reply {
    send(emulator, "GET", path, &format!("Authorization: Bearer {token}\r\n"), "")
}
