//! The fuzzer is the server: whatever it sends, the call ends, with a reply within the limits or an error.
#![no_main]
use amp_token::config::Config;
use amp_token::net::http::HttpTransport;
use amp_token::net::transport::{Request, Transport};
use amp_token::net::url::Url;
use amp_token_fuzz::on_small_stack;
use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

const LIMIT: usize = 4096;

fuzz_target!(|pieces: Vec<Vec<u8>>| on_small_stack(move || run(pieces)));

fn run(pieces: Vec<Vec<u8>>) {
    static TRANSPORT: OnceLock<HttpTransport> = OnceLock::new();
    let transport = TRANSPORT.get_or_init(|| {
        let mut config = Config::new();
        config.set("proxy", Some("none")).unwrap();
        HttpTransport::new(&config.options().unwrap().network).unwrap()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = Request {
        method: "POST".to_owned(),
        url: Url::parse(&format!("http://{}/oauth/token", listener.local_addr().unwrap())).unwrap(),
        headers: vec![("Content-Type".into(), "text/plain".into())],
        body: b"a=b".to_vec().into(),
        max_response_bytes: LIMIT,
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            for piece in &pieces {
                if stream.write_all(piece).is_err() {
                    break;
                }
            }
        });
        if let Ok(response) = transport.send(&request, Duration::from_millis(500)) {
            assert!(response.body.len() <= LIMIT && (100..1000).contains(&response.status));
        }
        // The scope only waits for what the thread does; what belongs to the thread itself would look like a leak.
        server.join().unwrap();
    });
}
