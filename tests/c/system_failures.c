/* Creates one system failure in this process, and tests how a get fails and that
 * the same cache works again when the failure is over.
 *
 *   system_failures FAULT    with the settings of the service in the environment
 *
 * It reports to tests/system_failures.rs, in lines with tabs:
 *   outcome  STATUS  RETRYABLE  WHAT IS SAID
 *   ask      WHAT                  the test does it, and writes a line back
 *   measured TEXT                  for readers; differs between runs
 *   left out WHY                   the failure cannot be created here
 *   done                           the same cache works again
 * No wait has a time limit: the test kills a process that hangs.
 *
 * It replaces functions of the C library, and libamp_token.so calls them here:
 * getaddrinfo(), clock_gettime() for the wall clock, and renameat() and statx(),
 * which do not return on a stalled disk. */

#define _GNU_SOURCE
#include "fake_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * KIB, A_DAY = 24 * 60 * 60 };

/* LIFETIME is defined there: of tokens that are to be refreshed, in seconds. */

/* ---- replaced functions ------------------------------------------------- */

/* Seconds by which the wall clock was changed. */
static long stepped;

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failure = (int)syscall(SYS_clock_gettime, clock, time);

    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        time->tv_sec += __atomic_load_n(&stepped, __ATOMIC_SEQ_CST);
    return failure;
}

/* The result of getaddrinfo(): addresses, separated by spaces. NULL: the
 * system's addresses of localhost. */
static const char *addresses;
static int hangs;
static int lookups;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, **end = found;
    char list[200], *address, *rest;

    (void)name;
    memcpy(&real, &symbol, sizeof real);
    __atomic_add_fetch(&lookups, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&hangs, __ATOMIC_SEQ_CST))
        usleep(1000);
    if (!addresses)
        return real("localhost", service, hints, found);
    snprintf(list, sizeof list, "%s", addresses);
    for (address = strtok_r(list, " ", &rest); address; address = strtok_r(NULL, " ", &rest)) {
        CHECK(real(address, service, &numeric, end) == 0);
        end = &(*end)->ai_next;
    }
    return 0;
}

/* What stalls on the disk: only writes, or reads too, as on a file server that
 * is gone. */
enum { GOES, STANDS_FOR_WRITERS, STANDS_FOR_ALL };
static int disk;

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    while (__atomic_load_n(&disk, __ATOMIC_SEQ_CST) >= STANDS_FOR_WRITERS)
        usleep(1000);
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

int statx(int folder, const char *path, int flags, unsigned int wanted, struct statx *about) {
    while (__atomic_load_n(&disk, __ATOMIC_SEQ_CST) >= STANDS_FOR_ALL)
        usleep(1000);
    return (int)syscall(SYS_statx, folder, path, flags, wanted, about);
}

/* There is no function for openat2. On such a disk nothing is in memory. */
long syscall(long number, ...) {
    long (*real)(long, ...) = NULL;
    void *symbol = dlsym(RTLD_NEXT, "syscall");
    long with[6];
    va_list arguments;
    size_t i;

    if (number == SYS_openat2 && __atomic_load_n(&disk, __ATOMIC_SEQ_CST) >= STANDS_FOR_ALL) {
        errno = EAGAIN;
        return -1;
    }
    va_start(arguments, number);
    for (i = 0; i < 6; i++)
        with[i] = va_arg(arguments, long);
    va_end(arguments);
    memcpy(&real, &symbol, sizeof real);
    return real(number, with[0], with[1], with[2], with[3], with[4], with[5]);
}

/* ---- telling --------------------------------------------------------------- */

static void say(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

/* Makes the test do something. */
static void ask(const char *what) {
    say("ask\t%s", what);
    CHECK(getchar() == '\n');
}

/* The latest warning about the store. */
static char warning[1000];
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

static void logger(int32_t level, const char *message, void *unused) {
    (void)unused;
    if (level <= AMP_LOG_WARNING && strncmp(message, "store: ", 7) == 0) {
        pthread_mutex_lock(&writing);
        snprintf(warning, sizeof warning, "%s", message);
        pthread_mutex_unlock(&writing);
    }
}

/* ---- caches ------------------------------------------------------------------ */

/* The settings of the environment, and one more unless it is NULL. */
static amp_status configure(amp_config **config, const char *name, const char *value, amp_error **error) {
    amp_status status;

    *config = amp_config_new();
    CHECK_OK(amp_config_set_logger(*config, logger, NULL, error));
    status = amp_config_load(*config, error);
    if (status == AMP_OK && name)
        status = amp_config_set(*config, name, value, error);
    return status;
}

static amp_token_cache *new_cache_with(const char *name, const char *value) {
    amp_config *config;
    amp_token_cache *cache = NULL;

    CHECK_OK(configure(&config, name, value, error));
    CHECK_OK(amp_token_cache_new(config, &cache, error));
    amp_config_free(config);
    return cache;
}

static amp_token_cache *new_cache(void) {
    return new_cache_with(NULL, NULL);
}

static amp_status try_get(const amp_token_cache *cache, amp_error **error) {
    amp_token *token = NULL;
    amp_status status = amp_token_cache_get(cache, &token, error);

    CHECK((status == AMP_OK) == (token != NULL));
    CHECK(status != AMP_INTERNAL);
    amp_token_free(token);
    return status;
}

static void rest_ms(int64_t ms) {
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&time, NULL);
}

/* Calls get until the cache has a token, and waits as long as errors ask for. */
static void recover(const amp_token_cache *cache) {
    amp_error *error = NULL;

    while (try_get(cache, &error) != AMP_OK) {
        int64_t pause = amp_error_retry_after_ms(error);

        rest_ms(pause > 0 ? pause : 1);
        amp_error_free(error);
        error = NULL;
    }
}

/* Calls get until the cache has fetched another token. */
static void renew_at_last(const amp_token_cache *cache) {
    int64_t before = amp_token_cache_stat(cache, "refreshes");

    while (amp_token_cache_stat(cache, "refreshes") == before) {
        recover(cache);
        rest_ms(5);
    }
}

/* The same, but no call may fail. */
static void renew(const amp_token_cache *cache) {
    int64_t before = amp_token_cache_stat(cache, "refreshes");

    while (amp_token_cache_stat(cache, "refreshes") == before) {
        amp_token_free(get(cache));
        rest_ms(5);
    }
}

static void tell(amp_status status, amp_error *error, const char *says) {
    say("outcome\t%s\t%s\t%s", amp_status_name(status), !error ? "" : amp_error_is_retryable(error) ? "yes" : "no",
        error ? amp_error_message(error) : says);
    amp_error_free(error);
}

/* One get, and its outcome. */
static void tell_get(const amp_token_cache *cache) {
    amp_error *error = NULL;
    amp_status status = try_get(cache, &error);

    tell(status, error, "");
}

static void leave_out(const char *why) {
    say("left out\t%s", why);
    exit(0);
}

/* ---- what a process has ------------------------------------------------------- */

/* Counts the entries of a directory. */
static int entries(const char *folder) {
    DIR *listing = opendir(folder);
    int count = 0;

    CHECK(listing != NULL);
    while (readdir(listing))
        count++;
    closedir(listing);
    return count - 2;
}

static int threads(void) {
    return entries("/proc/self/task");
}

/* Waits until every other thread has ended. */
static void be_alone(void) {
    while (threads() > 1)
        rest_ms(1);
}

static long pages(int field) {
    long size[2] = {0, 0};
    FILE *file = fopen("/proc/self/statm", "r");

    CHECK(file && fscanf(file, "%ld %ld", &size[0], &size[1]) == 2);
    fclose(file);
    return size[field];
}

static void limit(int resource, rlim_t most) {
    struct rlimit limits;

    CHECK(getrlimit((__rlimit_resource_t)resource, &limits) == 0);
    limits.rlim_cur = most < limits.rlim_max ? most : limits.rlim_max;
    CHECK(setrlimit((__rlimit_resource_t)resource, &limits) == 0);
}

/* Limits the memory that this process may allocate from now on. */
static void allow_memory(long bytes) {
    limit(RLIMIT_AS, (rlim_t)(pages(0) * sysconf(_SC_PAGESIZE) + bytes));
}

/* The lowest free descriptor; none above it is in use. */
static int lowest_free(void) {
    int lowest = dup(0);

    CHECK(lowest >= 0 && close(lowest) == 0);
    /* (Including the one that lists them.) */
    CHECK(entries("/proc/self/fd") == lowest + 1);
    return lowest;
}

/* The failure is over: the cache works again, and leaks nothing. */
static void done(amp_token_cache *cache) {
    recover(cache);
    amp_token_cache_free(cache);
    be_alone();
    CHECK(lowest_free() == 3);
    say("done");
}

/* ---- descriptors ----------------------------------------------------------------- */

static void no_descriptors(void) {
    amp_token_cache *cache = new_cache();

    limit(RLIMIT_NOFILE, (rlim_t)lowest_free());
    tell_get(cache);
    limit(RLIMIT_NOFILE, 1000);
    done(cache);
}

/* From reading the settings to a stored token, with this many descriptors. */
static amp_status with_descriptors(int count, amp_error **error) {
    int before = lowest_free();
    amp_config *config = NULL;
    amp_token_cache *cache = NULL;
    amp_status status;

    *warning = '\0';
    limit(RLIMIT_NOFILE, (rlim_t)(before + count));
    status = configure(&config, NULL, NULL, error);
    if (status == AMP_OK)
        status = amp_token_cache_new(config, &cache, error);
    if (status == AMP_OK)
        status = try_get(cache, error);
    limit(RLIMIT_NOFILE, 1000);
    if (cache)
        recover(cache);
    amp_token_cache_free(cache);
    amp_config_free(config);
    be_alone();
    CHECK(lowest_free() == before);
    return status;
}

static void few_descriptors(void) {
    char says[4000] = "", statuses[400] = "";
    amp_error *error = NULL;
    amp_status status;
    int count = 0;

    do {
        size_t length = strlen(says), told = strlen(statuses);

        status = with_descriptors(count, &error);
        snprintf(statuses + told, sizeof statuses - told, "%s%d: %s", count ? "<br>" : "", count,
                 amp_status_name(status));
        snprintf(says + length, sizeof says - length, "%s%d: %s", count ? "<br>" : "", count,
                 error ? amp_error_message(error) : *warning ? warning : "all goes well");
        amp_error_free(error);
        error = NULL;
        count++;
        /* The next one finds nothing in the store. */
        CHECK(system("rm -rf \"$AMPLIENCE_STORE_DIR\"") == 0);
    } while (status != AMP_OK || *warning);
    say("outcome\t%s\t\t%s", statuses, says);
    say("done");
}

/* There is a token, and its refresh finds no descriptor. */
static void no_descriptor_for_a_renewal(void) {
    amp_token_cache *cache = new_cache();

    amp_token_free(get(cache));
    limit(RLIMIT_NOFILE, (rlim_t)lowest_free());
    while (amp_token_cache_stat(cache, "failures") == 0)
        amp_token_free(get(cache));
    tell(AMP_OK, NULL, "the token in hand is handed out while it is good");
    limit(RLIMIT_NOFILE, 1000);
    renew_at_last(cache);
    done(cache);
}

/* ---- the file store ------------------------------------------------------------- */

static const char *store_dir;

static void command(const char *text) {
    CHECK(system(text) == 0);
}

static void write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    ssize_t length = (ssize_t)strlen(text);

    CHECK(file >= 0 && write(file, text, strlen(text)) == length && close(file) == 0);
}

/* Mounts a small file system, private to this process, as the store's directory. */
static void mount_small(void) {
    uid_t user = geteuid();
    gid_t group = getegid();
    char map[50];

    if (unshare(user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0)
        leave_out("this user may have no mount namespace");
    if (user != 0) {
        snprintf(map, sizeof map, "0 %u 1", user);
        write_text("/proc/self/uid_map", map);
        write_text("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "0 %u 1", group);
        write_text("/proc/self/gid_map", map);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", store_dir, "tmpfs", 0, "size=64k,mode=0700") != 0)
        leave_out("this user may mount nothing");
}

static void fill_up(void) {
    char path[500], block[KIB] = "";
    int file;

    snprintf(path, sizeof path, "%s/filler", store_dir);
    file = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(file >= 0);
    while (write(file, block, sizeof block) > 0) {
    }
    CHECK(errno == ENOSPC && close(file) == 0);
}

static void free_up(void) {
    command("rm \"$AMPLIENCE_STORE_DIR/filler\"");
}

static void forbid_large_files(void) {
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    limit(RLIMIT_FSIZE, 20);
}

static void allow_large_files(void) {
    limit(RLIMIT_FSIZE, RLIM_INFINITY);
}

static void forbid_writing(void) {
    CHECK(mount(NULL, store_dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
}

static void allow_writing(void) {
    CHECK(mount(NULL, store_dir, NULL, MS_REMOUNT, NULL) == 0);
}

static void put_file_in_place(void) {
    command("rm -r \"$AMPLIENCE_STORE_DIR\" && echo none > \"$AMPLIENCE_STORE_DIR\"");
}

static void take_file_away(void) {
    command("rm \"$AMPLIENCE_STORE_DIR\"");
}

static void delete_folder(void) {
    command("rm -r \"$AMPLIENCE_STORE_DIR\"");
}

static void nothing(void) {
}

/* How many requests another cache with the same store needs for a token. */
static int64_t requests_of_another(void) {
    amp_token_cache *other = new_cache();
    int64_t requests;

    amp_token_free(get(other));
    requests = amp_token_cache_stat(other, "requests");
    amp_token_cache_free(other);
    return requests;
}

static void stop_writers(void) {
    __atomic_store_n(&disk, STANDS_FOR_WRITERS, __ATOMIC_SEQ_CST);
}

static void stop_all(void) {
    __atomic_store_n(&disk, STANDS_FOR_ALL, __ATOMIC_SEQ_CST);
}

/* The directory has cost one abandoned thread, however many caches have used
 * it, and that thread ends. */
static void let_go(void) {
    CHECK(threads() == 2);
    __atomic_store_n(&disk, GOES, __ATOMIC_SEQ_CST);
    be_alone();
}

/* With tokens that expire soon, so that they are refreshed during and after the failure. */
static void broken_store(void (*begin)(void), void (*end)(void), int is_shared) {
    amp_token_cache *cache = new_cache();

    amp_token_free(get(cache));
    *warning = '\0';
    begin();
    renew(cache);
    /* Once more: the entry from before the failure has expired. */
    renew(cache);
    tell(AMP_OK, NULL, warning);
    if (!is_shared)
        CHECK(requests_of_another() == 1);
    end();
    /* It is shared again. (The token may have expired before the other cache read it.) */
    do
        renew(cache);
    while (requests_of_another() > 0);
    /* The lock and the entry: no temporary file is left. */
    CHECK(entries(store_dir) == 2);
    done(cache);
}

/* ---- memory and threads --------------------------------------------------------------- */

/* In a child: a get with this little memory. */
static void get_with(long bytes) {
    amp_token_cache *cache = new_cache();
    amp_status status;
    size_t size;

    CHECK(freopen("/dev/null", "w", stderr) != NULL);
    /* Not a byte more at a time than is asked for; and what is free in the
     * heap is used up. */
    CHECK(mallopt(M_TOP_PAD, 0));
    allow_memory(0);
    for (size = 64 * KIB; size >= 16; size /= 2)
        while (malloc(size)) {
        }
    allow_memory(bytes);
    status = try_get(cache, NULL);
    limit(RLIMIT_AS, RLIM_INFINITY);
    recover(cache);
    _exit(status == AMP_OK ? 0 : 2);
}

static void little_memory(void) {
    enum { STEP = 8 * KIB };
    int aborts = 0, errors = 0, status;
    long bytes = 0;

    do {
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0)
            get_with(bytes);
        CHECK(waitpid(child, &status, 0) == child);
        if (WIFSIGNALED(status)) {
            /* Rust aborts like this; anything else is a crash. */
            CHECK(WTERMSIG(status) == SIGABRT);
            aborts++;
        } else {
            CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2);
            errors += WEXITSTATUS(status) == 2;
        }
        bytes += STEP;
    } while (status != 0);
    say("measured\t%d steps of 8 KiB ended in an abort and %d in an error, before one was enough", aborts,
        errors);
    say("outcome\tabort(), an error, or AMP_OK\t\tan allocation that fails ends the process, as in all of Rust; there is no hang, no "
        "other crash and no bad token");
    say("done");
}

static void no_thread_for_a_lookup(void) {
    amp_token_cache *cache = new_cache();
    amp_config *config;

    /* What is read only once must not be what runs out of memory. */
    CHECK_OK(configure(&config, NULL, NULL, error));
    amp_config_free(config);
    allow_memory(MIB + MIB / 2); /* a stack has 2 */
    tell_get(cache);
    limit(RLIMIT_AS, RLIM_INFINITY);
    done(cache);
}

static void no_thread_for_a_store(void) {
    amp_token_cache *cache = new_cache();

    allow_memory(MIB + MIB / 2);
    renew(cache);
    renew(cache);
    tell(AMP_OK, NULL, warning);
    limit(RLIMIT_AS, RLIM_INFINITY);
    do
        renew(cache);
    while (requests_of_another() > 0);
    done(cache);
}

static void no_thread_for_renewals(void) {
    amp_token_cache *cache = new_cache_with("background_refresh", "true");

    allow_memory(MIB + MIB / 2);
    amp_token_free(get(cache));
    renew(cache);
    renew(cache);
    CHECK(threads() == 1);
    tell(AMP_OK, NULL, "the callers renew");
    limit(RLIMIT_AS, RLIM_INFINITY);
    while (threads() == 1)
        amp_token_free(get(cache));
    renew(cache);
    done(cache);
}

/* ---- signals ---------------------------------------------------------------------------- */

enum { GETTERS = 4, ROUNDS = 3 };

static int signals_seen;
static int at_work;
static int64_t requests;
static char round_name[200];

static void count_signal(int number) {
    (void)number;
    __atomic_add_fetch(&signals_seen, 1, __ATOMIC_SEQ_CST);
}

static void *get_in_storm(void *unused) {
    amp_token_cache *cache = *round_name ? new_cache_with(*round_name == '/' ? "store_dir" : "store", round_name)
                                         : new_cache();

    (void)unused;
    /* (No retries, which could hide an error.) */
    amp_token_free(get(cache));
    __atomic_add_fetch(&requests, amp_token_cache_stat(cache, "requests"), __ATOMIC_SEQ_CST);
    amp_token_cache_free(cache);
    __atomic_sub_fetch(&at_work, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static pthread_t getters[GETTERS];

/* Signals each thread until all are done; only then are they joined. */
static void *storm(void *unused) {
    (void)unused;
    while (__atomic_load_n(&at_work, __ATOMIC_SEQ_CST) > 0) {
        int i;

        for (i = 0; i < GETTERS; i++)
            pthread_kill(getters[i], SIGUSR1);
        usleep(1000);
    }
    return NULL;
}

/* With a shared store, each round uses another entry, so that one thread sends a
 * request to the slow service and the others wait for the lock. */
static void signal_storm(const char *place) {
    struct sigaction action = {.sa_handler = count_signal}; /* without SA_RESTART */
    struct itimerval each_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    int round;

    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    for (round = 0; round < ROUNDS; round++) {
        pthread_t stormer;
        int i;

        if (place)
            snprintf(round_name, sizeof round_name, "%s/%d", place, round);
        at_work = GETTERS;
        requests = 0;
        CHECK(setitimer(ITIMER_REAL, &each_ms, NULL) == 0);
        for (i = 0; i < GETTERS; i++)
            CHECK(pthread_create(&getters[i], NULL, get_in_storm, NULL) == 0);
        CHECK(pthread_create(&stormer, NULL, storm, NULL) == 0);
        /* (These waits continue after signals.) */
        CHECK(pthread_join(stormer, NULL) == 0);
        for (i = 0; i < GETTERS; i++)
            CHECK(pthread_join(getters[i], NULL) == 0);
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
        CHECK(requests == (place ? 1 : GETTERS));
    }
    CHECK(signals_seen > 100);
    say("measured\t%d signals were handled", signals_seen);
    tell(AMP_OK, NULL, "");
    *round_name = '\0';
    done(new_cache());
}

/* The statuses that occurred, each once, in ascending order. */
struct statuses {
    unsigned char seen[100];
};

static void note(struct statuses *statuses, amp_status status) {
    CHECK((int)status >= 0 && (int)status < 100);
    statuses->seen[(int)status] = 1;
}

static void tell_all(const struct statuses *statuses) {
    char text[500] = "";
    int i;

    for (i = 0; i < 100; i++)
        if (statuses->seen[i]) {
            size_t length = strlen(text);

            snprintf(text + length, sizeof text - length, "%s%s", length ? ", " : "", amp_status_name(i));
        }
    say("outcome\t%s\t\t", text);
}

/* The peer closes the connection after one byte more or less, again and again. A
 * C program does not ignore SIGPIPE, as Rust programs do. */
static void hung_up_on(void) {
    amp_token_cache *cache = new_cache();
    struct statuses statuses = {{0}};
    int round;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (round = 0; round < 60; round++) {
        amp_token_cache *one = new_cache();

        amp_token *token = NULL;

        note(&statuses, amp_token_cache_get(one, &token, NULL));
        /* The idle connection to the store is closed by now. */
        rest_ms(2);
        amp_token_cache_invalidate(one, token);
        amp_token_free(token);
        amp_token_cache_free(one);
    }
    tell_all(&statuses);
    ask("mend");
    done(cache);
}

static void hung_up_on_while_sending(void) {
    enum { LENGTH = 2 * MIB };
    amp_token_cache *cache = new_cache();
    char *body = calloc(1, LENGTH);
    struct statuses statuses = {{0}};
    int round;

    CHECK(body && signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (round = 0; round < 20; round++) {
        amp_response *response = NULL;
        amp_status status =
            amp_api_request(cache, "POST", "/v2/content/hubs", "application/json", body, LENGTH, &response, NULL);

        note(&statuses, status);
        amp_response_free(response);
    }
    free(body);
    tell_all(&statuses);
    ask("mend");
    {
        amp_response *response = NULL;

        CHECK_OK(amp_api_request(cache, "GET", "/v2/content/hubs", NULL, NULL, 0, &response, error));
        CHECK(amp_response_status(response) == 200);
        amp_response_free(response);
    }
    done(cache);
}

/* ---- clocks ---------------------------------------------------------------------------------- */

static double seconds_really(void) {
    struct timespec time;

    CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Uses a cache until it has returned this many more of the tokens that expire soon. None of
 * them may be expired by the clock that is not changed. */
static void use_tokens(const amp_token_cache *cache, int count) {
    char current[4096] = "", next[4096];
    double had = 0;

    while (count >= 0) {
        double before = seconds_really();
        amp_token *token = get(cache);

        CHECK(amp_token_expires_in(token) <= LIFETIME);
        CHECK(amp_token_length(token) < sizeof next);
        strcpy(next, amp_token_value(token));
        amp_token_free(token);
        if (strcmp(next, current) != 0) {
            strcpy(current, next);
            had = seconds_really(); /* the request was sent earlier */
            count--;
        }
        CHECK(before - had < LIFETIME);
        rest_ms(2);
    }
}

static void step_clock(long by) {
    amp_token_cache *cache = new_cache();

    use_tokens(cache, 0);
    __atomic_store_n(&stepped, by, __ATOMIC_SEQ_CST);
    use_tokens(cache, 1);
    tell(AMP_OK, NULL, "");
    __atomic_store_n(&stepped, 0, __ATOMIC_SEQ_CST);
    use_tokens(cache, 1);
    done(cache);
}

/* Two processes share a store, and the wall clocks differ by a day. */
static void step_clock_of_one(long by) {
    amp_token_cache *cache;
    int status;
    pid_t child = fork();

    CHECK(child >= 0);
    stepped = child == 0 ? by : 0;
    cache = new_cache();
    use_tokens(cache, 2);
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    tell(AMP_OK, NULL, "");
    do
        renew(cache);
    while (requests_of_another() > 0);
    done(cache);
}

/* ---- names --------------------------------------------------------------------------------------- */

static void hanging_lookups(void) {
    enum { CACHES = 200 };
    amp_token_cache *cache = new_cache();
    int i, most = 0;
    pid_t child;

    hangs = 1;
    for (i = 0; i < CACHES; i++) {
        amp_token_cache *one = new_cache_with("timeout_ms", "30");

        CHECK(try_get(one, NULL) == AMP_TIMEOUT);
        amp_token_cache_free(one);
        if (threads() > most)
            most = threads();
    }
    say("measured\t%d gets left %d lookups waiting", CACHES, most - 1);
    CHECK(most - 1 <= 64 && lookups <= 64);
    tell_get(cache);
    /* A forked child has none of those threads. */
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        hangs = 0;
        recover(cache);
        _exit(0);
    }
    CHECK(waitpid(child, &i, 0) == child && i == 0);
    __atomic_store_n(&hangs, 0, __ATOMIC_SEQ_CST);
    be_alone();
    done(cache);
}

static void look_up(const char *answer) {
    amp_token_cache *cache = new_cache();
    double start = seconds_really();

    addresses = answer;
    tell_get(cache);
    say("measured\tit took %.1f s", seconds_really() - start);
    CHECK(!answer || lookups > 0);
    done(cache);
}

/* ---- certificates ------------------------------------------------------------------------------ */

static void other_certificates(void) {
    amp_token_cache *cache = new_cache();
    amp_token *token;

    amp_token_free(get(cache));
    ask("a new certificate");
    renew(cache);
    ask("another authority");
    /* Not before it expires: each failure until then would make the backoff longer. */
    token = get(cache);
    amp_token_cache_invalidate(cache, token);
    amp_token_free(token);
    tell_get(cache);
    ask("a new certificate");
    done(cache);
}

/* ---- many caches ----------------------------------------------------------------------------- */

static void many_caches(void) {
    enum { CACHES = 10000 };
    amp_token_cache **caches = calloc(CACHES, sizeof *caches);
    int i;
    long before, after, kib = sysconf(_SC_PAGESIZE) / KIB;

    CHECK(caches != NULL);
    /* The first one allocates what all have in common. */
    recover(caches[0] = new_cache());
    before = pages(1);
    for (i = 1; i < CACHES; i++) {
        caches[i] = new_cache();
        amp_token_free(get(caches[i]));
    }
    after = pages(1);
    CHECK(threads() == 1 && lowest_free() == 3);
    for (i = 1; i < CACHES; i++)
        amp_token_cache_free(caches[i]);
    malloc_trim(0);
    say("measured\t%.1f KiB of memory for each of %d caches; %ld KiB in all before, %ld with them, %ld after",
        (double)(after - before) * (double)kib / CACHES, CACHES, before * kib, after * kib, pages(1) * kib);
    tell(AMP_OK, NULL, "no thread and no descriptor stays");
    done(caches[0]);
    free(caches);
}

/* ---- the failures ---------------------------------------------------------------------------------- */

int main(int count, char **arguments) {
    const char *fault = count > 1 ? arguments[1] : "";
    int inherited;

    /* Descriptors that were inherited open. */
    for (inherited = 3; inherited < 1000; inherited++)
        close(inherited);
    store_dir = getenv("AMPLIENCE_STORE_DIR");
#define FAULT(name, call)             \
    if (strcmp(fault, name) == 0) {   \
        call;                         \
        return 0;                     \
    }
    FAULT("no-descriptors", no_descriptors())
    FAULT("few-descriptors", few_descriptors())
    FAULT("no-descriptor-for-a-renewal", no_descriptor_for_a_renewal())
    FAULT("full-disk", (mount_small(), broken_store(fill_up, free_up, 0)))
    FAULT("file-size", broken_store(forbid_large_files, allow_large_files, 0))
    FAULT("read-only", (mount_small(), broken_store(forbid_writing, allow_writing, 0)))
    FAULT("file-in-place", broken_store(put_file_in_place, take_file_away, 0))
    FAULT("folder-deleted", broken_store(delete_folder, nothing, 1))
    FAULT("disk-stands-still-for-writers", broken_store(stop_writers, let_go, 0))
    FAULT("disk-stands-still", broken_store(stop_all, let_go, 0))
    FAULT("little-memory", little_memory())
    FAULT("no-thread-for-a-lookup", no_thread_for_a_lookup())
    FAULT("no-thread-for-a-store", no_thread_for_a_store())
    FAULT("no-thread-for-renewals", no_thread_for_renewals())
    FAULT("storm", signal_storm(count > 2 ? arguments[2] : NULL))
    FAULT("hung-up-on", hung_up_on())
    FAULT("hung-up-on-while-sending", hung_up_on_while_sending())
    FAULT("a-day-ahead", step_clock(A_DAY))
    FAULT("a-day-back", step_clock(-A_DAY))
    FAULT("one-a-day-ahead", step_clock_of_one(A_DAY))
    FAULT("one-a-day-back", step_clock_of_one(-A_DAY))
    FAULT("hanging-lookups", hanging_lookups())
    FAULT("look-up", look_up(count > 2 ? arguments[2] : NULL))
    FAULT("other-certificates", other_certificates())
    FAULT("many-caches", many_caches())
    fprintf(stderr, "resources: there is no fault %s\n", fault);
    return 2;
}
