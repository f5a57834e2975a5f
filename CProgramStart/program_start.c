#include "program_start.h"

#include <stdlib.h>

static int argument_count;
static char **argument_vector;

/* glibc calls each constructor with what it calls main with. */
__attribute__((constructor)) static void keep_arguments(int count, char **vector) {
    argument_count = count;
    argument_vector = vector;
}

/* Before the constructors of Swift's runtime, which otherwise looks for a program that prints backtraces in ./libexec and ./
 * when it was started by a bare name. Where that directory is on a disk that waits for its server this would wait for the
 * server that the command is to start, and what lies in a directory of somebody else's is not to be found at all. */
__attribute__((constructor(101))) static void look_for_no_backtrace_program(void) {
    setenv("SWIFT_BACKTRACE", "enable=no,swift-backtrace=/nonexistent", 0);
}

int32_t cs_argument_count(void) { return argument_count; }

const char *cs_argument(int32_t index) {
    return index >= 0 && index < argument_count ? argument_vector[index] : 0;
}
