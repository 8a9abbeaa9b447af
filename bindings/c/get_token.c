/* Prints an access token.
 *
 *     cc -std=c99 get_token.c -o get_token $(pkg-config --cflags --libs amp_token)
 *     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./get_token
 *
 * Exit status: 0, or the tens of the failure's amp_status, which are its
 * family: 1 arguments and configuration, 2 credentials, 3 network, 4 server,
 * 5 reply, 6 this machine. */

#include <amp_token.h>
#include <stdio.h>

int main(void) {
    amp_error *error = NULL;
    amp_token *token = NULL;
    amp_config *config = amp_config_new();
    amp_status status = amp_config_load(config, &error);

    if (status == AMP_OK)
        status = amp_token_get(config, &token, &error);
    if (status == AMP_OK)
        puts(amp_token_value(token));
    else
        fprintf(stderr, "%s: %s\n", amp_status_name(status), amp_error_message(error));
    amp_token_free(token);
    amp_error_free(error);
    amp_config_free(config);
    return status / 10;
}
