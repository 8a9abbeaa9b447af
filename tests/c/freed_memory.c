/* Tests that the library wipes memory before it frees it, even where code of a
 * dependency frees it: the JSON parser copies a token that contains escapes.
 * scripts/check-install.sh runs it with the library as it is shipped.
 *
 * The library calls this program's free(). */

#include <malloc.h>

#include "fake_server.h"

extern void __libc_free(void *block);

/* The token consists of letters in an order that appears nowhere else. They are
 * computed, so that this program does not have it in its own memory. */
enum { TOKEN = 600, NEEDLE = 24 };
static char letter(int index) {
    return (char)('a' + (index * 7 + index / 26) % 26);
}

static int watching, found;

void free(void *block) {
    size_t at, length = watching && block ? malloc_usable_size(block) : 0;

    for (at = 0; at + NEEDLE <= length; at++) {
        int same = 0;

        while (same < NEEDLE && ((char *)block)[at + (size_t)same] == letter(300 + same))
            same++;
        if (same == NEEDLE) {
            found++;
            break;
        }
    }
    __libc_free(block);
}

static int send_escaped(const amp_http_request *request, amp_http_reply *reply, void *user_data) {
    char body[TOKEN + 100] = "{\"expires_in\":300,\"access_token\":\"\\u0065";
    size_t length = strlen(body);
    int index;

    (void)request, (void)user_data;
    for (index = 0; index < TOKEN; index++)
        body[length++] = letter(index);
    memcpy(body + length, "\"}", 2);
    length += 2;
    amp_http_reply_set_status(reply, 200);
    CHECK(amp_http_reply_append_body(reply, body, length));
    return 0;
}

int main(void) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    char *control = malloc(TOKEN);
    int index;

    /* The search finds a token that is there. */
    for (index = 0; index < TOKEN; index++)
        control[index] = letter(index);
    watching = 1;
    free(control);
    CHECK(found == 1);
    found = 0;

    CHECK_OK(amp_config_set(config, "client_id", "id", error));
    CHECK_OK(amp_config_set(config, "client_secret", "secret", error));
    CHECK_OK(amp_config_set_transport(config, send_escaped, NULL, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_token_free(get(cache));
    amp_token_cache_free(cache);
    amp_config_free(config);
    if (found > 0)
        fprintf(stderr, "%d blocks were freed with the token in them\n", found);
    return found > 0;
}
