/* Run by tests/raised_privileges.rs with set-user-ID and the like, in an environment that its caller chose. Loads
 * the environment, continues even if that fails, sets the settings that are its arguments (a name, a value, and so
 * on), and gets a token. Prints the result of each step. */

#include "check.h"

#include <amp_token.h>
#include <sys/auxv.h>

static void report(const char *step, amp_status status, amp_error **error) {
    printf("%s: %s %s\n", step, amp_status_name(status), *error != NULL ? amp_error_message(*error) : "");
    amp_error_free(*error);
    *error = NULL;
}

int main(int count, char **arguments) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    amp_token *token = NULL;
    amp_error *error = NULL;
    amp_status status;
    int at;

    printf("AT_SECURE: %lu\n", getauxval(AT_SECURE));
    report("load", amp_config_load(config, &error), &error);
    for (at = 1; at + 1 < count; at += 2)
        CHECK(amp_config_set(config, arguments[at], arguments[at + 1], NULL) == AMP_OK);
    status = amp_token_cache_new(config, &cache, &error);
    if (status == AMP_OK)
        status = amp_token_cache_get(cache, &token, &error);
    report("get", status, &error);
    amp_token_free(token);
    amp_token_cache_free(cache);
    amp_config_free(config);
    return 0;
}
