/*
 * Makes a ublk device without CAP_SYS_ADMIN (UBLK_F_UNPRIVILEGED_DEV), once with recovery and once with zero copy asked for,
 * takes it away again, and prints what the driver has granted, or the command that it has refused, and why.
 *
 *   unprivileged
 */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "csupport_ublk_structures.h"

/* As CSupport/include/csupport_ublk.h has them, which takes a newer compiler. */
static const unsigned ADD_DEV = 0xC0207504u, DEL_DEV = 0xC0207505u;
enum { RECOVERY = 1 << 3 | 1 << 4, UNPRIVILEGED = 1 << 5, ENCODED = 1 << 6, ZERO_COPY = 1 << 0 };

static int control;
static struct io_uring ring;

static int perform(const char *name, unsigned command, const struct cs_ublk_control_command *contents) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (!sqe) return -1;
    memset(sqe, 0, 128);
    sqe->opcode = 46;
    sqe->fd = control;
    sqe->off = command;
    memcpy((char *)sqe + 48, contents, sizeof *contents);
    io_uring_submit(&ring);
    struct io_uring_cqe *cqe;
    io_uring_wait_cqe(&ring, &cqe);
    int result = cqe->res;
    io_uring_cqe_seen(&ring, cqe);
    if (result < 0) printf("%s: %s\n", name, strerror(-result));
    return result;
}

static void attempt(const char *what, uint64_t wanted) {
    struct cs_ublk_device_info info = {
        .nr_hw_queues = 1, .queue_depth = 16, .max_io_buf_bytes = 65536, .dev_id = -1u, .flags = UNPRIVILEGED | ENCODED | wanted,
    };
    struct cs_ublk_control_command add = {.dev_id = -1u, .queue_id = -1, .addr = (uint64_t)&info, .len = sizeof info};
    printf("%s: ", what);
    if (perform("ADD_DEV", ADD_DEV, &add) < 0) return;
    puts((info.flags & wanted) == wanted ? "granted" : "taken away");
    /* Commands of somebody without rights name the device by its node, which has to be his. */
    char path[64];
    snprintf(path, sizeof path, "/dev/ublkc%u", info.dev_id);
    struct cs_ublk_control_command del = {
        .dev_id = info.dev_id, .queue_id = -1, .addr = (uint64_t)path, .len = strlen(path) + 1, .dev_path_len = strlen(path) + 1,
    };
    perform("DEL_DEV", DEL_DEV, &del);
}

int main(void) {
    control = open("/dev/ublk-control", O_RDWR);
    if (control < 0) return perror("/dev/ublk-control"), 1;
    int result = io_uring_queue_init(4, &ring, IORING_SETUP_SQE128);
    if (result < 0) return fprintf(stderr, "io_uring: %s\n", strerror(-result)), 1;
    attempt("recovery", RECOVERY);
    attempt("zero copy", ZERO_COPY);
    return 0;
}
