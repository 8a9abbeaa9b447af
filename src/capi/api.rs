//! Requests that carry the token.

use super::cache::amp_token_cache;
use super::error::{amp_error, amp_status};
use super::ffi::{self, UserData, amp_write_fn};
use crate::api::{self, ApiRequest};
use crate::error::Result;
use crate::net::transport::Response;
use std::ffi::{CStr, CString, c_char, c_void};

/// A reply of the API, whatever its HTTP status. Immutable: any number of
/// threads may look at it at once. Texts and bytes that its functions return
/// are borrowed from it.
pub struct amp_response {
    response: Response,
    headers: Vec<(String, CString)>,
    next_page: Option<CString>,
}

impl amp_response {
    fn give(path: &str, response: Response) -> *mut amp_response {
        let headers = response.headers.iter().map(|(name, value)| (name.clone(), ffi::to_c_string(value))).collect();
        let next_page = api::next_page(path, &response.body).map(|path| ffi::to_c_string(&path));
        Box::into_raw(Box::new(amp_response { response, headers, next_page }))
    }
}

/// What the three functions below have in common.
fn respond_with(
    cache: Option<&amp_token_cache>,
    response: *mut *mut amp_response,
    error: *mut *mut amp_error,
    body: impl FnOnce(&crate::token::cache::TokenCache) -> Result<(String, Response)>,
) -> amp_status {
    ffi::fallible(error, || {
        let place = ffi::out_ptr(response, "response")?;
        let (path, response) = body(ffi::required(cache, "cache")?.inner())?;
        place.write_if_set(amp_response::give(&path, response));
        Ok(())
    })
}

/// Sends a request with a valid token, and gets the reply.
///
/// `path` is a path below api_url, such as "/v2/content/hubs?size=100", or a
/// whole URL of the same origin, such as a link in a reply: the token goes
/// nowhere else, and redirects are not followed. `method` is "GET", "POST"
/// and so on. `content_type` may be NULL if `body_length` is 0, and then
/// `body` too. All are copied or used before the call returns.
///
/// On success, which any HTTP status is, `*response` is a reply that the
/// caller frees with amp_response_free(); on failure it is NULL. Blocks for
/// `timeout_ms` at most, all repeated requests and waiting included.
///
/// A token that the API refuses (401, or the 403 that says that it has
/// expired) is replaced, and the request repeated, once. Failures of the
/// connection are repeated if nothing was sent yet or the method is
/// idempotent (GET, HEAD, PUT, DELETE); on those methods a 429 or 503 with
/// Retry-After is waited for.
///
/// AMP_INVALID_ARGUMENT: `path` leads elsewhere, or an argument cannot be
/// sent. AMP_PROTOCOL: the reply is larger than max_response_bytes, or not
/// HTTP. Else as amp_token_cache_get().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_api_request(
    cache: Option<&amp_token_cache>,
    method: *const c_char,
    path: *const c_char,
    content_type: *const c_char,
    body: *const c_void,
    body_length: usize,
    response: *mut *mut amp_response,
    error: *mut *mut amp_error,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        let path = ffi::str_arg(path, "path")?;
        let call = ApiRequest {
            method: ffi::str_arg(method, "method")?,
            path,
            content_type: match body_length {
                0 => ffi::optional_str_arg(content_type, "content_type")?,
                _ => Some(ffi::str_arg(content_type, "content_type")?),
            },
            body: ffi::bytes(body, body_length, "body")?,
        };
        Ok((path.to_owned(), api::request(cache, &call)?))
    })
}

/// Gets what is at `path`, of any size, and hands it to `write` as it comes: as
/// amp_api_request() with "GET", for what should not be taken into memory.
///
/// `write` is called by the calling thread, before this returns, with each piece
/// of the body of a success (2xx), valid until it returns; `user_data` is passed
/// on to it. It returns true to go on, and must return normally (no longjmp, no
/// C++ exception). The body of any other status is in `*response`, as ever.
///
/// On success, which any HTTP status is, `*response` is a reply that the
/// caller frees with amp_response_free(); on failure it is NULL, and some of the
/// body may have been written: a transfer that broke off is not begun anew.
/// Blocks for `timeout_ms` at most, so give large ones enough.
///
/// AMP_IO: `write` returned false. Else as amp_api_request().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_api_download(
    cache: Option<&amp_token_cache>,
    path: *const c_char,
    write: amp_write_fn,
    user_data: *mut c_void,
    response: *mut *mut amp_response,
    error: *mut *mut amp_error,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        let path = ffi::str_arg(path, "path")?;
        ffi::required(write, "write")?;
        let user_data = UserData(user_data);
        let response = api::download(cache, path, &mut |piece| ffi::call_writer(write, piece, user_data))?;
        Ok((path.to_owned(), response))
    })
}

/// Sends a GraphQL request with a valid token, and gets the reply. Errors of
/// GraphQL itself come as "errors" in its body.
///
/// `variables_json` is a JSON object, or NULL. Both texts are copied.
///
/// On success `*response` is a reply that the caller frees with
/// amp_response_free(); on failure it is NULL. Blocks for `timeout_ms` at
/// most.
///
/// AMP_INVALID_ARGUMENT: `variables_json` is not a JSON object. Else as
/// amp_api_request().
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_api_graphql(
    cache: Option<&amp_token_cache>,
    query: *const c_char,
    variables_json: *const c_char,
    response: *mut *mut amp_response,
    error: *mut *mut amp_error,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        let query = ffi::str_arg(query, "query")?;
        let variables = ffi::optional_str_arg(variables_json, "variables_json")?;
        Ok((String::new(), api::graphql(cache, query, variables)?))
    })
}

/// Creates a personal access token for the user that the credentials belong
/// to. Its text is in the reply's body, as
/// data.createPersonalAccessToken.token, and nowhere else ever after: keep it
/// safe, and do not log the body.
///
/// On success `*response` is a reply that the caller frees with
/// amp_response_free(); on failure it is NULL. Blocks for `timeout_ms` at
/// most.
///
/// Fails as amp_api_graphql() does.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn amp_pat_create(
    cache: Option<&amp_token_cache>,
    name: *const c_char,
    organization_id: *const c_char,
    response: *mut *mut amp_response,
    error: *mut *mut amp_error,
) -> amp_status {
    respond_with(cache, response, error, |cache| {
        let (name, organization) = (ffi::str_arg(name, "name")?, ffi::str_arg(organization_id, "organization_id")?);
        Ok((String::new(), api::create_personal_access_token(cache, name, organization)?))
    })
}

/// The HTTP status; 0 if `response` is NULL.
///
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_status(response: Option<&amp_response>) -> i32 {
    ffi::infallible(0, || response.map_or(0, |response| response.response.status.into()))
}

/// The value of the first header with that name, in any case.
///
/// NULL: there is none, or an argument is NULL; borrowed from `response`. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_header(response: Option<&amp_response>, name: *const c_char) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        let (Some(response), Ok(name)) = (response, ffi::str_arg(name, "name")) else { return std::ptr::null() };
        let found = response.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map_or(std::ptr::null(), |(_, value)| value.as_ptr())
    })
}

/// The body, and its number of bytes in `length` (which may be NULL).
///
/// NULL: it is empty, or `response` is NULL; borrowed from `response`. It is
/// not NUL-terminated. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_body(response: Option<&amp_response>, length: *mut usize) -> *const c_void {
    ffi::infallible(std::ptr::null(), || {
        let body = response.map_or(&[][..], |response| &response.response.body);
        ffi::write_if_set(length, body.len());
        if body.is_empty() { std::ptr::null() } else { body.as_ptr().cast() }
    })
}

/// The path that brings the next page of the collection that this reply is a
/// page of: pass it to amp_api_request() until it is NULL.
///
/// NULL: this was the last page, or no collection, or `response` is NULL;
/// borrowed from `response`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_next_page(response: Option<&amp_response>) -> *const c_char {
    ffi::infallible(std::ptr::null(), || {
        response.and_then(|response| response.next_page.as_deref()).map_or(std::ptr::null(), CStr::as_ptr)
    })
}

/// Frees a response, and wipes its body; NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn amp_response_free(response: Option<Box<amp_response>>) {
    ffi::infallible((), || drop(response));
}
