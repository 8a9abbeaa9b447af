/* Makes one allocation of a program fail. For LD_PRELOAD:
 *
 *   AMP_TEST_ALLOCATION=N   the allocation with this number returns NULL with ENOMEM; 0: none
 *   AMP_TEST_REPORT=FILE    at its end, the process writes how many there were
 *
 * Counted over all threads and forked processes, from the start of main() on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static uint64_t *seen, wanted;

__attribute__((constructor)) static void start(void) {
    const char *number = getenv("AMP_TEST_ALLOCATION");
    void *shared = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    wanted = number ? strtoull(number, NULL, 10) : 0;
    if (shared != MAP_FAILED)
        seen = shared;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("AMP_TEST_REPORT");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

    if (file >= 0 && seen) {
        dprintf(file, "%llu\n", (unsigned long long)*seen);
        close(file);
    }
}

static int fails(void) {
    if (!seen || __atomic_add_fetch(seen, 1, __ATOMIC_SEQ_CST) != wanted)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **result, size_t alignment, size_t size) {
    void *memory = memalign(alignment, size);
    if (!memory)
        return ENOMEM;
    *result = memory;
    return 0;
}
