/* What benches/scale.py measures within one process, with the settings in the environment. Prints numbers.
 *
 *     scale memory CACHES        bytes of memory of each cache with its token (1.1 KB), and after all are freed
 *     scale threads N SECONDS    a herd of N threads on an empty cache: requests, ms until all have a token;
 *                                then copies per second of all together
 *     scale token BYTES SECONDS  copies per second of a token of this length
 *     scale start N AT_ONCE COMMAND…
 *                                N processes, at most so many at once: ms until all have ended, ms of processor
 *                                time, how many failed
 *
 * The tokens come from a transport function, so that nothing else is measured. */

#define _GNU_SOURCE
#include <amp_token.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { LONGEST = 20000, MOST_THREADS = 4096 };

static char token[LONGEST + 1];
static atomic_int requests;
static pthread_barrier_t start_line;

static void check(amp_status status, const amp_error *error) {
    if (status == AMP_OK)
        return;
    fprintf(stderr, "%s: %s\n", amp_status_name(status), amp_error_message(error));
    exit(1);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The memory of this process that is in use and belongs to no file. Not from statm, which is off by up to 64 pages. */
static long anonymous(void) {
    char line[256];
    long kilobytes = -1;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && kilobytes < 0 && fgets(line, sizeof line, file))
        sscanf(line, "Anonymous: %ld kB", &kilobytes);
    if (kilobytes < 0)
        exit(1);
    fclose(file);
    return kilobytes * 1024;
}

static int32_t respond(const amp_http_request *request, amp_http_reply *reply, void *unused) {
    static const char start[] = "{\"access_token\":\"", end[] = "\",\"session_expires_in\":0,\"expires_in\":300}";
    (void)request, (void)unused;
    /* As a server far away does. */
    usleep(20000);
    requests++;
    amp_http_reply_set_status(reply, 200);
    amp_http_reply_append_body(reply, start, sizeof start - 1);
    amp_http_reply_append_body(reply, token, strlen(token));
    amp_http_reply_append_body(reply, end, sizeof end - 1);
    return 0;
}

static int32_t respond_at_once(const amp_http_request *request, amp_http_reply *reply, void *unused) {
    char body[2048];
    int length = snprintf(body, sizeof body, "{\"access_token\":\"%s\",\"session_expires_in\":0,\"expires_in\":300}", token);
    (void)request, (void)unused;
    amp_http_reply_set_status(reply, 200);
    return amp_http_reply_append_body(reply, body, (size_t)length) ? 0 : 1;
}

/* A cache for an account of its own. */
static amp_token_cache *new_cache(int account, amp_transport_fn transport) {
    amp_config *config = amp_config_new();
    amp_token_cache *cache = NULL;
    amp_error *error = NULL;
    char id[64], secret[80];
    snprintf(id, sizeof id, "00000000-0000-4000-8000-%012d", account);
    snprintf(secret, sizeof secret, "%064d", account);
    check(amp_config_set(config, "client_id", id, NULL), NULL);
    check(amp_config_set(config, "client_secret", secret, NULL), NULL);
    check(amp_config_set_transport(config, transport, NULL, NULL), NULL);
    amp_status status = amp_config_load(config, &error);
    check(status, error);
    status = amp_token_cache_new(config, &cache, &error);
    check(status, error);
    amp_config_free(config);
    return cache;
}

static void copy(const amp_token_cache *cache) {
    static _Thread_local char buffer[LONGEST + 1];
    amp_error *error = NULL;
    amp_status status = amp_token_cache_copy(cache, buffer, sizeof buffer, NULL, &error);
    check(status, error);
}

static void memory(int count) {
    amp_token_cache **caches = malloc(sizeof *caches * (size_t)count);
    /* What the first one brings for all. */
    amp_token_cache *first = new_cache(0, respond_at_once);
    copy(first);
    memset(caches, 1, sizeof *caches * (size_t)count);
    long before = anonymous();
    for (int i = 0; i < count; i++) {
        caches[i] = new_cache(i + 1, respond_at_once);
        copy(caches[i]);
    }
    long with = anonymous();
    for (int i = 0; i < count; i++)
        amp_token_cache_free(caches[i]);
    printf("%ld %ld\n", (with - before) / count, (anonymous() - before) / count);
    amp_token_cache_free(first);
    free(caches);
}

struct thread {
    pthread_t id;
    const amp_token_cache *cache;
    /* How long it copies; 0 for a single copy. */
    double duration;
    double start, end;
    long copies;
};

static void *work(void *argument) {
    struct thread *self = argument;
    pthread_barrier_wait(&start_line);
    self->start = seconds();
    do {
        for (int i = 0; i < (self->duration > 0 ? 1000 : 1); i++, self->copies++)
            copy(self->cache);
        self->end = seconds();
    } while (self->end - self->start < self->duration);
    return NULL;
}

/* Runs the threads, and returns the seconds from the first start to the last end. */
static double run(const amp_token_cache *cache, int count, double duration, long *copies) {
    static struct thread all[MOST_THREADS];
    pthread_attr_t attributes;
    double first = 1e300, last = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_barrier_init(&start_line, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
        all[i] = (struct thread){.cache = cache, .duration = duration};
        if (pthread_create(&all[i].id, &attributes, work, &all[i]) != 0)
            exit(1);
    }
    *copies = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(all[i].id, NULL);
        first = all[i].start < first ? all[i].start : first;
        last = all[i].end > last ? all[i].end : last;
        *copies += all[i].copies;
    }
    return last - first;
}

static void threads(int count, double duration) {
    amp_token_cache *cache = new_cache(1, respond);
    long copies;
    double herd = run(cache, count, 0, &copies);
    double took = run(cache, count, duration, &copies);
    printf("%d %.3f %.0f\n", requests, herd * 1000, (double)copies / took);
    amp_token_cache_free(cache);
}

static void one_token(double duration) {
    amp_token_cache *cache = new_cache(1, respond);
    copy(cache);
    double start = seconds(), now;
    long copies = 0;
    do {
        for (int i = 0; i < 1000; i++)
            copy(cache);
        copies += 1000;
        now = seconds();
    } while (now - start < duration);
    printf("%.0f\n", (double)copies / (now - start));
    amp_token_cache_free(cache);
}

static double used(struct timeval user, struct timeval system) {
    return (double)(user.tv_sec + system.tv_sec) * 1e3 + (double)(user.tv_usec + system.tv_usec) / 1e3;
}

static void start_processes(int count, int at_once, char **command) {
    posix_spawn_file_actions_t actions;
    struct rusage usage;
    int running = 0, failed = 0, status;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    double start = seconds();
    for (int started = 0; started < count || running > 0;) {
        if (started < count && running < at_once) {
            pid_t child;
            if (posix_spawnp(&child, command[0], &actions, NULL, command, environ) != 0)
                exit(1);
            started++, running++;
        } else {
            if (wait(&status) < 0)
                exit(1);
            running--;
            failed += status != 0;
        }
    }
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("%.2f %.2f %d\n", (seconds() - start) * 1000, used(usage.ru_utime, usage.ru_stime), failed);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    int number = atoi(argv[2]);
    memset(token, 'x', 1100);
    if (strcmp(argv[1], "memory") == 0) {
        memory(number);
    } else if (strcmp(argv[1], "threads") == 0 && argc == 4 && number <= MOST_THREADS) {
        threads(number, atof(argv[3]));
    } else if (strcmp(argv[1], "token") == 0 && argc == 4 && number <= LONGEST) {
        memset(token, 0, sizeof token);
        memset(token, 'x', (size_t)number);
        one_token(atof(argv[3]));
    } else if (strcmp(argv[1], "start") == 0 && argc > 4) {
        start_processes(number, atoi(argv[3]), argv + 4);
    } else {
        return 2;
    }
    return 0;
}
