//! Requests that carry the token.

use super::cache::amp_token_cache;
use super::callbacks::{Callback, amp_write_fn};
use super::error::{amp_error, amp_status, fallible};
use super::ffi::{self, Handle};
use crate::api::{self, ApiRequest, RequestOptions};
use crate::error::{Error, Result};
use crate::net::transport::Response;
use crate::sys::callback_scope;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::time::Duration;

/// A day, as for the setting timeout_ms.
const LONGEST_TIMEOUT_MS: u64 = 86_400_000;

/// A response of the API, whatever its HTTP status. Immutable, so any number of
/// threads may use it at once.
pub struct amp_response {
    response: Response,
    headers: Vec<(String, CString)>,
    next_page: Option<CString>,
}

impl Handle for amp_response {
    type Owner = Box<Self>;
}

impl amp_response {
    fn new(path: &str, response: Response) -> Result<Self> {
        let headers = response.headers.iter().map(|(name, value)| (name.clone(), ffi::to_c_string(value))).collect();
        let next_page = api::next_page(path, &response.body)?.map(|path| ffi::to_c_string(&path));
        Ok(amp_response { response, headers, next_page })
    }
}

/// Runs the body of a function that returns a response. The body also returns the path that was requested.
fn respond_with(
    cache: Option<&amp_token_cache>,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
    body: impl FnOnce(&crate::token::cache::TokenCache) -> Result<(String, Response)>,
) -> amp_status {
    fallible(error, || {
        let place = ffi::out_ptr(response, "response")?;
        let (path, response) = body(ffi::required(cache, "cache")?.inner())?;
        place.write(ffi::into_handle(Box::new(amp_response::new(&path, response)?)));
        Ok(())
    })
}

/// Sends a request with a valid token and returns the response. Any HTTP status
/// is a success.
///
/// `path` is a path below api_url, such as "/v2/content/hubs?size=100", or a
/// URL of the same origin, such as a link in a response. The token is not sent
/// anywhere else, and redirects are not followed. `method` is "GET", "POST" and
/// so on.
///
/// If the API rejects the token (401, or the 403 for an expired token), the
/// token is replaced and the request is retried once. After a connection
/// failure the request is retried if nothing was sent yet, or if the method is
/// idempotent (GET, HEAD, PUT, DELETE). For these methods, the call also waits
/// and retries after a 429 or 503 with Retry-After.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, `method`, `path` and `response`, and
///   for `content_type` and `body` unless `body_length` is 0.
/// Ownership: free `*response` with amp_response_free(); it is NULL on failure.
///   The arguments are copied, or used only during the call.
/// Blocks: for up to timeout_ms, including retries and waiting.
/// Errors: AMP_INVALID_ARGUMENT if `path` is not below api_url, or an argument
///   cannot be sent. AMP_PROTOCOL if the response is larger than
///   max_response_bytes or not HTTP. Otherwise those of amp_token_cache_get().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_api_request(
    cache: Option<&amp_token_cache>,
    method: *const c_char,
    path: *const c_char,
    content_type: *const c_char,
    body: *const c_void,
    body_length: usize,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        // SAFETY: the header asks for strings, and for `body_length` bytes at `body`, none of which change
        // during the call.
        let (path, method, content_type, body) = unsafe {
            (
                ffi::str_arg(path, "path")?,
                ffi::str_arg(method, "method")?,
                ffi::optional_str_arg(content_type, "content_type")?,
                ffi::bytes(body, body_length, "body"),
            )
        };
        if body_length > 0 {
            ffi::required(content_type, "content_type")?;
        }
        let call = ApiRequest { method, path, content_type, body: body? };
        Ok((path.to_owned(), api::request(cache, &call)?))
    })
}

/// Sends a request with headers and a time limit of its own. Otherwise like
/// amp_api_request().
///
/// `headers` are names and values in turn, and NULL at the end. They replace
/// those that the library adds by default (Accept, User-Agent). A request with a
/// body needs a Content-Type. The library alone sets Authorization, Host,
/// Content-Length and the headers that are for one connection, and treats no
/// value of `headers` as a secret. `timeout_ms` is used instead of the setting
/// timeout_ms; 0 means the setting.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, `method`, `path` and `response`, and
///   for `body` unless `body_length` is 0. `headers` may be NULL.
/// Ownership: free `*response` with amp_response_free(); it is NULL on failure.
///   The arguments are copied, or used only during the call.
/// Blocks: for up to `timeout_ms`, including retries and waiting.
/// Errors: AMP_INVALID_ARGUMENT if a header cannot be sent, a name has no value,
///   there are more than 64 headers or 16 KiB of them, or `timeout_ms` is
///   negative or more than a day. Otherwise those of amp_api_request().
/// Example: replace an item if nobody else has changed it.
///     amp_status replace(const amp_token_cache *cache, const char *path,
///                        const char *etag, const char *json,
///                        amp_response **response, amp_error **error) {
///         const char *headers[] = {"Content-Type", "application/json",
///                                  "If-Match", etag, NULL};
///         return amp_api_send(cache, "PUT", path, headers, json, strlen(json),
///                             5000, response, error);
///     }
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_api_send(
    cache: Option<&amp_token_cache>,
    method: *const c_char,
    path: *const c_char,
    headers: *const *const c_char,
    body: *const c_void,
    body_length: usize,
    timeout_ms: i64,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        // SAFETY: the header asks for strings, for pointers to strings up to a NULL at `headers`, and for
        // `body_length` bytes at `body`, none of which change during the call.
        let (path, method, headers, body) = unsafe {
            (
                ffi::str_arg(path, "path")?,
                ffi::str_arg(method, "method")?,
                ffi::str_pairs(headers, api::MAX_HEADERS, "headers")?,
                ffi::bytes(body, body_length, "body")?,
            )
        };
        let timeout = match u64::try_from(timeout_ms) {
            Ok(0) => None,
            Ok(limit) if limit <= LONGEST_TIMEOUT_MS => Some(Duration::from_millis(limit)),
            _ => {
                return Err(Error::invalid(format!("timeout_ms is {timeout_ms}"))
                    .with_hint(format!("use milliseconds from 1 to {LONGEST_TIMEOUT_MS}, or 0 for the setting")));
            }
        };
        let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let call = ApiRequest { method, path, content_type: content_type.map(|(_, value)| *value), body };
        let response = api::request_with(cache, &call, &RequestOptions { headers: &headers, timeout })?;
        Ok((path.to_owned(), response))
    })
}

/// Downloads what is at `path`, of any size, and passes it to `write` in pieces
/// as it arrives. Like amp_api_request() with "GET", for what is too large for
/// memory.
///
/// The calling thread calls `write`, before this function returns, with each
/// piece of the body of a successful response (2xx). A piece is valid until
/// `write` returns. `write` returns true to continue. It must return normally
/// (no longjmp, no C++ exception). After amp_config_stop_callbacks() it is not
/// called any more, and the call fails. The body of any other status is in
/// `*response`. Any HTTP status is a success. On failure part of the body may
/// have been written; an interrupted download is not restarted.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, `path`, `write` and `response`.
///   `user_data`, which is passed on to `write`, may be NULL.
/// Ownership: free `*response` with amp_response_free(); it is NULL on failure.
/// Blocks: for up to timeout_ms; increase it for large downloads.
/// Errors: AMP_IO if `write` returned false. Otherwise those of
///   amp_api_request().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_api_download(
    cache: Option<&amp_token_cache>,
    path: *const c_char,
    write: amp_write_fn,
    user_data: *mut c_void,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    let handle = cache;
    respond_with(cache, response, error, |cache| {
        let handle = ffi::required(handle, "cache")?;
        // SAFETY: the header asks for a string that does not change during the call.
        let path = unsafe { ffi::str_arg(path, "path") }?;
        ffi::required(write, "write")?;
        // SAFETY: the header asks for a function that this thread may call with `user_data` during the call.
        let callback = unsafe { Callback::new(write, user_data) };
        let (guard, scope) = (handle.guard(), cache.options().scope);
        let response = api::download(cache, path, &mut |piece| {
            let _scope = callback_scope::enter(scope);
            guard.enter(|| callback.write(piece)).unwrap_or(false)
        })?;
        Ok((path.to_owned(), response))
    })
}

/// Sends a GraphQL request with a valid token and returns the response.
/// GraphQL's own errors are in its body, as "errors".
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, `query` and `response`.
///   `variables_json` may be NULL; otherwise it is a JSON object.
/// Ownership: free `*response` with amp_response_free(); it is NULL on failure.
///   The strings are copied.
/// Blocks: for up to timeout_ms.
/// Errors: AMP_INVALID_ARGUMENT if `variables_json` is not a JSON object.
///   Otherwise those of amp_api_request().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_api_graphql(
    cache: Option<&amp_token_cache>,
    query: *const c_char,
    variables_json: *const c_char,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        // SAFETY: the header asks for strings that do not change during the call.
        let (query, variables) =
            unsafe { (ffi::str_arg(query, "query"), ffi::optional_str_arg(variables_json, "variables_json")) };
        Ok((String::new(), api::graphql(cache, query?, variables?)?))
    })
}

/// Creates a personal access token for the user to whom the credentials belong.
/// It is in the response's body, as data.createPersonalAccessToken.token. It
/// cannot be retrieved again: store it securely, and do not log the body.
///
/// Threads: any.
/// NULL: AMP_INVALID_ARGUMENT for `cache`, `name`, `organization_id` and
///   `response`.
/// Ownership: free `*response` with amp_response_free(); it is NULL on failure.
///   The strings are copied.
/// Blocks: for up to timeout_ms.
/// Errors: those of amp_api_graphql().
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn amp_pat_create(
    cache: Option<&amp_token_cache>,
    name: *const c_char,
    organization_id: *const c_char,
    response: Option<&mut MaybeUninit<*mut amp_response>>,
    error: Option<&mut MaybeUninit<*mut amp_error>>,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        // SAFETY: the header asks for strings that do not change during the call.
        let (name, organization) =
            unsafe { (ffi::str_arg(name, "name"), ffi::str_arg(organization_id, "organization_id")) };
        Ok((String::new(), api::create_personal_access_token(cache, name?, organization?)?))
    })
}

/// Returns the HTTP status.
///
/// Threads: any.
/// NULL: 0 for a NULL `response`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_status(response: Option<&amp_response>) -> i32 {
    ffi::infallible(0, || response.map_or(0, |response| response.response.status.into()))
}

/// Returns the value of the first header with that name, which is compared
/// without regard to case.
///
/// Threads: any.
/// NULL: returned if there is no such header, or for a NULL `response` or
///   `name`.
/// Ownership: borrowed from `response`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_response_header(response: Option<&amp_response>, name: *const c_char) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        // SAFETY: the header asks for a string that does not change during the call.
        let name = unsafe { ffi::str_arg(name, "name") };
        let (Some(response), Ok(name)) = (response, name) else { return std::ptr::null() };
        let found = response.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map_or(std::ptr::null(), |(_, value)| value.as_ptr())
    })
}

/// Returns the body, which is not NUL-terminated, and sets `*length` to its
/// size in bytes.
///
/// Threads: any.
/// NULL: returned if the body is empty, or for a NULL `response`; `*length` is
///   then 0. `length` may be NULL.
/// Ownership: borrowed from `response`.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_body(
    response: Option<&amp_response>,
    length: Option<&mut MaybeUninit<usize>>,
) -> *const c_void {
    ffi::infallible(std::ptr::null(), || {
        let body = response.map_or(&[][..], |response| &response.response.body);
        ffi::write_if_set(length, body.len());
        if body.is_empty() { std::ptr::null() } else { body.as_ptr().cast() }
    })
}

/// Returns the path of the next page, if this response is a page of a
/// collection. Pass it to amp_api_request() until it is NULL. A server that then
/// returns another page than the requested one makes amp_api_request() fail with
/// AMP_PROTOCOL.
///
/// Threads: any.
/// NULL: returned after the last page, if this is not a collection, or for a
///   NULL `response`.
/// Ownership: borrowed from `response`.
/// Example: print every page of a collection.
///     amp_status print_all(const amp_token_cache *cache, amp_error **error) {
///         const char *path = "/v2/content/hubs?size=100";
///         amp_response *page = NULL;
///         amp_status status = AMP_OK;
///         while (path != NULL) {
///             amp_response *next;
///             size_t length;
///             status = amp_api_request(cache, "GET", path, NULL, NULL, 0,
///                                      &next, error);
///             amp_response_free(page); // path belonged to it
///             page = next;
///             if (status != AMP_OK || amp_response_status(page) != 200)
///                 break;
///             const void *body = amp_response_body(page, &length);
///             fwrite(body, 1, length, stdout);
///             path = amp_response_next_page(page);
///         }
///         amp_response_free(page);
///         return status;
///     }
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_next_page(response: Option<&amp_response>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        response.and_then(|response| response.next_page.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
    })
}

/// Frees a response and wipes its body.
///
/// Threads: any, but not while another thread uses `response`.
/// NULL: a NULL `response` is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn amp_response_free(response: *mut amp_response) {
    // SAFETY: the header asks for a handle of this type that is not used again.
    unsafe { ffi::free(response) }
}
