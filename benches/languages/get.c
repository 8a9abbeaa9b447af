/* Nanoseconds for a variable, a clock and a cached token: see run.py. */
#define _POSIX_C_SOURCE 200809L
#include <amp_token.h>
#include <stdio.h>
#include <time.h>

static volatile const char *variable = "value";

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(void) {
    enum { TIMES = 1000000 };
    static char token[4096];
    amp_error *error = NULL;
    amp_token_cache *cache = NULL;
    amp_config *config = amp_config_new();
    volatile char used = 0;
    if (amp_config_load(config, &error) != AMP_OK || amp_token_cache_new(config, &cache, &error) != AMP_OK ||
        amp_token_cache_copy(cache, token, sizeof token, NULL, &error) != AMP_OK) {
        fprintf(stderr, "%s\n", amp_error_message(error));
        return 1;
    }
    double start = now();
    for (int i = 0; i < TIMES; i++)
        used = variable[0];
    double variable_ns = now() - start;
    start = now();
    for (int i = 0; i < TIMES; i++)
        used = (char)now();
    double clock_ns = now() - start;
    start = now();
    for (int i = 0; i < TIMES; i++)
        if (amp_token_cache_copy(cache, token, sizeof token, NULL, NULL) == AMP_OK)
            used = token[0];
    double get_ns = now() - start;
    (void)used;
    printf("%.1f %.1f %.1f\n", variable_ns / TIMES, clock_ns / TIMES, get_ns / TIMES);
    amp_token_cache_free(cache);
    amp_config_free(config);
    return 0;
}
