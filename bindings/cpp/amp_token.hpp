// libamp_token for C++11 and later: always a valid Amplience access token.
//
//     amp::config config;
//     config.load();                             // AMPLIENCE_CLIENT_ID and so on
//     amp::token_cache cache(config);
//     ...
//     std::string header = "Authorization: " + cache.get().authorization();
//     amp::response hubs = cache.request("GET", "/v2/content/hubs");
//
// Header-only, over amp_token.h, which is the manual of what is underneath. Conventions:
//
//   Errors     What fails throws amp::error. Accessors do not fail. std::bad_alloc may come from
//              anything that returns a std::string.
//   Ownership  Each object owns its handle and frees it. config, token_cache and response can be moved, not
//              copied; copying a token costs as much as counting to two. A moved-from object may be
//              destroyed or assigned to; anything else throws amp::error (an invalid argument) or
//              answers nothing, 0 or an empty text.
//   Threads    const member functions may be called from many threads at once, others (moving, the
//              destructor) only while nobody else uses the object. A config belongs to one thread at
//              a time.
//   Secrets    are wiped when the library frees its copy. A std::string is a copy of your own.

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

/// Why a call failed. Copying never throws; any number of threads may look at one at once.
class error : public std::exception {
  public:
    /// Takes over an error object of the C interface and frees it with the last copy. NULL is allowed:
    /// then only the status is known.
    error(amp_status status, amp_error *object) : status_(status), object_(object, amp_error_free) {}

    /// What the call came to: AMP_TIMEOUT and so on. New ones may join; the tens are families.
    amp_status status() const noexcept { return status_; }

    /// The name of the status, such as "AMP_TIMEOUT"; static.
    const char *status_name() const noexcept { return amp_status_name(static_cast<std::int32_t>(status_)); }

    /// One line that says what happened, to what, and what to do next; it never holds a secret.
    /// Valid as long as this object or a copy.
    const char *what() const noexcept override {
        return object_ ? amp_error_message(object_.get()) : status_name();
    }

    /// The HTTP status of the last reply; 0: none came.
    int http_status() const noexcept { return static_cast<int>(amp_error_http_status(object_.get())); }

    /// The error code that the server sent, such as "invalid_client"; NULL: none. Valid as what() is.
    const char *oauth_code() const noexcept { return amp_error_oauth_code(object_.get()); }

    /// Whether the same call may succeed later without anything else having changed.
    bool retryable() const noexcept { return amp_error_is_retryable(object_.get()); }

    /// How long to wait before the next call, counted from the failure; negative: not known.
    std::chrono::milliseconds retry_after() const noexcept {
        return std::chrono::milliseconds(amp_error_retry_after_ms(object_.get()));
    }

    /// How many requests were sent, or tried.
    unsigned attempts() const noexcept { return static_cast<unsigned>(amp_error_attempts(object_.get())); }

  private:
    amp_status status_;
    std::shared_ptr<const amp_error> object_;
};

/// What a transport function throws to say why no reply came.
class transport_error : public std::exception {
  public:
    /// `status` is AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY or AMP_TIMEOUT; another counts as
    /// AMP_CONNECT. `message` is for people and must not hold a secret.
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

/// A request that a transport function is to carry. Valid until that function returns, as is every
/// text that it gives. It holds a secret or a token: do not log its headers or body.
class http_request {
  public:
    /// Looks at a request of the C interface.
    explicit http_request(const amp_http_request *request) noexcept : request_(request) {}

    /// "POST", "GET" and so on.
    const char *method() const noexcept { return amp_http_request_method(request_); }

    /// The whole URL; it never holds a secret.
    const char *url() const noexcept { return amp_http_request_url(request_); }

    /// The name of a header, counted from 0; NULL: there are no more.
    const char *header_name(std::size_t index) const noexcept { return amp_http_request_header_name(request_, index); }

    /// The value of the header with that name, in any case; NULL: there is none.
    const char *header(const char *name) const noexcept { return amp_http_request_header(request_, name); }

    /// The first byte of the body; NULL if it is empty.
    const void *body() const noexcept { return amp_http_request_body(request_, nullptr); }

    /// The number of bytes of the body.
    std::size_t body_length() const noexcept {
        std::size_t length = 0;
        amp_http_request_body(request_, &length);
        return length;
    }

    /// How much time is left for the whole exchange.
    std::chrono::milliseconds timeout() const noexcept {
        return std::chrono::milliseconds(amp_http_request_timeout_ms(request_));
    }

  private:
    const amp_http_request *request_;
};

/// Where a transport function puts what came back. Valid until that function returns.
class http_reply {
  public:
    /// Writes to a reply of the C interface.
    explicit http_reply(amp_http_reply *reply) noexcept : reply_(reply) {}

    /// Sets the HTTP status, 100 to 999.
    void status(int status) noexcept { amp_http_reply_set_status(reply_, status); }

    /// Adds a header; both texts are copied.
    void header(const std::string &name, const std::string &value) noexcept {
        amp_http_reply_add_header(reply_, name.c_str(), value.c_str());
    }

    /// Adds to the body, which is copied. false: it is larger than the library wants; stop reading.
    bool body(const void *data, std::size_t length) noexcept {
        return amp_http_reply_append_body(reply_, data, length);
    }

    /// Adds to the body, which is copied. false: it is larger than the library wants; stop reading.
    bool body(const std::string &data) noexcept { return body(data.data(), data.size()); }

  private:
    amp_http_reply *reply_;
};

/// A function for log lines: one of amp_log_level, and a line that is valid until it returns and never
/// holds a secret. Called from any thread, several calls at once. What it throws is lost. It must not
/// destroy the object it logs for.
using log_function = std::function<void(std::int32_t level, const char *message)>;

/// A function that carries one request, without following redirects and without repeating it. Called
/// from any thread. What it throws means that no reply came: amp::transport_error says why, anything
/// else counts as AMP_CONNECT, and its text is not shown, because it may hold a secret. It must not use
/// the object that it carries requests for.
using transport_function = std::function<void(const http_request &request, http_reply &reply)>;

namespace detail {

/// Throws what a call of the C interface failed with.
inline void check(amp_status status, amp_error *object) {
    if (status != AMP_OK)
        throw error(status, object);
}

/// Keeps a function object until the process ends: a request in the background may outlast every handle,
/// and nothing tells when it is over. Never destroyed, so that exit() may come while one is under way.
template <class Function> Function *keep(Function function) {
    static std::mutex *const lock = new std::mutex;
    static std::vector<std::unique_ptr<Function>> *const kept = new std::vector<std::unique_ptr<Function>>;
    std::unique_ptr<Function> one(new Function(std::move(function)));
    const std::lock_guard<std::mutex> guard(*lock);
    kept->push_back(std::move(one));
    return kept->back().get();
}

/// Who takes a body, and what that threw.
struct write_function {
    std::function<bool(const char *, std::size_t)> function;
    std::exception_ptr thrown;
};

extern "C" {

/// Passes a log line on. Nothing thrown may reach C.
inline void amp_token_hpp_log(std::int32_t level, const char *message, void *function) {
    try {
        (*static_cast<const log_function *>(function))(level, message);
    } catch (...) {
        // There is nobody to tell: the logger itself is what failed.
    }
}

/// Passes a request on. Nothing thrown may reach C.
inline std::int32_t amp_token_hpp_send(const amp_http_request *request, amp_http_reply *reply, void *function) {
    try {
        http_reply place(reply);
        (*static_cast<const transport_function *>(function))(http_request(request), place);
    } catch (const transport_error &failure) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(failure.status()), failure.what());
    } catch (...) {
        amp_http_reply_fail(reply, static_cast<std::int32_t>(AMP_CONNECT),
                            "the application's transport function threw an exception");
    }
    return 0;
}

/// Passes a piece of a body on. What is thrown is kept, to be thrown again on the other side of C.
inline bool amp_token_hpp_write(const void *data, std::size_t size, void *taker) {
    write_function &taken = *static_cast<write_function *>(taker);
    try {
        return taken.function(static_cast<const char *>(data), size);
    } catch (...) {
        taken.thrown = std::current_exception();
        return false;
    }
}

} // extern "C"

} // namespace detail

/// Settings, by the names in the README's table. What is made from a config keeps what it needs of it.
class config {
  public:
    /// Nothing set.
    config() : handle_(amp_config_new(), amp_config_free) {}

    /// Sets one setting. Throws amp::error (AMP_INVALID_ARGUMENT) if there is no such setting, or the
    /// value is not allowed for it; then the config is as before.
    config &set(const char *name, const char *value) {
        amp_error *failure = nullptr;
        const amp_status status = amp_config_set(handle_.get(), name, value, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Sets one setting. A text with a NUL inside ends there, as in C.
    config &set(const char *name, const std::string &value) { return set(name, value.c_str()); }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// Sets one setting. (C++17)
    config &set(const char *name, std::string_view value) { return set(name, std::string(value)); }
#endif

    /// Sets a flag.
    config &set(const char *name, bool value) { return set(name, value ? "true" : "false"); }

    /// Sets a number.
    template <class Number>
    typename std::enable_if<std::is_integral<Number>::value && !std::is_same<Number, bool>::value, config &>::type
    set(const char *name, Number value) {
        return set(name, std::to_string(value));
    }

    /// Sets a duration, for the settings whose names end in _ms; parts of a millisecond are dropped.
    template <class Rep, class Period> config &set(const char *name, std::chrono::duration<Rep, Period> value) {
        return set(name, std::chrono::duration_cast<std::chrono::milliseconds>(value).count());
    }

    /// Sets a setting back to its default.
    config &unset(const char *name) { return set(name, static_cast<const char *>(nullptr)); }

    /// Fills what is unset from the environment, and lets credentials that are still missing be looked
    /// for in dc-cli's files when they are needed. No other thread may change the environment meanwhile.
    /// Throws amp::error (AMP_CONFIG) for a variable with a value that its setting does not allow.
    config &load() {
        amp_error *failure = nullptr;
        const amp_status status = amp_config_load(handle_.get(), &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Sends log lines to `function`; an empty one switches it off. The function object is kept until the
    /// process ends.
    config &logger(log_function function) {
        amp_error *failure = nullptr;
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_logger(handle_.get(), on ? detail::amp_token_hpp_log : nullptr,
                                  on ? detail::keep(std::move(function)) : nullptr, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Has `function` carry the requests; an empty one gives that back to the library. The function object
    /// is kept until the process ends.
    config &transport(transport_function function) {
        amp_error *failure = nullptr;
        const bool on = static_cast<bool>(function);
        const amp_status status =
            amp_config_set_transport(handle_.get(), on ? detail::amp_token_hpp_send : nullptr,
                                     on ? detail::keep(std::move(function)) : nullptr, &failure);
        detail::check(status, failure);
        return *this;
    }

    /// Ends all calls of the logger and the transport, by this config and by all that was made from it: when
    /// this returns none is running, and none will ever run again. For a program that must be sure of that
    /// before what they use goes away. Waits for calls that are running; so it must not be called by one of
    /// them, nor with a lock that one of them needs. Requests that need the transport fail from then on.
    void stop_callbacks() const noexcept { amp_config_stop_callbacks(handle_.get()); }

    /// The C handle, for what this header does not cover; still owned by this object.
    amp_config *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_config, void (*)(amp_config *)> handle_;
};

/// One access token. Immutable; it outlives the cache that it came from.
class token {
  public:
    /// Takes over a handle of the C interface; NULL makes an empty token.
    explicit token(amp_token *handle) noexcept : handle_(handle, amp_token_free) {}

    /// The same token once more.
    token(const token &other) noexcept : handle_(amp_token_clone(other.handle_.get()), amp_token_free) {}
    /// Takes over `other`, which is empty then.
    token(token &&other) noexcept = default;
    /// The same token as `other`.
    token &operator=(const token &other) noexcept {
        handle_.reset(amp_token_clone(other.handle_.get()));
        return *this;
    }
    /// Takes over `other`, which is empty then.
    token &operator=(token &&other) noexcept = default;
    ~token() = default;

    /// The token itself, NUL-terminated; NULL if this is empty. A secret: do not log it. Valid as long as
    /// any copy of this object.
    const char *c_str() const noexcept { return amp_token_value(handle_.get()); }

    /// The length of c_str().
    std::size_t length() const noexcept { return amp_token_length(handle_.get()); }

    /// A copy of the token itself. A secret: do not log it.
    std::string value() const { return std::string(c_str() ? c_str() : ""); }

    /// A copy of the value of an Authorization header, "Bearer eyJ…". A secret: do not log it.
    std::string authorization() const {
        const char *text = amp_token_authorization(handle_.get());
        return std::string(text ? text : "");
    }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// The token itself, without a copy; valid as c_str() is. (C++17)
    std::string_view value_view() const noexcept { return c_str() ? std::string_view(c_str(), length()) : std::string_view(); }

    /// The value of an Authorization header, without a copy; valid as c_str() is. (C++17)
    std::string_view authorization_view() const noexcept {
        const char *text = amp_token_authorization(handle_.get());
        return text ? std::string_view(text) : std::string_view();
    }
#endif

    /// Whether it is a personal access token, which has no end.
    bool never_expires() const noexcept {
        return amp_token_expires_at(handle_.get()) == (std::numeric_limits<std::int64_t>::max)();
    }

    /// When the token dies by this machine's clock; the largest time_point: never.
    std::chrono::system_clock::time_point expires_at() const noexcept {
        using clock = std::chrono::system_clock;
        const std::chrono::seconds since_epoch(amp_token_expires_at(handle_.get()));
        if (since_epoch > std::chrono::duration_cast<std::chrono::seconds>((clock::duration::max)()))
            return (clock::time_point::max)();
        return clock::time_point(std::chrono::duration_cast<clock::duration>(since_epoch));
    }

    /// The whole seconds that the token has left, never below 0; the largest number of them: it never expires.
    std::chrono::seconds expires_in() const noexcept {
        return std::chrono::seconds(amp_token_expires_in(handle_.get()));
    }

    /// How long the token may be used without asking its cache again; the largest number: it never expires.
    std::chrono::milliseconds refresh_in() const noexcept {
        return std::chrono::milliseconds(amp_token_refresh_in_ms(handle_.get()));
    }

    /// Whether there is a token in here: not after it was moved away.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle; still owned by this object. NULL if this is empty.
    const amp_token *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_token, void (*)(amp_token *)> handle_;
};

/// A reply of the API, whatever its HTTP status. Immutable.
class response {
  public:
    /// Takes over a handle of the C interface; NULL makes an empty response.
    explicit response(amp_response *handle) noexcept : handle_(handle, amp_response_free) {}

    /// The HTTP status; 0 if this is empty.
    int status() const noexcept { return static_cast<int>(amp_response_status(handle_.get())); }

    /// Whether the status is one of success, 200 to 299.
    bool ok() const noexcept { return status() >= 200 && status() < 300; }

    /// The value of the first header with that name, in any case; NULL: there is none. Valid as long as this
    /// object's handle.
    const char *header(const char *name) const noexcept { return amp_response_header(handle_.get(), name); }

    /// The first byte of the body, without a NUL at its end; NULL if it is empty. Valid as header() is.
    const char *data() const noexcept {
        return static_cast<const char *>(amp_response_body(handle_.get(), nullptr));
    }

    /// The number of bytes of the body.
    std::size_t size() const noexcept {
        std::size_t length = 0;
        amp_response_body(handle_.get(), &length);
        return length;
    }

    /// A copy of the body.
    std::string body() const { return data() ? std::string(data(), size()) : std::string(); }

#ifdef AMP_TOKEN_HAS_STRING_VIEW
    /// The body, without a copy; valid as header() is. (C++17)
    std::string_view body_view() const noexcept { return data() ? std::string_view(data(), size()) : std::string_view(); }
#endif

    /// The path that brings the next page of the collection that this reply is a page of, for
    /// token_cache::request(); NULL: this was the last page, or no collection. Valid as header() is.
    const char *next_page() const noexcept { return amp_response_next_page(handle_.get()); }

    /// Whether there is a reply in here: not after it was moved away.
    explicit operator bool() const noexcept { return static_cast<bool>(handle_); }

    /// The C handle; still owned by this object. NULL if this is empty.
    const amp_response *handle() const noexcept { return handle_.get(); }

  private:
    std::unique_ptr<amp_response, void (*)(amp_response *)> handle_;
};

/// Asks for one token now, without a cache. Blocks for timeout_ms at most. Throws amp::error.
inline token get_token(const config &config) {
    amp_token *handle = nullptr;
    amp_error *failure = nullptr;
    const amp_status status = amp_token_get(config.handle(), &handle, &failure);
    detail::check(status, failure);
    return token(handle);
}

/// The current token of one set of credentials, renewed in time and shared by all threads. Parent and
/// child may both go on using it after a fork.
class token_cache {
  public:
    /// Looks for credentials, and sends nothing yet. Throws amp::error: AMP_CONFIG, AMP_NO_CREDENTIALS,
    /// AMP_IO.
    explicit token_cache(const config &config) : handle_(nullptr, amp_token_cache_free) {
        amp_token_cache *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_new(config.handle(), &handle, &failure);
        detail::check(status, failure);
        handle_.reset(handle);
    }

    /// A valid token: the cached one if it is good, else a new one. Returns at once while a token is usable,
    /// otherwise blocks for timeout_ms at most. Throws amp::error; after a failure there is a pause, in
    /// which calls fail at once with the same error.
    token get() const {
        amp_token *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_get(handle_.get(), &handle, &failure);
        detail::check(status, failure);
        return token(handle);
    }

    /// As get(), with a token that is good for at least `min_validity` more (rounded up to milliseconds).
    /// Throws amp::error: AMP_INVALID_ARGUMENT if it is negative, or longer than tokens live.
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

    /// Copies a valid token and a NUL into `buffer` and gives its length: the fastest way for many threads,
    /// without any allocation. Throws as get() does, and amp::error (AMP_BUFFER_TOO_SMALL); 4096 is a good
    /// capacity.
    std::size_t copy(char *buffer, std::size_t capacity) const {
        std::size_t length = 0;
        amp_error *failure = nullptr;
        const amp_status status = amp_token_cache_copy(handle_.get(), buffer, capacity, &length, &failure);
        detail::check(status, failure);
        return length;
    }

    /// Says that a server refused `refused` (HTTP 401, or the 403 that Amplience answers to an expired
    /// one): if it is the current token, the next call gets another; if not, nothing happens.
    void invalidate(const token &refused) const noexcept {
        amp_token_cache_invalidate(handle_.get(), refused.handle());
    }

    /// Sends a request with a valid token. `path` is one below api_url, or a whole URL of the same origin: the
    /// token goes nowhere else, and redirects are not followed. Any HTTP status is a reply. A token that the
    /// API refuses is replaced, and the request repeated, once; see amp_api_request(). Blocks for timeout_ms at
    /// most. Throws amp::error if there was no token or no reply, or the path leads elsewhere.
    response request(const std::string &method, const std::string &path) const {
        return send(method, path, nullptr, nullptr, 0);
    }

    /// The same with a body, and its media type.
    response request(const std::string &method, const std::string &path, const std::string &content_type,
                     const std::string &body) const {
        return send(method, path, content_type.c_str(), body.data(), body.size());
    }

    /// Gets what is at `path`, of any size, and calls `take` with each piece of it as it comes; `take` returns
    /// false to have no more (AMP_IO), and what it throws is thrown here. The reply has a body only if it is
    /// no success; then `take` was not called. Otherwise as request("GET", path); see amp_api_download().
    response download(const std::string &path, std::function<bool(const char *, std::size_t)> take) const {
        detail::write_function taker = {std::move(take), nullptr};
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status =
            amp_api_download(handle_.get(), path.c_str(), detail::amp_token_hpp_write, &taker, &handle, &failure);
        if (taker.thrown) {
            amp_error_free(failure);
            std::rethrow_exception(taker.thrown);
        }
        detail::check(status, failure);
        return response(handle);
    }

    /// Sends a GraphQL request with a valid token; errors of GraphQL itself come as "errors" in the body.
    /// Throws as request() does.
    response graphql(const std::string &query) const { return ask(query.c_str(), nullptr); }

    /// The same with variables, a JSON object. Throws amp::error (AMP_INVALID_ARGUMENT) if they are none.
    response graphql(const std::string &query, const std::string &variables_json) const {
        return ask(query.c_str(), variables_json.c_str());
    }

    /// Creates a personal access token for the user that the credentials belong to. Its text is in the body,
    /// as data.createPersonalAccessToken.token, and nowhere else ever after. Throws as request() does.
    response create_personal_access_token(const std::string &name, const std::string &organization_id) const {
        amp_response *handle = nullptr;
        amp_error *failure = nullptr;
        const amp_status status =
            amp_pat_create(handle_.get(), name.c_str(), organization_id.c_str(), &handle, &failure);
        detail::check(status, failure);
        return response(handle);
    }

    /// Calls `visit` with each page of a collection, as a `const amp::response &`, from the first to the last;
    /// also with a reply that is no success, which is the last then. Throws what request() and `visit` do.
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

    /// Where requests with a token go; see amp_token_cache_api_url(). Valid as long as this object's handle.
    const char *api_url() const noexcept { return amp_token_cache_api_url(handle_.get()); }

    /// A figure, by a name that amp_token_cache_stat() knows; -1: there is none.
    std::int64_t statistic(const char *name) const noexcept { return amp_token_cache_stat(handle_.get(), name); }

    /// The counter that changes whenever the current token does; see amp_token_cache_epoch(). Valid as long
    /// as this object's handle.
    const std::uint64_t *epoch() const noexcept { return amp_token_cache_epoch(handle_.get()); }

    /// The C handle; still owned by this object.
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

    response ask(const char *query, const char *variables_json) const {
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
