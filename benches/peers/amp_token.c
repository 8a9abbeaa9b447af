/* This library through its C API. With -DCOUNTED_REFERENCE a get is amp_token_cache_get(), which returns a
 * token that the caller frees; otherwise it is amp_token_cache_copy(). */

#include <amp_token.h>

#include "peer.h"

static void fail(const char *call, amp_error *error) {
    fprintf(stderr, "%s: %s\n", call, amp_error_message(error));
    exit(1);
}

static void set(amp_config *config, const char *name, const char *variable) {
    amp_error *error = NULL;
    if (getenv(variable) != NULL && amp_config_set(config, name, getenv(variable), &error) != AMP_OK)
        fail(name, error);
}

static void *peer_open(void) {
    amp_error *error = NULL;
    amp_token_cache *cache;
    amp_config *config = amp_config_new();
    set(config, "auth_url", "AUTH_URL");
    set(config, "client_id", "CLIENT_ID");
    set(config, "client_secret", "CLIENT_SECRET");
    set(config, "ca_file", "CA_FILE");
    if (amp_token_cache_new(config, &cache, &error) != AMP_OK)
        fail("amp_token_cache_new", error);
    amp_config_free(config);
    return cache;
}

static void peer_text(void *cache, char *buffer) {
    amp_error *error = NULL;
    if (amp_token_cache_copy(cache, buffer, TOKEN_CAPACITY, NULL, &error) != AMP_OK)
        fail("amp_token_cache_copy", error);
}

static void peer_get(void *cache, char *buffer) {
#ifdef COUNTED_REFERENCE
    amp_error *error = NULL;
    amp_token *token;
    (void)buffer;
    if (amp_token_cache_get(cache, &token, &error) != AMP_OK)
        fail("amp_token_cache_get", error);
    amp_token_free(token);
#else
    peer_text(cache, buffer);
#endif
}
