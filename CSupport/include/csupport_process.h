/*
 * Processes and signals: what the importer cannot see.
 */
#ifndef QED_UBLK_CSUPPORT_PROCESS_H
#define QED_UBLK_CSUPPORT_PROCESS_H

#include <stdint.h>

/* Takes up those of the descriptors 0, 1 and 2 that a careless parent has closed, so that nothing that is opened later gets
 * their numbers: text for standard output would go into an image. Using one fails as if it were still closed. */
void cs_reserve_standard_descriptors(void);

/* The name of this process in ps and top. */
void cs_name_process(const char *name);

/* Blocks SIGTERM, SIGINT and SIGHUP for this thread and those it makes, ignores SIGPIPE, and returns a signalfd for the
 * three; negative: -errno. */
int32_t cs_block_signals(void);

/* The next signal of a signalfd, or 0 when there is none. */
int32_t cs_take_signal(int32_t descriptor);

/* Starts this program again, in a session of its own, with nothing on its standard input and output, `errors` as its
 * standard error, `status` as its descriptor 3, and nothing else open. `arguments` ends with null. Negative: -errno. */
int32_t cs_spawn_self(char *const arguments[], int32_t errors, int32_t status, int32_t *process);

#endif
