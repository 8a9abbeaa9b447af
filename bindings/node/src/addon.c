/* The Node-API addon of the package: the C interface of libamp_token as functions for lib/index.cjs.
 *
 * Threads. A call that may block runs on a detached thread of its own, not as asynchronous work of Node-API: that would
 * make process.exit() and worker.terminate() wait for the call, and fill libuv's pool, on which files and name lookups
 * wait. The thread hands its result to the environment's thread-safe function. An environment (the main thread or one
 * worker) may end at any time: its cleanup hook, which runs before the thread-safe function is destroyed because it was
 * added after that was created, closes `struct environment` under its mutex, and a thread that finds it closed frees the
 * result itself.
 *
 * Lifetimes. A native cache and its config live in `struct cache`, which is counted: by the JavaScript object, by the
 * ArrayBuffer over its epoch, and by each call. The environment is counted by Node and by each call. The addon is linked
 * with -z nodelete: Node unloads it with the worker that loaded it, while its threads may still run.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <amp_token.h>
#include <node_api.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* It goes on while the machine is suspended. */
#ifdef CLOCK_BOOTTIME
#define SUSPEND_CLOCK CLOCK_BOOTTIME
#else
#define SUSPEND_CLOCK CLOCK_MONOTONIC
#endif

enum {
    /* An HTTPS request needs 40 KiB. */
    STACK_SIZE = 256 * 1024,
    LOG_LINE_SIZE = 2048,
    MOST_ARGUMENTS = 4
};

/* One environment of Node: the main thread's, or a worker's. */
struct environment {
    pthread_mutex_t mutex;
    int count;
    bool closed;
    /* Calls whose promise is not settled; they keep the event loop running. Only used on the environment's thread. */
    int calls;
    napi_threadsafe_function deliver;
};

struct cache {
    int count;
    amp_config *config;
    amp_token_cache *cache;
};

enum operation { GET, INVALIDATE, REPORT };

struct call {
    struct environment *environment;
    struct cache *cache;
    napi_deferred deferred;
    enum operation operation;
    /* For GET: -1, or how long the token must be valid. */
    int64_t min_validity_ms;
    /* For INVALIDATE and REPORT. */
    amp_token *rejected;
    int32_t http_status;
    char *body;
    size_t body_length;
    /* The results. */
    amp_token *token;
    amp_error *error;
    double epoch;
    bool again;
};

static double epoch_of(const struct cache *cache) {
    return (double)__atomic_load_n(amp_token_cache_epoch(cache->cache), __ATOMIC_ACQUIRE);
}

static void release_cache(struct cache *cache) {
    if (__atomic_sub_fetch(&cache->count, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    amp_token_cache_free(cache->cache);
    amp_config_free(cache->config);
    free(cache);
}

static struct cache *share_cache(struct cache *cache) {
    __atomic_add_fetch(&cache->count, 1, __ATOMIC_RELAXED);
    return cache;
}

static void release_environment(struct environment *environment) {
    if (__atomic_sub_fetch(&environment->count, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pthread_mutex_destroy(&environment->mutex);
    free(environment);
}

static void free_call(struct call *call) {
    amp_token_free(call->rejected);
    amp_token_free(call->token);
    amp_error_free(call->error);
    release_cache(call->cache);
    release_environment(call->environment);
    free(call->body);
    free(call);
}

/* Values. A function of Node-API may fail because the environment is ending: a value is then NULL, which the others refuse
 * with a status. Nothing is left to be done for that environment but to free. */

static napi_value undefined(napi_env env) {
    napi_value value = NULL;
    napi_get_undefined(env, &value);
    return value;
}

static napi_value string(napi_env env, const char *text) {
    napi_value value = NULL;
    if (text)
        napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
    else
        napi_get_null(env, &value);
    return value;
}

static napi_value number(napi_env env, double number) {
    napi_value value = NULL;
    napi_create_double(env, number, &value);
    return value;
}

static void set(napi_env env, napi_value object, const char *name, napi_value value) {
    napi_set_named_property(env, object, name, value);
}

/* What lib/index.cjs makes an AmpError from. Frees the error. */
static napi_value describe(napi_env env, amp_error *error) {
    napi_value object = NULL, retryable = NULL;
    napi_create_object(env, &object);
    napi_get_boolean(env, amp_error_is_retryable(error), &retryable);
    set(env, object, "code", string(env, amp_status_name((int32_t)amp_error_status(error))));
    set(env, object, "message", string(env, amp_error_message(error)));
    set(env, object, "httpStatus", number(env, amp_error_http_status(error)));
    set(env, object, "oauthCode", string(env, amp_error_oauth_code(error)));
    set(env, object, "retryable", retryable);
    set(env, object, "retryAfterMs", number(env, (double)amp_error_retry_after_ms(error)));
    set(env, object, "attempts", number(env, amp_error_attempts(error)));
    amp_error_free(error);
    return object;
}

/* Throws what lib/index.cjs makes an AmpError from. Frees the error. */
static napi_value throw_error(napi_env env, amp_error *error) {
    napi_throw(env, describe(env, error));
    return NULL;
}

static double milliseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void finalize_token(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    amp_token_free(data);
}

/* A result: the token's handle and text, and the epoch and the times for the fast path. Takes the token over. */
static napi_value token_result(napi_env env, amp_token *token, double epoch) {
    napi_value object = NULL, handle = NULL;
    int64_t expires_at = amp_token_expires_at(token);
    /* The clocks first: the deadlines that are made from them may be too early, never too late. */
    double now = milliseconds(SUSPEND_CLOCK), wall = milliseconds(CLOCK_REALTIME);
    int64_t refresh_in = amp_token_refresh_in_ms(token);
    napi_create_object(env, &object);
    set(env, object, "value", string(env, amp_token_value(token)));
    set(env, object, "expiresAt", number(env, expires_at == INT64_MAX ? -1 : (double)expires_at));
    set(env, object, "until", number(env, now + (double)refresh_in));
    set(env, object, "wall", number(env, wall + (double)refresh_in));
    set(env, object, "epoch", number(env, epoch));
    if (napi_create_external(env, token, finalize_token, NULL, &handle) != napi_ok) {
        amp_token_free(token);
        return undefined(env);
    }
    set(env, object, "handle", handle);
    return object;
}

/* Arguments */

/* The arguments of a function; those that were not given are undefined. */
static void arguments(napi_env env, napi_callback_info info, napi_value values[MOST_ARGUMENTS]) {
    size_t count = MOST_ARGUMENTS;
    napi_get_cb_info(env, info, &count, values, NULL, NULL);
}

/* The pointer of an external, or NULL after throwing. lib/index.cjs passes no external of another kind. */
static void *external(napi_env env, napi_value value) {
    napi_valuetype type = napi_undefined;
    void *pointer = NULL;
    if (napi_typeof(env, value, &type) == napi_ok && type == napi_external)
        napi_get_value_external(env, value, &pointer);
    if (!pointer)
        napi_throw_type_error(env, NULL, "not a handle of this addon");
    return pointer;
}

/* The cache of a handle, or NULL after throwing. */
static struct cache *open_handle(napi_env env, napi_value value) {
    struct cache **handle = external(env, value);
    if (handle && !*handle)
        napi_throw_error(env, NULL, "the cache is closed");
    return handle ? *handle : NULL;
}

/* A copy of a string, or NULL for anything else. The caller wipes and frees it. */
static char *text(napi_env env, napi_value value) {
    size_t length = 0;
    if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok)
        return NULL;
    char *copy = malloc(length + 1);
    if (copy)
        napi_get_value_string_utf8(env, value, copy, length + 1, &length);
    return copy;
}

static void wipe(char *secret) {
    if (!secret)
        return;
    for (volatile char *byte = secret; *byte; byte++)
        *byte = 0;
    free(secret);
}

/* Calls that may block */

static void *run(void *argument) {
    struct call *call = argument;
    amp_token_cache *cache = call->cache->cache;
    if (call->operation == REPORT) {
        call->again =
            amp_token_cache_report(cache, call->rejected, call->http_status, call->body, call->body_length);
    } else {
        /* The next call of the thread that invalidated a token requests another one, so it is made here. */
        if (call->operation == INVALIDATE)
            amp_token_cache_invalidate(cache, call->rejected);
        /* Read before the token: a change in between then differs from this value. */
        call->epoch = epoch_of(call->cache);
        amp_status status = call->min_validity_ms >= 0
                                ? amp_token_cache_get_for(cache, call->min_validity_ms, &call->token, &call->error)
                                : amp_token_cache_get(cache, &call->token, &call->error);
        if (status != AMP_OK)
            call->token = NULL;
    }
    struct environment *environment = call->environment;
    __atomic_add_fetch(&environment->count, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&environment->mutex);
    bool is_delivered =
        !environment->closed &&
        napi_call_threadsafe_function(environment->deliver, call, napi_tsfn_nonblocking) == napi_ok;
    pthread_mutex_unlock(&environment->mutex);
    if (!is_delivered)
        free_call(call);
    release_environment(environment);
    return NULL;
}

/* Settles the promise of a call, on the environment's thread. Without an environment, which has ended, only frees. */
static void settle(napi_env env, napi_value callback, void *context, void *data) {
    (void)callback, (void)context;
    struct call *call = data;
    if (env) {
        if (call->operation != REPORT && !call->token) {
            napi_reject_deferred(env, call->deferred, describe(env, call->error));
            call->error = NULL;
        } else if (call->operation == REPORT) {
            napi_value again = NULL;
            napi_get_boolean(env, call->again, &again);
            napi_resolve_deferred(env, call->deferred, again);
        } else {
            napi_resolve_deferred(env, call->deferred, token_result(env, call->token, call->epoch));
            call->token = NULL;
        }
        if (--call->environment->calls == 0)
            napi_unref_threadsafe_function(env, call->environment->deliver);
    }
    free_call(call);
}

static bool start_thread(struct call *call) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    /* The application's signals are for its own threads. */
    sigfillset(&all);
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool is_started = pthread_create(&thread, &attributes, run, call) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return is_started;
}

/* Starts a call and returns its promise. Takes `rejected` and `body` over. */
static napi_value start(napi_env env, struct cache *cache, struct call wanted) {
    struct environment *environment = NULL;
    struct call *call = malloc(sizeof *call);
    napi_value promise = NULL;
    if (!call || napi_get_instance_data(env, (void **)&environment) != napi_ok || !environment ||
        napi_create_promise(env, &wanted.deferred, &promise) != napi_ok) {
        amp_token_free(wanted.rejected);
        free(wanted.body);
        free(call);
        napi_throw_error(env, NULL, "out of memory");
        return NULL;
    }
    *call = wanted;
    call->cache = share_cache(cache);
    call->environment = environment;
    __atomic_add_fetch(&environment->count, 1, __ATOMIC_RELAXED);
    if (environment->calls++ == 0)
        napi_ref_threadsafe_function(env, environment->deliver);
    if (!start_thread(call)) {
        napi_value error = NULL;
        napi_create_object(env, &error);
        set(env, error, "code", string(env, "AMP_IO"));
        set(env, error, "message",
            string(env, "cannot start a thread for the request; raise the limit of processes (ulimit -u)"));
        set(env, error, "retryable", undefined(env));
        napi_reject_deferred(env, call->deferred, error);
        if (--environment->calls == 0)
            napi_unref_threadsafe_function(env, environment->deliver);
        free_call(call);
    }
    return promise;
}

/* get(cache, minValidityMs): a promise of a token; minValidityMs is undefined, or an integer. */
static napi_value get(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    struct call call = {.operation = GET, .min_validity_ms = -1};
    napi_valuetype type = napi_undefined;
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    if (!cache)
        return NULL;
    if (napi_typeof(env, values[1], &type) == napi_ok && type == napi_number)
        napi_get_value_int64(env, values[1], &call.min_validity_ms);
    return start(env, cache, call);
}

/* The arguments of a call about a rejected token: returns its cache and keeps the token in `call`; NULL after throwing. */
static struct cache *rejected_token(napi_env env, napi_callback_info info, napi_value values[MOST_ARGUMENTS],
                                    struct call *call) {
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    amp_token *token = cache ? external(env, values[1]) : NULL;
    call->rejected = token ? amp_token_clone(token) : NULL;
    return token ? cache : NULL;
}

/* invalidate(cache, token): a promise of the token that is there then. */
static napi_value invalidate(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    struct call call = {.operation = INVALIDATE, .min_validity_ms = -1};
    struct cache *cache = rejected_token(env, info, values, &call);
    return cache ? start(env, cache, call) : NULL;
}

/* report(cache, token, status, body): a promise of whether to send the request again; body is a Uint8Array. */
static napi_value report(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    struct call call = {.operation = REPORT};
    struct cache *cache = rejected_token(env, info, values, &call);
    if (!cache)
        return NULL;
    void *bytes = NULL;
    size_t length = 0;
    napi_get_value_int32(env, values[2], &call.http_status);
    if (napi_get_typedarray_info(env, values[3], NULL, &length, &bytes, NULL, NULL) == napi_ok && length > 0) {
        call.body = malloc(length);
        if (call.body) {
            memcpy(call.body, bytes, length);
            call.body_length = length;
        }
    }
    return start(env, cache, call);
}

/* Calls that do not block */

/* tryGet(cache): a token, or throws AMP_PENDING. */
static napi_value try_get(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    amp_token *token = NULL;
    amp_error *error = NULL;
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    if (!cache)
        return NULL;
    double epoch = epoch_of(cache);
    if (amp_token_cache_try_get(cache->cache, &token, &error) != AMP_OK)
        return throw_error(env, error);
    return token_result(env, token, epoch);
}

/* epoch(cache): the counter, where there is no ArrayBuffer over it. */
static napi_value epoch(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    return cache ? number(env, epoch_of(cache)) : NULL;
}

/* now(): milliseconds by a clock that goes on while the machine is suspended, unlike performance.now(). */
static napi_value now(napi_env env, napi_callback_info info) {
    (void)info;
    return number(env, milliseconds(SUSPEND_CLOCK));
}

/* expiresIn(token): whole seconds, by both clocks of the library; -1 if it never expires. */
static napi_value expires_in(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    arguments(env, info, values);
    amp_token *token = external(env, values[0]);
    if (!token)
        return NULL;
    int64_t seconds = amp_token_expires_in(token);
    return number(env, seconds == INT64_MAX ? -1 : (double)seconds);
}

/* stat(cache, name) */
static napi_value statistic(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    if (!cache)
        return NULL;
    char *name = text(env, values[1]);
    napi_value value = number(env, (double)amp_token_cache_stat(cache->cache, name));
    free(name);
    return value;
}

/* nextLogLine(cache): [level, line], or undefined if there is none. */
static napi_value next_log_line(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS], line = NULL;
    char buffer[LOG_LINE_SIZE];
    int32_t level = 0;
    arguments(env, info, values);
    struct cache *cache = open_handle(env, values[0]);
    if (!cache || !amp_config_next_log_line(cache->config, &level, buffer, sizeof buffer))
        return NULL;
    napi_create_array_with_length(env, 2, &line);
    napi_set_element(env, line, 0, number(env, level));
    napi_set_element(env, line, 1, string(env, buffer));
    return line;
}

static void finalize_handle(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    struct cache **handle = data;
    if (*handle)
        release_cache(*handle);
    free(handle);
}

/* close(handle, epoch): frees the cache when the last call that uses it is over. Without the buffer, whose finalizer then
 * runs, it would live until the garbage collector finds that. */
static napi_value close_handle(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS];
    arguments(env, info, values);
    struct cache **handle = external(env, values[0]);
    if (handle && *handle) {
        release_cache(*handle);
        *handle = NULL;
        napi_detach_arraybuffer(env, values[1]);
    }
    return NULL;
}

static void finalize_epoch(napi_env env, void *data, void *hint) {
    (void)env, (void)data;
    release_cache(hint);
}

/* Sets the settings, an array of names and values by turns. */
static amp_status set_all(napi_env env, amp_config *config, napi_value settings, amp_error **error) {
    uint32_t length = 0;
    amp_status status = AMP_OK;
    napi_get_array_length(env, settings, &length);
    for (uint32_t i = 0; i + 1 < length && status == AMP_OK; i += 2) {
        napi_value element = NULL;
        napi_get_element(env, settings, i, &element);
        char *name = text(env, element);
        napi_get_element(env, settings, i + 1, &element);
        char *value = text(env, element);
        status = amp_config_set(config, name, value, error);
        free(name);
        wipe(value);
    }
    return status;
}

/* open(settings, load, logCapacity): { handle, epoch, apiUrl }. `epoch` is an ArrayBuffer over the cache's counter, or
 * null where the runtime allows no such buffers. */
static napi_value open_cache(napi_env env, napi_callback_info info) {
    napi_value values[MOST_ARGUMENTS], object = NULL, handle = NULL, buffer = NULL;
    amp_error *error = NULL;
    bool load = true;
    uint32_t log_capacity = 0;
    arguments(env, info, values);
    napi_get_value_bool(env, values[1], &load);
    napi_get_value_uint32(env, values[2], &log_capacity);
    struct cache *cache = calloc(1, sizeof *cache);
    struct cache **slot = malloc(sizeof *slot);
    if (!cache || !slot) {
        free(cache);
        free(slot);
        napi_throw_error(env, NULL, "out of memory");
        return NULL;
    }
    cache->count = 1;
    cache->config = amp_config_new();
    amp_status status = set_all(env, cache->config, values[0], &error);
    if (status == AMP_OK && load)
        status = amp_config_load(cache->config, &error);
    if (status == AMP_OK)
        status = amp_config_queue_log_lines(cache->config, log_capacity, &error);
    if (status == AMP_OK)
        status = amp_token_cache_new(cache->config, &cache->cache, &error);
    if (status != AMP_OK) {
        release_cache(cache);
        free(slot);
        return throw_error(env, error);
    }
    *slot = cache;
    if (napi_create_external(env, slot, finalize_handle, NULL, &handle) != napi_ok) {
        finalize_handle(env, slot, NULL);
        return NULL;
    }
    void *counter = (void *)amp_token_cache_epoch(cache->cache);
    share_cache(cache);
    if (napi_create_external_arraybuffer(env, counter, sizeof(uint64_t), finalize_epoch, cache, &buffer) != napi_ok) {
        release_cache(cache);
        napi_get_null(env, &buffer);
    }
    napi_create_object(env, &object);
    set(env, object, "handle", handle);
    set(env, object, "epoch", buffer);
    set(env, object, "apiUrl", string(env, amp_token_cache_api_url(cache->cache)));
    return object;
}

/* The environment */

static void close_environment(void *data) {
    struct environment *environment = data;
    pthread_mutex_lock(&environment->mutex);
    environment->closed = true;
    pthread_mutex_unlock(&environment->mutex);
}

static void finalize_environment(napi_env env, void *data, void *hint) {
    (void)env, (void)hint;
    release_environment(data);
}

NAPI_MODULE_INIT() {
    static const struct {
        const char *name;
        napi_callback function;
    } functions[] = {
        {"open", open_cache},     {"get", get},     {"invalidate", invalidate},     {"report", report},
        {"tryGet", try_get},      {"epoch", epoch}, {"now", now},                   {"expiresIn", expires_in},
        {"statistic", statistic}, {"nextLogLine", next_log_line}, {"close", close_handle},
    };
    struct environment *environment = calloc(1, sizeof *environment);
    if (!environment || amp_abi_version() != AMP_TOKEN_ABI_VERSION) {
        free(environment);
        napi_throw_error(env, NULL, "libamp_token.so.0 is not the one of this package");
        return NULL;
    }
    pthread_mutex_init(&environment->mutex, NULL);
    environment->count = 1;
    napi_value name = string(env, "amp_token");
    napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, settle, &environment->deliver);
    napi_unref_threadsafe_function(env, environment->deliver);
    napi_set_instance_data(env, environment, finalize_environment, NULL);
    /* Hooks run in reverse order: this one before that of the thread-safe function. */
    napi_add_env_cleanup_hook(env, close_environment, environment);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        napi_value function = NULL;
        napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function);
        set(env, exports, functions[i].name, function);
    }
    set(env, exports, "version", string(env, amp_version()));
    return exports;
}
