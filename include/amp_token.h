/* libamp_token: always a valid Amplience access token, for native programs.
 *
 * This file is the manual. It is generated from the library's source: change
 * the comments there.
 *
 * The shortest use, without error handling:
 *
 *     amp_config *config = amp_config_new();
 *     amp_config_load(config, NULL);            AMPLIENCE_CLIENT_ID and so on
 *     amp_token_cache *cache;
 *     amp_token_cache_new(config, &cache, NULL);
 *     amp_config_free(config);
 *     ...
 *     char token[4096];
 *     amp_token_cache_copy(cache, token, sizeof token, NULL, NULL);
 *     ...
 *     amp_token_cache_free(cache);
 *
 * Conventions
 *
 *   Results    What can fail returns an amp_status, which is AMP_OK (0) on
 *              success. Its last parameter, `error`, may be NULL. On failure
 *              output pointers are set to NULL and *error to an object that the
 *              caller frees with amp_error_free(); on success *error is left
 *              as it was.
 *   Ownership  What a function named _new, _get or _clone hands out, the caller
 *              frees with the _free of its type, once, in any order: a token
 *              outlives the cache that made it. _free takes NULL. Strings that
 *              are returned are borrowed from the handle they were asked of and
 *              valid until it is freed; none is ever freed by itself.
 *   Strings    go in as NUL-terminated UTF-8, and are copied.
 *   NULL       for a required argument is AMP_INVALID_ARGUMENT; an accessor
 *              answers NULL, 0 or -1, as it says. No argument that can be
 *              checked ends the process.
 *   Threads    A handle that a function takes as pointer to const may be used
 *              by many threads at once. A config belongs to one thread at a
 *              time. There is no global state: no init, no cleanup, no
 *              process-wide logger. No thread stays unless background_refresh
 *              is on; only if the system does not answer, a look-up of a name
 *              or a touch of the store's files is left to a thread of its own,
 *              and the call goes on. There are at most 64 of each kind.
 *   fork       Parent and child may both go on using what was made before; a
 *              child shares no connection with its parent.
 *   Signals    SIGPIPE is never raised. Calls go on after a signal handler ran.
 *              Threads that the library starts handle no signals.
 *   exit       may be called at any time, also with other threads inside the
 *              library. The library stays loaded once it is: dlclose() of it
 *              is allowed and does nothing.
 *   Secrets    are wiped when their handle is freed, and appear in no message,
 *              log line or argument list.
 */

#ifndef AMP_TOKEN_H
#define AMP_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Put in front of every function. On Windows define AMP_STATIC to link the
 * static library. */
#if !defined(AMP_API)
#if defined(_WIN32) && !defined(AMP_STATIC)
#define AMP_API __declspec(dllimport)
#else
#define AMP_API
#endif
#endif

/* A result that must be looked at. */
#if !defined(AMP_MUST_USE)
#if defined(__GNUC__)
#define AMP_MUST_USE __attribute__((warn_unused_result))
#else
#define AMP_MUST_USE
#endif
#endif

/* The version of this header; amp_version() tells that of the library. */
#define AMP_TOKEN_VERSION "0.1.0"
#define AMP_TOKEN_VERSION_MAJOR 0
#define AMP_TOKEN_VERSION_MINOR 1
#define AMP_TOKEN_VERSION_PATCH 0

/* The binary interface that this header describes; amp_abi_version() tells
 * that of the library. */
#define AMP_TOKEN_ABI_VERSION 0


/**
 * What a call came to. The tens are families: 10 arguments and configuration,
 * 20 credentials, 30 network, 40 server, 50 reply, 60 this machine. A number
 * never changes its meaning and is never used again; new ones may join a
 * family, so treat an unknown one by its family, and anything but AMP_OK as a
 * failure.
 */
typedef enum {
    /**
     * Success.
     */
    AMP_OK = 0,
    /**
     * An argument is NULL, not UTF-8, or not among the values that are
     * allowed.
     */
    AMP_INVALID_ARGUMENT = 10,
    /**
     * The settings do not fit together, or one of them cannot be used.
     */
    AMP_CONFIG = 11,
    /**
     * No client id and secret, and no personal access token, was found.
     */
    AMP_NO_CREDENTIALS = 20,
    /**
     * The server refused the client id and secret, or the personal access
     * token.
     */
    AMP_CREDENTIALS_REJECTED = 21,
    /**
     * The host name could not be turned into an address.
     */
    AMP_RESOLVE = 30,
    /**
     * No connection, or one that broke.
     */
    AMP_CONNECT = 31,
    /**
     * The TLS handshake failed: most often a certificate that is not trusted.
     */
    AMP_TLS = 32,
    /**
     * The proxy refused, could not be reached, or wanted other credentials.
     */
    AMP_PROXY = 33,
    /**
     * The time that the call had was over.
     */
    AMP_TIMEOUT = 34,
    /**
     * The server asked for fewer requests (HTTP 429).
     */
    AMP_RATE_LIMITED = 40,
    /**
     * The server failed (HTTP 5xx, 408).
     */
    AMP_SERVER = 41,
    /**
     * The reply is not what the protocol allows.
     */
    AMP_PROTOCOL = 50,
    /**
     * A local file or system call failed.
     */
    AMP_IO = 60,
    /**
     * The buffer is too small for the token.
     */
    AMP_BUFFER_TOO_SMALL = 61,
    /**
     * A defect of the library.
     */
    AMP_INTERNAL = 69,
} amp_status;

/**
 * How much a log line matters; the numbers that an amp_log_fn is called with.
 * More may come.
 */
typedef enum {
    /**
     * A call failed.
     */
    AMP_LOG_ERROR = 1,
    /**
     * Something is wrong, and the library went on without it.
     */
    AMP_LOG_WARNING = 2,
    /**
     * A token was obtained or dropped.
     */
    AMP_LOG_INFO = 3,
    /**
     * Each step on the way.
     */
    AMP_LOG_DEBUG = 4,
} amp_log_level;

/**
 * Settings, and the functions that an application plugs in. One owner at a
 * time: two threads must not use a config at once.
 *
 * Handles that are made from a config keep what they need of it, so it may be
 * changed or freed right after.
 */
typedef struct amp_config amp_config;

/**
 * Why a call failed. Immutable: any number of threads may look at it at once.
 *
 * A call that fails makes one if it is given a place for it, and the caller
 * frees it with amp_error_free(). Texts that its functions return are
 * borrowed from it. None of them ever holds a secret or a token, so all may
 * be logged.
 */
typedef struct amp_error amp_error;

/**
 * What an amp_transport_fn got back. Valid until that function returns.
 */
typedef struct amp_http_reply amp_http_reply;

/**
 * A request that an amp_transport_fn is to carry. Valid until that function
 * returns; so is every text that its functions return. It holds a secret or a
 * token: do not log its headers or body.
 */
typedef struct amp_http_request amp_http_request;

/**
 * A reply of the API, whatever its HTTP status. Immutable: any number of
 * threads may look at it at once. Texts and bytes that its functions return
 * are borrowed from it.
 */
typedef struct amp_response amp_response;

/**
 * One access token. Immutable: any number of threads may look at it at once,
 * and it outlives the cache that it came from.
 */
typedef struct amp_token amp_token;

/**
 * The current token of one set of credentials, renewed in time and shared by
 * all threads.
 *
 * Every function whose first parameter is const may be called from many
 * threads at once. A process that forks may go on using it in parent and
 * child. It must not be freed while another thread uses it; tokens that it
 * handed out stay valid when it is freed.
 */
typedef struct amp_token_cache amp_token_cache;

/**
 * The application's function for log lines.
 */
typedef void (*amp_log_fn)(int32_t level, const char *message, void *user_data);

/**
 * The application's function that carries a request.
 */
typedef int32_t (*amp_transport_fn)(const amp_http_request *request,
                                    amp_http_reply *reply,
                                    void *user_data);

/**
 * The application's function that takes a reply's body, piece by piece.
 */
typedef bool (*amp_write_fn)(const void *data, size_t length, void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is loaded, such as "0.1.0". It may differ
 * from AMP_TOKEN_VERSION, which is that of the header at compile time.
 *
 * Never NULL; static. Any thread.
 */
AMP_API const char *amp_version(void);

/**
 * The version of the binary interface of the library that is loaded. A
 * program or binding that loads it at run time compares it with
 * AMP_TOKEN_ABI_VERSION and refuses another.
 *
 * Any thread.
 */
AMP_API uint32_t amp_abi_version(void);

/**
 * The name of a status, such as "AMP_TIMEOUT"; "AMP_UNKNOWN" for a number
 * that this version does not know.
 *
 * Never NULL; static. Any thread.
 */
AMP_API const char *amp_status_name(int32_t status);

/**
 * The status that the failed call returned; AMP_INVALID_ARGUMENT if `error`
 * is NULL.
 *
 * Any thread.
 */
AMP_API amp_status amp_error_status(const amp_error *error);

/**
 * One line that says what happened, to what, and what to do next: for people
 * and logs. Its words may change; programs decide by the status.
 *
 * Never NULL (NULL has the message "no error"); borrowed from `error`. Any
 * thread.
 */
AMP_API const char *amp_error_message(const amp_error *error);

/**
 * The HTTP status of the last reply; 0: none came, or `error` is NULL.
 *
 * Any thread.
 */
AMP_API int32_t amp_error_http_status(const amp_error *error);

/**
 * The error code that the server sent, such as "invalid_client" (RFC 6749,
 * 5.2).
 *
 * NULL: it sent none, or `error` is NULL; borrowed from `error`. Any thread.
 */
AMP_API const char *amp_error_oauth_code(const amp_error *error);

/**
 * Whether the same call may succeed later without anything else having
 * changed.
 *
 * false if `error` is NULL. Any thread.
 */
AMP_API bool amp_error_is_retryable(const amp_error *error);

/**
 * How many milliseconds to wait before the next call, counted from the moment
 * of the failure: what the server asked for, or the rest of the pause that
 * the cache makes. A call before that fails at once.
 *
 * -1: not known, or `error` is NULL. Any thread.
 */
AMP_API int64_t amp_error_retry_after_ms(const amp_error *error);

/**
 * How many requests the failed call sent, or tried to send; 0 if it failed
 * before the first, or `error` is NULL.
 *
 * Any thread.
 */
AMP_API uint32_t amp_error_attempts(const amp_error *error);

/**
 * Frees an error; NULL is allowed.
 */
AMP_API void amp_error_free(amp_error *error);

/**
 * Makes a config with nothing set.
 *
 * The caller frees it with amp_config_free(). NULL only if a defect of the
 * library was met; every function takes NULL for a config and then answers
 * AMP_INVALID_ARGUMENT.
 */
AMP_API AMP_MUST_USE amp_config *amp_config_new(void);

/**
 * Sets one setting by its name. The table of names, defaults and meanings is
 * in the README and in amp-token(1).
 *
 * `name` and `value` are copied. `value` NULL unsets the setting. Does not
 * block.
 *
 * AMP_INVALID_ARGUMENT: there is no such setting, or the value is not allowed
 * for it; the message says which are, and the config is as before.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set(amp_config *config,
                          const char *name,
                          const char *value,
                          amp_error **error);

/**
 * Fills what is unset from the environment (AMPLIENCE_CLIENT_ID and so on:
 * AMPLIENCE_ and the setting's name in capitals; AMPLIENCE_PAT too), and lets
 * credentials that are still missing be looked for in the files of dc-cli
 * when a token is needed.
 *
 * Reads the environment: no other thread may change it meanwhile. Does not
 * block.
 *
 * Fails in a program that runs with raised privileges (setuid, setgid, file
 * capabilities): its environment comes from a user with fewer privileges, who
 * must not decide where its secrets go and which files it reads. Nor does any
 * other function read the environment there: not the proxies, NO_PROXY,
 * SSL_CERT_FILE, SSL_CERT_DIR, HOME or XDG_*. Such a program sets what it
 * needs with amp_config_set(), with proxy and store_dir among it.
 *
 * AMP_CONFIG: a variable has a value that its setting does not allow; the
 * message names it. Or the program runs with raised privileges.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_load(amp_config *config,
                           amp_error **error);

/**
 * Sends the log lines of all that is made from this config to a function of
 * the application's. Without one, nothing is written anywhere. `logger` NULL
 * switches it off again.
 *
 * `logger` may be called from any thread that uses a handle, and from the
 * library's own; several calls may run at once; no lock is held. `message` is
 * one line of UTF-8 without a newline, valid until the function returns; it
 * never holds a secret. `level` is one of amp_log_level. `logger` must return
 * normally (no longjmp, no C++ exception) and must not free the handle it
 * logs for. `logger` and `user_data` must stay valid until the last handle
 * made from the config is freed and, with background_refresh, its last
 * request is over; or until
 * amp_config_stop_callbacks() has returned.
 *
 * AMP_INVALID_ARGUMENT: `config` is NULL.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set_logger(amp_config *config,
                                 amp_log_fn logger,
                                 void *user_data,
                                 amp_error **error);

/**
 * Has a function of the application's carry the requests, in place of the
 * library's own sockets. Then the settings for TLS and proxies have no
 * meaning. `send` NULL switches it off again.
 *
 * `send` may be called from any thread that uses a handle, and from the
 * library's own, but for each cache only once at a time when it asks for
 * tokens. It carries one request, without following redirects and without
 * repeating it, writes what came back into `reply` and returns 0; or it calls
 * amp_http_reply_fail() to say why it could not, or returns another number,
 * which counts as AMP_CONNECT. `request` and `reply` are valid until it
 * returns. It should be back within amp_http_request_timeout_ms(). It must
 * return normally (no longjmp, no C++ exception) and must not use the handle
 * that it carries requests for. `send` and `user_data` must stay valid until
 * the last handle made from the config is freed and, with background_refresh,
 * its last request is over; or until
 * amp_config_stop_callbacks() has returned.
 *
 * AMP_INVALID_ARGUMENT: `config` is NULL.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set_transport(amp_config *config,
                                    amp_transport_fn send,
                                    void *user_data,
                                    amp_error **error);

/**
 * Ends all calls of the logger and the transport, those that were set and
 * those that will be, by the config and by all that was made from it: when
 * this returns, none of them is running, and none will ever run again. For
 * whoever must be sure of that: an interpreter that shuts down, a program that
 * unloads the code that they are in.
 *
 * Waits for calls that are running; so it must not be called by one of them,
 * nor with a lock that one of them needs. Requests that need the transport
 * fail with AMP_CONNECT from then on. NULL is allowed. Any thread, but not
 * while another thread changes the config.
 */
AMP_API void amp_config_stop_callbacks(const amp_config *config);

/**
 * Frees a config, and wipes its secrets; NULL is allowed. What was made from
 * it stays valid.
 */
AMP_API void amp_config_free(amp_config *config);

/**
 * Asks for a token now, without a cache: for a program that needs a single
 * one. Whoever needs more than one, or has threads, uses an amp_token_cache.
 *
 * On success `*token` is a token that the caller frees with amp_token_free();
 * on failure it is NULL. Blocks for `timeout_ms` at most.
 *
 * AMP_CONFIG, AMP_NO_CREDENTIALS: nothing was sent. AMP_CREDENTIALS_REJECTED:
 * the server refused. AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY,
 * AMP_TIMEOUT: the network. AMP_RATE_LIMITED, AMP_SERVER, AMP_PROTOCOL: the
 * reply. AMP_IO: a file or system call.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_get(const amp_config *config,
                         amp_token **token,
                         amp_error **error);

/**
 * The token itself, as visible ASCII characters. It is a secret: do not log
 * it.
 *
 * NULL if `token` is NULL; borrowed from `token`. Any thread.
 */
AMP_API const char *amp_token_value(const amp_token *token);

/**
 * The length of amp_token_value() in bytes, without the NUL; 0 if `token` is
 * NULL.
 *
 * Any thread.
 */
AMP_API size_t amp_token_length(const amp_token *token);

/**
 * The value of an Authorization header: "Bearer " and the token. It is a
 * secret: do not log it.
 *
 * NULL if `token` is NULL; borrowed from `token`. Any thread.
 */
AMP_API const char *amp_token_authorization(const amp_token *token);

/**
 * When the token dies, in seconds since 1970 by this machine's clock;
 * INT64_MAX: never; 0 if `token` is NULL.
 *
 * Any thread.
 */
AMP_API int64_t amp_token_expires_at(const amp_token *token);

/**
 * The whole seconds that the token has left, never below 0; INT64_MAX: it
 * never expires; 0 if `token` is NULL. Counted by two clocks, so that neither
 * a clock that was set back nor a machine that slept makes it too large.
 *
 * Any thread.
 */
AMP_API int64_t amp_token_expires_in(const amp_token *token);

/**
 * The milliseconds for which the token may be used without asking the cache
 * again: until it is due for renewal. For bindings and programs that keep a
 * token of their own next to amp_token_cache_epoch(). INT64_MAX: it never
 * expires; 0: ask, or `token` is NULL.
 *
 * Any thread.
 */
AMP_API int64_t amp_token_refresh_in_ms(const amp_token *token);

/**
 * A second handle for the same token, which the caller frees too. Costs as
 * much as counting to two.
 *
 * NULL if `token` is NULL. Any thread.
 */
AMP_API AMP_MUST_USE amp_token *amp_token_clone(const amp_token *token);

/**
 * Frees a token; its text is wiped with the last handle. NULL is allowed.
 */
AMP_API void amp_token_free(amp_token *token);

/**
 * Makes a cache from a config: looks for credentials, and sends nothing yet.
 *
 * On success `*cache` is a cache that the caller frees with
 * amp_token_cache_free(); on failure it is NULL. The config may be freed
 * right after. Does not block, but reads files.
 *
 * AMP_CONFIG: settings do not fit together. AMP_NO_CREDENTIALS: none were
 * found; the message says where they were looked for. AMP_IO: a file cannot
 * be read.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_new(const amp_config *config,
                               amp_token_cache **cache,
                               amp_error **error);

/**
 * A valid token: the cached one if it is good, else a new one.
 *
 * On success `*token` is a token that the caller frees with amp_token_free();
 * on failure it is NULL. Returns at once while a token is usable (but for the
 * one caller in a while that renews it, who waits 2 seconds at most);
 * otherwise blocks for `timeout_ms` at most. However many threads ask, one
 * request is sent. Not a cancellation point: threads that may be cancelled
 * disable it around the call.
 *
 * Fails as amp_token_get() does. After a failure there is a pause, in which
 * calls fail at once with the same error; amp_error_retry_after_ms() says how
 * long.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_get(const amp_token_cache *cache,
                               amp_token **token,
                               amp_error **error);

/**
 * As amp_token_cache_get(), with a token that is good for at least
 * `min_validity_ms` more, for a request that takes long. The setting of that
 * name counts too: the longer of the two.
 *
 * AMP_INVALID_ARGUMENT: `min_validity_ms` is negative, or longer than tokens
 * live.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_get_for(const amp_token_cache *cache,
                                   int64_t min_validity_ms,
                                   amp_token **token,
                                   amp_error **error);

/**
 * Copies a valid token and a NUL into `buffer`: as amp_token_cache_get(),
 * without a handle to free, and the fastest way for many threads. A token is
 * about 1,100 bytes long and may grow; 4096 is a good capacity.
 *
 * `*length` (may be NULL) is set to the token's length without the NUL, also
 * when the buffer is too small. On failure `buffer` is unchanged, and the
 * length is 0 unless the buffer is too small.
 *
 * AMP_BUFFER_TOO_SMALL: `capacity` is not above the length.
 * AMP_INVALID_ARGUMENT: `buffer` is NULL and `capacity` is not 0. Else as
 * amp_token_cache_get().
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_copy(const amp_token_cache *cache,
                                char *buffer,
                                size_t capacity,
                                size_t *length,
                                amp_error **error);

/**
 * Says that a server refused `token` (HTTP 401, or the 403 that Amplience
 * answers to an expired one): if it is the current token, the next call gets
 * another. If it is not, nothing happens, so that many threads may report the
 * same token. NULL for either argument does nothing.
 *
 * Does not block, but for an entry of a shared store.
 */
AMP_API
void amp_token_cache_invalidate(const amp_token_cache *cache,
                                const amp_token *token);

/**
 * A counter that changes whenever the current token does: a program or
 * binding that keeps a copy of the token may use it, within
 * amp_token_refresh_in_ms(), for as long as the counter reads the same. Read
 * it before the token that goes with it, as one aligned 64-bit load.
 *
 * NULL if `cache` is NULL; valid until the cache is freed. Any thread.
 */
AMP_API const uint64_t *amp_token_cache_epoch(const amp_token_cache *cache);

/**
 * Where requests with a token go: the setting `api_url` as it is in force,
 * from wherever it came, without a slash or "/v2/content" at its end. A
 * program that sends its own requests puts paths such as "/v2/content/hubs"
 * behind it, and sends the token nowhere else.
 *
 * NULL if `cache` is NULL; borrowed from `cache`. Any thread.
 */
AMP_API const char *amp_token_cache_api_url(const amp_token_cache *cache);

/**
 * A figure about the cache, by name: "hits", "waits", "refreshes",
 * "failures", "requests", "invalidations" (counts), "last_refresh_ms",
 * "last_status", "age", "expires_in" (seconds).
 *
 * -1: there is no such figure, or no token, or `cache` or `name` is NULL. Any
 * thread.
 */
AMP_API
int64_t amp_token_cache_stat(const amp_token_cache *cache,
                             const char *name);

/**
 * Frees a cache, and wipes its secrets; NULL is allowed. Ends its background
 * thread; if that is in a request, it ends by itself when the request is
 * over, and this does not wait for it.
 */
AMP_API void amp_token_cache_free(amp_token_cache *cache);

/**
 * Sends a request with a valid token, and gets the reply.
 *
 * `path` is a path below api_url, such as "/v2/content/hubs?size=100", or a
 * whole URL of the same origin, such as a link in a reply: the token goes
 * nowhere else, and redirects are not followed. `method` is "GET", "POST"
 * and so on. `content_type` may be NULL if `body_length` is 0, and then
 * `body` too. All are copied or used before the call returns.
 *
 * On success, which any HTTP status is, `*response` is a reply that the
 * caller frees with amp_response_free(); on failure it is NULL. Blocks for
 * `timeout_ms` at most, all repeated requests and waiting included.
 *
 * A token that the API refuses (401, or the 403 that says that it has
 * expired) is replaced, and the request repeated, once. Failures of the
 * connection are repeated if nothing was sent yet or the method is
 * idempotent (GET, HEAD, PUT, DELETE); on those methods a 429 or 503 with
 * Retry-After is waited for.
 *
 * AMP_INVALID_ARGUMENT: `path` leads elsewhere, or an argument cannot be
 * sent. AMP_PROTOCOL: the reply is larger than max_response_bytes, or not
 * HTTP. Else as amp_token_cache_get().
 */
AMP_API
AMP_MUST_USE
amp_status amp_api_request(const amp_token_cache *cache,
                           const char *method,
                           const char *path,
                           const char *content_type,
                           const void *body,
                           size_t body_length,
                           amp_response **response,
                           amp_error **error);

/**
 * Gets what is at `path`, of any size, and hands it to `write` as it comes: as
 * amp_api_request() with "GET", for what should not be taken into memory.
 *
 * `write` is called by the calling thread, before this returns, with each piece
 * of the body of a success (2xx), valid until it returns; `user_data` is passed
 * on to it. It returns true to go on, and must return normally (no longjmp, no
 * C++ exception). The body of any other status is in `*response`, as ever.
 *
 * On success, which any HTTP status is, `*response` is a reply that the
 * caller frees with amp_response_free(); on failure it is NULL, and some of the
 * body may have been written: a transfer that broke off is not begun anew.
 * Blocks for `timeout_ms` at most, so give large ones enough.
 *
 * AMP_IO: `write` returned false. Else as amp_api_request().
 */
AMP_API
AMP_MUST_USE
amp_status amp_api_download(const amp_token_cache *cache,
                            const char *path,
                            amp_write_fn write,
                            void *user_data,
                            amp_response **response,
                            amp_error **error);

/**
 * Sends a GraphQL request with a valid token, and gets the reply. Errors of
 * GraphQL itself come as "errors" in its body.
 *
 * `variables_json` is a JSON object, or NULL. Both texts are copied.
 *
 * On success `*response` is a reply that the caller frees with
 * amp_response_free(); on failure it is NULL. Blocks for `timeout_ms` at
 * most.
 *
 * AMP_INVALID_ARGUMENT: `variables_json` is not a JSON object. Else as
 * amp_api_request().
 */
AMP_API
AMP_MUST_USE
amp_status amp_api_graphql(const amp_token_cache *cache,
                           const char *query,
                           const char *variables_json,
                           amp_response **response,
                           amp_error **error);

/**
 * Creates a personal access token for the user that the credentials belong
 * to. Its text is in the reply's body, as
 * data.createPersonalAccessToken.token, and nowhere else ever after: keep it
 * safe, and do not log the body.
 *
 * On success `*response` is a reply that the caller frees with
 * amp_response_free(); on failure it is NULL. Blocks for `timeout_ms` at
 * most.
 *
 * Fails as amp_api_graphql() does.
 */
AMP_API
AMP_MUST_USE
amp_status amp_pat_create(const amp_token_cache *cache,
                          const char *name,
                          const char *organization_id,
                          amp_response **response,
                          amp_error **error);

/**
 * The HTTP status; 0 if `response` is NULL.
 *
 * Any thread.
 */
AMP_API int32_t amp_response_status(const amp_response *response);

/**
 * The value of the first header with that name, in any case.
 *
 * NULL: there is none, or an argument is NULL; borrowed from `response`. Any
 * thread.
 */
AMP_API
const char *amp_response_header(const amp_response *response,
                                const char *name);

/**
 * The body, and its number of bytes in `length` (which may be NULL).
 *
 * NULL: it is empty, or `response` is NULL; borrowed from `response`. It is
 * not NUL-terminated. Any thread.
 */
AMP_API
const void *amp_response_body(const amp_response *response,
                              size_t *length);

/**
 * The path that brings the next page of the collection that this reply is a
 * page of: pass it to amp_api_request() until it is NULL.
 *
 * NULL: this was the last page, or no collection, or `response` is NULL;
 * borrowed from `response`. Any thread.
 */
AMP_API const char *amp_response_next_page(const amp_response *response);

/**
 * Frees a response, and wipes its body; NULL is allowed.
 */
AMP_API void amp_response_free(amp_response *response);

/**
 * "POST", "GET" and so on. NULL if `request` is NULL.
 */
AMP_API const char *amp_http_request_method(const amp_http_request *request);

/**
 * The whole URL; it never holds a secret. NULL if `request` is NULL.
 */
AMP_API const char *amp_http_request_url(const amp_http_request *request);

/**
 * The name of a header, counted from 0. NULL: there are no more, or `request`
 * is NULL.
 */
AMP_API
const char *amp_http_request_header_name(const amp_http_request *request,
                                         size_t index);

/**
 * The value of the header with that name, in any case; it may be a secret.
 * NULL: there is none, or an argument is NULL.
 */
AMP_API
const char *amp_http_request_header(const amp_http_request *request,
                                    const char *name);

/**
 * The body, and its number of bytes in `length` (which may be NULL); it may
 * hold a secret. NULL and 0 if it is empty or `request` is NULL.
 */
AMP_API
const void *amp_http_request_body(const amp_http_request *request,
                                  size_t *length);

/**
 * How many milliseconds are left for the whole exchange; 0 if `request` is
 * NULL.
 */
AMP_API int64_t amp_http_request_timeout_ms(const amp_http_request *request);

/**
 * Sets the HTTP status of the reply, 100 to 999; another number counts as no
 * reply.
 */
AMP_API void amp_http_reply_set_status(amp_http_reply *reply, int32_t status);

/**
 * Adds a header of the reply; both texts are copied. What is not UTF-8 is
 * left out.
 */
AMP_API
void amp_http_reply_add_header(amp_http_reply *reply,
                               const char *name,
                               const char *value);

/**
 * Adds `length` bytes, which are copied, to the body of the reply. false: the
 * reply is larger than the library wants (the function may stop reading; the
 * call fails with AMP_PROTOCOL), or an argument is NULL.
 */
AMP_API
bool amp_http_reply_append_body(amp_http_reply *reply,
                                const void *data,
                                size_t length);

/**
 * Says why no reply came: a status such as AMP_RESOLVE, AMP_CONNECT, AMP_TLS,
 * AMP_PROXY or AMP_TIMEOUT (another counts as AMP_CONNECT) and a text for
 * people, which is copied, cut to a sane length, and may be NULL. It must not
 * hold a secret.
 */
AMP_API
void amp_http_reply_fail(amp_http_reply *reply,
                         int32_t status,
                         const char *message);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* AMP_TOKEN_H */
