//! A client that sends raw requests and returns raw responses, valid or not.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amp_emulator::Emulator;
use serde_json::Value;

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn parse(bytes: &[u8]) -> Response {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_owned(), body: body.to_owned() }
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

/// Sends a request and returns all bytes until the connection is closed. If it is reset, the bytes are lost.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(response)
}

pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: emulator.test:1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

pub fn send(emulator: &Emulator, method: &str, path: &str, headers: &str, body: &str) -> Response {
    Response::parse(&exchange(connect(emulator), &request(method, path, headers, body)).unwrap())
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

pub fn fetch_token(emulator: &Emulator) -> Response {
    send(emulator, "POST", "/oauth/token", FORM, &credentials(emulator))
}

pub fn token(emulator: &Emulator) -> String {
    fetch_token(emulator).json()["access_token"].as_str().expect("a token").to_owned()
}

pub fn get(emulator: &Emulator, path: &str, token: &str) -> Response {
    send(emulator, "GET", path, &format!("Authorization: Bearer {token}\r\n"), "")
}
