/* The conformance runner of the C interface: ../README.md describes the commands and answers. */
#define _POSIX_C_SOURCE 200809L
#include <amp_token.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

static amp_token_cache *cache;
/* The last token that a command returned. */
static amp_token *token;

static void fail(amp_error *error) {
    const char *code = amp_error_oauth_code(error);
    printf("%s %d %s %lld %s\n", amp_status_name((int32_t)amp_error_status(error)),
           (int)amp_error_http_status(error), amp_error_is_retryable(error) ? "true" : "false",
           (long long)amp_error_retry_after_ms(error), code ? code : "-");
    amp_error_free(error);
}

/* Prints the outcome of a call that returns a token, and keeps the token. */
static void answer(amp_token *got, amp_error *error) {
    if (!got) {
        fail(error);
        return;
    }
    printf("AMP_OK %s\n", amp_token_value(got));
    amp_token_free(token);
    token = got;
}

static void open_cache(char *settings) {
    amp_error *error = NULL;
    amp_config *config = amp_config_new();
    amp_status status = AMP_OK;
    for (char *name = strtok(settings, " "); name && status == AMP_OK; name = strtok(NULL, " ")) {
        char *value = strchr(name, '=');
        *value++ = '\0';
        status = amp_config_set(config, name, value, &error);
    }
    if (status == AMP_OK)
        status = amp_config_load(config, &error);
    if (status == AMP_OK)
        status = amp_token_cache_new(config, &cache, &error);
    amp_config_free(config);
    if (status == AMP_OK)
        puts("AMP_OK");
    else
        fail(error);
}

struct call {
    pthread_t thread;
    amp_token *token;
    amp_error *error;
};

static void *get(void *argument) {
    struct call *call = argument;
    call->token = NULL;
    call->error = NULL;
    if (amp_token_cache_get(cache, &call->token, &call->error) != AMP_OK)
        call->token = NULL;
    return NULL;
}

static void get_in_threads(int count) {
    static struct call calls[MOST_THREADS];
    int distinct = 0, failed = -1;
    for (int i = 0; i < count; i++)
        pthread_create(&calls[i].thread, NULL, get, &calls[i]);
    for (int i = 0; i < count; i++) {
        pthread_join(calls[i].thread, NULL);
        int first = 0;
        if (!calls[i].token)
            failed = i;
        while (failed < 0 && strcmp(amp_token_value(calls[first].token), amp_token_value(calls[i].token)) != 0)
            first++;
        distinct += first == i;
    }
    if (failed < 0)
        printf("AMP_OK %d\n", distinct);
    for (int i = 0; i < count; i++) {
        amp_token_free(calls[i].token);
        if (i == failed)
            fail(calls[i].error);
        else
            amp_error_free(calls[i].error);
    }
}

int main(void) {
    static char line[65536];
    static struct call started;
    int is_started = 0;
    struct call call;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *rest = strchr(line, ' ');
        rest = rest ? (*rest = '\0', rest + 1) : line + strlen(line);
        if (!strcmp(line, "open")) {
            open_cache(rest);
        } else if (!strcmp(line, "get") && *rest) {
            call.token = NULL;
            call.error = NULL;
            if (amp_token_cache_get_for(cache, atoll(rest), &call.token, &call.error) != AMP_OK)
                call.token = NULL;
            answer(call.token, call.error);
        } else if (!strcmp(line, "get")) {
            get(&call);
            answer(call.token, call.error);
        } else if (!strcmp(line, "threads")) {
            get_in_threads(atoi(rest));
        } else if (!strcmp(line, "fork")) {
            pid_t child = fork();
            if (child == 0) {
                get(&call);
                answer(call.token, call.error);
                fflush(stdout);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        } else if (!strcmp(line, "start")) {
            is_started = pthread_create(&started.thread, NULL, get, &started) == 0;
            puts("AMP_OK");
        } else if (!strcmp(line, "join")) {
            pthread_join(started.thread, NULL);
            is_started = 0;
            answer(started.token, started.error);
        } else if (!strcmp(line, "token")) {
            printf("AMP_OK %s\n", amp_token_value(token));
        } else if (!strcmp(line, "expires_in")) {
            printf("%lld\n", (long long)amp_token_expires_in(token));
        } else if (!strcmp(line, "report")) {
            char *body = strchr(rest, ' ');
            body = body ? body + 1 : rest + strlen(rest);
            puts(amp_token_cache_report(cache, token, atoi(rest), body, strlen(body)) ? "true" : "false");
        } else if (!strcmp(line, "invalidate")) {
            amp_token_cache_invalidate(cache, token);
            puts("AMP_OK");
        } else if (!strcmp(line, "stat")) {
            printf("%lld\n", (long long)amp_token_cache_stat(cache, rest));
        } else if (!strcmp(line, "close") && !is_started) { /* a cache must not be freed while it is in use */
            amp_token_cache_free(cache);
            cache = NULL;
            puts("AMP_OK");
        } else {
            puts("unsupported");
        }
        fflush(stdout);
    }
    if (!is_started)
        amp_token_cache_free(cache);
    amp_token_free(token);
    return 0;
}
