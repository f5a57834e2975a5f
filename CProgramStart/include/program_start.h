/*
 * What has to be known, or done, before a program's first line of Swift. Of the program that users start, and of no other: what
 * it does to the environment keeps Swift's own `CommandLine` from finding the arguments.
 */
#ifndef QED_UBLK_PROGRAM_START_H
#define QED_UBLK_PROGRAM_START_H

#include <stdint.h>

/* What this process was started with, its name first; NULL for an index that is not there. */
int32_t cs_argument_count(void);
const char *cs_argument(int32_t index);

#endif
