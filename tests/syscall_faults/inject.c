/* Runs a program in which one system call fails.
 *
 *   inject REPORT NAME[,NAME…] NUMBER ERRNO SECONDS PROGRAM ARGUMENT…
 *
 * The calls of these names are counted over all threads and processes of the program, from 1; that with NUMBER is
 * not made, and returns ERRNO. With NUMBER 0 all are made. The calls of the dynamic loader before the program starts
 * are not counted: their failures are reported by the loader, not by the program.
 *
 * Writes lines to the file REPORT:
 *   call NAME            NUMBER 0: one line for each call, in order
 *   injected NAME        the call that failed
 *   exit STATUS | signal NUMBER | hang
 *   left                 processes of the program are still there after its end and a time of grace
 *
 * AMP_TEST_PRELOAD is the LD_PRELOAD of the program, but not of this one.
 *
 * `strace -e inject=` counts the calls of each thread apart: it cannot choose the first call of a helper thread
 * without the first of the loader. So this is made by hand, with the interface that the kernel has for it (seccomp
 * user notification, Linux 5.6): a filter hands the calls of these names to this process, which has each one
 * continued or failed. No other call is slower. It depends on no architecture. */

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long the processes that the program has started may outlive it, in milliseconds. */
enum { GRACE_MS = 2000, MOST_CALLS = 96 };

#define CALL(name) {#name, SYS_##name}
static const struct {
    const char *name;
    int number;
} KNOWN[] = {
#ifdef SYS_open
    CALL(open), CALL(rename), CALL(mkdir), CALL(unlink), CALL(poll), CALL(fork), CALL(vfork), CALL(pipe), CALL(stat),
    CALL(epoll_wait), CALL(dup2),
#endif
    CALL(openat2), CALL(preadv2),
    CALL(openat), CALL(read), CALL(pread64), CALL(readv), CALL(getdents64), CALL(write), CALL(pwrite64), CALL(writev),
    CALL(ftruncate), CALL(lseek), CALL(fsync), CALL(fdatasync), CALL(renameat), CALL(renameat2), CALL(mkdirat),
    CALL(unlinkat), CALL(flock), CALL(fcntl), CALL(mmap), CALL(munmap), CALL(mprotect), CALL(mremap), CALL(madvise),
    CALL(socket), CALL(socketpair), CALL(setsockopt), CALL(getsockopt), CALL(bind), CALL(getsockname),
    CALL(getpeername), CALL(connect), CALL(sendto), CALL(sendmsg), CALL(sendmmsg), CALL(recvfrom), CALL(recvmsg),
    CALL(recvmmsg), CALL(ppoll), CALL(epoll_pwait), CALL(getrandom), CALL(clone), CALL(clone3), CALL(pipe2),
    CALL(dup3), CALL(fstat), CALL(newfstatat), CALL(statx), CALL(fstatfs), CALL(utimensat), CALL(close),
    CALL(prctl), CALL(wait4),
};

static void die(const char *what) {
    perror(what);
    exit(125);
}

static const char *name_of(int number) {
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (KNOWN[i].number == number)
            return KNOWN[i].name;
    return "?";
}

/* The numbers of the calls in a list. A name that this architecture lacks is left out. */
static size_t parse(char *list, int *numbers) {
    size_t count = 0;

    for (char *name = strtok(list, ","); name && count < MOST_CALLS; name = strtok(NULL, ","))
        for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
            if (strcmp(KNOWN[i].name, name) == 0)
                numbers[count++] = KNOWN[i].number;
    return count;
}

/* Installs the filter in this process. Returns the descriptor of the listener. */
static int install(const int *numbers, size_t count) {
    struct sock_filter code[2 * MOST_CALLS + 2];
    struct sock_fprog program = {.filter = code};
    size_t at = 0;

    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++) {
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = (unsigned short)at;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Whether the address is in the dynamic loader of the process. */
static bool in_loader(pid_t pid, uint64_t address) {
    char path[64], line[512];
    bool found = false;
    FILE *maps;

    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    maps = fopen(path, "re");
    if (!maps)
        return false;
    while (!found && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2 && start <= address && address < end)
            found = strstr(line, "/ld-") != NULL;
    }
    fclose(maps);
    return found;
}

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    int numbers[MOST_CALLS], listener, status = 0, error;
    uint64_t wanted, seen = 0;
    bool started = false, ended = false;
    size_t count;
    int64_t deadline;
    struct seccomp_notif request;
    struct seccomp_notif_resp response;
    volatile int *shared;
    pid_t pid;
    int process;
    FILE *report;

    if (argc < 7) {
        fprintf(stderr, "usage: inject REPORT NAMES NUMBER ERRNO SECONDS PROGRAM ARGUMENT...\n");
        return 125;
    }
    report = fopen(argv[1], "we");
    if (!report)
        die(argv[1]);
    count = parse(argv[2], numbers);
    wanted = strtoull(argv[3], NULL, 10);
    error = atoi(argv[4]);
    deadline = now_ms() + 1000 * atoi(argv[5]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    /* Processes whose parent has ended become children of this one, so that it sees them. */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);

    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        listener = install(numbers, count);
        *shared = listener < 0 ? -errno : listener + 1;
        /* The listener is closed by exec, so not before the parent has it. The filter may hand over any other call. */
        while (*shared > 0)
            syscall(SYS_sched_yield);
        if (getenv("AMP_TEST_PRELOAD"))
            setenv("LD_PRELOAD", getenv("AMP_TEST_PRELOAD"), 1);
        if (listener >= 0)
            execvp(argv[6], argv + 6);
        _exit(125);
    }
    while (*shared == 0)
        sched_yield();
    if (*shared < 0) {
        errno = -*shared;
        die("seccomp");
    }
    process = (int)syscall(SYS_pidfd_open, pid, 0);
    listener = (int)syscall(SYS_pidfd_getfd, process, *shared - 1, 0);
    if (listener < 0)
        die("pidfd_getfd");
    *shared = 0;

    for (;;) {
        struct pollfd inputs[] = {{.fd = listener, .events = POLLIN}, {.fd = ended ? -1 : process, .events = POLLIN}};
        int64_t left = deadline - now_ms();
        int ready = left > 0 ? poll(inputs, 2, (int)left) : 0;

        if (ready < 0 && errno != EINTR)
            die("poll");
        if (ready == 0) {
            fprintf(report, ended ? "left\n" : "hang\n");
            break;
        }
        if (inputs[1].revents & POLLIN) {
            waitpid(pid, &status, 0);
            ended = true;
            if (WIFSIGNALED(status))
                fprintf(report, "signal %d\n", WTERMSIG(status));
            else
                fprintf(report, "exit %d\n", WEXITSTATUS(status));
            deadline = now_ms() + GRACE_MS;
        }
        while (ended && waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (inputs[0].revents & POLLIN) {
            memset(&request, 0, sizeof request);
            memset(&response, 0, sizeof response);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
                continue; /* The caller was interrupted, or has ended. */
            response.id = request.id;
            response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            started = started || !in_loader((pid_t)request.pid, request.data.instruction_pointer);
            if (started) {
                seen++;
                if (wanted == 0)
                    fprintf(report, "call %s\n", name_of(request.data.nr));
                if (seen == wanted) {
                    response.flags = 0;
                    response.error = -error;
                    fprintf(report, "injected %s\n", name_of(request.data.nr));
                }
            }
            (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
        } else if (inputs[0].revents & (POLLHUP | POLLERR)) {
            /* No process has the filter any more. */
            if (ended)
                break;
            waitpid(pid, &status, 0);
            fprintf(report, WIFSIGNALED(status) ? "signal %d\n" : "exit %d\n",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            break;
        }
    }
    fclose(report);
    /* Nothing may be left for the next run. */
    kill(pid, SIGKILL);
    for (;;) {
        char path[64], line[64];
        FILE *children;
        bool any = false;
        snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
        children = fopen(path, "re");
        while (children && fscanf(children, "%63s", line) == 1) {
            kill((pid_t)atoi(line), SIGKILL);
            any = true;
        }
        if (children)
            fclose(children);
        if (!any)
            break;
        while (waitpid(-1, NULL, 0) > 0)
            ;
    }
    return 0;
}
