/* libamp_token: fetches, caches and refreshes Amplience access tokens.
 *
 * This file is the manual. It is generated from the comments of the library's
 * source.
 *
 * A program that prints a token:
 *
 *     #include <amp_token.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         char token[4096];
 *         amp_error *error = NULL;
 *         amp_token_cache *cache = NULL;
 *         amp_config *config = amp_config_new();
 *         amp_status status = amp_config_load(config, &error);
 *
 *         if (status == AMP_OK)
 *             status = amp_token_cache_new(config, &cache, &error);
 *         if (status == AMP_OK)
 *             status = amp_token_cache_copy(cache, token, sizeof token, NULL,
 *                                           &error);
 *         if (status == AMP_OK)
 *             puts(token);
 *         else
 *             fprintf(stderr, "%s: %s\n", amp_status_name(status),
 *                     amp_error_message(error));
 *         amp_error_free(error);
 *         amp_token_cache_free(cache);
 *         amp_config_free(config);
 *         return status == AMP_OK ? 0 : 1;
 *     }
 *
 * It reads the credentials from AMPLIENCE_CLIENT_ID and
 * AMPLIENCE_CLIENT_SECRET. Compile it with
 * `cc program.c $(pkg-config --cflags --libs amp_token)`. A longer program
 * keeps the cache and calls amp_token_cache_copy() before each request; the
 * library requests a new token only when the cached one is due for refresh.
 *
 * Conventions
 *
 *   Results    A function that can fail returns an amp_status, which is AMP_OK
 *              (0) on success. Its last parameter, `error`, may be NULL. On
 *              failure it sets output pointers to NULL, and *error to an object
 *              that the caller frees with amp_error_free(). On success it does
 *              not change *error.
 *   Ownership  The caller frees every handle that a function returns or
 *              writes to an output pointer, with the _free function of its
 *              type, once, in any order: a token stays valid when the cache
 *              that created it is freed. Returned strings are borrowed: they
 *              belong to a handle, and are valid until it is freed. The caller
 *              never frees a string.
 *   Strings    Arguments are NUL-terminated UTF-8. The library copies them.
 *   NULL       A required argument that is NULL is AMP_INVALID_ARGUMENT. An
 *              accessor returns NULL, 0 or -1 for a NULL handle, as its comment
 *              says. No invalid argument that the library can detect ends the
 *              process.
 *   Errors     Each comment lists the statuses to expect. In addition, every
 *              function that returns a status returns AMP_INVALID_ARGUMENT for
 *              a string that is not UTF-8, and AMP_INTERNAL after a bug in the
 *              library.
 *   Threads    A handle that a function takes as pointer to const may be used
 *              by many threads at once. A config belongs to one thread at a
 *              time. There is no global state: no initialization, no cleanup,
 *              no process-wide logger. The library keeps no thread running
 *              unless background_refresh is on. A refresh of a token that is
 *              still valid, and the request that amp_token_cache_try_get()
 *              starts, run on a thread that ends with the request and calls no
 *              logger. DNS resolution and file-store I/O run on helper
 *              threads, so that a call can return at its deadline even if the
 *              system does not; at most 64 of each can be outstanding.
 *   Blocking   A function does not block unless its comment has a line
 *              "Blocks".
 *   fork       Parent and child may both keep using what was created before the
 *              fork. A child shares no connection with its parent.
 *   Signals    SIGPIPE is never raised. Calls continue after a signal handler
 *              returns. Threads that the library starts handle no signals. No
 *              function may be called in a signal handler.
 *   Booleans   A bool that a function returns fills a whole 32-bit register
 *              with 0 or 1. One that a callback returns is one byte.
 *   exit       A program may exit at any time, even while other threads are
 *              inside the library. The library stays loaded: dlclose() is
 *              allowed and does nothing.
 *   Secrets    The library wipes secrets when their handle is freed. No
 *              message, log line or argument list contains one.
 *
 * Settings
 *
 * amp_config_set() takes these names. Defaults and details are in
 * docs/configuration.md and in the manual page amp-token(1).
 *
 *   client_id                   the API key
 *   client_secret               the API secret
 *   client_secret_file          a file that contains the API secret
 *   personal_access_token       a token to use instead of key and secret
 *   personal_access_token_file  a file that contains that token
 *   client_id_file              a file that contains the API key
 *   credential_command          a program that prints the secret, or a JSON
 *                               object with the credentials: its name, or a
 *                               JSON array of its name and its arguments
 *   credentials_dir             a directory with a file for each part of the
 *                               credentials: client_id, client_secret,
 *                               personal_access_token
 *   profile                     the account: a section of config.toml, or a
 *                               hub of dc-cli by its name or ID
 *   config_file                 a configuration file of dc-cli, the last
 *                               source of credentials
 *   auth_url                    the server that issues tokens
 *   api_url                     the server that requests with a token are
 *                               sent to
 *   timeout_ms                  time limit of a call, retries and waiting
 *                               included
 *   connect_timeout_ms          time limit of one attempt to connect
 *   retries                     how often a failed request is retried
 *   ca_file                     certificates (PEM) to trust in addition to
 *                               the system's
 *   client_certificate          a certificate (PEM) for servers that ask
 *                               for one
 *   client_key                  the private key (PEM) of client_certificate
 *   proxy                       the URL of a proxy for https, or none
 *   min_validity_ms             how long a returned token must still be
 *                               valid
 *   background_refresh          true: a thread refreshes the token before
 *                               it expires
 *   max_response_bytes          the largest API response that is read into
 *                               memory
 *   store                       where tokens are shared: none, file, or a
 *                               redis:// URL
 *   store_dir                   the directory of the file store
 *   user_agent                  text to put before the library's own
 *                               User-Agent
 *   log_level                   the least severe log lines that are made:
 *                               off, error, warning, info or debug
 */

#ifndef AMP_TOKEN_H
#define AMP_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Precedes every function. On Windows define AMP_STATIC to link the static
 * library. */
#if !defined(AMP_API)
#if defined(_WIN32) && !defined(AMP_STATIC)
#define AMP_API __declspec(dllimport)
#else
#define AMP_API
#endif
#endif

/* The caller must check the return value. */
#if !defined(AMP_MUST_USE)
#if defined(__GNUC__)
#define AMP_MUST_USE __attribute__((warn_unused_result))
#else
#define AMP_MUST_USE
#endif
#endif

/* The version of this header; amp_version() returns that of the library. */
#define AMP_TOKEN_VERSION "0.1.0"
#define AMP_TOKEN_VERSION_MAJOR 0
#define AMP_TOKEN_VERSION_MINOR 1
#define AMP_TOKEN_VERSION_PATCH 0

/* The version of the binary interface that this header describes;
 * amp_abi_version() returns that of the library. */
#define AMP_TOKEN_ABI_VERSION 0


/**
 * Status codes, grouped by tens: 10 arguments and configuration, 20
 * credentials, 30 network, 40 server, 50 response, 60 this machine. A code
 * never changes meaning and is never reused. New codes may be added to a
 * group, so handle an unknown code like its group, and anything but AMP_OK as
 * a failure.
 */
typedef enum {
    /**
     * Success.
     */
    AMP_OK = 0,
    /**
     * An argument is NULL, not UTF-8, or not an allowed value.
     */
    AMP_INVALID_ARGUMENT = 10,
    /**
     * Conflicting or unusable settings.
     */
    AMP_CONFIG = 11,
    /**
     * No client id and secret, and no personal access token, was found.
     */
    AMP_NO_CREDENTIALS = 20,
    /**
     * The server rejected the client id and secret, or the personal access
     * token.
     */
    AMP_CREDENTIALS_REJECTED = 21,
    /**
     * The host name could not be resolved.
     */
    AMP_RESOLVE = 30,
    /**
     * No connection could be made, or the connection broke.
     */
    AMP_CONNECT = 31,
    /**
     * The TLS handshake failed, most often because a certificate is not
     * trusted.
     */
    AMP_TLS = 32,
    /**
     * The proxy could not be reached, rejected the connection, or asked for
     * other credentials.
     */
    AMP_PROXY = 33,
    /**
     * The call timed out.
     */
    AMP_TIMEOUT = 34,
    /**
     * The server is rate limiting requests (HTTP 429).
     */
    AMP_RATE_LIMITED = 40,
    /**
     * The server failed (HTTP 5xx, 408).
     */
    AMP_SERVER = 41,
    /**
     * The response violates the protocol.
     */
    AMP_PROTOCOL = 50,
    /**
     * A local file operation or system call failed.
     */
    AMP_IO = 60,
    /**
     * The buffer is too small for the token.
     */
    AMP_BUFFER_TOO_SMALL = 61,
    /**
     * No token yet; one is being requested. Only amp_token_cache_try_get()
     * returns this.
     */
    AMP_PENDING = 62,
    /**
     * Internal error: a bug in the library.
     */
    AMP_INTERNAL = 69,
} amp_status;

/**
 * Severity of a log line: the `level` argument of an amp_log_fn. More levels
 * may be added.
 */
typedef enum {
    /**
     * A call failed.
     */
    AMP_LOG_ERROR = 1,
    /**
     * Something is wrong, and the library continued without it.
     */
    AMP_LOG_WARNING = 2,
    /**
     * A token was fetched or discarded.
     */
    AMP_LOG_INFO = 3,
    /**
     * Each step of a call.
     */
    AMP_LOG_DEBUG = 4,
} amp_log_level;

/**
 * What an amp_observer_fn is told. More events may be added.
 */
typedef enum {
    /**
     * A new token replaced the previous one, or is the first.
     */
    AMP_EVENT_REFRESHED = 1,
    /**
     * A token request failed.
     */
    AMP_EVENT_REFRESH_FAILED = 2,
    /**
     * A server rejected the current token.
     */
    AMP_EVENT_TOKEN_REJECTED = 3,
} amp_event;

/**
 * Settings, and the callbacks of the application. Only one thread at a time
 * may use a config.
 *
 * Objects that are created from a config copy what they need, so the config
 * may be changed or freed right after.
 */
typedef struct amp_config amp_config;

/**
 * Describes why a call failed. Immutable, so any number of threads may use it
 * at once.
 *
 * A call that fails creates one if its `error` argument is not NULL; the
 * caller frees it with amp_error_free(). No string of an error contains a
 * secret or a token, so all of them may be logged.
 */
typedef struct amp_error amp_error;

/**
 * The response that an amp_transport_fn received. Valid until that function
 * returns.
 */
typedef struct amp_http_reply amp_http_reply;

/**
 * A request for an amp_transport_fn to send. It and the strings that its
 * functions return are valid until that function returns. It contains a secret
 * or a token: do not log its headers or body.
 */
typedef struct amp_http_request amp_http_request;

/**
 * A response of the API, whatever its HTTP status. Immutable, so any number of
 * threads may use it at once.
 */
typedef struct amp_response amp_response;

/**
 * One access token. Immutable, so any number of threads may use it at once. It
 * stays valid when the cache that it came from is freed.
 */
typedef struct amp_token amp_token;

/**
 * The current token of one set of credentials, refreshed before it expires and
 * shared by all threads.
 *
 * Any number of threads may call the functions whose first parameter is const
 * at once. After a fork, both the parent and the child may use it. It must not
 * be freed while another thread uses it; tokens that were returned by it stay
 * valid.
 */
typedef struct amp_token_cache amp_token_cache;

/**
 * A callback of the application that receives log lines: see
 * amp_config_set_logger().
 */
typedef void (*amp_log_fn)(int32_t level, const char *message, void *user_data);

/**
 * A callback of the application that is told what happened to tokens: see
 * amp_config_set_observer().
 */
typedef void (*amp_observer_fn)(int32_t event,
                                const amp_error *error,
                                void *user_data);

/**
 * A callback of the application that sends a request: see
 * amp_config_set_transport().
 */
typedef int32_t (*amp_transport_fn)(const amp_http_request *request,
                                    amp_http_reply *reply,
                                    void *user_data);

/**
 * A callback of the application that receives the body of a download in
 * pieces: see amp_api_download().
 */
typedef bool (*amp_write_fn)(const void *data, size_t length, void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the loaded library, such as "0.1.0". It may differ
 * from AMP_TOKEN_VERSION, which is the version of the header at compile time.
 *
 * Threads: any.
 * NULL: never returned.
 * Ownership: the string is static.
 */
AMP_API const char *amp_version(void);

/**
 * Returns the version of the binary interface of the loaded library. A program
 * or binding that loads the library at run time compares it with
 * AMP_TOKEN_ABI_VERSION and rejects any other value.
 *
 * Threads: any.
 */
AMP_API uint32_t amp_abi_version(void);

/**
 * Returns the name of a status, such as "AMP_TIMEOUT", or "AMP_UNKNOWN" for a
 * number that this version does not define.
 *
 * Threads: any.
 * NULL: never returned.
 * Ownership: the string is static.
 */
AMP_API const char *amp_status_name(int32_t status);

/**
 * Returns the status that the failed call returned, or AMP_INVALID_ARGUMENT
 * for NULL.
 *
 * Threads: any.
 * NULL: `error` may be NULL.
 */
AMP_API amp_status amp_error_status(const amp_error *error);

/**
 * Returns one line that says what failed, why, and what to do about it. It is
 * meant for people and logs: its text may change in any version. Programs
 * decide by the status.
 *
 * Threads: any.
 * NULL: never returned; the message for a NULL `error` is "no error".
 * Ownership: borrowed from `error`.
 */
AMP_API const char *amp_error_message(const amp_error *error);

/**
 * Returns the HTTP status of the last response, or 0 if there was none.
 *
 * Threads: any.
 * NULL: 0 for a NULL `error`.
 */
AMP_API int32_t amp_error_http_status(const amp_error *error);

/**
 * Returns the error code that the server sent, such as "invalid_client" (RFC
 * 6749, section 5.2).
 *
 * Threads: any.
 * NULL: returned if the server sent no code, or `error` is NULL.
 * Ownership: borrowed from `error`.
 */
AMP_API const char *amp_error_oauth_code(const amp_error *error);

/**
 * Returns whether the same call may succeed later although nothing else has
 * changed.
 *
 * Threads: any.
 * NULL: false for a NULL `error`.
 */
AMP_API bool amp_error_is_retryable(const amp_error *error);

/**
 * Returns how many milliseconds to wait before the next call, counted from the
 * time of the failure: the time that the server asked for, or the rest of the
 * cache's backoff. An earlier call fails immediately. -1 means not known.
 *
 * Threads: any.
 * NULL: -1 for a NULL `error`.
 */
AMP_API int64_t amp_error_retry_after_ms(const amp_error *error);

/**
 * Returns how many requests the failed call sent or tried to send; 0 if it
 * failed before the first one.
 *
 * Threads: any.
 * NULL: 0 for a NULL `error`.
 */
AMP_API uint32_t amp_error_attempts(const amp_error *error);

/**
 * Frees an error.
 *
 * Threads: any, but not while another thread uses `error`.
 * NULL: a NULL `error` is ignored.
 */
AMP_API void amp_error_free(amp_error *error);

/**
 * Creates a config in which nothing is set.
 *
 * Reads the environment variables that are not settings: HTTPS_PROXY,
 * ALL_PROXY, NO_PROXY (also in lower case), SSL_CERT_FILE, SSL_CERT_DIR, HOME
 * and those that name directories; and copies the whole environment, without
 * secrets of the library, for credential_command. Only this function and
 * amp_config_load() read the environment; what is created from the config uses
 * what they read.
 *
 * Threads: any, but not while another thread changes the environment.
 * NULL: returned only after an internal error. Every function accepts it and
 *   then returns AMP_INVALID_ARGUMENT.
 * Ownership: free it with amp_config_free().
 */
AMP_API AMP_MUST_USE amp_config *amp_config_new(void);

/**
 * Sets one setting by name. "Settings" at the top of this file lists the
 * names.
 *
 * A program that credential_command names is run by the call that needs its
 * secret, with the environment that amp_config_new() or amp_config_load() has
 * read, and ends with that call. If this process ignores SIGCHLD, or waits for
 * all of its children, the exit status of the program is lost, and only its
 * output counts. A handler for SIGCHLD is called.
 *
 * Threads: not while another thread uses `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config` and `name`. A NULL `value` unsets
 *   the setting.
 * Ownership: the strings are copied.
 * Errors: AMP_INVALID_ARGUMENT if there is no such setting, or the value is
 *   not allowed for it. The message lists what is allowed, and the config is
 *   unchanged.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set(amp_config *config,
                          const char *name,
                          const char *value,
                          amp_error **error);

/**
 * Sets every unset setting from the environment: from AMPLIENCE_ and its name
 * in capitals, such as AMPLIENCE_CLIENT_ID, and personal_access_token from
 * AMPLIENCE_PAT too. Also reads again what amp_config_new() reads. If credentials are still missing when a token is needed,
 * they are read from the section "default" of config.toml, from the directory
 * that systemd names, or from the configuration files of dc-cli.
 *
 * Fails in a program that runs with raised privileges (setuid, setgid, file
 * capabilities): its environment comes from a user with fewer privileges, who
 * must not decide where the program sends its secrets and which files it
 * reads. No other function reads the environment in such a program either: not
 * the proxy variables, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, HOME or XDG_*.
 * Such a program sets what it needs with amp_config_set(), including proxy and
 * store_dir.
 *
 * Threads: not while another thread uses `config` or changes the environment.
 * NULL: AMP_INVALID_ARGUMENT for `config`.
 * Errors: AMP_CONFIG if a variable has a value that its setting does not allow
 *   (the message names it), or if the program runs with raised privileges.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_load(amp_config *config,
                           amp_error **error);

/**
 * Sends the log lines of everything that is created from this config to
 * `logger`. Without a logger, nothing is written anywhere. The setting
 * log_level decides which lines are made.
 *
 * Lines are kept during a token request and passed to `logger` at the end of
 * the call, so that a slow logger never delays or fails another call. They are
 * passed on by threads that call a function of a handle and, only with
 * background_refresh, by a thread of the library; several calls may run at
 * once. No lock is held during a call. A host that cannot be called in this
 * way fetches the lines: amp_config_queue_log_lines(). `message` is one line
 * of UTF-8 without a newline; it is valid until `logger` returns and never
 * contains a secret. `level` is one of amp_log_level. `logger` may ask the same
 * cache for a token: it gets the one that is cached, and
 * AMP_INVALID_ARGUMENT at once if it would have to wait for one. `logger` must
 * return normally (no longjmp, no C++ exception) and must not free the handle
 * that it logs for.
 *
 * Threads: not while another thread uses `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `logger` disables logging
 *   again. `user_data` may be NULL.
 * Ownership: `logger` and `user_data` must stay valid until the last handle
 *   that was created from the config is freed and, with background_refresh,
 *   its last request is over; or until amp_config_stop_callbacks() has
 *   returned.
 * Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set_logger(amp_config *config,
                                 amp_log_fn logger,
                                 void *user_data,
                                 amp_error **error);

/**
 * Keeps up to `capacity` log lines for amp_config_next_log_line() instead of
 * calling a logger, for hosts whose code no foreign thread may call. If more
 * lines accumulate, the oldest are dropped, and a line says how many. Replaces
 * a logger that was set. Call it before handles are created from the config.
 *
 * Threads: not while another thread uses `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config`. `capacity` 0 disables logging.
 * Errors: AMP_INVALID_ARGUMENT if `config` is NULL or `capacity` is above
 *   1,000,000.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_queue_log_lines(amp_config *config,
                                      size_t capacity,
                                      amp_error **error);

/**
 * Takes the oldest log line of the config and everything that was created from
 * it: copies it into `buffer`, with a NUL, and sets `*level` to one of
 * amp_log_level. A line that does not fit is cut; 1024 is a good capacity. The
 * queue needs amp_config_queue_log_lines(), and lives as long as the config.
 * A forked child begins with an empty one.
 *
 * Returns false if no line is left.
 *
 * Threads: any, but not while another thread changes or frees `config`.
 * NULL: false for a NULL `config`, and for a NULL `buffer` or a `capacity` of
 *   0; then no line is taken. `level` may be NULL.
 * Ownership: `buffer` belongs to the caller.
 * Blocks: never.
 * Example: print the lines that a call left, with a buffer for one of them.
 *     void print_log(const amp_config *config, char *line, size_t size) {
 *         int32_t level;
 *         while (amp_config_next_log_line(config, &level, line, size))
 *             fprintf(stderr, "%s%s\n",
 *                     level <= AMP_LOG_WARNING ? "warning: " : "", line);
 *     }
 */
AMP_API
bool amp_config_next_log_line(const amp_config *config,
                              int32_t *level,
                              char *buffer,
                              size_t capacity);

/**
 * Calls `observer` after each token request and rejection of everything that is
 * created from this config: `event` is one of amp_event. `error` is the failure
 * for AMP_EVENT_REFRESH_FAILED, else NULL; it is valid until `observer`
 * returns. The rules for loggers apply: see amp_config_set_logger().
 *
 * Threads: not while another thread uses `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `observer` removes it again.
 *   `user_data` may be NULL.
 * Ownership: as for amp_config_set_logger().
 * Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set_observer(amp_config *config,
                                   amp_observer_fn observer,
                                   void *user_data,
                                   amp_error **error);

/**
 * Sends requests through `send` instead of the built-in HTTP client. The
 * settings for TLS and proxies are then ignored.
 *
 * Any thread that uses a handle may call `send`, the library's own threads
 * too; for token requests, each cache makes only one call at a time. `send`
 * sends one request without following redirects and without retrying, stores
 * the response in `reply`, and returns 0. If there is no response, it calls
 * amp_http_reply_fail() to say why, or returns another number, which counts as
 * AMP_CONNECT. `request` and `reply` are valid until it returns. It should
 * return within amp_http_request_timeout_ms(). It must return normally (no
 * longjmp, no C++ exception). If it asks the same cache for a token, it gets
 * the one that is cached, and AMP_INVALID_ARGUMENT at once if there is none.
 *
 * Threads: not while another thread uses `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config`. A NULL `send` restores the built-in
 *   client. `user_data` may be NULL.
 * Ownership: `send` and `user_data` must stay valid until the last handle that
 *   was created from the config is freed and, with background_refresh, its
 *   last request is over; or until amp_config_stop_callbacks() has returned.
 * Errors: AMP_INVALID_ARGUMENT if `config` is NULL.
 */
AMP_API
AMP_MUST_USE
amp_status amp_config_set_transport(amp_config *config,
                                    amp_transport_fn send,
                                    void *user_data,
                                    amp_error **error);

/**
 * Permanently disables the logger and transport callbacks of this config and
 * of everything created from it, those that are set later too. When it
 * returns, none of them is running, and none is called afterwards. Use it
 * before an interpreter shuts down or the code of the callbacks is unloaded.
 * Requests that need the transport fail with AMP_CONNECT from then on.
 *
 * A callback must not call it. The caller must not hold a lock that a callback
 * needs.
 *
 * Threads: any, but not while another thread changes or frees `config`.
 * NULL: a NULL `config` is ignored.
 * Blocks: until running callbacks have returned.
 */
AMP_API void amp_config_stop_callbacks(const amp_config *config);

/**
 * Frees a config and wipes its secrets. What was created from it stays valid.
 *
 * Threads: any, but not while another thread uses `config`.
 * NULL: a NULL `config` is ignored.
 */
AMP_API void amp_config_free(amp_config *config);

/**
 * Fetches a token without a cache, for a program that needs a single one. A
 * program that needs more than one, or has threads, uses an amp_token_cache.
 *
 * Threads: any, but not while another thread changes `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config` and `token`.
 * Ownership: free `*token` with amp_token_free(); it is NULL on failure.
 * Blocks: for up to timeout_ms.
 * Errors: AMP_CONFIG, AMP_NO_CREDENTIALS: nothing was sent.
 *   AMP_CREDENTIALS_REJECTED: the server rejected the credentials.
 *   AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY, AMP_TIMEOUT: the network
 *   failed. AMP_RATE_LIMITED, AMP_SERVER, AMP_PROTOCOL: the response was not a
 *   token. AMP_IO: a file operation or system call failed.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_get(const amp_config *config,
                         amp_token **token,
                         amp_error **error);

/**
 * Returns the token itself, which consists of visible ASCII characters. It is
 * a secret: do not log it.
 *
 * Threads: any.
 * NULL: returned for a NULL `token`.
 * Ownership: borrowed from `token`.
 */
AMP_API const char *amp_token_value(const amp_token *token);

/**
 * Returns the length of amp_token_value() in bytes, without the NUL.
 *
 * Threads: any.
 * NULL: 0 for a NULL `token`.
 */
AMP_API size_t amp_token_length(const amp_token *token);

/**
 * Returns the value of an Authorization header: "Bearer " and the token. It is
 * a secret: do not log it.
 *
 * Threads: any.
 * NULL: returned for a NULL `token`.
 * Ownership: borrowed from `token`.
 */
AMP_API const char *amp_token_authorization(const amp_token *token);

/**
 * Returns when the token expires, in seconds since 1970 by this machine's
 * clock; INT64_MAX if it never expires.
 *
 * Threads: any.
 * NULL: 0 for a NULL `token`.
 */
AMP_API int64_t amp_token_expires_at(const amp_token *token);

/**
 * Returns for how many whole seconds the token is still valid, never less than
 * 0; INT64_MAX if it never expires. Uses both the monotonic and the wall
 * clock, so it is never overestimated after a clock change or suspend.
 *
 * Threads: any.
 * NULL: 0 for a NULL `token`.
 */
AMP_API int64_t amp_token_expires_in(const amp_token *token);

/**
 * Returns for how many milliseconds the token may be used without asking the
 * cache again: until it is due for refresh. For bindings and programs that
 * keep a copy of the token together with amp_token_cache_epoch(). INT64_MAX if
 * the token never expires; 0 if the cache must be asked now.
 *
 * Count this time by a clock that goes on while the machine is suspended
 * (CLOCK_BOOTTIME on Linux), and also compare the wall clock with
 * amp_token_expires_at(): a virtual machine that was paused continues with
 * another clock than a real one. Or call this function again each time.
 *
 * Threads: any.
 * NULL: 0 for a NULL `token`.
 */
AMP_API int64_t amp_token_refresh_in_ms(const amp_token *token);

/**
 * Returns another reference to the same token (one atomic increment).
 *
 * Threads: any.
 * NULL: returned for a NULL `token`.
 * Ownership: free it with amp_token_free(), in addition to `token`.
 */
AMP_API AMP_MUST_USE amp_token *amp_token_clone(const amp_token *token);

/**
 * Frees a token. Its memory is wiped when the last reference is freed.
 *
 * Threads: any, but not while another thread uses this reference.
 * NULL: a NULL `token` is ignored.
 */
AMP_API void amp_token_free(amp_token *token);

/**
 * Creates a cache from a config: finds the credentials, and sends nothing yet.
 *
 * Threads: any, but not while another thread changes `config`.
 * NULL: AMP_INVALID_ARGUMENT for `config` and `cache`.
 * Ownership: free `*cache` with amp_token_cache_free(); it is NULL on failure.
 *   `config` may be freed right after.
 * Blocks: not on the network, but it reads files.
 * Errors: AMP_CONFIG if settings conflict. AMP_NO_CREDENTIALS if none were
 *   found; the message lists where they were searched for. AMP_IO if a file
 *   cannot be read.
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_new(const amp_config *config,
                               amp_token_cache **cache,
                               amp_error **error);

/**
 * Returns a valid token: the cached one while it is valid, otherwise a new
 * one.
 *
 * Returns immediately while the cached token is valid. When it is due for
 * refresh, one caller performs the refresh and may block for up to 2 seconds.
 * However many threads call it, one request is sent. It is not a cancellation
 * point: threads that may be cancelled disable cancellation around the call.
 *
 * After a failure there is a backoff, during which calls fail immediately with
 * the same error; amp_error_retry_after_ms() says for how long.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
 * Ownership: free `*token` with amp_token_free(); it is NULL on failure.
 * Blocks: for up to timeout_ms if no valid token is cached.
 * Errors: those of amp_token_get().
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_get(const amp_token_cache *cache,
                               amp_token **token,
                               amp_error **error);

/**
 * Like amp_token_cache_get(), but returns a token that is valid for at least
 * `min_validity_ms` more, for a request that takes long. If the setting
 * min_validity_ms is larger, that one applies.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
 * Ownership: free `*token` with amp_token_free(); it is NULL on failure.
 * Blocks: for up to timeout_ms if no such token is cached.
 * Errors: AMP_INVALID_ARGUMENT if `min_validity_ms` is negative, or longer
 *   than the lifetime of tokens. Otherwise those of amp_token_cache_get().
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_get_for(const amp_token_cache *cache,
                                   int64_t min_validity_ms,
                                   amp_token **token,
                                   amp_error **error);

/**
 * Copies a valid token and a NUL into `buffer`. Like amp_token_cache_get(),
 * but without a handle to free; it is the fastest way for many threads. A
 * token is about 1,100 bytes long, and may become longer; 4096 is a good
 * capacity.
 *
 * `*length` is set to the token's length without the NUL, even if the buffer
 * is too small. On failure `buffer` is unchanged, and `*length` is 0 unless
 * the buffer is too small.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, and for `buffer` unless `capacity`
 *   is 0. `length` may be NULL.
 * Ownership: `buffer` belongs to the caller. It contains a secret: wipe it
 *   after use.
 * Blocks: for up to timeout_ms if no valid token is cached.
 * Errors: AMP_BUFFER_TOO_SMALL if `capacity` is not greater than the length.
 *   Otherwise those of amp_token_cache_get().
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_copy(const amp_token_cache *cache,
                                char *buffer,
                                size_t capacity,
                                size_t *length,
                                amp_error **error);

/**
 * Like amp_token_cache_get(), but never waits: for event loops, and hosts whose
 * threads must not block. If no valid token is cached, a thread of the library
 * requests one, and the call fails with AMP_PENDING until it is there;
 * amp_error_retry_after_ms() says when to ask again. A token that is due for
 * refresh is returned while a thread of the library refreshes it. If
 * amp_config_set_transport() was called, that thread calls the transport.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache` and `token`.
 * Ownership: free `*token` with amp_token_free(); it is NULL on failure.
 * Blocks: never.
 * Errors: AMP_PENDING while a token is being requested. After a failure, that
 *   failure, during the backoff. Otherwise those of amp_token_get().
 * Example: ask from a timer of an event loop.
 *     // Returns how many milliseconds to wait before the next call, or -1.
 *     int64_t poll_token(const amp_token_cache *cache, amp_token **token) {
 *         amp_error *error = NULL;
 *         int64_t wait = -1;
 *         if (amp_token_cache_try_get(cache, token, &error) != AMP_OK)
 *             wait = amp_error_retry_after_ms(error);
 *         amp_error_free(error);
 *         return wait;
 *     }
 */
AMP_API
AMP_MUST_USE
amp_status amp_token_cache_try_get(const amp_token_cache *cache,
                                   amp_token **token,
                                   amp_error **error);

/**
 * Reports the response to a request that a program sent with `token`, and
 * returns whether to send it again with the token that amp_token_cache_get()
 * then returns. Call it for a 401 or 403; any other status returns false.
 *
 * The function decides by the status and the body whether the server rejected
 * the token: a 401 does, and the 403 that Amplience returns for an expired
 * token. It then requests another token, or waits for the request that is in
 * progress, and returns true if there is one. A rejection may also mean that a
 * permission is missing. So the token stays in use for others until it is
 * replaced, and replacements are requested at most once a second, later once a
 * minute; in between the function returns false, and the response is the
 * result of the request. Call it once for each request: if the second response
 * is a rejection too, that is the result.
 *
 * Threads: any.
 * NULL: false for a NULL `cache` or `token`. `body` may be NULL if
 *   `body_length` is 0.
 * Ownership: `body` is used only during the call. The first 64 KiB of a long
 *   body are enough.
 * Blocks: for up to timeout_ms, while another token is requested.
 * Example: decide after each response.
 *     bool send_again(const amp_token_cache *cache, const amp_token *token,
 *                     int32_t status, const char *body, size_t length,
 *                     int attempts) {
 *         return attempts == 1 && amp_token_cache_report(cache, token, status,
 *                                                        body, length);
 *     }
 */
AMP_API
AMP_MUST_USE
bool amp_token_cache_report(const amp_token_cache *cache,
                            const amp_token *token,
                            int32_t http_status,
                            const void *body,
                            size_t body_length);

/**
 * Reports that a server rejected `token`. If it is still current, the next call
 * of this thread requests another one; other threads use it until it is
 * replaced. Otherwise this is a no-op, so several threads can report the same
 * token. Replacements are paced as amp_token_cache_report() describes: within
 * the pause the token stays in use.
 *
 * A 403 also means that a permission is missing: amp_token_cache_report() tells
 * the two apart.
 *
 * Threads: any.
 * NULL: a NULL `cache` or `token` is ignored.
 * Blocks: only to remove the token from a shared store.
 */
AMP_API
void amp_token_cache_invalidate(const amp_token_cache *cache,
                                const amp_token *token);

/**
 * Returns a counter that changes whenever the current token does. A program or
 * binding that keeps a copy of the token may use it, within
 * amp_token_refresh_in_ms(), as long as the counter is unchanged. Read the
 * counter before the token that belongs to it, as one aligned 64-bit load.
 *
 * Threads: any.
 * NULL: returned for a NULL `cache`.
 * Ownership: borrowed from `cache`.
 */
AMP_API const uint64_t *amp_token_cache_epoch(const amp_token_cache *cache);

/**
 * Returns the base URL for requests with a token: the effective value of
 * api_url, wherever it was set, without "/" or "/v2/content" at its end. A
 * program that sends its own requests appends paths such as "/v2/content/hubs"
 * to it, and sends the token nowhere else.
 *
 * Threads: any.
 * NULL: returned for a NULL `cache`.
 * Ownership: borrowed from `cache`.
 */
AMP_API const char *amp_token_cache_api_url(const amp_token_cache *cache);

/**
 * Returns a statistic by name: "hits", "waits", "refreshes", "failures",
 * "requests", "invalidations" (counts), "last_refresh_ms", "last_status",
 * "age", "expires_in" (seconds). -1 if there is no such statistic, or no
 * token.
 *
 * Threads: any.
 * NULL: -1 for a NULL `cache` or `name`.
 */
AMP_API
int64_t amp_token_cache_stat(const amp_token_cache *cache,
                             const char *name);

/**
 * Frees a cache and wipes its secrets. Stops its background thread. A thread of
 * the library that is sending a request, or is in a callback, ends by itself
 * after that; this function does not wait for it.
 *
 * Threads: any, but not while another thread uses `cache`.
 * NULL: a NULL `cache` is ignored.
 */
AMP_API void amp_token_cache_free(amp_token_cache *cache);

/**
 * Sends a request with a valid token and returns the response. Any HTTP status
 * is a success.
 *
 * `path` is a path below api_url, such as "/v2/content/hubs?size=100", or a
 * URL of the same origin, such as a link in a response. The token is not sent
 * anywhere else, and redirects are not followed. `method` is "GET", "POST" and
 * so on.
 *
 * If the API rejects the token (401, or the 403 for an expired token), the
 * token is replaced and the request is retried once. After a connection
 * failure the request is retried if nothing was sent yet, or if the method is
 * idempotent (GET, HEAD, PUT, DELETE). For these methods, the call also waits
 * and retries after a 429 or 503 with Retry-After.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, `method`, `path` and `response`, and
 *   for `content_type` and `body` unless `body_length` is 0.
 * Ownership: free `*response` with amp_response_free(); it is NULL on failure.
 *   The arguments are copied, or used only during the call.
 * Blocks: for up to timeout_ms, including retries and waiting.
 * Errors: AMP_INVALID_ARGUMENT if `path` is not below api_url, or an argument
 *   cannot be sent. AMP_PROTOCOL if the response is larger than
 *   max_response_bytes or not HTTP. Otherwise those of amp_token_cache_get().
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
 * Sends a request with headers and a time limit of its own. Otherwise like
 * amp_api_request().
 *
 * `headers` are names and values in turn, and NULL at the end. They replace
 * those that the library adds by default (Accept, User-Agent). A request with a
 * body needs a Content-Type. The library alone sets Authorization, Host,
 * Content-Length and the headers that are for one connection, and treats no
 * value of `headers` as a secret. `timeout_ms` is used instead of the setting
 * timeout_ms; 0 means the setting.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, `method`, `path` and `response`, and
 *   for `body` unless `body_length` is 0. `headers` may be NULL.
 * Ownership: free `*response` with amp_response_free(); it is NULL on failure.
 *   The arguments are copied, or used only during the call.
 * Blocks: for up to `timeout_ms`, including retries and waiting.
 * Errors: AMP_INVALID_ARGUMENT if a header cannot be sent, a name has no value,
 *   there are more than 64 headers or 16 KiB of them, or `timeout_ms` is
 *   negative or more than a day. Otherwise those of amp_api_request().
 * Example: replace an item if nobody else has changed it.
 *     amp_status replace(const amp_token_cache *cache, const char *path,
 *                        const char *etag, const char *json,
 *                        amp_response **response, amp_error **error) {
 *         const char *headers[] = {"Content-Type", "application/json",
 *                                  "If-Match", etag, NULL};
 *         return amp_api_send(cache, "PUT", path, headers, json, strlen(json),
 *                             5000, response, error);
 *     }
 */
AMP_API
AMP_MUST_USE
amp_status amp_api_send(const amp_token_cache *cache,
                        const char *method,
                        const char *path,
                        const char *const *headers,
                        const void *body,
                        size_t body_length,
                        int64_t timeout_ms,
                        amp_response **response,
                        amp_error **error);

/**
 * Downloads what is at `path`, of any size, and passes it to `write` in pieces
 * as it arrives. Like amp_api_request() with "GET", for what is too large for
 * memory.
 *
 * The calling thread calls `write`, before this function returns, with each
 * piece of the body of a successful response (2xx). A piece is valid until
 * `write` returns. `write` returns true to continue. It must return normally
 * (no longjmp, no C++ exception). After amp_config_stop_callbacks() it is not
 * called any more, and the call fails. The body of any other status is in
 * `*response`. Any HTTP status is a success. On failure part of the body may
 * have been written; an interrupted download is not restarted.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, `path`, `write` and `response`.
 *   `user_data`, which is passed on to `write`, may be NULL.
 * Ownership: free `*response` with amp_response_free(); it is NULL on failure.
 * Blocks: for up to timeout_ms; increase it for large downloads.
 * Errors: AMP_IO if `write` returned false. Otherwise those of
 *   amp_api_request().
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
 * Sends a GraphQL request with a valid token and returns the response.
 * GraphQL's own errors are in its body, as "errors".
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, `query` and `response`.
 *   `variables_json` may be NULL; otherwise it is a JSON object.
 * Ownership: free `*response` with amp_response_free(); it is NULL on failure.
 *   The strings are copied.
 * Blocks: for up to timeout_ms.
 * Errors: AMP_INVALID_ARGUMENT if `variables_json` is not a JSON object.
 *   Otherwise those of amp_api_request().
 */
AMP_API
AMP_MUST_USE
amp_status amp_api_graphql(const amp_token_cache *cache,
                           const char *query,
                           const char *variables_json,
                           amp_response **response,
                           amp_error **error);

/**
 * Creates a personal access token for the user to whom the credentials belong.
 * It is in the response's body, as data.createPersonalAccessToken.token. It
 * cannot be retrieved again: store it securely, and do not log the body.
 *
 * Threads: any.
 * NULL: AMP_INVALID_ARGUMENT for `cache`, `name`, `organization_id` and
 *   `response`.
 * Ownership: free `*response` with amp_response_free(); it is NULL on failure.
 *   The strings are copied.
 * Blocks: for up to timeout_ms.
 * Errors: those of amp_api_graphql().
 */
AMP_API
AMP_MUST_USE
amp_status amp_pat_create(const amp_token_cache *cache,
                          const char *name,
                          const char *organization_id,
                          amp_response **response,
                          amp_error **error);

/**
 * Returns the HTTP status.
 *
 * Threads: any.
 * NULL: 0 for a NULL `response`.
 */
AMP_API int32_t amp_response_status(const amp_response *response);

/**
 * Returns the value of the first header with that name, which is compared
 * without regard to case.
 *
 * Threads: any.
 * NULL: returned if there is no such header, or for a NULL `response` or
 *   `name`.
 * Ownership: borrowed from `response`.
 */
AMP_API
const char *amp_response_header(const amp_response *response,
                                const char *name);

/**
 * Returns the body, which is not NUL-terminated, and sets `*length` to its
 * size in bytes.
 *
 * Threads: any.
 * NULL: returned if the body is empty, or for a NULL `response`; `*length` is
 *   then 0. `length` may be NULL.
 * Ownership: borrowed from `response`.
 */
AMP_API
const void *amp_response_body(const amp_response *response,
                              size_t *length);

/**
 * Returns the path of the next page, if this response is a page of a
 * collection. Pass it to amp_api_request() until it is NULL. A server that then
 * returns another page than the requested one makes amp_api_request() fail with
 * AMP_PROTOCOL.
 *
 * Threads: any.
 * NULL: returned after the last page, if this is not a collection, or for a
 *   NULL `response`.
 * Ownership: borrowed from `response`.
 * Example: print every page of a collection.
 *     amp_status print_all(const amp_token_cache *cache, amp_error **error) {
 *         const char *path = "/v2/content/hubs?size=100";
 *         amp_response *page = NULL;
 *         amp_status status = AMP_OK;
 *         while (path != NULL) {
 *             amp_response *next;
 *             size_t length;
 *             status = amp_api_request(cache, "GET", path, NULL, NULL, 0,
 *                                      &next, error);
 *             amp_response_free(page); // path belonged to it
 *             page = next;
 *             if (status != AMP_OK || amp_response_status(page) != 200)
 *                 break;
 *             const void *body = amp_response_body(page, &length);
 *             fwrite(body, 1, length, stdout);
 *             path = amp_response_next_page(page);
 *         }
 *         amp_response_free(page);
 *         return status;
 *     }
 */
AMP_API const char *amp_response_next_page(const amp_response *response);

/**
 * Frees a response and wipes its body.
 *
 * Threads: any, but not while another thread uses `response`.
 * NULL: a NULL `response` is ignored.
 */
AMP_API void amp_response_free(amp_response *response);

/**
 * Returns the method: "POST", "GET" and so on.
 *
 * Threads: any, until the transport callback returns.
 * NULL: returned for a NULL `request`.
 * Ownership: borrowed from `request`.
 */
AMP_API const char *amp_http_request_method(const amp_http_request *request);

/**
 * Returns the whole URL. It never contains a secret.
 *
 * Threads: any, until the transport callback returns.
 * NULL: returned for a NULL `request`.
 * Ownership: borrowed from `request`.
 */
AMP_API const char *amp_http_request_url(const amp_http_request *request);

/**
 * Returns the name of a header by its index, which starts at 0.
 *
 * Threads: any, until the transport callback returns.
 * NULL: returned if there are no more headers, or for a NULL `request`.
 * Ownership: borrowed from `request`.
 */
AMP_API
const char *amp_http_request_header_name(const amp_http_request *request,
                                         size_t index);

/**
 * Returns the value of the header with that name, which is compared without
 * regard to case. It may be a secret.
 *
 * Threads: any, until the transport callback returns.
 * NULL: returned if there is no such header, or for a NULL `request` or
 *   `name`.
 * Ownership: borrowed from `request`.
 */
AMP_API
const char *amp_http_request_header(const amp_http_request *request,
                                    const char *name);

/**
 * Returns the body and sets `*length` to its size in bytes. It may contain a
 * secret.
 *
 * Threads: any, until the transport callback returns.
 * NULL: returned if the body is empty, or for a NULL `request`; `*length` is
 *   then 0. `length` may be NULL.
 * Ownership: borrowed from `request`.
 */
AMP_API
const void *amp_http_request_body(const amp_http_request *request,
                                  size_t *length);

/**
 * Returns how many milliseconds are left for the request and its response.
 *
 * Threads: any, until the transport callback returns.
 * NULL: 0 for a NULL `request`.
 */
AMP_API int64_t amp_http_request_timeout_ms(const amp_http_request *request);

/**
 * Sets the HTTP status of the response, from 100 to 999. Any other number
 * counts as no response.
 *
 * Threads: one at a time, until the transport callback returns.
 * NULL: a NULL `reply` is ignored.
 */
AMP_API void amp_http_reply_set_status(amp_http_reply *reply, int32_t status);

/**
 * Adds a header to the response. A header that is not UTF-8 is ignored.
 *
 * Threads: one at a time, until the transport callback returns.
 * NULL: the call is ignored if `reply`, `name` or `value` is NULL.
 * Ownership: the strings are copied.
 */
AMP_API
void amp_http_reply_add_header(amp_http_reply *reply,
                               const char *name,
                               const char *value);

/**
 * Appends `length` bytes to the body of the response. Returns false if the
 * response is larger than the library accepts (the callback may stop reading;
 * the call fails with AMP_PROTOCOL), or if an argument is NULL.
 *
 * Threads: one at a time, until the transport callback returns.
 * NULL: false for a NULL `reply`, and for a NULL `data` unless `length` is 0.
 * Ownership: the bytes are copied.
 */
AMP_API
bool amp_http_reply_append_body(amp_http_reply *reply,
                                const void *data,
                                size_t length);

/**
 * Says why there is no response: by a status such as AMP_RESOLVE, AMP_CONNECT,
 * AMP_TLS, AMP_PROXY or AMP_TIMEOUT (any status but these, AMP_PROTOCOL and
 * AMP_IO counts as AMP_CONNECT), and a message for people, which is truncated
 * if it is very long. It must not contain a secret.
 *
 * Threads: one at a time, until the transport callback returns.
 * NULL: a NULL `reply` is ignored. `message` may be NULL.
 * Ownership: the message is copied.
 */
AMP_API
void amp_http_reply_fail(amp_http_reply *reply,
                         int32_t status,
                         const char *message);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* AMP_TOKEN_H */
