/* 64 threads and one cache: one request, the same token for all, and each copy
 * is one whole token. */

#include "fake_server.h"

#include <sched.h>

enum { THREADS = 64, COPIES = 500 };

struct shared {
    const amp_token_cache *cache;
    pthread_barrier_t start;
    amp_token *tokens[THREADS];
    int next;
};

/* Keeps the first request open until all other threads wait for it. */
static void wait_for_all(struct fake *fake) {
    struct shared *shared = fake->more;

    while (amp_token_cache_stat(shared->cache, "waits") < THREADS - 1)
        sched_yield();
}

static void *get_one(void *argument) {
    struct shared *shared = argument;
    int slot = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);

    pthread_barrier_wait(&shared->start);
    shared->tokens[slot] = get(shared->cache);
    return NULL;
}

/* While other threads refresh, each copy is one whole token, and no copy is
 * older than an earlier one. */
static void *copy_many(void *argument) {
    struct shared *shared = argument;
    int slot = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED), round, last = 0;

    pthread_barrier_wait(&shared->start);
    for (round = 0; round < COPIES; round++) {
        char buffer[2048];
        size_t length = 0;
        int number = 0, end = 0;

        CHECK_OK(amp_token_cache_copy(shared->cache, buffer, sizeof buffer, &length, error));
        CHECK(strlen(buffer) == length);
        CHECK(sscanf(buffer, "token-%d-%n", &number, &end) == 1 && end > 0);
        CHECK(strspn(buffer + end, "x") == 1000 && (size_t)end + 1000 == length);
        CHECK(number >= last);
        last = number;
        if (slot == 0 && round == COPIES / 2) {
            amp_token *token = get(shared->cache);

            amp_token_cache_invalidate(shared->cache, token);
            amp_token_free(token);
        }
    }
    return NULL;
}

static void run(struct shared *shared, void *(*body)(void *)) {
    pthread_t threads[THREADS];
    int i;

    shared->next = 0;
    CHECK(pthread_barrier_init(&shared->start, NULL, THREADS) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, body, shared) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&shared->start);
}

int main(void) {
    static struct shared shared;
    struct fake fake = {.expires_in = 300, .before_reply = wait_for_all, .more = &shared};
    amp_token_cache *cache = fake_cache(&fake);
    int i;

    shared.cache = cache;
    run(&shared, get_one);
    CHECK(fake.requests == 1);
    CHECK(amp_token_cache_stat(cache, "waits") == THREADS - 1);

    fake.before_reply = NULL;
    run(&shared, copy_many);
    CHECK(fake.requests == 2);

    amp_token_cache_free(cache);
    for (i = 0; i < THREADS; i++) {
        CHECK(number_of(shared.tokens[i]) == 1);
        amp_token_free(shared.tokens[i]);
    }
    return 0;
}
