/* The common part of the peers written in C, and the description of all peers. The modes of a peer:
 *
 *     peer token                  prints one token
 *     peer series COUNT           gets COUNT tokens, one after the other
 *     peer herd THREADS           gets one on each thread, all at the same time, with an empty cache
 *     peer gets THREADS SECONDS   prints how many gets of a cached token the threads make together
 *                                 per second
 *
 * A peer in C defines the three functions below and includes this file last. The environment variables
 * AUTH_URL, CLIENT_ID, CLIENT_SECRET and CA_FILE describe the service. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKEN_CAPACITY = 4096, BATCH = 1000 };

/* Creates the cache, without a token request. */
static void *peer_open(void);

/* Gets a valid token. The peer may use `buffer`. */
static void peer_get(void *cache, char *buffer);

/* Gets a valid token as a string. */
static void peer_text(void *cache, char *buffer);

struct run {
    void *cache;
    pthread_barrier_t start;
    atomic_bool stop;
    bool once;
};

struct thread {
    pthread_t id;
    struct run *run;
    long gets;
};

static void *peer_thread(void *argument) {
    struct thread *self = argument;
    char buffer[TOKEN_CAPACITY];
    pthread_barrier_wait(&self->run->start);
    if (self->run->once) {
        peer_get(self->run->cache, buffer);
        self->gets = 1;
        return NULL;
    }
    while (!atomic_load_explicit(&self->run->stop, memory_order_relaxed)) {
        for (int i = 0; i < BATCH; i++)
            peer_get(self->run->cache, buffer);
        self->gets += BATCH;
    }
    return NULL;
}

static double peer_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Runs the threads and returns how many gets per second they made. */
static double peer_run(void *cache, int count, double seconds, bool once) {
    struct run run = {.cache = cache, .once = once};
    struct thread *threads = calloc((size_t)count, sizeof *threads);
    long gets = 0;
    pthread_barrier_init(&run.start, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) {
        threads[i].run = &run;
        if (pthread_create(&threads[i].id, NULL, peer_thread, &threads[i]) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
    pthread_barrier_wait(&run.start);
    double start = peer_seconds();
    if (!once) {
        struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
        nanosleep(&pause, NULL);
        atomic_store(&run.stop, true);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i].id, NULL);
        gets += threads[i].gets;
    }
    double took = peer_seconds() - start;
    pthread_barrier_destroy(&run.start);
    free(threads);
    return (double)gets / took;
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "token";
    int number = count > 2 ? atoi(arguments[2]) : 1;
    char buffer[TOKEN_CAPACITY];
    void *cache = peer_open();

    if (strcmp(mode, "token") == 0) {
        peer_text(cache, buffer);
        puts(buffer);
    } else if (strcmp(mode, "series") == 0) {
        for (int i = 0; i < number; i++)
            peer_get(cache, buffer);
    } else if (strcmp(mode, "herd") == 0) {
        peer_run(cache, number, 0, true);
    } else if (strcmp(mode, "gets") == 0) {
        double seconds = count > 3 ? atof(arguments[3]) : 0.2;
        peer_get(cache, buffer);
        printf("%.1f\n", peer_run(cache, number, seconds, false));
    } else {
        fprintf(stderr, "unknown mode: %s\n", mode);
        return 2;
    }
    return 0;
}
