/* startup.c: measures start-up costs, and prints nanoseconds or bytes on standard error. `make sizes` runs it many times.
 *
 *     startup load LIBRARY          dlopen and the first call
 *     startup run COMMAND ARG…      a process from start to end
 *     startup memory COMMAND ARG…   the most memory that it had, which is at least that of this program
 *     startup get LIBRARY           one amp_token_cache_copy of a cached token, the mean of many
 */
#define _GNU_SOURCE
#include <amp_token.h>
#include <dlfcn.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *library;
static void *find(const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}
#define FIND(name) __typeof__(name) *name##_ = (__typeof__(name) *)find(#name)

static double get(void) {
    FIND(amp_config_new);
    FIND(amp_config_load);
    FIND(amp_token_cache_new);
    FIND(amp_token_cache_copy);
    char token[4096];
    amp_config *config = amp_config_new_();
    amp_token_cache *cache = NULL;
    if (amp_config_load_(config, NULL) != AMP_OK || amp_token_cache_new_(config, &cache, NULL) != AMP_OK ||
        amp_token_cache_copy_(cache, token, sizeof token, NULL, NULL) != AMP_OK) {
        fprintf(stderr, "no token: run this program with with-emulator.sh\n");
        exit(1);
    }
    const int rounds = 200000;
    double start = now();
    for (int i = 0; i < rounds; i++)
        if (amp_token_cache_copy_(cache, token, sizeof token, NULL, NULL) != AMP_OK)
            exit(1);
    return (now() - start) / rounds;
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    double start = now();
    int memory = strcmp(words[1], "memory") == 0;
    if (memory || strcmp(words[1], "run") == 0) {
        pid_t child;
        int status = 1;
        if (posix_spawnp(&child, words[2], NULL, NULL, words + 2, environ) != 0)
            return 1;
        struct rusage usage;
        wait4(child, &status, 0, &usage);
        if (status != 0)
            return 1;
        fprintf(stderr, "%.0f\n", memory ? usage.ru_maxrss * 1024.0 : now() - start);
        return 0;
    }
    library = dlopen(words[2], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    FIND(amp_version);
    const char *version = amp_version_();
    double loaded = now() - start;
    fprintf(stderr, "%.1f\n", strcmp(words[1], "get") == 0 ? get() : version[0] ? loaded : 0);
    return 0;
}
