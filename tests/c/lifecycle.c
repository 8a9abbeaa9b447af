/* The lifetime of every handle, with handles freed in unusual orders. */

#include "fake_server.h"

#include <signal.h>
#include <unistd.h>

static void tokens_outlive_their_cache(void) {
    struct fake fake = {.expires_in = 300};
    amp_token_cache *cache = fake_cache(&fake);
    amp_token *first = get(cache), *again = get(cache);
    amp_token *clone = amp_token_clone(first);

    CHECK(fake.requests == 1);
    CHECK(number_of(first) == 1 && number_of(again) == 1 && number_of(clone) == 1);
    amp_token_free(first);
    amp_token_cache_free(cache);
    CHECK(strlen(amp_token_value(clone)) == amp_token_length(clone));
    CHECK(strncmp(amp_token_authorization(clone), "Bearer ", 7) == 0);
    CHECK(strcmp(amp_token_authorization(clone) + 7, amp_token_value(clone)) == 0);
    CHECK(amp_token_expires_in(clone) > 0 && amp_token_expires_in(clone) <= 300);
    CHECK(amp_token_expires_at(clone) > 1500000000);
    CHECK(amp_token_refresh_in_ms(clone) > 0 && amp_token_refresh_in_ms(clone) <= 240000);
    amp_token_free(clone);
    CHECK(number_of(again) == 1);
    amp_token_free(again);
}

static void a_config_may_change_and_go(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    amp_token *token = NULL;

    CHECK_OK(amp_token_cache_new(config, &cache, error));
    /* Handles that were created before do not change. */
    CHECK_OK(amp_config_set(config, "client_id", "another", error));
    CHECK_OK(amp_config_set_transport(config, NULL, NULL, error));
    amp_config_free(config);
    token = get(cache);
    CHECK(number_of(token) == 1);
    amp_token_free(token);
    amp_token_cache_free(cache);
}

static void one_token_needs_no_cache(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token *one = NULL, *two = NULL;

    CHECK_OK(amp_token_get(config, &one, error));
    CHECK_OK(amp_token_get(config, &two, error));
    amp_config_free(config);
    CHECK(number_of(one) == 1 && number_of(two) == 2);
    amp_token_free(one);
    amp_token_free(two);
}

static void a_personal_access_token_needs_no_request(void) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    amp_token *token;

    CHECK_OK(amp_config_set(config, "personal_access_token", "amp_pat_abc.def", error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    token = get(cache);
    CHECK(strcmp(amp_token_authorization(token), "Bearer amp_pat_abc.def") == 0);
    CHECK(amp_token_expires_at(token) == INT64_MAX);
    CHECK(amp_token_expires_in(token) == INT64_MAX);
    CHECK(amp_token_refresh_in_ms(token) == INT64_MAX);
    amp_token_cache_free(cache);
    amp_token_free(token);
}

static void an_error_stays_what_it_was(void) {
    struct fake fake = {.status = 400};
    amp_token_cache *cache = fake_cache(&fake);
    amp_token *token = (amp_token *)&fake; /* must become NULL */
    amp_error *error = NULL, *second = NULL;
    int before;

    CHECK(amp_token_cache_get(cache, &token, &error) == AMP_CREDENTIALS_REJECTED);
    CHECK(token == NULL && error != NULL);
    /* During the backoff the same failure comes immediately, as another object. (The first backoffs are
     * short, and may be over before a slow machine asks again.) */
    do {
        amp_error_free(second);
        second = NULL;
        before = fake.requests;
        CHECK(amp_token_cache_get(cache, &token, &second) == AMP_CREDENTIALS_REJECTED);
    } while (fake.requests != before && before < 20);
    CHECK(fake.requests == before);
    CHECK(second != NULL && second != error);
    CHECK(amp_error_retry_after_ms(second) >= 0);
    amp_error_free(second);
    /* `error` may be NULL. */
    CHECK(amp_token_cache_get(cache, &token, NULL) == AMP_CREDENTIALS_REJECTED);
    amp_token_cache_free(cache);

    CHECK(amp_error_status(error) == AMP_CREDENTIALS_REJECTED);
    CHECK(strcmp(amp_status_name(amp_error_status(error)), "AMP_CREDENTIALS_REJECTED") == 0);
    CHECK(amp_error_http_status(error) == 400);
    CHECK(amp_error_oauth_code(error) == NULL);
    CHECK(!amp_error_is_retryable(error));
    CHECK(amp_error_attempts(error) == 1);
    CHECK(strlen(amp_error_message(error)) > 20);
    CHECK(strstr(amp_error_message(error), "client_secret=") == NULL);
    amp_error_free(error);
}

static void what_cannot_be_set_says_so(void) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = (amp_token_cache *)config;
    amp_error *error = NULL;

    CHECK(amp_config_set(config, "clientid", "x", &error) == AMP_INVALID_ARGUMENT);
    CHECK(strstr(amp_error_message(error), "clientid") != NULL);
    CHECK(strstr(amp_error_message(error), "client_id") != NULL);
    amp_error_free(error);
    error = NULL;
    CHECK(amp_config_set(config, "timeout_ms", "soon", &error) == AMP_INVALID_ARGUMENT);
    CHECK(strstr(amp_error_message(error), "timeout_ms") != NULL);
    amp_error_free(error);
    error = NULL;
    CHECK(amp_token_cache_new(config, &cache, &error) == AMP_NO_CREDENTIALS);
    CHECK(cache == NULL);
    amp_config_free(config);
    CHECK(amp_error_status(error) == AMP_NO_CREDENTIALS);
    amp_error_free(error);
}

static void a_copy_needs_room(void) {
    struct fake fake = {.expires_in = 300};
    amp_token_cache *cache = fake_cache(&fake);
    char buffer[4096];
    size_t length = 0, again = 0;
    amp_error *error = NULL;

    /* NULL and 0 ask for the length. */
    CHECK(amp_token_cache_copy(cache, NULL, 0, &length, NULL) == AMP_BUFFER_TOO_SMALL);
    CHECK(length > 1000 && length < sizeof buffer);
    memset(buffer, '#', sizeof buffer);
    /* One byte short: no room for the NUL. */
    CHECK(amp_token_cache_copy(cache, buffer, length, &again, &error) == AMP_BUFFER_TOO_SMALL);
    CHECK(again == length && buffer[0] == '#');
    amp_error_free(error);
    CHECK(amp_token_cache_copy(cache, buffer, 1, NULL, NULL) == AMP_BUFFER_TOO_SMALL);
    CHECK(buffer[0] == '#');
    CHECK(amp_token_cache_copy(cache, NULL, 1, &again, NULL) == AMP_INVALID_ARGUMENT);
    CHECK(again == 0);
    CHECK_OK(amp_token_cache_copy(cache, buffer, length + 1, &again, error));
    CHECK(again == length && strlen(buffer) == length && buffer[length + 1] == '#');
    CHECK(strncmp(buffer, "token-1-", 8) == 0);
    CHECK_OK(amp_token_cache_copy(cache, buffer, sizeof buffer, NULL, error));
    CHECK(fake.requests == 1);
    amp_token_cache_free(cache);
}

static void more_validity_may_be_asked_for(void) {
    struct fake fake = {.expires_in = 300};
    amp_token_cache *cache = fake_cache(&fake);
    amp_token *token = NULL;
    amp_error *error = NULL;

    CHECK_OK(amp_token_cache_get_for(cache, 60000, &token, error));
    CHECK(amp_token_expires_in(token) >= 60);
    amp_token_free(token);
    CHECK(amp_token_cache_get_for(cache, -1, &token, &error) == AMP_INVALID_ARGUMENT);
    CHECK(token == NULL && error != NULL);
    amp_error_free(error);
    error = NULL;
    /* Longer than the lifetime of tokens. */
    CHECK(amp_token_cache_get_for(cache, 301000, &token, &error) == AMP_INVALID_ARGUMENT);
    amp_error_free(error);
    CHECK(fake.requests == 1);
    amp_token_cache_free(cache);
}

static void a_refused_token_is_replaced_once(void) {
    struct fake fake = {.expires_in = 300};
    amp_token_cache *cache = fake_cache(&fake);
    const uint64_t *epoch = amp_token_cache_epoch(cache);
    amp_token *refused = get(cache), *next;
    uint64_t before = *epoch;

    amp_token_cache_invalidate(cache, refused);
    CHECK(*epoch != before);
    next = get(cache);
    CHECK(number_of(next) == 2 && fake.requests == 2);
    /* It is no longer the current token: nothing happens. */
    before = *epoch;
    amp_token_cache_invalidate(cache, refused);
    CHECK(*epoch == before);
    amp_token_free(refused);
    refused = get(cache);
    CHECK(number_of(refused) == 2 && fake.requests == 2);
    CHECK(amp_token_cache_stat(cache, "invalidations") == 1);
    amp_token_cache_free(cache);
    amp_token_free(next);
    amp_token_free(refused);
}

static void figures_have_names(void) {
    struct fake fake = {.expires_in = 300};
    amp_token_cache *cache = fake_cache(&fake);
    amp_token *token;

    CHECK(amp_token_cache_stat(cache, "requests") == 0);
    CHECK(amp_token_cache_stat(cache, "expires_in") == -1);
    CHECK(amp_token_cache_stat(cache, "age") == -1);
    token = get(cache);
    amp_token_free(token);
    token = get(cache);
    amp_token_free(token);
    CHECK(amp_token_cache_stat(cache, "requests") == 1);
    CHECK(amp_token_cache_stat(cache, "refreshes") == 1);
    CHECK(amp_token_cache_stat(cache, "hits") >= 1);
    CHECK(amp_token_cache_stat(cache, "failures") == 0);
    CHECK(amp_token_cache_stat(cache, "expires_in") > 0);
    CHECK(amp_token_cache_stat(cache, "shoe_size") == -1);
    CHECK(strcmp(amp_token_cache_api_url(cache), "https://api.amplience.net") == 0);
    amp_token_cache_free(cache);
}

static void count_lines(int32_t level, const char *message, void *user_data) {
    CHECK(level >= AMP_LOG_ERROR && strchr(message, '\n') == NULL);
    CHECK(strstr(message, "token-1-") == NULL && strstr(message, "secret") == NULL);
    ++*(int *)user_data;
}

static void log_lines_go_where_they_are_sent(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token_cache *loud = NULL, *quiet = NULL;
    int lines = 0, kept;

    CHECK_OK(amp_config_set_logger(config, count_lines, &lines, error));
    CHECK_OK(amp_token_cache_new(config, &loud, error));
    CHECK_OK(amp_config_set_logger(config, NULL, NULL, error));
    CHECK_OK(amp_token_cache_new(config, &quiet, error));
    amp_config_free(config);
    amp_token_free(get(loud));
    CHECK(lines > 0);
    kept = lines;
    amp_token_free(get(quiet));
    CHECK(lines == kept);
    amp_token_cache_free(quiet);
    amp_token_cache_free(loud);
}

static void background_threads_end_with_their_caches(void) {
    enum { CACHES = 8 };
    struct fake fake = {.expires_in = 1};
    amp_config *config = fake_config(&fake);
    amp_token_cache *caches[CACHES];
    int renewed, i;

    CHECK_OK(amp_config_set(config, "background_refresh", "true", error));
    for (i = 0; i < CACHES; i++)
        CHECK_OK(amp_token_cache_new(config, &caches[i], error));
    amp_config_free(config);
    /* Until each has refreshed once; by then some threads are idle and some are not. */
    do {
        for (i = renewed = 0; i < CACHES; i++) {
            amp_token_free(get(caches[i]));
            renewed += amp_token_cache_stat(caches[i], "refreshes") > 1;
        }
    } while (renewed < CACHES);
    for (i = 0; i < CACHES; i++) {
        amp_token *token = get(caches[i]);

        amp_token_cache_free(caches[i]);
        CHECK(number_of(token) > 0);
        amp_token_free(token);
    }
}

#ifndef _WIN32 /* which has no such signals */
static volatile sig_atomic_t terminations;

static void count_termination(int number) {
    (void)number;
    terminations++;
}

/* The main thread blocks a signal after the library has started its thread. The
 * signal must stay pending for the main thread. */
static void background_threads_leave_signals_alone(void) {
    struct fake fake = {.expires_in = 1};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    struct sigaction action = {.sa_handler = count_termination}, before;
    sigset_t termination, pending;

    CHECK_OK(amp_config_set(config, "background_refresh", "true", error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    while (amp_token_cache_stat(cache, "refreshes") < 2)
        amp_token_free(get(cache));
    CHECK(sigaction(SIGTERM, &action, &before) == 0);
    sigemptyset(&termination);
    sigaddset(&termination, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, &termination, NULL) == 0);
    CHECK(kill(getpid(), SIGTERM) == 0);
    /* The library's thread keeps running, and could take the signal. */
    while (amp_token_cache_stat(cache, "refreshes") < 3)
        amp_token_free(get(cache));
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGTERM) == 1 && terminations == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &termination, NULL) == 0);
    CHECK(terminations == 1);
    CHECK(sigaction(SIGTERM, &before, NULL) == 0);
    amp_token_cache_free(cache);
}
#endif

static void a_loaded_config_reads_the_environment(void) {
    amp_config *config = amp_config_new();
    amp_error *error = NULL;
    amp_token *token = NULL;

    CHECK(setenv("AMPLIENCE_PAT", "amp_pat_from.environment", 1) == 0);
    CHECK_OK(amp_config_load(config, error));
    CHECK(unsetenv("AMPLIENCE_PAT") == 0);
    CHECK_OK(amp_token_get(config, &token, error));
    CHECK(strcmp(amp_token_value(token), "amp_pat_from.environment") == 0);
    amp_token_free(token);
    amp_config_free(config);

    config = amp_config_new();
    CHECK(setenv("AMPLIENCE_RETRIES", "many", 1) == 0);
    CHECK(amp_config_load(config, &error) == AMP_CONFIG);
    CHECK(unsetenv("AMPLIENCE_RETRIES") == 0);
    CHECK(strstr(amp_error_message(error), "AMPLIENCE_RETRIES") != NULL);
    amp_error_free(error);
    amp_config_free(config);
}

static void the_headers_of_a_request_are_pairs(void) {
    static const char *const bad[][4] = {{"A", NULL}, {"A", "b", "C", NULL}, {"Host", "x", NULL}, {"A\xff", "b", NULL}};
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    const char *many[2 * 70 + 1] = {0};
    size_t i;

    CHECK_OK(amp_config_set(config, "personal_access_token", "amp_pat_abc.def", error));
    /* Nothing listens there. */
    CHECK_OK(amp_config_set(config, "api_url", "http://127.0.0.1:1", error));
    CHECK_OK(amp_config_set(config, "retries", "0", error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        amp_response *response;
        CHECK(amp_api_send(cache, "GET", "/x", bad[i], NULL, 0, 0, &response, NULL) == AMP_INVALID_ARGUMENT);
        CHECK(response == NULL);
    }
    for (i = 0; i < 140; i++)
        many[i] = "a";
    {
        amp_response *response;
        CHECK(amp_api_send(cache, "GET", "/x", many, NULL, 0, 0, &response, NULL) == AMP_INVALID_ARGUMENT);
        many[2 * 64] = NULL;
        CHECK(amp_api_send(cache, "GET", "/x", many, NULL, 0, 0, &response, NULL) == AMP_CONNECT);
        CHECK(amp_api_send(cache, "GET", "/x", NULL, NULL, 0, -1, &response, NULL) == AMP_INVALID_ARGUMENT);
        CHECK(amp_api_send(cache, "GET", "/x", NULL, NULL, 0, 86400001, &response, NULL) == AMP_INVALID_ARGUMENT);
        CHECK(amp_api_send(cache, "POST", "/x", NULL, "x", 1, 0, &response, NULL) == AMP_INVALID_ARGUMENT);
        CHECK(amp_api_send(cache, "GET", "/x", NULL, NULL, 0, 86400000, &response, NULL) == AMP_CONNECT);
    }
    amp_token_cache_free(cache);
}

int main(void) {
    the_headers_of_a_request_are_pairs();
    tokens_outlive_their_cache();
    a_config_may_change_and_go();
    one_token_needs_no_cache();
    a_personal_access_token_needs_no_request();
    an_error_stays_what_it_was();
    what_cannot_be_set_says_so();
    a_copy_needs_room();
    more_validity_may_be_asked_for();
    a_refused_token_is_replaced_once();
    figures_have_names();
    log_lines_go_where_they_are_sent();
    background_threads_end_with_their_caches();
#ifndef _WIN32
    background_threads_leave_signals_alone();
#endif
    a_loaded_config_reads_the_environment();
    return 0;
}
