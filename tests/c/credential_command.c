/* credential_command in an application that handles SIGCHLD in its own way.
 *
 *     credential_command default|ignored|handled CLIENT_ID PROGRAM AUTH_URL
 *
 * Prints the status of a token request, and whether a child or a descriptor is
 * left. */

#define _POSIX_C_SOURCE 200809L

#include "amp_token.h"
#include "check.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/* As programs do that start processes and forget them. */
static void collect_all(int signal) {
    int saved = errno;
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = saved;
}

static int descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void set(amp_config *config, const char *name, const char *value) {
    CHECK(amp_config_set(config, name, value, NULL) == AMP_OK);
}

int main(int argc, char **argv) {
    amp_config *config = amp_config_new();
    amp_token *token = NULL;
    amp_status status;
    int before;

    CHECK(argc == 5);
    if (strcmp(argv[1], "ignored") == 0)
        signal(SIGCHLD, SIG_IGN);
    if (strcmp(argv[1], "handled") == 0) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = collect_all;
        action.sa_flags = SA_RESTART;
        CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    }
    set(config, "client_id", argv[2]);
    set(config, "credential_command", argv[3]);
    set(config, "auth_url", argv[4]);
    set(config, "retries", "0");
    before = descriptors();
    status = amp_token_get(config, &token, NULL);
    printf("%s\n", amp_status_name((int32_t)status));
    amp_token_free(token);
    amp_config_free(config);
    CHECK(descriptors() == before);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    printf("no child, no descriptor\n");
    return 0;
}
