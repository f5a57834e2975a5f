// The least that a ublk server can do: a raw file as a disk, one queue, one thread, plain copies through a buffer for
// each tag, direct I/O with io_uring. The driver and the rings are set up as qed-ublk sets them up; there is no format
// in between, no recovery and no registry. What it reaches is what the driver allows.
//
//     clang -O2 -I CSupport/include -o ublk-file bench/device/ublk-file.c -luring -lpthread
//     ublk-file FILE [DEPTH]
//
// Prints the device's path when it can be used, serves it until SIGTERM, and removes it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "csupport_ublk.h"

enum { max_io_bytes = 512 << 10, descriptor_table_bytes = 4096 * 24 };

// The descriptors registered with the queue's ring.
enum { device_file = 0, image_file = 1 };

// What a completion belongs to: user_data is this and the tag.
enum { driver_command = 1ull << 32, image_operation = 2ull << 32 };

static void die(const char *what, int error) {
    fprintf(stderr, "ublk-file: %s: %s\n", what, strerror(error));
    exit(1);
}

// Control commands ----------------------------------------------------------------------------------------------------

struct control {
    struct io_uring ring;
    int descriptor;
    struct cs_ublk_device_info info;
};

// Sends a command and waits for its result: 0, or -errno.
static int command(struct control *control, uint32_t operation, void *buffer, size_t size_bytes, uint64_t data) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&control->ring);
    // Twice the usual size on this ring.
    memset(sqe, 0, 128);
    cs_prep_uring_cmd(sqe, control->descriptor, operation, 0);
    struct cs_ublk_control_command command = {
        .dev_id = control->info.dev_id,
        .queue_id = CS_UBLK_NO_QUEUE,
        .len = size_bytes,
        .addr = (uintptr_t)buffer,
        .data = data,
    };
    memcpy(cs_sqe_command(sqe), &command, sizeof command);
    struct io_uring_cqe *cqe;
    int result = io_uring_submit(&control->ring);
    if (result < 0) die("io_uring", -result);
    do {
        result = io_uring_wait_cqe(&control->ring, &cqe);
    } while (result == -EINTR);
    if (result < 0) die("io_uring", -result);
    result = cqe->res;
    io_uring_cqe_seen(&control->ring, cqe);
    return result;
}

static void must(struct control *control, const char *name, uint32_t operation, void *buffer, size_t size_bytes,
                 uint64_t data) {
    int result = command(control, operation, buffer, size_bytes, data);
    if (result < 0) die(name, -result);
}

static void open_control(struct control *control) {
    control->descriptor = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
    if (control->descriptor < 0) die("/dev/ublk-control", errno);
    int result = cs_ring_init(&control->ring, 4, CS_SETUP_SQE128, 8);
    if (result < 0) die("io_uring", -result);
}

static void add_device(struct control *control, uint16_t depth, uint64_t size_bytes) {
    control->info = (struct cs_ublk_device_info){
        .nr_hw_queues = 1,
        .queue_depth = depth,
        .max_io_buf_bytes = max_io_bytes,
        .dev_id = CS_UBLK_ANY_DEVICE,
        .flags = CS_UBLK_F_CMD_IOCTL_ENCODE,
    };
    must(control, "ADD_DEV", CS_UBLK_ADD_DEV, &control->info, sizeof control->info, 0);
    struct cs_ublk_params parameters = {
        .len = sizeof parameters,
        .types = CS_UBLK_PARAM_TYPE_BASIC | CS_UBLK_PARAM_TYPE_DISCARD,
        .basic = {
            .attrs = CS_UBLK_ATTR_VOLATILE_CACHE | CS_UBLK_ATTR_FUA,
            .logical_bs_shift = 9,
            .physical_bs_shift = 12,
            .io_opt_shift = 16,
            .io_min_shift = 12,
            .max_sectors = control->info.max_io_buf_bytes >> 9,
            .dev_sectors = size_bytes >> 9,
        },
        .discard = {
            .discard_granularity = 4096,
            .max_discard_sectors = UINT32_MAX >> 9,
            .max_write_zeroes_sectors = UINT32_MAX >> 9,
            .max_discard_segments = 1,
        },
    };
    must(control, "SET_PARAMS", CS_UBLK_SET_PARAMS, &parameters, sizeof parameters, 0);
}

// The queue -----------------------------------------------------------------------------------------------------------

struct queue {
    struct io_uring ring;
    int device, image;
    uint16_t depth;
    const struct cs_ublk_io_descriptor *descriptors;
    size_t descriptors_bytes;
    char *buffers;
    unsigned retired_tags;
    sem_t is_set_up;
};

static char *buffer_of(struct queue *queue, uint16_t tag) { return queue->buffers + (size_t)tag * max_io_bytes; }

static struct io_uring_sqe *next_submission(struct queue *queue) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);
    if (!sqe) die("the submission queue is full", EOVERFLOW);
    return sqe;
}

static void tell_driver(struct queue *queue, uint32_t operation, uint16_t tag, int32_t result) {
    struct io_uring_sqe *sqe = next_submission(queue);
    cs_prep_uring_cmd(sqe, device_file, operation, driver_command | tag);
    sqe->flags = IOSQE_FIXED_FILE;
    cs_ublk_set_io_command(sqe, (struct cs_ublk_io_command){
        .q_id = 0, .tag = tag, .result = result, .addr = (uintptr_t)buffer_of(queue, tag)});
}

static void start_request(struct queue *queue, uint16_t tag) {
    const struct cs_ublk_io_descriptor *request = &queue->descriptors[tag];
    uint64_t offset = request->start_sector << 9;
    uint32_t size_bytes = request->nr_sectors << 9;
    int keep_size = FALLOC_FL_KEEP_SIZE;
    uint64_t token = image_operation | tag;
    struct io_uring_sqe *sqe = next_submission(queue);
    switch (request->op_flags & 0xff) {
        case CS_UBLK_OP_READ:
            cs_prep_read(sqe, image_file, buffer_of(queue, tag), size_bytes, offset, token);
            break;
        case CS_UBLK_OP_WRITE:
            cs_prep_write(sqe, image_file, buffer_of(queue, tag), size_bytes, offset, token);
            if (request->op_flags & CS_UBLK_IO_F_FUA) sqe->rw_flags = RWF_DSYNC;
            break;
        case CS_UBLK_OP_FLUSH:
            cs_prep_fdatasync(sqe, image_file, token);
            break;
        case CS_UBLK_OP_DISCARD:
            cs_prep_fallocate(sqe, image_file, FALLOC_FL_PUNCH_HOLE | keep_size, offset, size_bytes, token);
            break;
        case CS_UBLK_OP_WRITE_ZEROES: {
            int mode = request->op_flags & CS_UBLK_IO_F_NOUNMAP ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
            cs_prep_fallocate(sqe, image_file, mode | keep_size, offset, size_bytes, token);
            break;
        }
        default:
            cs_prep_nop(sqe, token);
    }
    sqe->flags = IOSQE_FIXED_FILE;
}

static void finish_request(struct queue *queue, uint16_t tag, int32_t result) {
    const struct cs_ublk_io_descriptor *request = &queue->descriptors[tag];
    uint32_t operation = request->op_flags & 0xff;
    bool carries_data = operation == CS_UBLK_OP_READ || operation == CS_UBLK_OP_WRITE;
    // Direct I/O on a file of the disk's size is never short.
    if (carries_data && result >= 0 && (uint32_t)result != request->nr_sectors << 9) result = -EIO;
    if (!carries_data && operation > CS_UBLK_OP_WRITE_ZEROES) result = -EOPNOTSUPP;
    tell_driver(queue, CS_UBLK_COMMIT_AND_FETCH_REQ, tag, result);
}

static void completed(struct queue *queue, uint64_t token, int32_t result) {
    uint16_t tag = (uint16_t)token;
    if (token & image_operation) {
        finish_request(queue, tag, result);
    } else if (result == CS_UBLK_IO_RES_OK) {
        start_request(queue, tag);
    } else {
        // Aborted: the device is being stopped.
        if (result != CS_UBLK_IO_RES_ABORT) fprintf(stderr, "ublk-file: tag %d: %s\n", tag, strerror(-result));
        queue->retired_tags++;
    }
}

static void set_up(struct queue *queue) {
    unsigned entries = queue->depth * 2 > 64 ? queue->depth * 2 : 64;
    unsigned flags = CS_SETUP_CQSIZE | CS_SETUP_COOP_TASKRUN | CS_SETUP_SINGLE_ISSUER | CS_SETUP_DEFER_TASKRUN;
    int result = cs_ring_init(&queue->ring, entries, flags, entries * 4);
    if (result < 0) die("io_uring", -result);
    int files[] = {[device_file] = queue->device, [image_file] = queue->image};
    result = io_uring_register_files(&queue->ring, files, 2);
    if (result < 0) die("registering files", -result);
    io_uring_register_ring_fd(&queue->ring);

    size_t page = sysconf(_SC_PAGESIZE);
    queue->descriptors_bytes = (queue->depth * sizeof *queue->descriptors + page - 1) / page * page;
    void *table = mmap(NULL, queue->descriptors_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, queue->device, 0);
    if (table == MAP_FAILED) die("mapping the descriptors", errno);
    queue->descriptors = table;
    void *buffers = mmap(NULL, (size_t)queue->depth * max_io_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers == MAP_FAILED) die("mapping the buffers", errno);
    queue->buffers = buffers;
}

static void *serve(void *argument) {
    struct queue *queue = argument;
    set_up(queue);
    for (uint16_t tag = 0; tag < queue->depth; tag++) tell_driver(queue, CS_UBLK_FETCH_REQ, tag, 0);
    sem_post(&queue->is_set_up);
    while (queue->retired_tags < queue->depth) {
        int result = io_uring_submit_and_wait(&queue->ring, 1);
        if (result < 0 && result != -EINTR) die("io_uring", -result);
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        io_uring_for_each_cqe(&queue->ring, head, cqe) {
            completed(queue, cqe->user_data, cqe->res);
            count++;
        }
        io_uring_cq_advance(&queue->ring, count);
    }
    munmap((void *)queue->descriptors, queue->descriptors_bytes);
    io_uring_queue_exit(&queue->ring);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: ublk-file FILE [DEPTH]\n");
        return 64;
    }
    struct queue queue = {.depth = argc == 3 ? atoi(argv[2]) : 128};
    queue.image = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
    if (queue.image < 0) die(argv[1], errno);
    off_t size_bytes = lseek(queue.image, 0, SEEK_END);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    struct control control = {0};
    open_control(&control);
    add_device(&control, queue.depth, size_bytes);
    queue.depth = control.info.queue_depth;
    char path[32];
    snprintf(path, sizeof path, "/dev/ublkc%u", control.info.dev_id);
    queue.device = open(path, O_RDWR | O_CLOEXEC);
    if (queue.device < 0) die(path, errno);
    sem_init(&queue.is_set_up, 0, 0);
    pthread_t thread;
    int result = pthread_create(&thread, NULL, serve, &queue);
    if (result) die("pthread_create", result);
    sem_wait(&queue.is_set_up);
    // Waits until every tag has been fetched.
    must(&control, "START_DEV", CS_UBLK_START_DEV, NULL, 0, getpid());
    printf("/dev/ublkb%u\n", control.info.dev_id);
    fflush(stdout);

    int signal;
    sigwait(&signals, &signal);
    must(&control, "STOP_DEV", CS_UBLK_STOP_DEV, NULL, 0, 0);
    pthread_join(thread, NULL);
    close(queue.device);
    must(&control, "DEL_DEV", CS_UBLK_DEL_DEV, NULL, 0, 0);
    return 0;
}
