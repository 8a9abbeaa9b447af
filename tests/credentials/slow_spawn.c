/*
 * Loaded before the C library, a posix_spawn() whose caller goes on a moment after the program runs, as on a machine with
 * much to do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <spawn.h>
#include <time.h>

typedef int spawn_function(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                           char *const[], char *const[]);

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    spawn_function *original = (spawn_function *)dlsym(RTLD_NEXT, "posix_spawn");
    int status = original(pid, path, actions, attributes, arguments, environment);
    struct timespec moment = {0, 300 * 1000 * 1000};
    nanosleep(&moment, NULL);
    return status;
}
