#include "fuzz_memory.h"

#include <stdatomic.h>

// Of the sanitizer's runtime.
extern int __sanitizer_install_malloc_and_free_hooks(
    void (*allocated)(const volatile void *, size_t), void (*freed)(const volatile void *));
extern size_t __sanitizer_get_allocated_size(const volatile void *);

static atomic_llong live, peak, baseline;

static void note_allocation(const volatile void *address, size_t size) {
    (void)address;
    long long now = atomic_fetch_add_explicit(&live, (long long)size, memory_order_relaxed) + (long long)size;
    if (now > atomic_load_explicit(&peak, memory_order_relaxed))
        atomic_store_explicit(&peak, now, memory_order_relaxed);
}

static void note_free(const volatile void *address) {
    if (address)
        atomic_fetch_sub_explicit(
            &live, (long long)__sanitizer_get_allocated_size(address), memory_order_relaxed);
}

void fuzz_memory_install(void) { __sanitizer_install_malloc_and_free_hooks(note_allocation, note_free); }

void fuzz_memory_begin(void) {
    long long now = atomic_load_explicit(&live, memory_order_relaxed);
    atomic_store_explicit(&baseline, now, memory_order_relaxed);
    atomic_store_explicit(&peak, now, memory_order_relaxed);
}

size_t fuzz_memory_peak(void) { return (size_t)(atomic_load(&peak) - atomic_load(&baseline)); }
