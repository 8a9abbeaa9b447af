//! Requests that are not sent, and responses that are too large or malformed.

use crate::support::*;
use amp_token::error::{Kind, Phase};
use amp_token::net::http::HEADER_LIMIT;
use amp_token::sys::secret::Secret;

#[test]
fn secrets_only_travel_encrypted_or_not_at_all() {
    for (url, words) in [
        ("http://auth.example/oauth/token", "not encrypted"),
        ("http://127.0.0.1.example/", "not encrypted"),
        ("http://127.0.0.1@auth.example/", "user name or password"),
        ("https://me:hush@auth.example/", "user name or password"),
    ] {
        let error = send(&get(url)).unwrap_err();
        assert_error(&error, Kind::Config, Phase::Setup, words);
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}

#[test]
fn what_cannot_be_sent_costs_no_connection() {
    let server = RawServer::responding(OK);
    let with = |name: &'static str, value: &str| {
        let mut request = get(&server.url());
        request.headers.push((name.into(), Secret::from(value).into()));
        request
    };
    let path = |length: usize| get(&format!("http://{}/{}", server.address, "x".repeat(length)));
    let mut strange = get(&server.url());
    strange.method = "GET /".to_owned();
    for request in [
        with("Authorization", "Bearer hush\r\nX: y"),
        with("Bad Name", "hush"),
        with("Authorization", &format!("Bearer {}", "hush".repeat(5000))),
        get(&format!("{}/a b", server.url())),
        path(16 * 1024),
        path(20_000),
        path(70_000),
        strange,
    ] {
        let error = send(&request).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    assert_eq!(server.connections(), 0);
    let error = send(&path(70_000)).unwrap_err();
    assert_error(
        &error,
        Kind::InvalidArgument,
        Phase::Setup,
        "the path and query of the URL are longer than 16384 bytes",
    );
    for length in 16_340..16_384 {
        match send(&path(length)) {
            Ok(response) => assert_eq!(response.status, 200),
            Err(error) => assert_eq!(error.kind(), Kind::InvalidArgument, "{length}: {error}"),
        }
    }
    assert_eq!(send(&path(16_340)).unwrap().status, 200);
    let long = "x".repeat(15_000);
    assert_eq!(send(&with("Authorization", &long)).unwrap().status, 200);
}

#[test]
fn a_response_may_be_as_large_as_allowed_and_not_larger() {
    let responses = |size: usize| {
        let body = "x".repeat(size);
        [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
        ]
    };
    for limit in [10, 40_000] {
        for (size, fits) in [(limit, true), (limit + 1, false)] {
            for reply in responses(size) {
                let mut request = get(&RawServer::responding(reply).url());
                request.max_response_bytes = limit;
                match send(&request) {
                    Ok(response) => assert!(fits && response.body.len() == size),
                    Err(error) => {
                        assert!(!fits, "{error}");
                        let words = format!("larger than {limit} bytes");
                        assert_error(&error, Kind::Protocol, Phase::ReceiveBody, &words);
                    }
                }
            }
        }
    }
}

#[test]
fn a_content_length_above_the_limit_is_an_error() {
    let server = RawServer::responding("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n");
    let error = send(&get(&server.url())).unwrap_err();
    assert_error(&error, Kind::Protocol, Phase::ReceiveBody, "larger than");
}

#[test]
fn headers_have_a_limit() {
    let reply = |size| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "x".repeat(size));
    let response = send(&get(&RawServer::responding(reply(HEADER_LIMIT - 100)).url())).unwrap();
    assert_eq!(response.header("x").unwrap().len(), HEADER_LIMIT - 100);
    for size in [HEADER_LIMIT, 4 * HEADER_LIMIT] {
        let error = send(&get(&RawServer::responding(reply(size)).url())).unwrap_err();
        assert_error(&error, Kind::Protocol, Phase::ReceiveBody, "headers");
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(5000));
    let error = send(&get(&RawServer::responding(many).url())).unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
}

#[test]
fn what_is_not_http_is_a_protocol_error() {
    for reply in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi",
    ] {
        let error = send(&get(&RawServer::responding(reply).url())).unwrap_err();
        assert_error(&error, Kind::Protocol, Phase::ReceiveBody, "invalid HTTP response");
    }
}

/// Each of them is removed when it has arrived, so they never fill the buffer.
#[test]
fn interim_responses_count_as_headers() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let many = |bytes: usize| interim.repeat(bytes / interim.len()) + OK;
    assert_eq!(send(&get(&RawServer::responding(many(HEADER_LIMIT - 1000)).url())).unwrap().status, 200);
    let error = send(&get(&RawServer::responding(many(4 * HEADER_LIMIT)).url())).unwrap_err();
    assert_error(&error, Kind::Protocol, Phase::ReceiveBody, "are larger than 65536 bytes");
}
