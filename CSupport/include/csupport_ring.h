/*
 * io_uring: inline wrappers of what the importer cannot see or would call out of line.
 * No logic lives here; the meaning of each call is documented where Swift uses it.
 */
#ifndef QED_UBLK_CSUPPORT_RING_H
#define QED_UBLK_CSUPPORT_RING_H

#include <errno.h>
#include <stdint.h>
#include <time.h>
#include <sys/eventfd.h>
#include <string.h>

/*
 * liburing brings its own copy of the kernel's io_uring.h, swift-system's C module the system's. Swift refuses two
 * modules that define one struct differently, so ours carry a name of their own.
 */
#define io_uring_op cs_io_uring_op
#define io_cqring_offsets cs_io_cqring_offsets
#define io_sqring_offsets cs_io_sqring_offsets
#define io_uring_buf cs_io_uring_buf
#define io_uring_buf_reg cs_io_uring_buf_reg
#define io_uring_buf_ring cs_io_uring_buf_ring
#define io_uring_cqe cs_io_uring_cqe
#define io_uring_file_index_range cs_io_uring_file_index_range
#define io_uring_files_update cs_io_uring_files_update
#define io_uring_getevents_arg cs_io_uring_getevents_arg
#define io_uring_notification_register cs_io_uring_notification_register
#define io_uring_notification_slot cs_io_uring_notification_slot
#define io_uring_params cs_io_uring_params
#define io_uring_probe cs_io_uring_probe
#define io_uring_probe_op cs_io_uring_probe_op
#define io_uring_recvmsg_out cs_io_uring_recvmsg_out
#define io_uring_restriction cs_io_uring_restriction
#define io_uring_rsrc_register cs_io_uring_rsrc_register
#define io_uring_rsrc_update cs_io_uring_rsrc_update
#define io_uring_rsrc_update2 cs_io_uring_rsrc_update2
#define io_uring_sqe cs_io_uring_sqe
#define io_uring_sync_cancel_reg cs_io_uring_sync_cancel_reg
#include <liburing.h>

#define CS_INLINE static inline __attribute__((always_inline))

/* Set-up flags by value: Debian 12's kernel headers do not name all of them. */
enum : uint32_t {
    CS_SETUP_CQSIZE = 1u << 3,
    CS_SETUP_R_DISABLED = 1u << 6,
    CS_SETUP_COOP_TASKRUN = 1u << 8,
    CS_SETUP_SQE128 = 1u << 10,
    CS_SETUP_SINGLE_ISSUER = 1u << 12,
    CS_SETUP_DEFER_TASKRUN = 1u << 13,
};

CS_INLINE int cs_ring_init(struct io_uring *ring, uint32_t entries, uint32_t flags, uint32_t cq_entries) {
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    params.flags = flags;
    params.cq_entries = cq_entries;
    return io_uring_queue_init_params(entries, ring, &params);
}

/* Lets a ring that was made disabled do what serving takes, and nothing else for good, and enables it: what io_uring does is not
 * seen by a filter of system calls. */
static inline int cs_ring_restrict_and_enable(struct io_uring *ring) {
    static const uint8_t operations[] = {
        IORING_OP_NOP, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_READV,
        IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_TIMEOUT, 46 /* URING_CMD, 5.19 */,
    };
    static const uint8_t registrations[] = {
        IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS, IORING_REGISTER_FILES, IORING_UNREGISTER_FILES,
        IORING_REGISTER_BUFFERS2, IORING_REGISTER_ENABLE_RINGS,
    };
    enum { OPERATIONS = sizeof operations, REGISTRATIONS = sizeof registrations };
    struct io_uring_restriction restrictions[OPERATIONS + REGISTRATIONS + 1];
    memset(restrictions, 0, sizeof restrictions);
    for (int index = 0; index < OPERATIONS; index++) {
        restrictions[index].opcode = IORING_RESTRICTION_SQE_OP;
        restrictions[index].sqe_op = operations[index];
    }
    for (int index = 0; index < REGISTRATIONS; index++) {
        restrictions[OPERATIONS + index].opcode = IORING_RESTRICTION_REGISTER_OP;
        restrictions[OPERATIONS + index].register_op = registrations[index];
    }
    restrictions[OPERATIONS + REGISTRATIONS].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    restrictions[OPERATIONS + REGISTRATIONS].sqe_flags = IOSQE_FIXED_FILE;
    int result = io_uring_register_restrictions(ring, restrictions, OPERATIONS + REGISTRATIONS + 1);
    return result < 0 ? result : io_uring_enable_rings(ring);
}

CS_INLINE struct io_uring_sqe *cs_get_sqe(struct io_uring *ring) { return io_uring_get_sqe(ring); }
CS_INLINE uint32_t cs_cq_ready(struct io_uring *ring) { return io_uring_cq_ready(ring); }
CS_INLINE uint32_t cs_sq_ready(struct io_uring *ring) { return io_uring_sq_ready(ring); }
CS_INLINE void cs_cq_advance(struct io_uring *ring, uint32_t count) { io_uring_cq_advance(ring, count); }

CS_INLINE struct io_uring_cqe *cs_cqe_at(struct io_uring *ring, uint32_t index) {
    return &ring->cq.cqes[(*ring->cq.khead + index) & *ring->cq.kring_mask];
}

CS_INLINE void cs_prep(struct io_uring_sqe *sqe, uint8_t opcode, int fd, uint64_t addr, uint32_t len, uint64_t off,
                       uint64_t user_data) {
    sqe->opcode = opcode;
    sqe->flags = 0;
    sqe->ioprio = 0;
    sqe->fd = fd;
    sqe->off = off;
    sqe->addr = addr;
    sqe->len = len;
    sqe->rw_flags = 0;
    sqe->buf_index = 0;
    sqe->personality = 0;
    sqe->file_index = 0;
    sqe->addr3 = 0;
    sqe->__pad2[0] = 0;
    sqe->user_data = user_data;
}

/* A completion on another ring, as if one of its operations had ended so (5.18). */
CS_INLINE void cs_prep_message(struct io_uring_sqe *sqe, int ring, int32_t result, uint64_t its_user_data, uint64_t user_data) {
    cs_prep(sqe, 40 /* IORING_OP_MSG_RING */, ring, 0 /* IORING_MSG_DATA */, (uint32_t)result, its_user_data, user_data);
}

CS_INLINE void cs_prep_read(struct io_uring_sqe *sqe, int fd, void *buffer, uint32_t count, uint64_t offset,
                            uint64_t user_data) {
    cs_prep(sqe, IORING_OP_READ, fd, (uint64_t)(uintptr_t)buffer, count, offset, user_data);
}

CS_INLINE void cs_prep_write(struct io_uring_sqe *sqe, int fd, const void *buffer, uint32_t count, uint64_t offset,
                             uint64_t user_data) {
    cs_prep(sqe, IORING_OP_WRITE, fd, (uint64_t)(uintptr_t)buffer, count, offset, user_data);
}

/* Into or out of a registered buffer: the address is in the terms of its registration. */
CS_INLINE void cs_prep_fixed(struct io_uring_sqe *sqe, int is_write, int fd, uint16_t index, uint64_t address,
                             uint32_t count, uint64_t offset, uint64_t user_data) {
    cs_prep(sqe, is_write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED, fd, address, count, offset, user_data);
    sqe->buf_index = index;
}

CS_INLINE void cs_prep_writev(struct io_uring_sqe *sqe, int fd, const struct iovec *vectors, uint32_t vector_count,
                              uint64_t offset, uint64_t user_data) {
    cs_prep(sqe, IORING_OP_WRITEV, fd, (uint64_t)(uintptr_t)vectors, vector_count, offset, user_data);
}

CS_INLINE void cs_prep_fdatasync(struct io_uring_sqe *sqe, int fd, uint64_t user_data) {
    cs_prep(sqe, IORING_OP_FSYNC, fd, 0, 0, 0, user_data);
    sqe->fsync_flags = IORING_FSYNC_DATASYNC;
}

/* Completes with -ETIME after the time, which the kernel reads when the entry is submitted. */
CS_INLINE void cs_prep_timeout(struct io_uring_sqe *sqe, const struct __kernel_timespec *time, uint64_t user_data) {
    cs_prep(sqe, IORING_OP_TIMEOUT, -1, (uint64_t)(uintptr_t)time, 1, 0, user_data);
}

CS_INLINE uint64_t cs_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* fallocate passes the mode in len and the length in addr. */
CS_INLINE void cs_prep_fallocate(struct io_uring_sqe *sqe, int fd, int32_t mode, uint64_t offset, uint64_t length,
                                 uint64_t user_data) {
    cs_prep(sqe, IORING_OP_FALLOCATE, fd, length, (uint32_t)mode, offset, user_data);
}

CS_INLINE void cs_prep_nop(struct io_uring_sqe *sqe, uint64_t user_data) {
    cs_prep(sqe, IORING_OP_NOP, -1, 0, 0, 0, user_data);
}

/* A uring_cmd: cmd_op shares its word with off, and the pad above it must be zero. */
CS_INLINE void cs_prep_uring_cmd(struct io_uring_sqe *sqe, int fd, uint32_t cmd_op, uint64_t user_data) {
    cs_prep(sqe, IORING_OP_URING_CMD, fd, 0, 0, (uint64_t)cmd_op, user_data);
}

/* The command area of a uring_cmd SQE: byte 48, 16 bytes, or 80 on a ring with 128-byte SQEs. */
CS_INLINE void *cs_sqe_command(struct io_uring_sqe *sqe) { return (uint8_t *)sqe + 48; }

CS_INLINE void cs_sqe_set_address(struct io_uring_sqe *sqe, uint64_t address) { sqe->addr = address; }
CS_INLINE void cs_sqe_set_flags(struct io_uring_sqe *sqe, uint8_t flags) { sqe->flags = flags; }
enum : uint8_t { CS_SQE_FIXED_FILE = 1u << 0 };

CS_INLINE int cs_submit(struct io_uring *ring) { return io_uring_submit(ring); }

/* Submits and waits for one completion, or until the timeout where one is given (nanoseconds < 0: for ever). */
CS_INLINE int cs_submit_and_wait(struct io_uring *ring, uint32_t wait_count, int64_t timeout_nanoseconds) {
    if (timeout_nanoseconds < 0) return io_uring_submit_and_wait(ring, wait_count);
    struct __kernel_timespec timeout = {
        .tv_sec = timeout_nanoseconds / 1000000000,
        .tv_nsec = timeout_nanoseconds % 1000000000,
    };
    struct io_uring_cqe *cqe = 0;
    return io_uring_submit_and_wait_timeout(ring, &cqe, wait_count, &timeout, 0);
}

/* Runs deferred task work and reaps what is ready, without waiting. */
CS_INLINE int cs_submit_and_get_events(struct io_uring *ring) { return io_uring_submit_and_get_events(ring); }

/* An eventfd, close-on-exec; negative: -errno. */
CS_INLINE int cs_eventfd(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

/* Waits until it is signalled, and resets it. */
CS_INLINE void cs_eventfd_wait(int descriptor) {
    eventfd_t count;
    while (eventfd_read(descriptor, &count) != 0 && errno == EINTR) {
    }
}

CS_INLINE void cs_eventfd_signal(int descriptor) { (void)eventfd_write(descriptor, 1); }

/* The executor whose thread this is; null on every other thread. */
extern __thread const void *cs_current_executor;
CS_INLINE const void *cs_current_executor_get(void) { return cs_current_executor; }
CS_INLINE void cs_current_executor_set(const void *executor) { cs_current_executor = executor; }

#endif
