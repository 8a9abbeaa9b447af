/* Calls the library in one process, for run.py: one system call of it fails.
 *
 *   calls one       a cache, a token, a request to the API
 *   calls threads   four threads that share a cache with background_refresh
 *
 * with the settings in the environment. Prints the name of the status that the failure led to, if any, and its
 * message to standard error. Exit status: 0 if every call but one was successful, and the same cache and a new one
 * work afterwards, no descriptor and no thread is left; 1 and a line otherwise. AMP_TEST_LEAK: a descriptor may be
 * left, because close() failed, or a device was opened that
 * stays open. */

#define _POSIX_C_SOURCE 200809L
#include <amp_token.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, PATIENCE_MS = 10000, STEP_MS = 5 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int failures;

static void fail(const char *what) {
    printf("broken: %s\n", what);
    fflush(stdout);
    _exit(1);
}

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Whether the call was successful. */
static int check(amp_status status, amp_error *error) {
    if (status == AMP_OK)
        return 1;
    pthread_mutex_lock(&lock);
    failures++;
    printf("%s\n", amp_status_name(status));
    fprintf(stderr, "%s\n", amp_error_message(error));
    pthread_mutex_unlock(&lock);
    if (status == AMP_INTERNAL)
        fail("AMP_INTERNAL");
    amp_error_free(error);
    return 0;
}

static int get(const amp_token_cache *cache) {
    amp_token *token = NULL;
    amp_error *error = NULL;
    amp_status status = amp_token_cache_get(cache, &token, &error);
    int ok = check(status, error);

    if (ok && amp_token_length(token) < 100)
        fail("the token is too short");
    amp_token_free(token);
    return ok;
}

static int request(const amp_token_cache *cache) {
    amp_response *response = NULL;
    amp_error *error = NULL;
    amp_status status = amp_api_request(cache, "GET", "/v2/content/hubs", NULL, NULL, 0, &response, &error);
    int ok = check(status, error);

    if (ok && amp_response_status(response) != 200)
        fail("the API did not answer with 200");
    amp_response_free(response);
    return ok;
}

/* A cache that is new. Creating one may fail, too. */
static amp_token_cache *new_cache(void) {
    for (int i = 0; i < 2; i++) {
        amp_config *config = amp_config_new();
        amp_token_cache *cache = NULL;
        amp_error *error = NULL;
        amp_status status = amp_config_load(config, &error);

        if (status == AMP_OK)
            status = amp_token_cache_new(config, &cache, &error);
        amp_config_free(config);
        if (check(status, error))
            return cache;
    }
    fail("no cache can be created");
    return NULL;
}

/* The same call is repeated until it is successful: after a failure the cache pauses. */
static void until(int (*call)(const amp_token_cache *), const amp_token_cache *cache) {
    for (int waited = 0; !call(cache); waited += STEP_MS) {
        if (waited > PATIENCE_MS)
            fail("the cache does not recover");
        sleep_ms(STEP_MS);
    }
}

/* The number of entries of a directory in /proc/self; reading it may fail, too. */
static int count(const char *path) {
    for (;;) {
        DIR *directory = opendir(path);
        int entries = 0;

        if (!directory)
            continue;
        while (readdir(directory))
            entries++;
        closedir(directory);
        if (entries > 2)
            return entries;
    }
}

static void *one_thread(void *cache) {
    for (int i = 0; i < 3; i++)
        get(cache);
    return NULL;
}

static void several(amp_token_cache *cache) {
    pthread_t threads[THREADS];
    int started = 0;

    while (started < THREADS && pthread_create(&threads[started], NULL, one_thread, cache) == 0)
        started++;
    while (started > 0)
        pthread_join(threads[--started], NULL);
}

int main(int argc, char **argv) {
    int waited, descriptors = count("/proc/self/fd"), tasks = count("/proc/self/task");
    int leak = getenv("AMP_TEST_LEAK") != NULL;

    for (int i = 0; i < 2; i++) {
        amp_token_cache *cache = new_cache();

        if (argc > 1 && strcmp(argv[1], "threads") == 0)
            several(cache);
        until(get, cache);
        until(request, cache);
        amp_token_cache_free(cache);
    }
    for (waited = 0; count("/proc/self/task") > tasks; waited += STEP_MS) {
        if (waited > PATIENCE_MS)
            fail("a thread is left");
        sleep_ms(STEP_MS);
    }
    if (count("/proc/self/fd") > descriptors + leak)
        fail("a descriptor is left");
    return 0;
}
