// Counts how often a program asks for memory, and says so at its end: for LD_PRELOAD.
//
//   cc -O2 -shared -fPIC bench/count-allocations.c -o /tmp/count-allocations.so
//   LD_PRELOAD=/tmp/count-allocations.so PROGRAM
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long count;

void *malloc(size_t bytes) {
    count++;
    return __libc_malloc(bytes);
}

void *calloc(size_t number, size_t bytes) {
    count++;
    return __libc_calloc(number, bytes);
}

void *realloc(void *memory, size_t bytes) {
    count++;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    count++;
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    *memory = aligned_alloc(alignment, bytes);
    return *memory ? 0 : ENOMEM;
}

__attribute__((destructor)) static void tell(void) { fprintf(stderr, "allocations: %ld\n", (long)count); }
