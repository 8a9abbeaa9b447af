/* Prints an access token.
 *
 *     cc -std=c99 get_token.c -o get_token $(pkg-config --cflags --libs amp_token)
 *     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./get_token
 *
 * Exit status, as that of the command amp-token: 0 success, 1 internal error,
 * 2 settings, 3 credentials, 4 network, 5 server, 6 local I/O. */

#include <amp_token.h>
#include <stdio.h>

/* Codes may be added to a group (the tens), so an unknown code counts as the
 * others of its group. */
static int exit_status(amp_status status) {
    if (status == AMP_OK)
        return 0;
    switch ((int)status / 10) {
    case 1: /* AMP_INVALID_ARGUMENT, AMP_CONFIG */
        return 2;
    case 2: /* AMP_NO_CREDENTIALS, AMP_CREDENTIALS_REJECTED */
        return 3;
    case 3: /* AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY, AMP_TIMEOUT */
        return 4;
    case 4: /* AMP_RATE_LIMITED, AMP_SERVER */
    case 5: /* AMP_PROTOCOL */
        return 5;
    default: /* AMP_INTERNAL is a bug in the library */
        return status == AMP_IO ? 6 : 1;
    }
}

int main(void) {
    amp_error *error = NULL;
    amp_token *token = NULL;
    amp_config *config = amp_config_new();
    amp_status status = amp_config_load(config, &error);
    int result;

    if (status == AMP_OK)
        status = amp_token_get(config, &token, &error);
    result = exit_status(status);
    if (status != AMP_OK) {
        fprintf(stderr, "%s: %s\n", amp_status_name(status), amp_error_message(error));
    } else if (puts(amp_token_value(token)) == EOF || fflush(stdout) == EOF) {
        perror("cannot write the token to standard output");
        result = 6;
    }
    amp_token_free(token);
    amp_error_free(error);
    amp_config_free(config);
    return result;
}
