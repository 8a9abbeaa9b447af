/* exit() while other threads are inside a call that does not return: the process
 * ends with the given status, and neither crashes nor hangs. */

#include "fake_server.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 20, STATUS = 7, BOUND_S = 60 };

static int entered;

static void never_reply(struct fake *fake) {
    (void)fake;
    __atomic_store_n(&entered, 1, __ATOMIC_SEQ_CST);
    for (;;)
        pause();
}

static void *get_one(void *cache) {
    amp_token_free(get(cache));
    CHECK(!"a token came from nowhere");
    return NULL;
}

/* Static destructors run while the threads are inside; the handle is still
 * valid. */
static amp_token_cache *cache;
static void at_exit(void) {
    if (amp_token_cache_stat(cache, "requests") != 1)
        _exit(3);
}

static void exit_during_call(const char *background) {
    static struct fake fake = {.expires_in = 300, .before_reply = never_reply};
    amp_config *config = fake_config(&fake);
    int i;

    alarm(BOUND_S);
    CHECK_OK(amp_config_set(config, "background_refresh", background, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    CHECK(atexit(at_exit) == 0);
    for (i = 0; i < THREADS; i++) {
        pthread_t thread;

        CHECK(pthread_create(&thread, NULL, get_one, cache) == 0);
        CHECK(pthread_detach(thread) == 0);
    }
    while (!__atomic_load_n(&entered, __ATOMIC_SEQ_CST) || amp_token_cache_stat(cache, "waits") < THREADS - 1)
        sched_yield();
    exit(STATUS);
}

int main(void) {
    int round;

    for (round = 0; round < ROUNDS; round++) {
        int status = 0;
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0)
            exit_during_call(round % 2 ? "true" : "false");
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(!WIFSIGNALED(status));
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == STATUS);
    }
    return 0;
}
