/* The environment is read when a config is created or loaded, and at no other
 * time: a program may change it while other threads use the library. */

#include "fake_server.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

/* How many files and directories are in a directory. */
static int count_entries(const char *path) {
    DIR *directory = opendir(path);
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count - 2;
}

static const amp_token_cache *shared;
static int stop;

static void *change_the_environment(void *unused) {
    char name[32], value[256];
    int i = 0;

    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    /* Each new variable may move the array that getenv() searches. */
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        snprintf(name, sizeof name, "AMP_TEST_%d", i++ % 4096);
        CHECK(setenv(name, value, 1) == 0);
        if (i % 4096 == 0)
            for (i = 0; i < 4096; i++) {
                snprintf(name, sizeof name, "AMP_TEST_%d", i);
                CHECK(unsetenv(name) == 0);
            }
    }
    return unused;
}

int main(void) {
    char first[] = "/tmp/amp-environment-XXXXXX", second[] = "/tmp/amp-environment-XXXXXX", path[128];
    struct fake fake = {.expires_in = 300};
    amp_config *config;
    amp_token_cache *cache = NULL;
    pthread_t changer;
    int i;

    alarm(120);
    CHECK(mkdtemp(first) != NULL && mkdtemp(second) != NULL);
    CHECK(setenv("XDG_RUNTIME_DIR", first, 1) == 0);
    config = fake_config(&fake);
    CHECK_OK(amp_config_set(config, "client_secret", "a secret that is long enough", error));
    CHECK_OK(amp_config_set(config, "store", "file", error));
    CHECK(setenv("XDG_RUNTIME_DIR", second, 1) == 0);
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    shared = cache;
    amp_token_free(get(shared));
    CHECK(count_entries(first) == 1 && count_entries(second) == 0);
    amp_token_cache_free(cache);

    CHECK(pthread_create(&changer, NULL, change_the_environment, NULL) == 0);
    for (i = 0; i < 200; i++) {
        CHECK_OK(amp_token_cache_new(config, &cache, error));
        amp_token_free(get(cache));
        amp_token_cache_free(cache);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(changer, NULL) == 0);
    amp_config_free(config);
    snprintf(path, sizeof path, "rm -r %s %s", first, second);
    CHECK(system(path) == 0);
    return 0;
}
