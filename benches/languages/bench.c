/* Prints the nanoseconds of a cached token, and of a variable and a clock, which a program without the library keeps. */
#include <amp_token.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 7

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}


static struct {
    char value[4096];
    size_t length;
    double until;
} kept;

int main(void) {
    const long count = atol(getenv("COUNT"));
    static char buffer[4096];
    size_t length = 0;
    double best[2] = {1e9, 1e9};
    amp_token_cache *cache = NULL;
    amp_config *config = amp_config_new();
    if (amp_config_load(config, NULL) != AMP_OK || amp_token_cache_new(config, &cache, NULL) != AMP_OK ||
        amp_token_cache_copy(cache, kept.value, sizeof kept.value, &kept.length, NULL) != AMP_OK)
        return 1;
    kept.until = now() + 1e12;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now(), took;
        for (long i = 0; i < count; i++)
            if (amp_token_cache_copy(cache, buffer, sizeof buffer, &length, NULL) != AMP_OK)
                return 1;
        took = (now() - start) / (double)count;
        best[0] = took < best[0] ? took : best[0];
        start = now();
        for (long i = 0; i < count; i++)
            if (now() < kept.until) {
                memcpy(buffer, kept.value, kept.length + 1);
                __asm__ volatile("" ::: "memory");
            }
        took = (now() - start) / (double)count;
        best[1] = took < best[1] ? took : best[1];
    }
    printf("%.1f %.1f\n", best[0], best[1]);
    amp_token_cache_free(cache);
    amp_config_free(config);
    return 0;
}
