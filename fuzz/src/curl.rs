//! What libcurl makes of a URL, a `NO_PROXY` list or a response. Nothing here leaves this process.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::ptr::null_mut;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};

#[link(name = "curl")]
unsafe extern "C" {
    fn curl_global_init(flags: c_long) -> c_int;
    fn curl_free(pointer: *mut c_void);
    fn curl_url() -> *mut c_void;
    fn curl_url_cleanup(url: *mut c_void);
    fn curl_url_set(url: *mut c_void, part: c_int, text: *const c_char, flags: c_uint) -> c_int;
    fn curl_url_get(url: *mut c_void, part: c_int, text: *mut *mut c_char, flags: c_uint) -> c_int;
    fn curl_easy_init() -> *mut c_void;
    fn curl_easy_cleanup(easy: *mut c_void);
    fn curl_easy_setopt(easy: *mut c_void, option: c_int, ...) -> c_int;
    fn curl_easy_perform(easy: *mut c_void) -> c_int;
    fn curl_easy_getinfo(easy: *mut c_void, info: c_int, ...) -> c_int;
    fn curl_easy_unescape(
        easy: *mut c_void,
        text: *const c_char,
        length: c_int,
        decoded_length: *mut c_int,
    ) -> *mut c_char;
    fn curl_easy_header(
        easy: *mut c_void,
        name: *const c_char,
        index: usize,
        origin: c_uint,
        request: c_int,
        header: *mut *mut Header,
    ) -> c_int;
    fn curl_slist_append(list: *mut c_void, text: *const c_char) -> *mut c_void;
    fn curl_slist_free_all(list: *mut c_void);
}

/// `struct curl_header`.
#[repr(C)]
struct Header {
    name: *const c_char,
    value: *const c_char,
    amount: usize,
    index: usize,
    origin: c_uint,
    anchor: *const c_void,
}

/// `struct curl_sockaddr`, with room for the addresses that occur here.
#[repr(C)]
struct Address {
    family: c_int,
    kind: c_int,
    protocol: c_int,
    length: c_uint,
    address: libc::sockaddr_storage,
}

// The numbers of options, parts and flags are part of libcurl's ABI.
const TIMEOUT_MS: c_int = 155;
const NOSIGNAL: c_int = 99;
const POSTFIELDSIZE: c_int = 60;
const WRITEDATA: c_int = 10001;
const URL: c_int = 10002;
const PROXY: c_int = 10004;
const POSTFIELDS: c_int = 10015;
const OPENSOCKETDATA: c_int = 10164;
const NOPROXY: c_int = 10177;
const CONNECT_TO: c_int = 10243;
const ABSTRACT_UNIX_SOCKET: c_int = 10264;
const WRITEFUNCTION: c_int = 20011;
const OPENSOCKETFUNCTION: c_int = 20163;
const RESPONSE_CODE: c_int = 0x20_0002;
const SOCKET_BAD: c_int = -1;

/// The flags of [`parse_url`].
pub const PATH_AS_IS: u32 = 1 << 4;
/// Accept a scheme that libcurl does not know.
pub const NON_SUPPORT_SCHEME: u32 = 1 << 3;
/// Accept a URL without a scheme.
pub const GUESS_SCHEME: u32 = 1 << 9;
const DEFAULT_PORT: u32 = 1 << 0;
const URL_DECODE: u32 = 1 << 6;

fn initialize() {
    static DONE: OnceLock<c_int> = OnceLock::new();
    // SAFETY: once, before anything else of libcurl.
    assert_eq!(*DONE.get_or_init(|| unsafe { curl_global_init(3) }), 0);
}

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    /// Percent-decoded, as is the password.
    pub user: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    /// With brackets around an IPv6 address.
    pub host: String,
    pub zone: Option<String>,
    /// `None` if there is no default for the scheme either.
    pub port: Option<u16>,
    /// Path, query and fragment.
    pub path: String,
}

/// The parts of a URL; the error is a `CURLUcode`.
pub fn parse_url(text: &str, flags: u32) -> Result<Url, c_int> {
    const SCHEME: c_int = 1;
    const USER: c_int = 2;
    const PASSWORD: c_int = 3;
    const HOST: c_int = 5;
    const PORT: c_int = 6;
    const PATH: c_int = 7;
    const QUERY: c_int = 8;
    const FRAGMENT: c_int = 9;
    const ZONE: c_int = 10;
    initialize();
    let text = CString::new(text).expect("callers remove NUL");
    // SAFETY: the handle is used by this function only; `curl_url_get` returns a string that belongs to the caller.
    unsafe {
        let url = curl_url();
        let mut code = curl_url_set(url, 0, text.as_ptr(), flags);
        let mut part = |part: c_int, flags: u32| {
            let mut text = null_mut();
            match curl_url_get(url, part, &mut text, flags) {
                0 => {}
                // The URL has no such part.
                10..=18 => return None,
                error => {
                    // It is rejected when it is used: a control character in a user name, for example.
                    code = if code == 0 { error } else { code };
                    return None;
                }
            }
            let bytes = CStr::from_ptr(text).to_bytes().to_vec();
            curl_free(text.cast());
            Some(bytes)
        };
        let string = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let parts = Url {
            scheme: string(part(SCHEME, 0)).unwrap_or_default(),
            user: part(USER, URL_DECODE),
            password: part(PASSWORD, URL_DECODE),
            host: string(part(HOST, 0)).unwrap_or_default(),
            zone: string(part(ZONE, 0)),
            port: string(part(PORT, DEFAULT_PORT)).and_then(|port| port.parse().ok()),
            path: string(part(PATH, 0)).unwrap_or_default()
                + &string(part(QUERY, 0)).map(|query| format!("?{query}")).unwrap_or_default()
                + &string(part(FRAGMENT, 0)).map(|fragment| format!("#{fragment}")).unwrap_or_default(),
        };
        curl_url_cleanup(url);
        if code == 0 { Ok(parts) } else { Err(code) }
    }
}

/// Decodes percent-encoding.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    initialize();
    if text.is_empty() {
        return Vec::new(); // a length of 0 would mean strlen()
    }
    let mut length = 0;
    // SAFETY: the text has this length; the result belongs to the caller and has the length that is set.
    unsafe {
        let decoded = curl_easy_unescape(null_mut(), text.as_ptr().cast(), text.len() as c_int, &mut length);
        let bytes = std::slice::from_raw_parts(decoded.cast::<u8>(), length as usize).to_vec();
        curl_free(decoded.cast());
        bytes
    }
}

/// A transfer, which ends when this is dropped.
struct Easy(*mut c_void);

impl Easy {
    fn new() -> Self {
        initialize();
        // SAFETY: initialized.
        let easy = Easy(unsafe { curl_easy_init() });
        easy.number(NOSIGNAL, 1);
        easy.number(TIMEOUT_MS, 5000);
        easy
    }

    fn number(&self, option: c_int, value: c_long) {
        // SAFETY: the callers pass options that take a number.
        assert_eq!(unsafe { curl_easy_setopt(self.0, option, value) }, 0);
    }

    /// Sets a text, which libcurl copies, and returns whether it is accepted.
    fn text(&self, option: c_int, value: &str) -> bool {
        let value = CString::new(value).expect("callers remove NUL");
        // SAFETY: the callers pass options that take a string.
        unsafe { curl_easy_setopt(self.0, option, value.as_ptr()) == 0 }
    }

    fn pointer(&self, option: c_int, value: *const c_void) {
        // SAFETY: the callers pass options that take this pointer, which lives as long as the transfer.
        assert_eq!(unsafe { curl_easy_setopt(self.0, option, value) }, 0);
    }

    fn perform(&self) -> c_int {
        // SAFETY: all pointers that were set are valid.
        unsafe { curl_easy_perform(self.0) }
    }
}

impl Drop for Easy {
    fn drop(&mut self) {
        // SAFETY: not used afterwards.
        unsafe { curl_easy_cleanup(self.0) }
    }
}

/// Whether libcurl connects to `url` through a proxy, with this `NO_PROXY` list; `None` if it does not accept the URL.
pub fn uses_proxy(url: &str, no_proxy: &str) -> Option<bool> {
    /// Records the address, and has no socket.
    extern "C" fn open(data: *mut c_void, _: c_int, address: *mut Address) -> c_int {
        // SAFETY: the data is an `Option<[u8; 4]>` below, and the address is valid during the call.
        unsafe {
            let address = &*address;
            assert_eq!(address.family, libc::AF_INET);
            let address = &*(&raw const address.address).cast::<libc::sockaddr_in>();
            *data.cast::<Option<[u8; 4]>>() = Some(address.sin_addr.s_addr.to_ne_bytes());
        }
        SOCKET_BAD
    }
    let mut opened: Option<[u8; 4]> = None;
    let easy = Easy::new();
    if !easy.text(URL, url) {
        return None;
    }
    assert!(easy.text(PROXY, "http://127.0.0.1:9") && easy.text(NOPROXY, no_proxy));
    // Without a proxy it connects to this address instead of the host, which is not resolved.
    // SAFETY: the list is freed after the transfer.
    let direct = unsafe { curl_slist_append(null_mut(), c"::127.0.0.2:8".as_ptr()) };
    easy.pointer(CONNECT_TO, direct);
    easy.pointer(OPENSOCKETFUNCTION, open as *const c_void);
    easy.pointer(OPENSOCKETDATA, (&raw mut opened).cast());
    easy.perform();
    drop(easy);
    // SAFETY: see above.
    unsafe { curl_slist_free_all(direct) };
    opened.map(|address| address == [127, 0, 0, 1])
}

/// A response as libcurl has read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The `CURLcode`; 0 is a success.
    pub code: c_int,
    /// The status; 0 if there is none.
    pub status: u16,
    /// The values of the headers that were asked for.
    pub headers: Vec<Vec<Vec<u8>>>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
}

/// What libcurl reads if the server sends these bytes for a POST request and closes the connection, with the headers of
/// these names.
pub fn read_response(sent: &[u8], names: &[&CStr]) -> Response {
    extern "C" fn write(piece: *const u8, size: usize, count: usize, body: *mut c_void) -> usize {
        // SAFETY: the data is the body below, and the piece has this length.
        unsafe { (*body.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(piece, size * count)) };
        size * count
    }
    let mut body: Vec<u8> = Vec::new();
    let easy = Easy::new();
    assert!(easy.text(URL, "http://127.0.0.1/oauth/token") && easy.text(ABSTRACT_UNIX_SOCKET, serve(sent)));
    assert!(easy.text(PROXY, ""));
    easy.number(POSTFIELDSIZE, 3);
    easy.pointer(POSTFIELDS, c"a=b".as_ptr().cast());
    easy.pointer(WRITEFUNCTION, write as *const c_void);
    easy.pointer(WRITEDATA, (&raw mut body).cast());
    let code = easy.perform();
    let mut status: c_long = 0;
    // SAFETY: this value is a long.
    unsafe { curl_easy_getinfo(easy.0, RESPONSE_CODE, &raw mut status) };
    let headers = names.iter().map(|name| values(&easy, name)).collect();
    drop(easy);
    Response { code, status: status as u16, headers, body }
}

/// Sends this to the next client of a server in this process, whose name in the abstract namespace is returned. libcurl
/// cannot be given a connection: version 7.88 connects again.
fn serve(sent: &[u8]) -> &'static str {
    static SERVER: OnceLock<(String, Mutex<SyncSender<Vec<u8>>>)> = OnceLock::new();
    let (name, sender) = SERVER.get_or_init(|| {
        let name = format!("amp-token-fuzz-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let (sender, responses) = sync_channel::<Vec<u8>>(1);
        let run = move || {
            for response in responses {
                let (mut stream, _) = listener.accept().unwrap();
                // The client may have read enough and gone.
                let _ = stream.write_all(&response).and_then(|()| stream.shutdown(Shutdown::Write));
                let _ = stream.read_to_end(&mut Vec::new());
            }
        };
        std::thread::spawn(run);
        (name, Mutex::new(sender))
    });
    sender.lock().unwrap().send(sent.to_vec()).unwrap();
    name
}

/// The values of a header in the last response.
fn values(easy: &Easy, name: &CStr) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut header = null_mut();
    // SAFETY: the header is valid until the next call; its value is NUL-terminated.
    unsafe {
        while curl_easy_header(easy.0, name.as_ptr(), values.len(), 1, -1, &mut header) == 0 {
            values.push(CStr::from_ptr((*header).value).to_bytes().to_vec());
        }
    }
    values
}

/// Whether a host as it is written is the one that libcurl has read. It writes short and hexadecimal forms of IPv4
/// addresses in the long one; this library leaves them to the resolver, which understands the same forms.
pub fn is_same_host(ours: &str, theirs: &str) -> bool {
    unsafe extern "C" {
        // Of the C library; the `libc` crate does not declare it.
        fn inet_aton(text: *const c_char, address: *mut libc::in_addr) -> c_int;
    }
    let theirs = theirs.trim_start_matches('[').trim_end_matches(']');
    let text = CString::new(ours).expect("callers remove NUL");
    let mut address = libc::in_addr { s_addr: 0 };
    // SAFETY: a NUL-terminated string and an address.
    let is_ipv4 = unsafe { inet_aton(text.as_ptr(), &mut address) } == 1;
    let long = std::net::Ipv4Addr::from(u32::from_be(address.s_addr)).to_string();
    ours.eq_ignore_ascii_case(theirs) || is_ipv4 && long == theirs
}
