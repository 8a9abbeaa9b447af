// libamp_token for C++11 and later: fetches, caches and refreshes Amplience access tokens.
//
//     amp::config config;
//     config.load();                             // reads AMPLIENCE_CLIENT_ID and so on
//     amp::token_cache cache(config);
//     ...
//     std::string header = "Authorization: " + cache.get().authorization();
//     amp::response hubs = cache.request("GET", "/v2/content/hubs");
//
// Header-only, on top of amp_token.h, which documents the C functions underneath. Conventions:
//
//   Errors     A function that fails throws amp::error. Accessors do not fail. Functions that return a
//              std::string may throw std::bad_alloc.
//   Ownership  Each object owns its handle and frees it. config, token_cache and response can be moved, but
//              not copied. Copying a token is one atomic increment. A moved-from object may be destroyed or
//              assigned to; any other call throws amp::error (AMP_INVALID_ARGUMENT), or returns NULL, 0 or an
//              empty string.
//   Threads    Several threads may call const member functions at once. Other members (assignment, moving,
//              the destructor) need exclusive access. Only one thread at a time may use a config.
//   Secrets    The library wipes its copy of a secret when it frees it. A std::string is a copy that it
//              cannot wipe.

#ifndef AMP_TOKEN_HPP
#define AMP_TOKEN_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 201703L || (defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#define AMP_TOKEN_HAS_STRING_VIEW 1
#include <string_view>
#endif

#include "amp_token.h"

namespace amp {

/// The failure of a call. Copying never throws; several threads may read one object at once.
class error : public std::exception {
  public:
    /// Takes ownership of an error object of the C interface, which is freed with the last copy. It may be
    /// NULL; then only the status is known.
    error(amp_status status, amp_error *object) : status_(status), object_(object, amp_error_free) {}

    /// The status code, such as AMP_TIMEOUT. Codes may be added to a group (the tens), so handle an unknown code
    /// like its group.
    amp_status status() const noexcept { return status_; }

    /// The name of the status, such as "AMP_TIMEOUT": a static string.
    const char *status_name() const noexcept { return amp_status_name(static_cast<std::int32_t>(status_)); }

    /// One line: the operation, its object, the cause, and what to do next. It never contains a secret.
    /// Valid until this object and all its copies are destroyed.
    const char *what() const noexcept override {
        return object_ ? amp_error_message(object_.get()) : status_name();
    }

    /// The HTTP status of the last response, or 0 if there was no response.
    int http_status() const noexcept { return static_cast<int>(amp_error_http_status(object_.get())); }

    /// The OAuth error code of the response, such as "invalid_client", or NULL. Valid as long as what().
    const char *oauth_code() const noexcept { return amp_error_oauth_code(object_.get()); }

    /// Whether the same call can succeed later although nothing else has changed.
    bool retryable() const noexcept { return amp_error_is_retryable(object_.get()); }

    /// How long to wait before the next call, counted from the failure; negative if unknown.
    std::chrono::milliseconds retry_after() const noexcept {
        return std::chrono::milliseconds(amp_error_retry_after_ms(object_.get()));
    }

    /// How many requests were sent or attempted.
    unsigned attempts() const noexcept { return static_cast<unsigned>(amp_error_attempts(object_.get())); }

  private:
    amp_status status_;
    std::shared_ptr<const amp_error> object_;
};

/// A transport function throws this to report why there is no response.
class transport_error : public std::exception {
  public:
    /// `status` is AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY or AMP_TIMEOUT; any other one counts as
    /// AMP_CONNECT. `message` becomes part of an error message and must not contain a secret.
    explicit transport_error(amp_status status, const std::string &message = std::string())
        : status_(status), message_(std::make_shared<const std::string>(message)) {}

    /// The status.
    amp_status status() const noexcept { return status_; }

    /// The message.
    const char *what() const noexcept override { return message_->c_str(); }

  private:
    amp_status status_;
    std::shared_ptr<const std::string> message_; // copying an exception must not throw
};

/// A request that a transport function must send. The object and all strings that it returns are valid until
/// that function returns. It contains a secret or a token: do not log its headers or body.
class http_request {
  public:
    /// Borrows a request of the C interface.
    explicit http_request(const amp_http_request *request) noexcept : request_(request) {}

    /// "POST", "GET" and so on.
    const char *method() const noexcept { return amp_http_request_method(request_); }

    /// The full URL; it never contains a secret.
    const char *url() const noexcept { return amp_http_request_url(request_); }

    /// The name of the header at `index`, counted from 0, or NULL after the last one.
    const char *header_name(std::size_t index) const noexcept { return amp_http_request_header_name(request_, index); }

    /// The value of the header with that name, compared without regard to case, or NULL.
    const char *header(const char *name) const noexcept { return amp_http_request_header(request_, name); }

    /// The first byte of the body, or NULL if the body is empty.
    const void *body() const noexcept { return amp_http_request_body(request_, nullptr); }

    /// The size of the body in bytes.
    std::size_t body_length() const noexcept {
        std::size_t length = 0;
        amp_http_request_body(request_, &length);
        return length;
    }

    /// The remaining time for the request and its response.
    std::chrono::milliseconds timeout() const noexcept {
        return std::chrono::milliseconds(amp_http_request_timeout_ms(request_));
    }

  private:
    const amp_http_request *request_;
};

/// The response that a transport function fills. Valid until that function returns.
class http_reply {
  public:
    /// Borrows a response of the C interface.
    explicit http_reply(amp_http_reply *reply) noexcept : reply_(reply) {}

    /// Sets the HTTP status, 100 to 999.
    void status(int status) noexcept { amp_http_reply_set_status(reply_, status); }

    /// Adds a header. Both strings are copied.
    void header(const std::string &name, const std::string &value) noexcept {
        amp_http_reply_add_header(reply_, name.c_str(), value.c_str());
    }

    /// Appends bytes to the body, and copies them. Returns false if the body exceeds the size limit of the
    /// library: stop reading.
    bool body(const void *data, std::size_t length) noexcept {
        return amp_http_reply_append_body(reply_, data, length);
    }

    /// Appends bytes to the body, and copies them. Returns false if the body exceeds the size limit of the
    /// library: stop reading.
    bool body(const std::string &data) noexcept { return body(data.data(), data.size()); }

  private:
    amp_http_reply *reply_;
};

/// A function that takes a log line: its level, one of amp_log_level, and the message, which is valid until the
/// function returns and never contains a secret. It is called from any thread, and by several threads at once.
/// Exceptions that it throws are ignored. It must not destroy the object that it logs for.
using log_function = std::function<void(std::int32_t level, const char *message)>;

/// A function that sends one request, without following redirects and without retries. It is called from any
/// thread, and by several threads at once. An exception means that there is no response: amp::transport_error
/// has the reason; any other exception counts as AMP_CONNECT, and its message is not shown, because it may
/// contain a secret. The function must not use the object that it sends requests for.
using transport_function = std::function<void(const http_request &request, http_reply &reply)>;

namespace detail {

/// Throws the error of a call of the C interface, if it failed.
inline void check(amp_status status, amp_error *object) {
    if (status != AMP_OK)
        throw error(status, object);
}

/// Keeps a function object until the process exits: a background request may outlast every handle, and nothing
/// reports its end. It is never destroyed, so that exit() may be called while one is running. The vector keeps
/// the objects reachable, for leak checkers.
template <class Function> Function *leak_forever(Function function) {
    static std::mutex *const lock = new std::mutex;
    static std::vector<std::unique_ptr<Function>> *const leaked = new std::vector<std::unique_ptr<Function>>;
    std::unique_ptr<Function> object(new Function(std::move(function)));
    const std::lock_guard<std::mutex> guard(*lock);
    leaked->push_back(std::move(object));
    return leaked->back().get();
}

/// The function that receives the pieces of a body, and the exception that it threw.
struct sink {
    std::function<bool(const char *, std::size_t)> function;
    std::exception_ptr thrown;
};

extern "C" {

/// Calls the log function. No exception may reach the C frames.
inline void amp_token_hpp_log(std::int32_t level, const char *message, void *function) {
    try {
        (*static_cast<const log_function *>(function))(level, message);
    } catch (...) {
        // The failure cannot be reported: the logger itself failed.
    }
}

/// Calls the transport function. No exception may reach the C frames.
inline std::int32_t amp_token_hpp_send(const amp_http_request *request, amp_http_reply *reply, void *function) {
    try {
        http_reply response(reply);
        (*static_cast<const transport_function *>(function))(http_request(request), response);
    } catch (const transport_error &error) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(error.status()), error.what());
    } catch (...) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(AMP_CONNECT),
                            "the application's transport function threw an exception");
    }
    return 0;
}

/// Calls the sink of a download. An exception is stored, and thrown again after the C frames.
inline bool amp_token_hpp_write(const void *data, std::size_t size, void *user_data) {
    sink &target = *static_cast<sink *>(user_data);
    try {
        return target.function(static_cast<const char *>(data), size);
    } catch (...) {
        target.thrown = std::current_exception();
        return false;
    }
}

} // extern "C"

} // namespace detail

/// The settings, by the names that amp_config_set() documents. A cache copies what it needs: the config may be
/// destroyed after the cache was created.
class config {
  public:
    /// Creates a config in which nothing is set.
    config() : handle_(amp_config_new(), amp_config_free) {}

    /// Sets one setting. Throws amp::error (AMP_INVALID_ARGUMENT) if there is no such setting, or its value is
    /// not allowed; the config is then unchanged.
    config &set(const char *name, const char *value) {
        amp_error *failure = nullptr;
        const amp_status status = amp_config_set(handle_.get(), name, value, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Sets one setting. A string that contains a NUL ends there, as in C.
    config &set(const char *name, const std::string &value) { return set(name, value.c_str()); }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// Sets one setting. (C++17)
    config &set(const char *name, std::string_view value) { return set(name, std::string(value)); }
#endif

    /// Sets a boolean setting.
    config &set(const char *name, bool value) { return set(name, value ? "true" : "false"); }

    /// Sets a numeric setting.
    template <class Number>
    typename std::enable_if<std::is_integral<Number>::value && !std::is_same<Number, bool>::value, config &>::type
    set(const char *name, Number value) {
        return set(name, std::to_string(value));
    }

    /// Sets a setting whose name ends in _ms; fractions of a millisecond are dropped.
    template <class Rep, class Period> config &set(const char *name, std::chrono::duration<Rep, Period> value) {
        return set(name, std::chrono::duration_cast<std::chrono::milliseconds>(value).count());
    }

    /// Resets a setting to its default.
    config &unset(const char *name) { return set(name, static_cast<const char *>(nullptr)); }

    /// Reads settings that are not set from the environment. Credentials that are still missing are read from
    /// dc-cli's files when they are needed. No other thread may change the environment during this call. Throws
    /// amp::error (AMP_CONFIG) if the value of a variable is not allowed.
    config &load() {
        amp_error *failure = nullptr;
        const amp_status status = amp_config_load(handle_.get(), &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Sends log lines to `function`; an empty function disables logging. The function object is kept until the
    /// process exits.
    config &logger(log_function function) {
        amp_error *failure = nullptr;
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_logger(handle_.get(), on ? detail::amp_token_hpp_log : nullptr,
                                  on ? detail::leak_forever(std::move(function)) : nullptr, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Sends requests through `function` instead of the built-in HTTP client; an empty function restores the
    /// built-in client. The function object is kept until the process exits.
    config &transport(transport_function function) {
        amp_error *failure = nullptr;
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_transport(handle_.get(), on ? detail::amp_token_hpp_send : nullptr,
                                     on ? detail::leak_forever(std::move(function)) : nullptr, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Permanently disables the logger and the transport of this config and of everything created from it. Waits
    /// for running calls to return; none is called afterwards. Use it before the objects that the functions use
    /// are destroyed. It must not be called from one of these functions, nor with a lock held that one of them
    /// needs. Later requests that need the transport fail.
    void stop_callbacks() const noexcept { amp_config_stop_callbacks(handle_.get()); }

    /// The C handle, for C functions that this header does not wrap. This object keeps the ownership.
    amp_config *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_config, void (*)(amp_config *)> handle_;
};

/// One access token. Immutable. It stays valid when its cache is destroyed.
class token {
  public:
    /// Takes ownership of a handle of the C interface. NULL creates an empty token.
    explicit token(amp_token *handle) noexcept : handle_(handle, amp_token_free) {}

    /// Refers to the same token as `other` (one atomic increment).
    token(const token &other) noexcept : handle_(amp_token_clone(other.handle_.get()), amp_token_free) {}
    /// Moves `other`, which is empty afterwards.
    token(token &&other) noexcept = default;
    /// Refers to the same token as `other` (one atomic increment).
    token &operator=(const token &other) noexcept {
        handle_.reset(amp_token_clone(other.handle_.get()));
        return *this;
    }
    /// Moves `other`, which is empty afterwards.
    token &operator=(token &&other) noexcept = default;
    ~token() = default;

    /// The token itself, NUL-terminated, or NULL if this object is empty. A secret: do not log it. Valid until
    /// this object and all its copies are destroyed.
    const char *c_str() const noexcept { return amp_token_value(handle_.get()); }

    /// The length of c_str() in bytes, without the NUL.
    std::size_t length() const noexcept { return amp_token_length(handle_.get()); }

    /// A copy of the token itself. A secret: do not log it.
    std::string value() const { return std::string(c_str() ? c_str() : ""); }

    /// A copy of the value of an Authorization header, "Bearer eyJ…". A secret: do not log it.
    std::string authorization() const {
        const char *header = amp_token_authorization(handle_.get());
        return std::string(header ? header : "");
    }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// The token itself, without a copy; valid as long as c_str(). (C++17)
    std::string_view value_view() const noexcept { return c_str() ? std::string_view(c_str(), length()) : std::string_view(); }

    /// The value of an Authorization header, without a copy; valid as long as c_str(). (C++17)
    std::string_view authorization_view() const noexcept {
        const char *header = amp_token_authorization(handle_.get());
        return header ? std::string_view(header) : std::string_view();
    }
#endif

    /// Whether the token never expires, as a personal access token does not.
    bool never_expires() const noexcept {
        return amp_token_expires_at(handle_.get()) == (std::numeric_limits<std::int64_t>::max)();
    }

    /// When the token expires by this machine's clock; the largest time_point if it never expires.
    std::chrono::system_clock::time_point expires_at() const noexcept {
        using clock = std::chrono::system_clock;
        const std::chrono::seconds since_epoch(amp_token_expires_at(handle_.get()));
        if (since_epoch > std::chrono::duration_cast<std::chrono::seconds>((clock::duration::max)()))
            return (clock::time_point::max)();
        return clock::time_point(std::chrono::duration_cast<clock::duration>(since_epoch));
    }

    /// The whole seconds until the token expires, at least 0; the largest value if it never expires.
    std::chrono::seconds expires_in() const noexcept {
        return std::chrono::seconds(amp_token_expires_in(handle_.get()));
    }

    /// How long the token may be used before the next call of get(); the largest value if it never expires.
    std::chrono::milliseconds refresh_in() const noexcept {
        return std::chrono::milliseconds(amp_token_refresh_in_ms(handle_.get()));
    }

    /// Whether this object has a token; false after it was moved from.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle, or NULL if this object is empty. This object keeps the ownership.
    const amp_token *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_token, void (*)(amp_token *)> handle_;
};

/// A response of the API, with any HTTP status. Immutable.
class response {
  public:
    /// Takes ownership of a handle of the C interface. NULL creates an empty response.
    explicit response(amp_response *handle) noexcept : handle_(handle, amp_response_free) {}

    /// The HTTP status, or 0 if this object is empty.
    int status() const noexcept { return static_cast<int>(amp_response_status(handle_.get())); }

    /// Whether the status is 200 to 299.
    bool ok() const noexcept { return status() >= 200 && status() < 300; }

    /// The value of the first header with that name, compared without regard to case, or NULL. Valid until this
    /// object is destroyed; moving the object keeps it valid.
    const char *header(const char *name) const noexcept { return amp_response_header(handle_.get(), name); }

    /// The first byte of the body, which does not end with a NUL, or NULL if the body is empty. Valid as long as
    /// header().
    const char *data() const noexcept {
        return static_cast<const char *>(amp_response_body(handle_.get(), nullptr));
    }

    /// The size of the body in bytes.
    std::size_t size() const noexcept {
        std::size_t length = 0;
        amp_response_body(handle_.get(), &length);
        return length;
    }

    /// A copy of the body.
    std::string body() const { return data() ? std::string(data(), size()) : std::string(); }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// The body, without a copy; valid as long as header(). (C++17)
    std::string_view body_view() const noexcept { return data() ? std::string_view(data(), size()) : std::string_view(); }
#endif

    /// The path of the next page of a collection, for token_cache::request(), or NULL if this is the last page or
    /// no page of a collection. Valid as long as header().
    const char *next_page() const noexcept { return amp_response_next_page(handle_.get()); }

    /// Whether this object has a response; false after it was moved from.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle, or NULL if this object is empty. This object keeps the ownership.
    const amp_response *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_response, void (*)(amp_response *)> handle_;
};

/// Fetches one token, without a cache. Blocks for timeout_ms at most. Throws amp::error.
inline token get_token(const config &config) {
    amp_token *handle = nullptr;
    amp_error *failure = nullptr;
    const amp_status status = amp_token_get(config.handle(), &handle, &failure);
    detail::check(status, failure);
    return token(handle);
}

/// The current token of one set of credentials: cached, refreshed and shared by all threads. After a fork both
/// the parent and the child process may continue to use it.
class token_cache {
  public:
    /// Finds the credentials, but sends no request. Throws amp::error: AMP_CONFIG, AMP_NO_CREDENTIALS or
    /// AMP_IO.
    explicit token_cache(const config &config) : handle_(nullptr, amp_token_cache_free) {
        amp_token_cache *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_new(config.handle(), &handle, &failure);
        detail::check(status, failure);
        handle_.reset(handle);
    }

    /// Returns a valid token. Returns immediately while the cached token is valid. When it is due for refresh, one
    /// caller performs the refresh and may block for up to 2 seconds. Without a valid token, calls block for up to
    /// timeout_ms. Throws amp::error; after a failure calls fail immediately with the same error, for
    /// error::retry_after().
    token get() const {
        amp_token *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_get(handle_.get(), &handle, &failure);
        detail::check(status, failure);
        return token(handle);
    }

    /// Like get(), but the token is valid for at least `min_validity` more (rounded up to milliseconds). Throws
    /// amp::error: AMP_INVALID_ARGUMENT if it is negative, or longer than the lifetime of tokens.
    template <class Rep, class Period> token get_for(std::chrono::duration<Rep, Period> min_validity) const {
        auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(min_validity);
        if (milliseconds < min_validity)
            ++milliseconds;
        amp_token *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_get_for(handle_.get(), milliseconds.count(), &handle, &failure);
        detail::check(status, failure);
        return token(handle);
    }

    /// Copies a valid token and a NUL into `buffer`, and returns the length without the NUL. This is the fastest
    /// function for many threads, and allocates no memory. Blocks and throws like get(); also throws amp::error
    /// (AMP_BUFFER_TOO_SMALL). A capacity of 4096 bytes is usually enough.
    std::size_t copy(char *buffer, std::size_t capacity) const {
        std::size_t length = 0;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_copy(handle_.get(), buffer, capacity, &length, &failure);
        detail::check(status, failure);
        return length;
    }

    /// Reports that a server rejected `rejected`: HTTP 401, or the 403 by which Amplience responds to an expired
    /// token. If the token is still current, it is discarded and the next call fetches another. Otherwise this
    /// does nothing, so several threads can report the same token. May block for a shared store.
    void invalidate(const token &rejected) const noexcept {
        amp_token_cache_invalidate(handle_.get(), rejected.handle());
    }

    /// Sends a request with a valid token. `path` is a path below api_url, or a full URL of the same origin: the
    /// token is sent nowhere else, and redirects are not followed. Any HTTP status is a success. A token that the
    /// API rejects is replaced, and the request is repeated once; see amp_api_request(). Blocks for timeout_ms at
    /// most. Throws amp::error if there was no token or no response, or `path` has another origin.
    response request(const std::string &method, const std::string &path) const {
        return send(method, path, nullptr, nullptr, 0);
    }

    /// Like the function above, with a body and its media type.
    response request(const std::string &method, const std::string &path, const std::string &content_type,
                     const std::string &body) const {
        return send(method, path, content_type.c_str(), body.data(), body.size());
    }

    /// Sends a GET request, and calls `sink` with each piece of the body as it arrives. `sink` returns false to
    /// stop the transfer (AMP_IO); exceptions that it throws are thrown here. With a status of 200 to 299 the
    /// response has no body. With another status the body is in the response, and `sink` is not called. Otherwise
    /// like request("GET", path); see amp_api_download().
    response download(const std::string &path, std::function<bool(const char *, std::size_t)> sink) const {
        detail::sink target = {std::move(sink), nullptr};
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status =
            amp_api_download(handle_.get(), path.c_str(), detail::amp_token_hpp_write, &target, &handle, &failure);
        if (target.thrown) {
            amp_error_free(failure);
            std::rethrow_exception(target.thrown);
        }
        detail::check(status, failure);
        return response(handle);
    }

    /// Sends a GraphQL request with a valid token. GraphQL errors are in "errors" in the body. Blocks and throws
    /// like request().
    response graphql(const std::string &query) const { return send_graphql(query.c_str(), nullptr); }

    /// Like the function above, with variables. Throws amp::error (AMP_INVALID_ARGUMENT) if they are not a JSON
    /// object.
    response graphql(const std::string &query, const std::string &variables_json) const {
        return send_graphql(query.c_str(), variables_json.c_str());
    }

    /// Creates a personal access token for the user that the credentials belong to. It is in the body, as
    /// data.createPersonalAccessToken.token. It cannot be retrieved again; store it securely. Blocks and throws
    /// like request().
    response create_personal_access_token(const std::string &name, const std::string &organization_id) const {
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status =
            amp_pat_create(handle_.get(), name.c_str(), organization_id.c_str(), &handle, &failure);
        detail::check(status, failure);
        return response(handle);
    }

    /// Calls `visit` with each page of a collection, as a `const amp::response &`, from the first to the last. A
    /// response with a status other than 200 to 299 is passed too, and is the last one. Blocks for timeout_ms per
    /// page at most. Throws what request() and `visit` throw.
    template <class Visitor> void pages(const std::string &path, Visitor visit) const {
        response page = request("GET", path);
        for (;;) {
            visit(static_cast<const response &>(page));
            const char *next = page.next_page();
            if (!next)
                return;
            page = request("GET", next);
        }
    }

    /// The base URL of the API; see amp_token_cache_api_url(). Valid until this object is destroyed; moving the
    /// object keeps it valid.
    const char *api_url() const noexcept { return amp_token_cache_api_url(handle_.get()); }

    /// A statistic by name, or -1; see amp_token_cache_stat() for the names.
    std::int64_t statistic(const char *name) const noexcept { return amp_token_cache_stat(handle_.get(), name); }

    /// The counter that changes whenever the current token changes; see amp_token_cache_epoch(). Valid as long as
    /// api_url().
    const std::uint64_t *epoch() const noexcept { return amp_token_cache_epoch(handle_.get()); }

    /// The C handle. This object keeps the ownership.
    const amp_token_cache *handle() const noexcept { return handle_.get(); }

  private:
    response send(const std::string &method, const std::string &path, const char *content_type, const void *body,
                  std::size_t body_length) const {
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_api_request(handle_.get(), method.c_str(), path.c_str(), content_type, body,
                                                  body_length, &handle, &failure);
        detail::check(status, failure);
        return response(handle);
    }

    response send_graphql(const char *query, const char *variables_json) const {
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_api_graphql(handle_.get(), query, variables_json, &handle, &failure);
        detail::check(status, failure);
        return response(handle);
    }

    std::unique_ptr<amp_token_cache, void (*)(amp_token_cache *)> handle_;
};

} // namespace amp

#undef AMP_TOKEN_HAS_STRING_VIEW

#endif
