// How much memory an input makes the code under test allocate, and the door to libFuzzer.
#ifndef FUZZ_MEMORY_H
#define FUZZ_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/// Starts counting allocations and frees; once, before anything is measured.
void fuzz_memory_install(void);

/// Forgets the peak: it is counted from what is allocated now.
void fuzz_memory_begin(void);

/// The most that was allocated at any moment since `fuzz_memory_begin`, in bytes beyond what was allocated then.
size_t fuzz_memory_peak(void);

/// libFuzzer's main function, for a program that has its own.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *bytes, size_t count));

#endif
