/* One process of the soak test (tests/soak/soak.py): many threads use one cache in every way that a program
 * can, for a given time, and every token is checked.
 *
 * Usage: worker SECONDS NAME=VALUE..., the settings of the config. With drop_rights=1, every second child that a
 * superuser's worker forks gives up its rights.
 *
 * Each second the worker prints its counters since the start, as NAME=NUMBER pairs; "done" is the last line.
 * It also prints "! STATUS MESSAGE" for each error. A failure that no fault of a server explains is printed on
 * standard error and ends the process with status 1: an expired token, a token that is returned after it was
 * invalidated, a child that failed, a backoff longer than the maximum, no token at the end without a fault.
 * Errors are only counted by status: soak.py knows the faults. Errors of calls within an announced backoff are
 * counted separately: nothing was attempted, and the backoff explains them. */

/* For MAP_ANONYMOUS. */
#define _DEFAULT_SOURCE

#include "../c/check.h"

#include "amp_token.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STATUSES = 128, BURST = 2000, MAX_BACKOFF_MS = 60000 };

/* Shared with forked children, so that their counts are not lost. */
static struct counters {
    uint64_t gets, copies, api, caches, children, requests, rejected;
    uint64_t longest_ms, longest_backoff_ms;
    uint64_t errors[STATUSES], repeated[STATUSES];
} *counters;

/* The ends of the backoffs that the cache announced, by status. */
static int64_t backoff_until[STATUSES];

static const amp_token_cache *cache;
static const amp_config *config;
static int stop, drops_rights;

static uint64_t add(uint64_t *counter, uint64_t more) { return __atomic_add_fetch(counter, more, __ATOMIC_RELAXED); }

static int stopped(void) { return __atomic_load_n(&stop, __ATOMIC_RELAXED); }

static int64_t milliseconds(clockid_t clock) {
    struct timespec now;

    CHECK(clock_gettime(clock, &now) == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(unsigned milliseconds) {
    struct timespec remaining = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};

    while (nanosleep(&remaining, &remaining) != 0 && errno == EINTR) {
    }
}

static void update_max(uint64_t *highest, uint64_t value) {
    uint64_t seen = __atomic_load_n(highest, __ATOMIC_RELAXED);

    while (value > seen &&
           !__atomic_compare_exchange_n(highest, &seen, value, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* Without stdio: in a forked child its locks may never be released. */
static void print_error(amp_status status, const amp_error *error) {
    char line[512];
    int length = snprintf(line, sizeof line - 1, "! %s %s", amp_status_name(status), amp_error_message(error));

    CHECK(length > 0);
    if ((size_t)length > sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
}

/* Counts the result of a call that started at `began`, and frees the error. */
static void record(amp_status status, amp_error *error, int64_t began) {
    int64_t now = milliseconds(CLOCK_MONOTONIC), backoff = amp_error_retry_after_ms(error);

    update_max(&counters->longest_ms, (uint64_t)(now - began));
    CHECK((unsigned)status < STATUSES);
    CHECK((status == AMP_OK) == (error == NULL));
    if (status == AMP_OK)
        return;
    CHECK(amp_error_message(error)[0] != '\0');
    if (began < __atomic_load_n(&backoff_until[status], __ATOMIC_RELAXED)) {
        add(&counters->repeated[status], 1);
    } else {
        add(&counters->errors[status], 1);
        print_error(status, error);
    }
    amp_error_free(error);
    if (backoff > 0) {
        CHECK(backoff <= MAX_BACKOFF_MS);
        update_max(&counters->longest_backoff_ms, (uint64_t)backoff);
        update_max((uint64_t *)&backoff_until[status], (uint64_t)(now + backoff));
    }
}

/* Returns a token, or NULL after an error, which is counted. */
static amp_token *get_from(const amp_token_cache *from) {
    int64_t began = milliseconds(CLOCK_MONOTONIC), before = milliseconds(CLOCK_REALTIME);
    amp_token *token = NULL;
    amp_error *error = NULL;
    amp_status status = amp_token_cache_get(from, &token, &error);

    record(status, error, began);
    add(&counters->gets, 1);
    /* Whole seconds, rounded down. */
    if (token && amp_token_expires_at(token) < before / 1000) {
        fprintf(stderr, "an expired token was returned: it expired at %lld, and it is %lld\n",
                (long long)amp_token_expires_at(token), (long long)before / 1000);
        exit(1);
    }
    return token;
}

/* Many copies without a delay: the hot path, while other threads refresh. */
static void *copier(void *unused) {
    char buffer[4096];

    while (!stopped()) {
        int i;

        for (i = 0; i < BURST; i++) {
            size_t length = 0;
            amp_error *error = NULL;
            int64_t began = milliseconds(CLOCK_MONOTONIC);
            amp_status status = amp_token_cache_copy(cache, buffer, sizeof buffer, &length, &error);

            record(status, error, began);
            if (status != AMP_OK)
                break;
            CHECK(length > 0 && buffer[length] == '\0');
        }
        add(&counters->copies, (uint64_t)i);
        sleep_ms(100);
    }
    return unused;
}

static void *getter(void *unused) {
    while (!stopped()) {
        amp_token_free(get_from(cache));
        sleep_ms(1);
    }
    return unused;
}

static void *caller(void *unused) {
    while (!stopped()) {
        amp_response *response = NULL;
        amp_error *error = NULL;
        int64_t began = milliseconds(CLOCK_MONOTONIC);
        amp_status status =
            amp_api_request(cache, "GET", "/v2/content/hubs?size=1", NULL, NULL, 0, &response, &error);

        record(status, error, began);
        if (status == AMP_OK && amp_response_status(response) != 200) {
            int32_t http_status = amp_response_status(response);
            char line[128];
            int length = snprintf(line, sizeof line, "! HTTP_401_403 it was HTTP %d, after %lld ms\n", (int)http_status,
                                  (long long)(milliseconds(CLOCK_MONOTONIC) - began));

            CHECK(length > 0 && write(STDOUT_FILENO, line, (size_t)length) == length);
            CHECK(http_status == 401 || http_status == 403);
            add(&counters->rejected, 1);
        }
        amp_response_free(response);
        add(&counters->api, 1);
        sleep_ms(50);
    }
    return unused;
}

/* A token that was replaced because it was rejected must not be returned again. */
static void *reporter(void *unused) {
    while (!stopped()) {
        amp_token *old = get_from(cache), *fresh;

        if (old && amp_token_cache_report(cache, old, 401, NULL, 0)) {
            fresh = get_from(cache);
            if (fresh && strcmp(amp_token_value(fresh), amp_token_value(old)) == 0) {
                fprintf(stderr, "a token came back after it was replaced\n");
                exit(1);
            }
            amp_token_free(fresh);
        }
        amp_token_free(old);
        sleep_ms(5000);
    }
    return unused;
}

/* A call that always lacks a permission: the emulator of one worker rejects this path, with any token. */
static void *rejected_caller(void *unused) {
    while (!stopped()) {
        amp_response *response = NULL;
        amp_error *error = NULL;
        int64_t began = milliseconds(CLOCK_MONOTONIC);
        amp_status status = amp_api_request(cache, "GET", "/v2/forbidden", NULL, NULL, 0, &response, &error);

        record(status, error, began);
        amp_response_free(response);
        sleep_ms(200);
    }
    return unused;
}

/* Asks for a token itself, which must neither wait nor fail a call. */
static void logger(int32_t level, const char *message, void *unused) {
    amp_token *token = NULL;
    const amp_token_cache *current = __atomic_load_n(&cache, __ATOMIC_ACQUIRE);

    CHECK(level >= AMP_LOG_ERROR && message[0] != '\0' && unused == NULL);
    if (current && amp_token_cache_get(current, &token, NULL) == AMP_OK)
        amp_token_free(token);
}

/* Without a fault, and after the last backoff, there must be a token. */
static void recover(void) {
    amp_token *token = NULL;
    amp_error *error = NULL;

    if (amp_token_cache_get(cache, &token, &error) != AMP_OK) {
        int64_t backoff = amp_error_retry_after_ms(error);

        amp_error_free(error);
        sleep_ms(backoff > 0 ? (unsigned)backoff + 1 : 0);
        if (amp_token_cache_get(cache, &token, &error) != AMP_OK) {
            fprintf(stderr, "no token at the end: %s\n", amp_error_message(error));
            exit(1);
        }
    }
    amp_token_free(token);
}

/* Gets one token from a new cache, and sets an invalid value. */
static void use_new_cache(void) {
    amp_config *bad = amp_config_new();
    amp_token_cache *own = NULL;
    amp_error *error = NULL;

    CHECK(amp_config_set(bad, "retries", "many", &error) == AMP_INVALID_ARGUMENT);
    amp_error_free(error);
    amp_config_free(bad);
    CHECK(amp_token_cache_new(config, &own, NULL) == AMP_OK);
    amp_token_free(get_from(own));
    add(&counters->caches, 1);
    add(&counters->requests, (uint64_t)amp_token_cache_stat(own, "requests"));
    amp_token_cache_free(own);
}

static void *churner(void *unused) {
    while (!stopped()) {
        use_new_cache();
        sleep_ms(1000);
    }
    return unused;
}

/* Children use the cache that they inherited while other threads were running, and a new one. */
static void *forker(void *unused) {
    int number = 0;

    while (!stopped()) {
        int status = 0;
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            uint64_t requests = (uint64_t)amp_token_cache_stat(cache, "requests");
            int i, without_rights = drops_rights && ++number % 2 == 0 && getuid() == 0;

            alarm(60); /* kills a child that hangs; the parent reports it */
            /* As servers do: the child may not read any more what its parent read. */
            if (without_rights)
                CHECK(setgid(65534) == 0 && setuid(65534) == 0);
            for (i = 0; i < 10; i++)
                amp_token_free(get_from(cache));
            add(&counters->requests, (uint64_t)amp_token_cache_stat(cache, "requests") - requests);
            if (!without_rights)
                use_new_cache();
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0) {
            fprintf(stderr, "a child ended with wait status %d\n", status);
            exit(1);
        }
        add(&counters->children, 1);
        sleep_ms(1000);
    }
    return unused;
}

static void print(int last) {
    uint64_t own = (uint64_t)amp_token_cache_stat(cache, "requests");
    int i;

    printf("gets=%llu copies=%llu api=%llu invalidations=%llu caches=%llu children=%llu requests=%llu "
           "own_requests=%llu refreshes=%llu waits=%llu longest_backoff_ms=%llu longest_ms=%llu",
           (unsigned long long)counters->gets, (unsigned long long)counters->copies,
           (unsigned long long)counters->api, (unsigned long long)amp_token_cache_stat(cache, "invalidations"),
           (unsigned long long)counters->caches, (unsigned long long)counters->children,
           (unsigned long long)(counters->requests + own), (unsigned long long)own,
           (unsigned long long)amp_token_cache_stat(cache, "refreshes"),
           (unsigned long long)amp_token_cache_stat(cache, "waits"),
           (unsigned long long)counters->longest_backoff_ms,
           (unsigned long long)__atomic_exchange_n(&counters->longest_ms, 0, __ATOMIC_RELAXED));
    if (counters->rejected)
        printf(" HTTP_401_403=%llu", (unsigned long long)counters->rejected);
    for (i = 1; i < STATUSES; i++) {
        if (counters->errors[i])
            printf(" %s=%llu", amp_status_name(i), (unsigned long long)counters->errors[i]);
        if (counters->repeated[i])
            printf(" again_%s=%llu", amp_status_name(i), (unsigned long long)counters->repeated[i]);
    }
    printf(last ? "\ndone\n" : "\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    static void *(*const bodies[])(void *) = {copier, copier, copier,  copier, getter,  getter,
                                              caller, caller, churner, forker, reporter, rejected_caller};
    enum { THREADS = sizeof bodies / sizeof *bodies };
    pthread_t threads[THREADS];
    amp_config *made = amp_config_new();
    amp_token_cache *main_cache = NULL;
    int i;
    long second, seconds;

    CHECK(argc > 1);
    seconds = strtol(argv[1], NULL, 10);
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counters != MAP_FAILED);
    for (i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        amp_error *error = NULL;

        CHECK(value != NULL);
        *value++ = '\0';
        if (strcmp(argv[i], "drop_rights") == 0) {
            drops_rights = 1;
            continue;
        }
        if (amp_config_set(made, argv[i], value, &error) != AMP_OK)
            fprintf(stderr, "%s\n", amp_error_message(error));
        CHECK(error == NULL);
    }
    CHECK(amp_config_set_logger(made, logger, NULL, NULL) == AMP_OK);
    CHECK(amp_token_cache_new(made, &main_cache, NULL) == AMP_OK);
    config = made;
    __atomic_store_n(&cache, main_cache, __ATOMIC_RELEASE);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, bodies[i], NULL) == 0);
    for (second = 0; second < seconds; second++) {
        sleep_ms(1000);
        print(0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    recover();
    print(1);
    amp_token_cache_free(main_cache);
    amp_config_free(made);
    return 0;
}
