// The least that a program can do: 4 KiB reads or writes on a plain file through io_uring, with the ring set up as the
// engine sets up its own, and no format in between. What it costs is what the engine's cost is compared with.
//
//     cc -O2 -o plain-io plain-io.c -luring
//     plain-io read|write FILE COUNT DEPTH STEP
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { size_bytes = 4096 };

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: plain-io read|write FILE COUNT DEPTH STEP\n");
        return 64;
    }
    int writes = strcmp(argv[1], "write") == 0;
    long count = atol(argv[3]), depth = atol(argv[4]), step = atol(argv[5]);
    int file = open(argv[2], O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file < 0) return perror(argv[2]), 1;
    off_t file_bytes = lseek(file, 0, SEEK_END);
    struct io_uring ring;
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = 4096,
    };
    int result = io_uring_queue_init_params(256, &ring, &params);
    if (result < 0) return fprintf(stderr, "io_uring: %s\n", strerror(-result)), 1;
    char *buffers;
    if (posix_memalign((void **)&buffers, 4096, depth * size_bytes) != 0) return 1;
    memset(buffers, 0, depth * size_bytes);
    long *free_slots = malloc(depth * sizeof *free_slots), free_count = depth, started = 0, done = 0;
    for (long slot = 0; slot < depth; slot++) free_slots[slot] = slot;

    double start = seconds(CLOCK_MONOTONIC), processor_start = seconds(CLOCK_THREAD_CPUTIME_ID);
    while (done < count) {
        while (started < count && free_count > 0) {
            long slot = free_slots[--free_count];
            struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
            if (!entry) return 1;
            off_t offset = started * step % file_bytes;
            if (writes)
                io_uring_prep_write(entry, file, buffers + slot * size_bytes, size_bytes, offset);
            else
                io_uring_prep_read(entry, file, buffers + slot * size_bytes, size_bytes, offset);
            entry->user_data = slot;
            started++;
        }
        io_uring_submit_and_wait(&ring, 1);
        struct io_uring_cqe *completion;
        unsigned head, handled = 0;
        io_uring_for_each_cqe(&ring, head, completion) {
            if (completion->res != size_bytes) return fprintf(stderr, "a request failed: %d\n", completion->res), 1;
            free_slots[free_count++] = completion->user_data;
            handled++;
        }
        io_uring_cq_advance(&ring, handled);
        done += handled;
    }
    printf("{\"seconds\": %.6f, \"processor-seconds\": %.6f}\n", seconds(CLOCK_MONOTONIC) - start,
        seconds(CLOCK_THREAD_CPUTIME_ID) - processor_start);
    return 0;
}
