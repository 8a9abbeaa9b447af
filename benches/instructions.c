/* What benches/instructions.py counts the instructions of, with callgrind: the functions measured_… .
 *
 *   instructions copy|get|parse|load TIMES
 *
 * with the settings in the environment. */

#include <amp_token.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(amp_status status, const amp_error *error) {
    if (status == AMP_OK)
        return;
    fprintf(stderr, "%s: %s\n", amp_status_name(status), amp_error_message(error));
    exit(1);
}

/* One copy of a cached token. */
__attribute__((noinline)) void measured_copy(const amp_token_cache *cache, char *buffer, size_t capacity, int times) {
    for (int i = 0; i < times; i++)
        check(amp_token_cache_copy(cache, buffer, capacity, NULL, NULL), NULL);
}

/* One reference to a cached token. */
__attribute__((noinline)) void measured_get(const amp_token_cache *cache, int times) {
    for (int i = 0; i < times; i++) {
        amp_token *token;
        check(amp_token_cache_get(cache, &token, NULL), NULL);
        amp_token_free(token);
    }
}

/* Without a cache: a request through the function below, and the response parsed; or a token read from the store. */
__attribute__((noinline)) void measured_token(const amp_config *config, int times) {
    for (int i = 0; i < times; i++) {
        amp_token *token;
        amp_error *error = NULL;
        amp_status status = amp_token_get(config, &token, &error);
        check(status, error);
        amp_token_free(token);
    }
}

static int32_t respond(const amp_http_request *request, amp_http_reply *reply, void *token) {
    char body[2048];
    int length = snprintf(body, sizeof body, "{\"access_token\":\"%s\",\"session_expires_in\":0,\"expires_in\":300}",
                          (const char *)token);
    (void)request;
    amp_http_reply_set_status(reply, 200);
    return amp_http_reply_append_body(reply, body, (size_t)length) ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "";
    int times = argc > 2 ? atoi(argv[2]) : 0;
    amp_config *config = amp_config_new();
    amp_error *error = NULL;
    /* As long as one of Amplience. */
    static char token[1025], buffer[4096];
    amp_status status = amp_config_load(config, &error);

    check(status, error);
    memset(token, 'x', sizeof token - 1);
    if (strcmp(what, "load") != 0)
        check(amp_config_set_transport(config, respond, token, NULL), NULL);
    if (strcmp(what, "parse") == 0 || strcmp(what, "load") == 0) {
        measured_token(config, times);
    } else {
        amp_token_cache *cache;
        check(amp_token_cache_new(config, &cache, NULL), NULL);
        check(amp_token_cache_copy(cache, buffer, sizeof buffer, NULL, NULL), NULL);
        if (strcmp(what, "copy") == 0)
            measured_copy(cache, buffer, sizeof buffer, times);
        else
            measured_get(cache, times);
        amp_token_cache_free(cache);
    }
    amp_config_free(config);
    return 0;
}
