/* Two copies of the library in one process, as when two plug-ins each contain
 * one: neither calls functions of the other, and both work at once, in threads
 * and in a forked child.
 *
 * Usage: two_copies path/to/libamp_token.so
 *
 * The first copy is loaded with RTLD_GLOBAL, so that the calls inside the
 * second would be bound to it if they could be interposed. */

#include "check.h"
#include "dlsym.h"

#include "amp_token.h"

#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COPIES = 2, THREADS = 4, ROUNDS = 200 };

struct copy {
    void *library;
    const char *secret;
    int requests;
    amp_token_cache *cache;
    amp_config *(*config_new)(void);
    amp_status (*config_set)(amp_config *, const char *, const char *, amp_error **);
    amp_status (*config_set_transport)(amp_config *, amp_transport_fn, void *, amp_error **);
    void (*config_free)(amp_config *);
    amp_status (*cache_new)(const amp_config *, amp_token_cache **, amp_error **);
    amp_status (*cache_get)(const amp_token_cache *, amp_token **, amp_error **);
    int64_t (*cache_stat)(const amp_token_cache *, const char *);
    void (*cache_free)(amp_token_cache *);
    const char *(*token_value)(const amp_token *);
    void (*token_free)(amp_token *);
    void (*set_status)(amp_http_reply *, int32_t);
    bool (*append_body)(amp_http_reply *, const void *, size_t);
};

/* Each copy has a server of its own, whose tokens contain its number. */
static int32_t carry(const amp_http_request *request, amp_http_reply *reply, void *user_data) {
    struct copy *copy = user_data;
    char body[128];

    CHECK(request != NULL);
    copy->set_status(reply, 200);
    snprintf(body, sizeof body, "{\"access_token\":\"%s-%d\",\"expires_in\":300}", copy->secret,
             __atomic_add_fetch(&copy->requests, 1, __ATOMIC_SEQ_CST));
    CHECK(copy->append_body(reply, body, strlen(body)));
    return 0;
}

static void load(struct copy *copy, const char *path, int visibility, const char *secret) {
    amp_config *config;

    copy->library = dlopen(path, RTLD_NOW | visibility);
    if (!copy->library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(copy->library != NULL);
    copy->secret = secret;
    find(copy->library, "amp_config_new", &copy->config_new);
    find(copy->library, "amp_config_set", &copy->config_set);
    find(copy->library, "amp_config_set_transport", &copy->config_set_transport);
    find(copy->library, "amp_config_free", &copy->config_free);
    find(copy->library, "amp_token_cache_new", &copy->cache_new);
    find(copy->library, "amp_token_cache_get", &copy->cache_get);
    find(copy->library, "amp_token_cache_stat", &copy->cache_stat);
    find(copy->library, "amp_token_cache_free", &copy->cache_free);
    find(copy->library, "amp_token_value", &copy->token_value);
    find(copy->library, "amp_token_free", &copy->token_free);
    find(copy->library, "amp_http_reply_set_status", &copy->set_status);
    find(copy->library, "amp_http_reply_append_body", &copy->append_body);
    config = copy->config_new();
    CHECK(copy->config_set(config, "client_id", secret, NULL) == AMP_OK);
    CHECK(copy->config_set(config, "client_secret", secret, NULL) == AMP_OK);
    CHECK(copy->config_set_transport(config, carry, copy, NULL) == AMP_OK);
    CHECK(copy->cache_new(config, &copy->cache, NULL) == AMP_OK);
    copy->config_free(config);
}

static void use(struct copy *copy) {
    amp_token *token = NULL;

    CHECK(copy->cache_get(copy->cache, &token, NULL) == AMP_OK);
    CHECK(strncmp(copy->token_value(token), copy->secret, strlen(copy->secret)) == 0);
    copy->token_free(token);
}

static void *thread(void *argument) {
    struct copy *copies = argument;
    int round;

    for (round = 0; round < ROUNDS; round++) {
        use(&copies[0]);
        use(&copies[1]);
    }
    return NULL;
}

/* A copy of the file: the loader takes it for another library. */
static void copy_file(const char *from, const char *to) {
    FILE *source = fopen(from, "rb"), *target = fopen(to, "wb");
    static char block[1 << 16];
    size_t length;

    CHECK(source != NULL && target != NULL);
    while ((length = fread(block, 1, sizeof block, source)) > 0)
        CHECK(fwrite(block, 1, length, target) == length);
    CHECK(fclose(target) == 0);
    fclose(source);
}

int main(int argc, char **argv) {
    static struct copy copies[COPIES];
    pthread_t threads[THREADS];
    char second[] = "/tmp/two-copies-XXXXXX";
    int i, file, status;

    CHECK(argc == 2);
    file = mkstemp(second);
    CHECK(file >= 0);
    close(file);
    copy_file(argv[1], second);
    load(&copies[0], argv[1], RTLD_GLOBAL, "first-copy");
    load(&copies[1], second, RTLD_LOCAL, "second-copy");
    CHECK(unlink(second) == 0);
    CHECK(copies[0].cache_get != copies[1].cache_get); /* otherwise this tests nothing */

    for (i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread, copies) == 0);
    for (i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < COPIES; i++) {
        CHECK(copies[i].requests == 1);
        CHECK(copies[i].cache_stat(copies[i].cache, "requests") == 1);
    }
    file = fork();
    CHECK(file >= 0);
    if (file == 0) {
        thread(copies);
        _exit(0);
    }
    CHECK(waitpid(file, &status, 0) == file && status == 0);
    copies[0].cache_free(copies[0].cache);
    CHECK(dlclose(copies[0].library) == 0);
    use(&copies[1]);
    copies[1].cache_free(copies[1].cache);
    CHECK(dlclose(copies[1].library) == 0);
    return 0;
}
