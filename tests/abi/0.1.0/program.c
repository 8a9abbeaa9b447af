/* A program as it was built against the header of version 0.1.0, which lies next to it. Neither is ever
 * changed: tests/abi.rs compiles it with that header and runs it on the library of today.
 *
 * It refers to every function of that version, and does with them what a program does. */

#include "amp_token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

typedef void (*function)(void);

#define F(name) (function)name

static const function functions[] = {
    F(amp_abi_version),
    F(amp_api_download),
    F(amp_api_graphql),
    F(amp_api_request),
    F(amp_config_free),
    F(amp_config_load),
    F(amp_config_new),
    F(amp_config_set),
    F(amp_config_set_logger),
    F(amp_config_set_transport),
    F(amp_config_stop_callbacks),
    F(amp_error_attempts),
    F(amp_error_free),
    F(amp_error_http_status),
    F(amp_error_is_retryable),
    F(amp_error_message),
    F(amp_error_oauth_code),
    F(amp_error_retry_after_ms),
    F(amp_error_status),
    F(amp_http_reply_add_header),
    F(amp_http_reply_append_body),
    F(amp_http_reply_fail),
    F(amp_http_reply_set_status),
    F(amp_http_request_body),
    F(amp_http_request_header),
    F(amp_http_request_header_name),
    F(amp_http_request_method),
    F(amp_http_request_timeout_ms),
    F(amp_http_request_url),
    F(amp_pat_create),
    F(amp_response_body),
    F(amp_response_free),
    F(amp_response_header),
    F(amp_response_next_page),
    F(amp_response_status),
    F(amp_status_name),
    F(amp_token_authorization),
    F(amp_token_cache_copy),
    F(amp_token_cache_epoch),
    F(amp_token_cache_free),
    F(amp_token_cache_get),
    F(amp_token_cache_get_for),
    F(amp_token_cache_invalidate),
    F(amp_token_cache_new),
    F(amp_token_cache_stat),
    F(amp_token_clone),
    F(amp_token_expires_at),
    F(amp_token_expires_in),
    F(amp_token_free),
    F(amp_token_get),
    F(amp_token_length),
    F(amp_token_refresh_in_ms),
    F(amp_token_value),
    F(amp_version),
};

static int requests, lines, pieces;

static int32_t carry(const amp_http_request *request, amp_http_reply *reply, void *user_data) {
    static const char token[] = "{\"access_token\":\"the-token\",\"expires_in\":300}";
    static const char page[] = "{\"page\":{\"number\":0,\"totalPages\":2}}";
    const char *body = strcmp(amp_http_request_method(request), "POST") == 0 ? token : page;
    size_t length = 0;

    CHECK(user_data == &requests);
    CHECK(amp_http_request_timeout_ms(request) > 0);
    CHECK(amp_http_request_header_name(request, 0) != NULL);
    if (body == token) {
        CHECK(strcmp(amp_http_request_url(request), "https://auth.amplience.net/oauth/token") == 0);
        CHECK(amp_http_request_body(request, &length) != NULL && length > 0);
    } else {
        CHECK(strcmp(amp_http_request_header(request, "authorization"), "Bearer the-token") == 0);
    }
    amp_http_reply_set_status(reply, requests == 0 ? 503 : 200);
    if (requests++ == 0)
        amp_http_reply_add_header(reply, "Retry-After", "0");
    CHECK(amp_http_reply_append_body(reply, body, strlen(body)));
    return 0;
}

static void on_line(int32_t level, const char *message, void *user_data) {
    CHECK(user_data == &lines && level >= AMP_LOG_ERROR && message[0] != '\0');
    lines++;
}

static bool on_piece(const void *data, size_t length, void *user_data) {
    CHECK(user_data == &pieces && data != NULL && length > 0);
    pieces++;
    return true;
}

int main(void) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    amp_token *token = NULL, *other;
    amp_error *error = NULL;
    amp_response *response = NULL;
    const uint64_t *epoch;
    char buffer[64];
    size_t i, length = 0;

    for (i = 0; i < sizeof functions / sizeof *functions; i++)
        CHECK(functions[i] != NULL);
    CHECK(amp_abi_version() == AMP_TOKEN_ABI_VERSION);
    CHECK(amp_version()[0] != '\0');

    CHECK(amp_config_set(config, "no_such_setting", "", &error) == AMP_INVALID_ARGUMENT);
    CHECK(amp_error_status(error) == AMP_INVALID_ARGUMENT && amp_error_message(error)[0] != '\0');
    CHECK(amp_error_http_status(error) == 0 && amp_error_oauth_code(error) == NULL);
    CHECK(!amp_error_is_retryable(error));
    CHECK(strcmp(amp_status_name(amp_error_status(error)), "AMP_INVALID_ARGUMENT") == 0);
    amp_error_free(error);

    CHECK(amp_config_set(config, "client_id", "id", NULL) == AMP_OK);
    CHECK(amp_config_set(config, "client_secret", "secret", NULL) == AMP_OK);
    CHECK(amp_config_load(config, NULL) == AMP_OK);
    CHECK(amp_config_set_logger(config, on_line, &lines, NULL) == AMP_OK);
    CHECK(amp_config_set_transport(config, carry, &requests, NULL) == AMP_OK);
    CHECK(amp_token_cache_new(config, &cache, NULL) == AMP_OK);

    CHECK(amp_token_cache_get(cache, &token, NULL) == AMP_OK && requests == 2);
    CHECK(strcmp(amp_token_value(token), "the-token") == 0 && amp_token_length(token) == 9);
    CHECK(strcmp(amp_token_authorization(token), "Bearer the-token") == 0);
    CHECK(amp_token_expires_in(token) > 250 && amp_token_expires_in(token) <= 300);
    CHECK(amp_token_expires_at(token) > 1700000000);
    CHECK(amp_token_refresh_in_ms(token) > 0);
    other = amp_token_clone(token);
    amp_token_free(token);
    CHECK(strcmp(amp_token_value(other), "the-token") == 0);
    amp_token_free(other);
    CHECK(amp_token_cache_get_for(cache, 1000, &token, NULL) == AMP_OK);
    CHECK(amp_token_cache_copy(cache, buffer, 4, &length, NULL) == AMP_BUFFER_TOO_SMALL && length == 9);
    CHECK(amp_token_cache_copy(cache, buffer, sizeof buffer, &length, NULL) == AMP_OK);
    CHECK(strcmp(buffer, "the-token") == 0);
    CHECK(amp_token_cache_stat(cache, "requests") == 2);

    CHECK(amp_api_request(cache, "GET", "/v2/content/hubs", NULL, NULL, 0, &response, NULL) == AMP_OK);
    CHECK(amp_response_status(response) == 200 && amp_response_header(response, "Date") == NULL);
    CHECK(amp_response_body(response, &length) != NULL && length > 0);
    CHECK(amp_response_next_page(response) != NULL);
    amp_response_free(response);
    CHECK(amp_api_download(cache, "/v2/content/hubs", on_piece, &pieces, &response, NULL) == AMP_OK && pieces > 0);
    amp_response_free(response);

    epoch = amp_token_cache_epoch(cache);
    {
        uint64_t before = *epoch;

        amp_token_cache_invalidate(cache, token);
        CHECK(*epoch != before);
    }
    amp_token_free(token);
    CHECK(lines > 0);
    amp_config_stop_callbacks(config);
    amp_config_free(config);
    amp_token_cache_free(cache);
    puts("a program of version 0.1.0 works");
    return 0;
}
