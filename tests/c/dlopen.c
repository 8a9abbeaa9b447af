/* Loads the library, uses it in several threads and closes it, 1,000 times,
 * while the threads that used it keep running.
 *
 * Usage: dlopen path/to/libamp_token.so
 *
 * Not linked with the library, which would then stay loaded all the time. */

/* RTLD_DEFAULT */
#define _GNU_SOURCE

#include "check.h"
#include "dlsym.h"

#include "amp_token.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, ROUNDS = 1000, ROUNDS_PER_REQUEST = 50 };

/* The functions that are used, found again in each round. */
static struct {
    const char *(*version)(void);
    amp_config *(*config_new)(void);
    amp_status (*config_set)(amp_config *, const char *, const char *, amp_error **);
    void (*config_free)(amp_config *);
    amp_status (*token_get)(const amp_config *, amp_token **, amp_error **);
    const char *(*error_message)(const amp_error *);
    void (*error_free)(amp_error *);
    amp_status (*cache_new)(const amp_config *, amp_token_cache **, amp_error **);
    amp_status (*cache_get)(const amp_token_cache *, amp_token **, amp_error **);
    void (*cache_free)(amp_token_cache *);
    const char *(*token_value)(const amp_token *);
    void (*token_free)(amp_token *);
} lib;

static pthread_barrier_t loaded, used;

static void find_all(void *library) {
    find(library, "amp_version", &lib.version);
    find(library, "amp_config_new", &lib.config_new);
    find(library, "amp_config_set", &lib.config_set);
    find(library, "amp_config_free", &lib.config_free);
    find(library, "amp_token_get", &lib.token_get);
    find(library, "amp_error_message", &lib.error_message);
    find(library, "amp_error_free", &lib.error_free);
    find(library, "amp_token_cache_new", &lib.cache_new);
    find(library, "amp_token_cache_get", &lib.cache_get);
    find(library, "amp_token_cache_free", &lib.cache_free);
    find(library, "amp_token_value", &lib.token_value);
    find(library, "amp_token_free", &lib.token_free);
}

static void use(void) {
    amp_config *config = lib.config_new();
    amp_token_cache *cache = NULL;
    amp_token *token = NULL;
    amp_error *error = NULL;

    CHECK(lib.version()[0] != '\0');
    CHECK(lib.config_set(config, "personal_access_token", "amp_pat_a.b", NULL) == AMP_OK);
    CHECK(lib.config_set(config, "background_refresh", "true", NULL) == AMP_OK);
    CHECK(lib.cache_new(config, &cache, &error) == AMP_OK);
    lib.config_free(config);
    CHECK(lib.cache_get(cache, &token, &error) == AMP_OK);
    lib.cache_free(cache);
    CHECK(strcmp(lib.token_value(token), "amp_pat_a.b") == 0);
    lib.token_free(token);
}

/* A request over a real socket, to a port that refuses the connection. */
static void use_network(const char *auth_url) {
    amp_config *config = lib.config_new();
    amp_token *token = NULL;
    amp_error *error = NULL;

    CHECK(lib.config_set(config, "client_id", "id", NULL) == AMP_OK);
    CHECK(lib.config_set(config, "client_secret", "secret", NULL) == AMP_OK);
    CHECK(lib.config_set(config, "auth_url", auth_url, NULL) == AMP_OK);
    CHECK(lib.config_set(config, "proxy", "none", NULL) == AMP_OK);
    CHECK(lib.config_set(config, "retries", "0", NULL) == AMP_OK);
    CHECK(lib.token_get(config, &token, &error) == AMP_CONNECT);
    CHECK(token == NULL && lib.error_message(error)[0] != '\0');
    lib.error_free(error);
    lib.config_free(config);
}

static void *thread(void *auth_url) {
    int round;

    for (round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&loaded);
        use();
        if (round % ROUNDS_PER_REQUEST == 0)
            use_network(auth_url);
        pthread_barrier_wait(&used);
    }
    return NULL;
}

/* A port that is bound and does not listen, so that it refuses connections and
 * no other process can take it. */
static int closed_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int taken = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(taken >= 0);
    CHECK(bind(taken, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(taken, (struct sockaddr *)&address, &size) == 0);
    return ntohs(address.sin_port);
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    char auth_url[64];
    int i, round;

    CHECK(argc == 2);
    CHECK(dlsym(RTLD_DEFAULT, "amp_version") == NULL); /* otherwise this tests nothing */
    snprintf(auth_url, sizeof auth_url, "http://127.0.0.1:%d", closed_port());
    CHECK(pthread_barrier_init(&loaded, NULL, THREADS + 1) == 0);
    CHECK(pthread_barrier_init(&used, NULL, THREADS + 1) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread, auth_url) == 0);
    for (round = 0; round < ROUNDS; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);

        if (!library)
            fprintf(stderr, "%s\n", dlerror());
        CHECK(library != NULL);
        find_all(library);
        pthread_barrier_wait(&loaded);
        pthread_barrier_wait(&used);
        memset(&lib, 0, sizeof lib);
        CHECK(dlclose(library) == 0);
    }
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
