/* Callbacks that do what callbacks should not have to think about: they call
 * in, they wait for locks, they are slow, and they run while their code is
 * about to go away. Nothing of it delays or fails a call, or stops it for
 * good. A deadlock ends the test by SIGALRM. */

#include "fake_server.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

static amp_token_cache *shared;

/* --- A logger that asks the same cache for a token --- */

static int got_in_logger, lines;

static void asking_logger(int32_t level, const char *message, void *user_data) {
    amp_token *token = NULL;

    (void)level;
    (void)message;
    (void)user_data;
    lines++;
    if (shared != NULL && amp_token_cache_get(shared, &token, NULL) == AMP_OK)
        got_in_logger++;
    amp_token_free(token);
}

static void test_logger_that_asks_for_a_token(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);

    CHECK_OK(amp_config_set_logger(config, asking_logger, NULL, error));
    CHECK_OK(amp_config_set(config, "log_level", "debug", error));
    CHECK_OK(amp_token_cache_new(config, &shared, error));
    lines = 0; /* of the creation */
    amp_token_free(get(shared));
    CHECK(lines > 0 && got_in_logger == lines && fake.requests == 1);
    amp_token_cache_free(shared);
    shared = NULL;

    /* While no token can be had, it fails at once, and its own failure makes
     * no line. */
    fake.status = 503;
    got_in_logger = 0;
    CHECK_OK(amp_token_cache_new(config, &shared, error));
    {
        amp_token *token;
        CHECK(amp_token_cache_get(shared, &token, NULL) == AMP_SERVER);
    }
    CHECK(got_in_logger == 0 && fake.requests == 2);
    amp_token_cache_free(shared);
    shared = NULL;
    amp_config_free(config);
}

/* --- A transport that asks the same cache for a token --- */

static amp_status status_in_transport;

static void ask_in_transport(struct fake *fake) {
    amp_token *token = NULL;

    (void)fake;
    if (shared != NULL)
        status_in_transport = amp_token_cache_get(shared, &token, NULL);
    amp_token_free(token);
}

static void test_transport_that_asks_for_a_token(void) {
    struct fake fake = {.expires_in = 300, .before_reply = ask_in_transport};

    shared = fake_cache(&fake);
    amp_token_free(get(shared));
    CHECK(status_in_transport == AMP_INVALID_ARGUMENT && fake.requests == 1);
    amp_token_cache_free(shared);
    shared = NULL;
}

/* --- Freeing a cache while its thread is in the logger, which waits for a
 *     lock of the thread that frees --- */

static pthread_mutex_t application = PTHREAD_MUTEX_INITIALIZER;
static pthread_t freeing;
static volatile int in_logger;

static void locking_logger(int32_t level, const char *message, void *user_data) {
    (void)level;
    (void)user_data;
    /* Any call may pass on a line that the thread has left. */
    if (strncmp(message, "got token", 9) != 0 || pthread_equal(pthread_self(), freeing))
        return;
    __atomic_add_fetch(&in_logger, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&application);
    pthread_mutex_unlock(&application);
    __atomic_sub_fetch(&in_logger, 1, __ATOMIC_SEQ_CST);
}

static void test_free_while_the_thread_is_in_the_logger(void) {
    /* Static: the thread may use it after the cache was freed. */
    static struct fake fake = {.expires_in = 1};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;

    freeing = pthread_self();
    CHECK_OK(amp_config_set_logger(config, locking_logger, NULL, error));
    CHECK_OK(amp_config_set(config, "background_refresh", "true", error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_token_free(get(cache));
    pthread_mutex_lock(&application);
    /* Uses tokens until the thread, and not this one, has got another one. */
    while (__atomic_load_n(&in_logger, __ATOMIC_SEQ_CST) == 0) {
        amp_token *token = NULL;
        if (amp_token_cache_try_get(cache, &token, NULL) == AMP_OK)
            amp_token_free(token);
        sched_yield();
    }
    amp_token_cache_free(cache);
    pthread_mutex_unlock(&application);
    amp_config_stop_callbacks(config);
    amp_config_free(config);
}

/* --- Stopping callbacks waits for those that run, in a forked child too --- */

static int pipe_in[2], pipe_out[2];
static volatile int running;

static void waiting_logger(int32_t level, const char *message, void *user_data) {
    char byte = 'x';

    (void)level;
    (void)message;
    (void)user_data;
    if (running)
        return;
    running = 1;
    CHECK(write(pipe_in[1], &byte, 1) == 1);
    CHECK(read(pipe_out[0], &byte, 1) == 1);
    running = 2;
}

static void *call_get(void *cache) {
    amp_token_free(get(cache));
    return NULL;
}

static void *release(void *config) {
    char byte = 'x';

    /* The guard is closed before stop_callbacks() waits: a fetch of a token
     * that needs the transport then fails. */
    (void)config;
    CHECK(write(pipe_out[1], &byte, 1) == 1);
    return NULL;
}

static void stop_while_a_callback_runs(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    pthread_t caller, releaser;
    char byte;

    CHECK(pipe(pipe_in) == 0 && pipe(pipe_out) == 0);
    running = 0;
    CHECK_OK(amp_config_set_logger(config, waiting_logger, NULL, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    CHECK(pthread_create(&caller, NULL, call_get, cache) == 0);
    CHECK(read(pipe_in[0], &byte, 1) == 1 && running == 1);
    CHECK(pthread_create(&releaser, NULL, release, config) == 0);
    amp_config_stop_callbacks(config);
    CHECK(running == 2);
    CHECK(pthread_join(caller, NULL) == 0 && pthread_join(releaser, NULL) == 0);
    amp_token_cache_free(cache);
    amp_config_free(config);
}

static void test_stop_callbacks_waits_in_a_child_too(void) {
    int status = -1;
    pid_t child;

    /* A parent that has used the library: the child is one fork away. */
    stop_while_a_callback_runs();
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        stop_while_a_callback_runs();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- Lines that are fetched --- */

static int count_lines(const amp_config *config, const char *wanted, int32_t wanted_level) {
    char line[512];
    int32_t level;
    int found = 0;

    while (amp_config_next_log_line(config, &level, line, sizeof line)) {
        CHECK(level >= AMP_LOG_ERROR && level <= AMP_LOG_DEBUG && strchr(line, '\n') == NULL);
        if (strncmp(line, wanted, strlen(wanted)) == 0 && level == wanted_level)
            found++;
    }
    return found;
}

static void test_lines_that_are_fetched(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    amp_token *token;
    char line[8];

    CHECK(!amp_config_next_log_line(config, NULL, line, sizeof line));
    CHECK_OK(amp_config_queue_log_lines(config, 100, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    token = get(cache);
    CHECK(count_lines(config, "got token", AMP_LOG_INFO) == 1);
    CHECK(!amp_config_next_log_line(config, NULL, line, sizeof line));

    /* A short buffer cuts the line; no buffer takes none. */
    amp_token_cache_invalidate(cache, token);
    CHECK(!amp_config_next_log_line(config, NULL, NULL, 0));
    CHECK(amp_config_next_log_line(config, NULL, line, sizeof line));
    CHECK(strncmp(line, "token ", 6) == 0 && strlen(line) == 7);
    amp_token_free(token);

    /* The oldest lines go, and the next one says how many. */
    CHECK_OK(amp_config_queue_log_lines(config, 1, error));
    CHECK_OK(amp_config_set(config, "log_level", "debug", error));
    amp_token_cache_free(cache);
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_token_free(get(cache));
    {
        char text[256];
        int32_t level;
        CHECK(amp_config_next_log_line(config, &level, text, sizeof text));
        CHECK(level == AMP_LOG_WARNING && strstr(text, "older log lines were dropped") != NULL);
    }
    CHECK(count_lines(config, "got token", AMP_LOG_INFO) == 1);
    CHECK(amp_config_queue_log_lines(config, (size_t)-1, NULL) == AMP_INVALID_ARGUMENT);
    amp_token_cache_free(cache);
    amp_config_free(config);
}

/* --- An observer, and calls that never wait --- */

static int seen[4];

static void observer(int32_t event, const amp_error *error, void *user_data) {
    CHECK(user_data == seen && event >= 1 && event <= 3);
    CHECK((error != NULL) == (event == AMP_EVENT_REFRESH_FAILED));
    if (error != NULL)
        CHECK(amp_error_status(error) == AMP_SERVER);
    seen[event]++;
}

static amp_token *poll_for_token(const amp_token_cache *cache) {
    amp_token *token = NULL;
    amp_error *error = NULL;
    amp_status status;

    while ((status = amp_token_cache_try_get(cache, &token, &error)) == AMP_PENDING) {
        CHECK(token == NULL && amp_error_is_retryable(error) && amp_error_retry_after_ms(error) > 0);
        amp_error_free(error);
        error = NULL;
        sched_yield();
    }
    amp_error_free(error);
    CHECK((status == AMP_OK) == (token != NULL));
    return token;
}

static void test_observer_and_try_get(void) {
    static struct fake fake = {.expires_in = 300};
    static const char forbidden[] =
        "{\"errors\":[{\"level\":\"ERROR\",\"code\":\"FORBIDDEN\",\"message\":\"Authorization required.\"}]}";
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    amp_token *first, *second;

    CHECK_OK(amp_config_set_observer(config, observer, seen, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    first = poll_for_token(cache);
    CHECK(first != NULL && number_of(first) == 1);

    /* Only a rejection of the token is one. */
    CHECK(!amp_token_cache_report(cache, first, 404, "", 0));
    CHECK(!amp_token_cache_report(cache, first, 403, "no", 2));
    CHECK(!amp_token_cache_report(cache, first, 403, NULL, 0));
    CHECK(!amp_token_cache_report(cache, first, -1, "", 0));
    CHECK(fake.requests == 1);
    CHECK(amp_token_cache_report(cache, first, 403, forbidden, sizeof forbidden - 1));
    second = get(cache);
    CHECK(number_of(second) == 2);
    /* An old token: there is a newer one already. */
    CHECK(amp_token_cache_report(cache, first, 401, NULL, 0) && fake.requests == 2);
    /* The replacement is rejected as well, right away: that is the result. */
    CHECK(!amp_token_cache_report(cache, second, 401, NULL, 0) && fake.requests == 2);
    CHECK(seen[AMP_EVENT_REFRESHED] == 2 && seen[AMP_EVENT_TOKEN_REJECTED] == 2);
    amp_token_free(first);
    amp_token_free(second);
    amp_token_cache_free(cache);

    fake.status = 500;
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    CHECK(poll_for_token(cache) == NULL && seen[AMP_EVENT_REFRESH_FAILED] == 1);
    amp_token_cache_free(cache);
    amp_config_free(config);
}

/* --- A bool fills the register, for hosts that read 32 bits of it --- */

static void test_bool_results(void) {
    int (*is_retryable)(const amp_error *) = (int (*)(const amp_error *))(void (*)(void))amp_error_is_retryable;
    amp_config *config = amp_config_new();
    amp_error *failure = NULL;

    CHECK(amp_config_set(config, "nonsense", "x", &failure) == AMP_INVALID_ARGUMENT);
    CHECK(is_retryable(failure) == 0 && is_retryable(NULL) == 0);
    amp_error_free(failure);
    CHECK_OK(amp_config_set(config, "client_id", "id", error));
    CHECK_OK(amp_config_set(config, "client_secret", "secret", error));
    CHECK_OK(amp_config_set(config, "auth_url", "http://127.0.0.1:1", error));
    CHECK_OK(amp_config_set(config, "retries", "0", error));
    {
        amp_token *token = NULL;
        CHECK(amp_token_get(config, &token, &failure) == AMP_CONNECT);
    }
    CHECK(is_retryable(failure) == 1);
    amp_error_free(failure);
    amp_config_free(config);
}

int main(void) {
    alarm(120);
    test_logger_that_asks_for_a_token();
    test_transport_that_asks_for_a_token();
    test_free_while_the_thread_is_in_the_logger();
    test_stop_callbacks_waits_in_a_child_too();
    test_lines_that_are_fetched();
    test_observer_and_try_get();
    test_bool_results();
    puts("callbacks: ok");
    return 0;
}
