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
//   Without    Each function that throws has an overload that takes an amp::error & as its last parameter. It
//   exceptions does not throw: it stores the failure, or an error that is false, and returns an empty object
//              or false after a failure. These overloads can be used in any program, and are all there is if
//              the compiler runs with -fno-exceptions. Without memory they end the program.
//   Ownership  Each object owns its handle and frees it. config, token_cache and response can be moved, but
//              not copied. Copying a token is one atomic increment. A moved-from object may be destroyed or
//              assigned to; any other call throws amp::error (AMP_INVALID_ARGUMENT), or returns NULL, 0 or an
//              empty string. A default-constructed token, response or token_cache is empty in the same way.
//              Pointers and views into a temporary object are deleted functions: name the object first.
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
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 201703L || (defined(_MSVC_LANG) && _MSVC_LANG >= 201703L)
#define AMP_TOKEN_HAS_STRING_VIEW 1
#include <string_view>
#endif

#include "amp_token.h"

// Whether the compiler allows exceptions.
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define AMP_TOKEN_HAS_EXCEPTIONS 1
#endif

// Exceptions are recognized by other libraries of the process only if their type is visible there.
#if defined(__GNUC__) && !defined(_WIN32)
#define AMP_TOKEN_VISIBLE __attribute__((visibility("default")))
#else
#define AMP_TOKEN_VISIBLE
#endif

// Two libraries of one process may be built with different C++ runtimes, whose types have different layouts. The
// name of an inline namespace keeps their functions apart. It changes with the layout of these classes too.
#if defined(_LIBCPP_VERSION)
#define AMP_TOKEN_NAMESPACE v1_libcxx
#elif defined(__GLIBCXX__)
#define AMP_TOKEN_NAMESPACE v1_libstdcxx
#else
#define AMP_TOKEN_NAMESPACE v1
#endif

namespace amp {
inline namespace AMP_TOKEN_NAMESPACE {

/// The version of the loaded library, such as "0.1.0": a static string. AMP_TOKEN_VERSION is that of amp_token.h.
inline const char *version() noexcept { return amp_version(); }

/// Names and values of the headers of a request.
using header_list = std::vector<std::pair<std::string, std::string>>;

namespace detail {

/// See amp::category().
class AMP_TOKEN_VISIBLE error_category : public std::error_category {
  public:
    const char *name() const noexcept override { return "amp_token"; }
    std::string message(int status) const override { return amp_status_name(static_cast<std::int32_t>(status)); }
    std::error_condition default_error_condition(int status) const noexcept override {
        switch (status) {
        case AMP_INVALID_ARGUMENT:
            return std::make_error_condition(std::errc::invalid_argument);
        case AMP_TIMEOUT:
            return std::make_error_condition(std::errc::timed_out);
        case AMP_PENDING:
            return std::make_error_condition(std::errc::resource_unavailable_try_again);
        case AMP_IO:
            return std::make_error_condition(std::errc::io_error);
        default:
            return std::error_condition(status, *this);
        }
    }
};

} // namespace detail

/// The category of the error codes whose values are those of amp_status. AMP_TIMEOUT is equivalent to
/// std::errc::timed_out, AMP_INVALID_ARGUMENT to invalid_argument, AMP_IO to io_error, and AMP_PENDING to
/// resource_unavailable_try_again.
inline const std::error_category &category() noexcept {
    static const detail::error_category instance;
    return instance;
}

/// The failure of a call. Copying never throws; several threads may read one object at once.
class AMP_TOKEN_VISIBLE error : public std::runtime_error {
  public:
    /// No failure: the status is AMP_OK. For the functions that store a failure in their last argument.
    error() : std::runtime_error(std::string()), status_(AMP_OK) {}

    /// Takes ownership of an error object of the C interface, which is freed with the last copy. It may be
    /// NULL; then only the status is known.
    error(amp_status status, amp_error *object)
        : std::runtime_error(std::string()), status_(status), object_(object, amp_error_free) {}

    /// Whether there is a failure.
    explicit operator bool() const noexcept { return status_ != AMP_OK; }

    /// The status code as a std::error_code of amp::category().
    std::error_code code() const noexcept { return std::error_code(static_cast<int>(status_), category()); }

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
class AMP_TOKEN_VISIBLE transport_error : public std::runtime_error {
  public:
    /// `status` is AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY or AMP_TIMEOUT; any other one counts as
    /// AMP_CONNECT. `message` becomes part of an error message and must not contain a secret.
    explicit transport_error(amp_status status, const std::string &message = std::string())
        : std::runtime_error(message), status_(status) {}

    /// The status.
    amp_status status() const noexcept { return status_; }

  private:
    amp_status status_;
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

    /// Reports why there is no response, as transport_error does. The message is copied.
    void fail(amp_status status, const std::string &message = std::string()) noexcept {
        amp_http_reply_fail(reply_, static_cast<std::int32_t>(status), message.c_str());
    }

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

/// A function that takes what happened to tokens: the event, one of amp_event, and for AMP_EVENT_REFRESH_FAILED the
/// failure, otherwise NULL. The failure is valid until the function returns; the amp_error_… functions read it. The
/// rules for a log_function apply.
using observer_function = std::function<void(std::int32_t event, const amp_error *failure)>;

namespace detail {

#ifdef AMP_TOKEN_HAS_EXCEPTIONS
/// Reports the result of a call of the C interface by an exception.
class thrown {
  public:
    /// The last argument of the C function.
    amp_error **out() noexcept { return &object_; }

    /// Takes the status that the C function returned.
    void result(amp_status status) const {
        if (status != AMP_OK)
            throw error(status, object_);
    }

  private:
    amp_error *object_ = nullptr;
};
#endif

/// Reports the result of a call of the C interface in an error object of the caller.
class stored {
  public:
    explicit stored(error &failure) noexcept : failure_(failure) {}

    /// The last argument of the C function.
    amp_error **out() noexcept { return &object_; }

    /// Takes the status that the C function returned.
    void result(amp_status status) const noexcept {
        if (status != AMP_OK)
            failure_ = error(status, object_);
        else if (failure_)
            failure_ = error();
    }

  private:
    error &failure_;
    amp_error *object_ = nullptr;
};

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
#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    std::exception_ptr thrown;
#endif
};

// The functions that the library calls. They are static: the linker must never merge those of two libraries, which
// may have different types behind the same pointer.
extern "C" {

/// Calls the log function. No exception may reach the C frames.
static inline void amp_token_hpp_log(std::int32_t level, const char *message, void *function) {
#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    try {
        (*static_cast<const log_function *>(function))(level, message);
    } catch (...) {
        // The failure cannot be reported: the logger itself failed.
    }
#else
    (*static_cast<const log_function *>(function))(level, message);
#endif
}

/// Calls the observer. No exception may reach the C frames.
static inline void amp_token_hpp_observe(std::int32_t event, const amp_error *failure, void *function) {
#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    try {
        (*static_cast<const observer_function *>(function))(event, failure);
    } catch (...) {
        // The failure cannot be reported: the call that caused the event may have succeeded.
    }
#else
    (*static_cast<const observer_function *>(function))(event, failure);
#endif
}

/// Calls the transport function. No exception may reach the C frames.
static inline std::int32_t amp_token_hpp_send(const amp_http_request *request, amp_http_reply *reply, void *function) {
    http_reply response(reply);
#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    try {
        (*static_cast<const transport_function *>(function))(http_request(request), response);
    } catch (const transport_error &error) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(error.status()), error.what());
    } catch (...) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(AMP_CONNECT),
                            "the application's transport function threw an exception");
    }
#else
    (*static_cast<const transport_function *>(function))(http_request(request), response);
#endif
    return 0;
}

/// Calls the sink of a download. An exception is stored, and thrown again after the C frames.
static inline bool amp_token_hpp_write(const void *data, std::size_t size, void *user_data) {
    sink &target = *static_cast<sink *>(user_data);
#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    try {
        return target.function(static_cast<const char *>(data), size);
    } catch (...) {
        target.thrown = std::current_exception();
        return false;
    }
#else
    return target.function(static_cast<const char *>(data), size);
#endif
}

} // extern "C"

} // namespace detail

/// The settings, by the names that amp_config_set() documents. A cache copies what it needs: the config may be
/// destroyed after the cache was created.
class config {
  public:
    /// Creates a config in which nothing is set.
    config() : handle_(amp_config_new(), amp_config_free) {}

    /// Sets one setting, without exceptions. Returns whether it was set.
    bool set(const char *name, const char *value, error &failure) noexcept {
        return set_with(name, value, detail::stored(failure));
    }

    /// Like the function above.
    bool set(const char *name, const std::string &value, error &failure) noexcept {
        return set(name, value.c_str(), failure);
    }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// Like the function above. (C++17)
    bool set(const char *name, std::string_view value, error &failure) noexcept {
        return set(name, std::string(value), failure);
    }
#endif

    /// Like the function above, for a boolean setting.
    bool set(const char *name, bool value, error &failure) noexcept {
        return set(name, value ? "true" : "false", failure);
    }

    /// Like the function above, for a numeric setting.
    template <class Number>
    typename std::enable_if<std::is_integral<Number>::value && !std::is_same<Number, bool>::value, bool>::type
    set(const char *name, Number value, error &failure) noexcept {
        return set(name, std::to_string(value), failure);
    }

    /// Like the function above, for a setting whose name ends in _ms; fractions of a millisecond are dropped.
    template <class Rep, class Period>
    bool set(const char *name, std::chrono::duration<Rep, Period> value, error &failure) noexcept {
        return set(name, std::chrono::duration_cast<std::chrono::milliseconds>(value).count(), failure);
    }

    /// Resets a setting to its default, without exceptions. Returns whether there is such a setting.
    bool unset(const char *name, error &failure) noexcept {
        return set(name, static_cast<const char *>(nullptr), failure);
    }

    /// Reads settings that are not set from the environment, without exceptions: see load(). Returns whether all
    /// values are allowed.
    bool load(error &failure) noexcept { return load_with(detail::stored(failure)); }

    /// Sends log lines to `function`, without exceptions: see logger().
    bool logger(log_function function, error &failure) noexcept {
        return logger_with(std::move(function), detail::stored(failure));
    }

    /// Keeps log lines, without exceptions: see queue_log_lines().
    bool queue_log_lines(std::size_t capacity, error &failure) noexcept {
        return queue_with(capacity, detail::stored(failure));
    }

    /// Reports events to `function`, without exceptions: see observer().
    bool observer(observer_function function, error &failure) noexcept {
        return observer_with(std::move(function), detail::stored(failure));
    }

    /// Sends requests through `function`, without exceptions: see transport().
    bool transport(transport_function function, error &failure) noexcept {
        return transport_with(std::move(function), detail::stored(failure));
    }

#ifdef AMP_TOKEN_HAS_EXCEPTIONS
    /// Sets one setting. Throws amp::error (AMP_INVALID_ARGUMENT) if there is no such setting, or its value is
    /// not allowed; the config is then unchanged.
    config &set(const char *name, const char *value) {
        set_with(name, value, detail::thrown());
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
        load_with(detail::thrown());
        return *this;
    }

    /// Sends log lines to `function`; an empty function disables logging. The function object is kept until the
    /// process exits.
    config &logger(log_function function) {
        logger_with(std::move(function), detail::thrown());
        return *this;
    }

    /// Keeps up to `capacity` log lines for next_log_line() instead of calling a function; 0 disables logging.
    config &queue_log_lines(std::size_t capacity) {
        queue_with(capacity, detail::thrown());
        return *this;
    }

    /// Reports each token request and each rejection of a token to `function`; an empty function disables that.
    /// The function object is kept until the process exits.
    config &observer(observer_function function) {
        observer_with(std::move(function), detail::thrown());
        return *this;
    }

    /// Sends requests through `function` instead of the built-in HTTP client; an empty function restores the
    /// built-in client. The function object is kept until the process exits.
    config &transport(transport_function function) {
        transport_with(std::move(function), detail::thrown());
        return *this;
    }
#endif

    /// Takes the oldest log line of the config and everything that was created from it: its level, one of
    /// amp_log_level, and its text, of which at most 4095 bytes are kept. Returns false if there is none. Several
    /// threads may call it at once. Needs queue_log_lines().
    bool next_log_line(std::int32_t &level, std::string &line) const {
        char buffer[4096];
        if (!amp_config_next_log_line(handle_.get(), &level, buffer, sizeof buffer))
            return false;
        line = buffer;
        return true;
    }

    /// Permanently disables the logger and the transport of this config and of everything created from it. Waits
    /// for running calls to return; none is called afterwards. Use it before the objects that the functions use
    /// are destroyed. It must not be called from one of these functions, nor with a lock held that one of them
    /// needs. Later requests that need the transport fail.
    void stop_callbacks() const noexcept { amp_config_stop_callbacks(handle_.get()); }

    /// The C handle, for C functions that this header does not wrap. This object keeps the ownership.
    amp_config *handle() const noexcept { return handle_.get(); }

  private:
    template <class Report> bool set_with(const char *name, const char *value, Report report) {
        const amp_status status = amp_config_set(handle_.get(), name, value, report.out());
        report.result(status);
        return status == AMP_OK;
    }

    template <class Report> bool load_with(Report report) {
        const amp_status status = amp_config_load(handle_.get(), report.out());
        report.result(status);
        return status == AMP_OK;
    }

    template <class Report> bool queue_with(std::size_t capacity, Report report) {
        const amp_status status = amp_config_queue_log_lines(handle_.get(), capacity, report.out());
        report.result(status);
        return status == AMP_OK;
    }

    template <class Report> bool logger_with(log_function function, Report report) {
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_logger(handle_.get(), on ? detail::amp_token_hpp_log : nullptr,
                                  on ? detail::leak_forever(std::move(function)) : nullptr, report.out());
        report.result(status);
        return status == AMP_OK;
    }

    template <class Report> bool observer_with(observer_function function, Report report) {
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_observer(handle_.get(), on ? detail::amp_token_hpp_observe : nullptr,
                                    on ? detail::leak_forever(std::move(function)) : nullptr, report.out());
        report.result(status);
        return status == AMP_OK;
    }

    template <class Report> bool transport_with(transport_function function, Report report) {
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_transport(handle_.get(), on ? detail::amp_token_hpp_send : nullptr,
                                     on ? detail::leak_forever(std::move(function)) : nullptr, report.out());
        report.result(status);
        return status == AMP_OK;
    }

    std::unique_ptr<amp_config, void (*)(amp_config *)> handle_;
};

/// One access token. Immutable. It stays valid when its cache is destroyed.
class token {
  public:
    /// An empty token.
    token() noexcept : token(nullptr) {}
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
    const char *c_str() const &noexcept { return amp_token_value(handle_.get()); }
    /// Deleted: the token would be destroyed before the pointer is used. Name the token first.
    const char *c_str() const && = delete;

    /// The length of c_str() in bytes, without the NUL.
    std::size_t length() const noexcept { return amp_token_length(handle_.get()); }

    /// A copy of the token itself. A secret: do not log it.
    std::string value() const {
        const char *text = amp_token_value(handle_.get());
        return std::string(text ? text : "");
    }

    /// A copy of the value of an Authorization header, "Bearer eyJ…". A secret: do not log it.
    std::string authorization() const {
        const char *header = amp_token_authorization(handle_.get());
        return std::string(header ? header : "");
    }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// The token itself, without a copy; valid as long as c_str(). (C++17)
    std::string_view value_view() const &noexcept {
        return c_str() ? std::string_view(c_str(), length()) : std::string_view();
    }
    /// Deleted: the token would be destroyed before the view is used. Name the token first.
    std::string_view value_view() const && = delete;

    /// The value of an Authorization header, without a copy; valid as long as c_str(). (C++17)
    std::string_view authorization_view() const &noexcept {
        const char *header = amp_token_authorization(handle_.get());
        return header ? std::string_view(header) : std::string_view();
    }
    /// Deleted: the token would be destroyed before the view is used. Name the token first.
    std::string_view authorization_view() const && = delete;
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
    /// An empty response.
    response() noexcept : response(nullptr) {}
    /// Takes ownership of a handle of the C interface. NULL creates an empty response.
    explicit response(amp_response *handle) noexcept : handle_(handle, amp_response_free) {}

    /// The HTTP status, or 0 if this object is empty.
    int status() const noexcept { return static_cast<int>(amp_response_status(handle_.get())); }

    /// Whether the status is 200 to 299.
    bool ok() const noexcept { return status() >= 200 && status() < 300; }

    /// The value of the first header with that name, compared without regard to case, or NULL. Valid until this
    /// object is destroyed; moving the object keeps it valid.
    const char *header(const char *name) const &noexcept { return amp_response_header(handle_.get(), name); }
    /// Deleted: the response would be destroyed before the pointer is used. Name the response first.
    const char *header(const char *name) const && = delete;

    /// The first byte of the body, which does not end with a NUL, or NULL if the body is empty. Valid as long as
    /// header().
    const char *data() const &noexcept {
        return static_cast<const char *>(amp_response_body(handle_.get(), nullptr));
    }
    /// Deleted: the response would be destroyed before the pointer is used. Name the response first.
    const char *data() const && = delete;

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
    std::string_view body_view() const &noexcept {
        return data() ? std::string_view(data(), size()) : std::string_view();
    }
    /// Deleted: the response would be destroyed before the view is used. Name the response first.
    std::string_view body_view() const && = delete;
#endif

    /// The path of the next page of a collection, for token_cache::request(), or NULL if this is the last page or
    /// no page of a collection. Valid as long as header().
    const char *next_page() const &noexcept { return amp_response_next_page(handle_.get()); }
    /// Deleted: the response would be destroyed before the pointer is used. Name the response first.
    const char *next_page() const && = delete;

    /// Whether this object has a response; false after it was moved from.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle, or NULL if this object is empty. This object keeps the ownership.
    const amp_response *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_response, void (*)(amp_response *)> handle_;
};

namespace detail {

template <class Report> token get_token_with(const config &config, Report report) {
    amp_token *handle = nullptr;
    report.result(amp_token_get(config.handle(), &handle, report.out()));
    return token(handle);
}

} // namespace detail

/// Fetches one token, without a cache and without exceptions. Blocks for timeout_ms at most.
inline token get_token(const config &config, error &failure) noexcept {
    return detail::get_token_with(config, detail::stored(failure));
}

#ifdef AMP_TOKEN_HAS_EXCEPTIONS
/// Fetches one token, without a cache. Blocks for timeout_ms at most. Throws amp::error.
inline token get_token(const config &config) { return detail::get_token_with(config, detail::thrown()); }
#endif

/// The current token of one set of credentials: cached, refreshed and shared by all threads. After a fork both
/// the parent and the child process may continue to use it.
class token_cache {
  public:
    /// An empty cache, whose functions fail until a cache is assigned to it.
    token_cache() noexcept : handle_(nullptr, amp_token_cache_free) {}

    /// Finds the credentials, but sends no request; without exceptions. After a failure the cache is empty.
    token_cache(const config &config, error &failure) noexcept : token_cache() {
        create_with(config, detail::stored(failure));
    }

    /// Returns a valid token, without exceptions: see get().
    token get(error &failure) const noexcept { return get_with(detail::stored(failure)); }

    /// Returns a token that is valid for a while, without exceptions: see get_for().
    template <class Rep, class Period>
    token get_for(std::chrono::duration<Rep, Period> min_validity, error &failure) const noexcept {
        return get_for_with(min_validity, detail::stored(failure));
    }

    /// Returns a valid token without waiting: for event loops. Without a valid token, a thread of the library
    /// requests one, and the call fails with AMP_PENDING until it is there; error::retry_after() says when to call
    /// again. After a failure calls fail with that failure during the backoff.
    token try_get(error &failure) const noexcept {
        amp_token *handle = nullptr;
        detail::stored report(failure);
        report.result(amp_token_cache_try_get(handle_.get(), &handle, report.out()));
        return token(handle);
    }

    /// Copies a valid token into `buffer`, without exceptions: see copy(). Returns its length, or 0 after a failure.
    std::size_t copy(char *buffer, std::size_t capacity, error &failure) const noexcept {
        return copy_with(buffer, capacity, detail::stored(failure));
    }

    /// Sends a request with a valid token, without exceptions: see request().
    response request(const std::string &method, const std::string &path, error &failure) const noexcept {
        return send(method, path, nullptr, nullptr, 0, detail::stored(failure));
    }

    /// Like the function above, with a body and its media type.
    response request(const std::string &method, const std::string &path, const std::string &content_type,
                     const std::string &body, error &failure) const noexcept {
        return send(method, path, content_type.c_str(), body.data(), body.size(), detail::stored(failure));
    }

    /// Sends a request with headers and a time limit of its own, without exceptions: see the function of the same name
    /// that throws.
    response send(const std::string &method, const std::string &path, const header_list &headers,
                  const std::string &body, std::chrono::milliseconds timeout, error &failure) const noexcept {
        return send_own(method, path, headers, body, timeout, detail::stored(failure));
    }

    /// Sends a GraphQL request with a valid token, without exceptions: see graphql().
    response graphql(const std::string &query, error &failure) const noexcept {
        return send_graphql(query.c_str(), nullptr, detail::stored(failure));
    }

    /// Like the function above, with variables.
    response graphql(const std::string &query, const std::string &variables_json, error &failure) const noexcept {
        return send_graphql(query.c_str(), variables_json.c_str(), detail::stored(failure));
    }

    /// Creates a personal access token, without exceptions: see create_personal_access_token().
    response create_personal_access_token(const std::string &name, const std::string &organization_id,
                                          error &failure) const noexcept {
        return create_pat_with(name, organization_id, detail::stored(failure));
    }

#ifndef AMP_TOKEN_HAS_EXCEPTIONS
    /// Sends a GET request, and calls `sink` with each piece of the body as it arrives: see amp_api_download().
    /// `sink` returns false to stop the transfer (AMP_IO).
    response download(const std::string &path, std::function<bool(const char *, std::size_t)> sink,
                      error &failure) const noexcept {
        detail::sink target = {std::move(sink)};
        return download_with(path, target, detail::stored(failure));
    }
#else
    /// Sends a GET request, and calls `sink` with each piece of the body as it arrives; like download(), but only
    /// exceptions of `sink` are thrown.
    response download(const std::string &path, std::function<bool(const char *, std::size_t)> sink,
                      error &failure) const {
        detail::sink target = {std::move(sink), nullptr};
        response result = download_with(path, target, detail::stored(failure));
        if (target.thrown)
            std::rethrow_exception(target.thrown);
        return result;
    }

    /// Finds the credentials, but sends no request. Throws amp::error: AMP_CONFIG, AMP_NO_CREDENTIALS or
    /// AMP_IO.
    explicit token_cache(const config &config) : token_cache() { create_with(config, detail::thrown()); }

    /// Returns a valid token. Returns immediately while the cached token is valid. When it is due for refresh, one
    /// caller performs the refresh and may block for up to 2 seconds. Without a valid token, calls block for up to
    /// timeout_ms. Throws amp::error; after a failure calls fail immediately with the same error, for
    /// error::retry_after().
    token get() const { return get_with(detail::thrown()); }

    /// Like get(), but the token is valid for at least `min_validity` more (rounded up to milliseconds). Throws
    /// amp::error: AMP_INVALID_ARGUMENT if it is negative, or longer than the lifetime of tokens.
    template <class Rep, class Period> token get_for(std::chrono::duration<Rep, Period> min_validity) const {
        return get_for_with(min_validity, detail::thrown());
    }

    /// Like the function above, but returns an empty token while one is being requested. Throws amp::error after any
    /// other failure.
    token try_get() const {
        error failure;
        token result = try_get(failure);
        if (failure && failure.status() != AMP_PENDING)
            throw failure;
        return result;
    }

    /// Copies a valid token and a NUL into `buffer`, and returns the length without the NUL. This is the fastest
    /// function for many threads, and allocates no memory. Blocks and throws like get(); also throws amp::error
    /// (AMP_BUFFER_TOO_SMALL). A capacity of 4096 bytes is usually enough.
    std::size_t copy(char *buffer, std::size_t capacity) const { return copy_with(buffer, capacity, detail::thrown()); }

    /// Sends a request with a valid token. `path` is a path below api_url, or a full URL of the same origin: the
    /// token is sent nowhere else, and redirects are not followed. Any HTTP status is a success. A token that the
    /// API rejects is replaced, and the request is repeated once; see amp_api_request(). Blocks for timeout_ms at
    /// most. Throws amp::error if there was no token or no response, or `path` has another origin.
    response request(const std::string &method, const std::string &path) const {
        return send(method, path, nullptr, nullptr, 0, detail::thrown());
    }

    /// Like the function above, with a body and its media type.
    response request(const std::string &method, const std::string &path, const std::string &content_type,
                     const std::string &body) const {
        return send(method, path, content_type.c_str(), body.data(), body.size(), detail::thrown());
    }

    /// Like request(), with headers and a time limit of its own. The headers replace those that the library adds by
    /// default. A request with a body needs a Content-Type. A `timeout` of zero means the setting timeout_ms. Throws
    /// amp::error (AMP_INVALID_ARGUMENT) if a header cannot be set; see amp_api_send().
    response send(const std::string &method, const std::string &path, const header_list &headers,
                  const std::string &body = std::string(),
                  std::chrono::milliseconds timeout = std::chrono::milliseconds::zero()) const {
        return send_own(method, path, headers, body, timeout, detail::thrown());
    }

    /// Sends a GET request, and calls `sink` with each piece of the body as it arrives. `sink` returns false to
    /// stop the transfer (AMP_IO); exceptions that it throws are thrown here. With a status of 200 to 299 the
    /// response has no body. With another status the body is in the response, and `sink` is not called. Otherwise
    /// like request("GET", path); see amp_api_download().
    response download(const std::string &path, std::function<bool(const char *, std::size_t)> sink) const {
        error failure;
        response result = download(path, std::move(sink), failure);
        if (failure)
            throw failure;
        return result;
    }

    /// Sends a GraphQL request with a valid token. GraphQL errors are in "errors" in the body. Blocks and throws
    /// like request().
    response graphql(const std::string &query) const { return send_graphql(query.c_str(), nullptr, detail::thrown()); }

    /// Like the function above, with variables. Throws amp::error (AMP_INVALID_ARGUMENT) if they are not a JSON
    /// object.
    response graphql(const std::string &query, const std::string &variables_json) const {
        return send_graphql(query.c_str(), variables_json.c_str(), detail::thrown());
    }

    /// Creates a personal access token for the user that the credentials belong to. It is in the body, as
    /// data.createPersonalAccessToken.token. It cannot be retrieved again; store it securely. Blocks and throws
    /// like request().
    response create_personal_access_token(const std::string &name, const std::string &organization_id) const {
        return create_pat_with(name, organization_id, detail::thrown());
    }
#endif

    /// Reports the response to a request that was sent with `used`, once for each request: its HTTP status and the
    /// first `length` bytes of its body. Returns whether to send the request again with the token that get() then
    /// returns. A missing permission is no reason to do so, and replacements of the token are paced; see
    /// amp_token_cache_report(). Blocks for timeout_ms at most, while another token is requested.
    bool report(const token &used, int http_status, const void *body, std::size_t length) const noexcept {
        return amp_token_cache_report(handle_.get(), used.handle(), static_cast<std::int32_t>(http_status), body,
                                      length);
    }

    /// Like the function above.
    bool report(const token &used, int http_status, const std::string &body) const noexcept {
        return report(used, http_status, body.data(), body.size());
    }

    /// Reports that a server rejected `rejected`. If the token is still current, the next call of this thread requests
    /// another one. Otherwise this does nothing, so several threads can report the same token. report() also tells a
    /// missing permission from a rejected token. May block for a shared store.
    void invalidate(const token &rejected) const noexcept {
        amp_token_cache_invalidate(handle_.get(), rejected.handle());
    }

    /// Calls `visit` with each page of a collection, without exceptions of its own: see pages(). Ends at a failure.
    template <class Visitor> void pages(const std::string &path, Visitor visit, error &failure) const {
        response page = request("GET", path, failure);
        while (!failure) {
            visit(static_cast<const response &>(page));
            const char *next = page.next_page();
            if (!next)
                return;
            page = request("GET", next, failure);
        }
    }

#ifdef AMP_TOKEN_HAS_EXCEPTIONS
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
#endif

    /// The base URL of the API; see amp_token_cache_api_url(). Valid until this object is destroyed; moving the
    /// object keeps it valid.
    const char *api_url() const noexcept { return amp_token_cache_api_url(handle_.get()); }

    /// A statistic by name, or -1; see amp_token_cache_stat() for the names.
    std::int64_t statistic(const char *name) const noexcept { return amp_token_cache_stat(handle_.get(), name); }

    /// The counter that changes whenever the current token changes; see amp_token_cache_epoch(). Valid as long as
    /// api_url().
    const std::uint64_t *epoch() const noexcept { return amp_token_cache_epoch(handle_.get()); }

    /// Whether this object has a cache; false after it was moved from.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle, or NULL if this object is empty. This object keeps the ownership.
    const amp_token_cache *handle() const noexcept { return handle_.get(); }

  private:
    template <class Report> void create_with(const config &config, Report report) {
        amp_token_cache *handle = nullptr;
        report.result(amp_token_cache_new(config.handle(), &handle, report.out()));
        handle_.reset(handle);
    }

    template <class Report> token get_with(Report report) const {
        amp_token *handle = nullptr;
        report.result(amp_token_cache_get(handle_.get(), &handle, report.out()));
        return token(handle);
    }

    template <class Rep, class Period, class Report>
    token get_for_with(std::chrono::duration<Rep, Period> min_validity, Report report) const {
        auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(min_validity);
        if (milliseconds < min_validity)
            ++milliseconds;
        amp_token *handle = nullptr;
        report.result(amp_token_cache_get_for(handle_.get(), milliseconds.count(), &handle, report.out()));
        return token(handle);
    }

    template <class Report> std::size_t copy_with(char *buffer, std::size_t capacity, Report report) const {
        std::size_t length = 0;
        const amp_status status = amp_token_cache_copy(handle_.get(), buffer, capacity, &length, report.out());
        report.result(status);
        return status == AMP_OK ? length : 0;
    }

    template <class Report>
    response send(const std::string &method, const std::string &path, const char *content_type, const void *body,
                  std::size_t body_length, Report report) const {
        amp_response *handle = nullptr;
        report.result(amp_api_request(handle_.get(), method.c_str(), path.c_str(), content_type, body, body_length,
                                      &handle, report.out()));
        return response(handle);
    }

    template <class Report>
    response send_own(const std::string &method, const std::string &path, const header_list &headers,
                      const std::string &body, std::chrono::milliseconds timeout, Report report) const {
        std::vector<const char *> list;
        list.reserve(2 * headers.size() + 1);
        for (const std::pair<std::string, std::string> &header : headers) {
            list.push_back(header.first.c_str());
            list.push_back(header.second.c_str());
        }
        list.push_back(nullptr);
        amp_response *handle = nullptr;
        report.result(amp_api_send(handle_.get(), method.c_str(), path.c_str(), list.data(), body.data(), body.size(),
                                   timeout.count(), &handle, report.out()));
        return response(handle);
    }

    template <class Report> response download_with(const std::string &path, detail::sink &target, Report report) const {
        amp_response *handle = nullptr;
        report.result(amp_api_download(handle_.get(), path.c_str(), detail::amp_token_hpp_write, &target, &handle,
                                       report.out()));
        return response(handle);
    }

    template <class Report>
    response send_graphql(const char *query, const char *variables_json, Report report) const {
        amp_response *handle = nullptr;
        report.result(amp_api_graphql(handle_.get(), query, variables_json, &handle, report.out()));
        return response(handle);
    }

    template <class Report>
    response create_pat_with(const std::string &name, const std::string &organization_id, Report report) const {
        amp_response *handle = nullptr;
        report.result(
            amp_pat_create(handle_.get(), name.c_str(), organization_id.c_str(), &handle, report.out()));
        return response(handle);
    }

    std::unique_ptr<amp_token_cache, void (*)(amp_token_cache *)> handle_;
};

} // namespace AMP_TOKEN_NAMESPACE
} // namespace amp

#undef AMP_TOKEN_HAS_STRING_VIEW
#undef AMP_TOKEN_HAS_EXCEPTIONS
#undef AMP_TOKEN_VISIBLE
#undef AMP_TOKEN_NAMESPACE

#endif
