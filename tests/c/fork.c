/* A process that forks while its threads use a cache: parent and children keep
 * using it, and no child waits for a thread that only the parent has.
 *
 * Under valgrind it runs with --leak-check=no: a child cannot free what the
 * parent's other threads were using when it was forked. */

#include "fake_server.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, CHILDREN = 100, BOUND_S = 60 };

static int in_child, stop, rounds;

/* Blocks the parent's request until the pipe `more` is closed. A child's request
 * gets a response immediately. */
static int entered;
static void block_in_parent(struct fake *fake) {
    char byte;

    if (in_child)
        return;
    __atomic_store_n(&entered, 1, __ATOMIC_SEQ_CST);
    CHECK(read(*(int *)fake->more, &byte, 1) == 0);
}

/* Forks, and runs `body` in the child. */
static pid_t start_child(void (*body)(const amp_token_cache *), const amp_token_cache *cache) {
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        in_child = 1;
        /* A child that hangs is killed, and its parent fails. */
        alarm(BOUND_S);
        body(cache);
        _exit(0);
    }
    return child;
}

static void expect_success(pid_t child) {
    int status = 0;

    CHECK(waitpid(child, &status, 0) == child);
    CHECK(!WIFSIGNALED(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void get_token(const amp_token_cache *cache) {
    amp_token *token = get(cache);

    CHECK(number_of(token) > 0);
    amp_token_free(token);
}

/* The token that a child inherits is valid. When it is rejected, the child can
 * fetch another one by itself. */
static void get_and_renew(const amp_token_cache *cache) {
    amp_token *inherited = get(cache), *own;
    int64_t requests = amp_token_cache_stat(cache, "requests");

    amp_token_cache_invalidate(cache, inherited);
    own = get(cache);
    CHECK(strcmp(amp_token_value(own), amp_token_value(inherited)) != 0);
    CHECK(amp_token_cache_stat(cache, "requests") == requests + 1);
    amp_token_free(inherited);
    amp_token_free(own);
}

static void *get_one(void *cache) {
    get_token(cache);
    return NULL;
}

static void *hammer(void *cache) {
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        char buffer[2048];

        CHECK_OK(amp_token_cache_copy(cache, buffer, sizeof buffer, NULL, error));
        get_token(cache);
        __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void a_child_does_not_wait_for_its_parent_s_request(void) {
    int pipe_ends[2], i;
    struct fake fake = {.expires_in = 300, .before_reply = block_in_parent, .more = &pipe_ends[0]};
    amp_token_cache *cache = fake_cache(&fake);
    pthread_t leader, waiter;

    CHECK(pipe(pipe_ends) == 0);
    CHECK(pthread_create(&leader, NULL, get_one, cache) == 0);
    while (!__atomic_load_n(&entered, __ATOMIC_SEQ_CST))
        sched_yield();
    CHECK(pthread_create(&waiter, NULL, get_one, cache) == 0);
    while (amp_token_cache_stat(cache, "waits") < 1)
        sched_yield();
    for (i = 0; i < 3; i++)
        expect_success(start_child(get_token, cache));
    close(pipe_ends[1]);
    CHECK(pthread_join(leader, NULL) == 0 && pthread_join(waiter, NULL) == 0);
    CHECK(fake.requests == 1);
    close(pipe_ends[0]);
    amp_token_cache_free(cache);
}

static void forks_amid_the_hammering(const char *background) {
    /* One second: the parent's threads refresh all the time. */
    struct fake fake = {.expires_in = 1};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;
    pthread_t threads[THREADS];
    pid_t children[CHILDREN];
    int i, seen;

    CHECK_OK(amp_config_set(config, "background_refresh", background, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    stop = 0;
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, hammer, cache) == 0);
    for (i = 0; i < CHILDREN; i++) {
        /* Spread over time, so that the forks meet different states. */
        seen = __atomic_load_n(&rounds, __ATOMIC_RELAXED);
        while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) < seen + 10)
            sched_yield();
        children[i] = start_child(i % 2 ? get_and_renew : get_token, cache);
    }
    for (i = 0; i < CHILDREN; i++)
        expect_success(children[i]);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    get_token(cache);
    CHECK(amp_token_cache_stat(cache, "failures") == 0);
    amp_token_cache_free(cache);
}

static void free_it(const amp_token_cache *cache) {
    amp_token *token = get(cache);

    /* A child may also free what it inherited. */
    amp_token_cache_free((amp_token_cache *)cache);
    CHECK(number_of(token) == 1);
    amp_token_free(token);
}

static void a_child_may_free_what_it_inherited(void) {
    struct fake fake = {.expires_in = 300};
    amp_config *config = fake_config(&fake);
    amp_token_cache *cache = NULL;

    CHECK_OK(amp_config_set(config, "background_refresh", "true", error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    get_token(cache);
    expect_success(start_child(free_it, cache));
    get_token(cache);
    amp_token_cache_free(cache);
}

/* A child fails as its parent would: it sends no request before the server
 * wants one. */
static void fail_without_a_request(const amp_token_cache *cache) {
    amp_token *token = NULL;
    amp_error *error = NULL;
    int64_t requests = amp_token_cache_stat(cache, "requests");

    CHECK(amp_token_cache_get(cache, &token, &error) == AMP_RATE_LIMITED);
    CHECK(amp_error_retry_after_ms(error) > 3500 * 1000);
    CHECK(amp_token_cache_stat(cache, "requests") == requests);
    amp_error_free(error);
}

static void a_child_inherits_the_backoff(void) {
    struct fake fake = {.expires_in = 300, .status = 429, .retry_after = "3600"};
    amp_token_cache *cache = fake_cache(&fake);
    int i;

    {
        amp_token *token = NULL;
        CHECK(amp_token_cache_get(cache, &token, NULL) == AMP_RATE_LIMITED);
    }
    for (i = 0; i < 3; i++)
        expect_success(start_child(fail_without_a_request, cache));
    amp_token_cache_free(cache);
}

int main(void) {
    a_child_does_not_wait_for_its_parent_s_request();
    a_child_inherits_the_backoff();
    forks_amid_the_hammering("false");
    forks_amid_the_hammering("true");
    a_child_may_free_what_it_inherited();
    return 0;
}
