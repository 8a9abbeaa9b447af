/* Finds functions of a library that was loaded at run time. Include it after check.h. */

#ifndef FIND_H
#define FIND_H

#include <dlfcn.h>

/* ISO C has no cast from void * to a function pointer; POSIX guarantees that
 * both have the same representation. */
static void find(void *library, const char *name, void *place) {
    void *symbol = dlsym(library, name);

    CHECK(symbol != NULL);
    memcpy(place, &symbol, sizeof symbol);
}

#endif
