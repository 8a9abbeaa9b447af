/* What the C tests share: a fake Amplience behind amp_config_set_transport(),
 * and short forms of frequent calls. Include it first, as check.h. */

#ifndef TEST_H
#define TEST_H

#include "check.h"

#include "amp_token.h"

#if defined(__GNUC__)
#define UNUSED __attribute__((unused))
#else
#define UNUSED
#endif

/* Fails the test unless `call`, which takes an amp_error ** named `error`,
 * succeeds. */
#define CHECK_OK(call)                                                         \
    do {                                                                       \
        amp_error *error_ = NULL, **error = &error_;                           \
        if ((call) != AMP_OK) {                                                \
            fprintf(stderr, "%s:%d: %s\n  %s: %s\n", __FILE__, __LINE__, #call, \
                    amp_status_name(amp_error_status(error_)),                 \
                    amp_error_message(error_));                                \
            exit(1);                                                           \
        }                                                                      \
        CHECK(error_ == NULL);                                                 \
    } while (0)

/* The fake server. It has no lock, because a forked child could inherit it
 * locked. */
struct fake {
    int requests;   /* number of requests so far */
    int expires_in; /* lifetime of its tokens, in seconds */
    int status;     /* HTTP status to return instead of a token, unless 0 */
    const char *retry_after; /* Retry-After of such a response, unless NULL */
    /* Called before each response, unless NULL. */
    void (*before_reply)(struct fake *fake);
    void *more;
};

/* Token number n is "token-n" with padding to the size of a real token. */
UNUSED static int fake_send(const amp_http_request *request, amp_http_reply *reply, void *user_data) {
    struct fake *fake = user_data;
    int number = __atomic_add_fetch(&fake->requests, 1, __ATOMIC_SEQ_CST);
    char body[1400], padding[1001];
    size_t length = 0;

    CHECK(strcmp(amp_http_request_method(request), "POST") == 0);
    CHECK(strcmp(amp_http_request_url(request), "https://auth.amplience.net/oauth/token") == 0);
    CHECK(amp_http_request_body(request, &length) != NULL && length > 0);
    CHECK(amp_http_request_timeout_ms(request) >= 0);
    if (fake->before_reply)
        fake->before_reply(fake);
    amp_http_reply_set_status(reply, fake->status ? fake->status : 200);
    if (fake->status) {
        if (fake->retry_after)
            amp_http_reply_add_header(reply, "Retry-After", fake->retry_after);
        return 0;
    }
    amp_http_reply_add_header(reply, "Content-Type", "application/json");
    memset(padding, 'x', sizeof padding - 1);
    padding[sizeof padding - 1] = '\0';
    snprintf(body, sizeof body, "{\"access_token\":\"token-%d-%s\",\"session_expires_in\":0,\"expires_in\":%d}",
             number, padding, fake->expires_in);
    CHECK(amp_http_reply_append_body(reply, body, strlen(body)));
    return 0;
}

/* A config with credentials and the fake server; the caller frees it. */
UNUSED static amp_config *fake_config(struct fake *fake) {
    amp_config *config = amp_config_new();

    CHECK(config != NULL);
    CHECK_OK(amp_config_set(config, "client_id", "id", error));
    CHECK_OK(amp_config_set(config, "client_secret", "secret", error));
    CHECK_OK(amp_config_set(config, "retries", "0", error));
    CHECK_OK(amp_config_set_transport(config, fake_send, fake, error));
    return config;
}

/* A cache that uses the fake server; the caller frees it. */
UNUSED static amp_token_cache *fake_cache(struct fake *fake) {
    amp_config *config = fake_config(fake);
    amp_token_cache *cache = NULL;

    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    return cache;
}

/* The current token; the caller frees it. */
UNUSED static amp_token *get(const amp_token_cache *cache) {
    amp_token *token = NULL;

    CHECK_OK(amp_token_cache_get(cache, &token, error));
    CHECK(token != NULL);
    return token;
}

/* The number of a token from the fake server. */
UNUSED static int number_of(const amp_token *token) {
    int number = 0;

    CHECK(sscanf(amp_token_value(token), "token-%d-", &number) == 1);
    return number;
}

#endif
