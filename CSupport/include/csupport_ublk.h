/*
 * The ublk driver's binary interface, as numbers: Linux 6.0 to 7.3, 64-bit machines. csupport_ublk_structures.h has its
 * structures.
 * Declared here and not taken from linux/ublk_cmd.h, because distributions ship that header years behind the kernels
 * they run. The meaning of each value is documented where Swift names it (Sources/Ublk).
 */
#ifndef QED_UBLK_CSUPPORT_UBLK_H
#define QED_UBLK_CSUPPORT_UBLK_H

#include <stdint.h>
#include <string.h>

#include "csupport_ring.h"
#include "csupport_ublk_structures.h"

/* Commands: dir<<30 | size<<16 | 'u'<<8 | number, the encoding of ioctl numbers ------------------------------------ */

#define CS_UBLK_ENCODE(direction, type, number)                                                                      \
    ((uint32_t)(direction) << 30 | (uint32_t)sizeof(struct type) << 16 | (uint32_t)'u' << 8 | (uint32_t)(number))
#define CS_UBLK_READ(number) CS_UBLK_ENCODE(2, cs_ublk_control_command, number)
#define CS_UBLK_READ_WRITE(number) CS_UBLK_ENCODE(3, cs_ublk_control_command, number)
#define CS_UBLK_IO(number) CS_UBLK_ENCODE(3, cs_ublk_io_command, number)

enum : uint32_t {
    CS_UBLK_GET_QUEUE_AFFINITY = CS_UBLK_READ(0x01),
    CS_UBLK_GET_DEV_INFO = CS_UBLK_READ(0x02),
    CS_UBLK_ADD_DEV = CS_UBLK_READ_WRITE(0x04),
    CS_UBLK_DEL_DEV = CS_UBLK_READ_WRITE(0x05),
    CS_UBLK_START_DEV = CS_UBLK_READ_WRITE(0x06),
    CS_UBLK_STOP_DEV = CS_UBLK_READ_WRITE(0x07),
    CS_UBLK_SET_PARAMS = CS_UBLK_READ_WRITE(0x08),
    CS_UBLK_GET_PARAMS = CS_UBLK_READ(0x09),
    CS_UBLK_START_USER_RECOVERY = CS_UBLK_READ_WRITE(0x10),
    CS_UBLK_END_USER_RECOVERY = CS_UBLK_READ_WRITE(0x11),
    CS_UBLK_GET_DEV_INFO2 = CS_UBLK_READ(0x12),
    CS_UBLK_GET_FEATURES = CS_UBLK_READ(0x13),
    CS_UBLK_DEL_DEV_ASYNC = CS_UBLK_READ(0x14),
    CS_UBLK_UPDATE_SIZE = CS_UBLK_READ_WRITE(0x15),
    CS_UBLK_QUIESCE_DEV = CS_UBLK_READ_WRITE(0x16),
    CS_UBLK_TRY_STOP_DEV = CS_UBLK_READ_WRITE(0x17),
    CS_UBLK_REG_BUF = CS_UBLK_READ_WRITE(0x18),
    CS_UBLK_UNREG_BUF = CS_UBLK_READ_WRITE(0x19),
};

enum : uint32_t {
    CS_UBLK_FETCH_REQ = CS_UBLK_IO(0x20),
    CS_UBLK_COMMIT_AND_FETCH_REQ = CS_UBLK_IO(0x21),
    CS_UBLK_NEED_GET_DATA = CS_UBLK_IO(0x22),
    CS_UBLK_REGISTER_IO_BUF = CS_UBLK_IO(0x23),
    CS_UBLK_UNREGISTER_IO_BUF = CS_UBLK_IO(0x24),
    CS_UBLK_PREP_IO_CMDS = CS_UBLK_IO(0x25),
    CS_UBLK_COMMIT_IO_CMDS = CS_UBLK_IO(0x26),
    CS_UBLK_FETCH_IO_CMDS = CS_UBLK_IO(0x27),
};

#define CS_OPCODE(name, value) _Static_assert(name == (value), #name " is encoded otherwise in the kernel")
CS_OPCODE(CS_UBLK_GET_QUEUE_AFFINITY, 0x80207501u);
CS_OPCODE(CS_UBLK_GET_DEV_INFO, 0x80207502u);
CS_OPCODE(CS_UBLK_ADD_DEV, 0xC0207504u);
CS_OPCODE(CS_UBLK_DEL_DEV, 0xC0207505u);
CS_OPCODE(CS_UBLK_START_DEV, 0xC0207506u);
CS_OPCODE(CS_UBLK_STOP_DEV, 0xC0207507u);
CS_OPCODE(CS_UBLK_SET_PARAMS, 0xC0207508u);
CS_OPCODE(CS_UBLK_GET_PARAMS, 0x80207509u);
CS_OPCODE(CS_UBLK_START_USER_RECOVERY, 0xC0207510u);
CS_OPCODE(CS_UBLK_END_USER_RECOVERY, 0xC0207511u);
CS_OPCODE(CS_UBLK_GET_DEV_INFO2, 0x80207512u);
CS_OPCODE(CS_UBLK_GET_FEATURES, 0x80207513u);
CS_OPCODE(CS_UBLK_DEL_DEV_ASYNC, 0x80207514u);
CS_OPCODE(CS_UBLK_UPDATE_SIZE, 0xC0207515u);
CS_OPCODE(CS_UBLK_QUIESCE_DEV, 0xC0207516u);
CS_OPCODE(CS_UBLK_TRY_STOP_DEV, 0xC0207517u);
CS_OPCODE(CS_UBLK_REG_BUF, 0xC0207518u);
CS_OPCODE(CS_UBLK_UNREG_BUF, 0xC0207519u);
CS_OPCODE(CS_UBLK_FETCH_REQ, 0xC0107520u);
CS_OPCODE(CS_UBLK_COMMIT_AND_FETCH_REQ, 0xC0107521u);
CS_OPCODE(CS_UBLK_NEED_GET_DATA, 0xC0107522u);
CS_OPCODE(CS_UBLK_REGISTER_IO_BUF, 0xC0107523u);
CS_OPCODE(CS_UBLK_UNREGISTER_IO_BUF, 0xC0107524u);
CS_OPCODE(CS_UBLK_PREP_IO_CMDS, 0xC0107525u);
CS_OPCODE(CS_UBLK_COMMIT_IO_CMDS, 0xC0107526u);
CS_OPCODE(CS_UBLK_FETCH_IO_CMDS, 0xC0107527u);
#undef CS_OPCODE

/* Results of I/O commands: 0, 1, or -ENODEV. */
enum : int32_t {
    CS_UBLK_IO_RES_OK = 0,
    CS_UBLK_IO_RES_NEED_GET_DATA = 1,
    CS_UBLK_IO_RES_ABORT = -19,
};

/* Limits and reserved values --------------------------------------------------------------------------------------- */

enum : uint32_t {
    CS_UBLK_ANY_DEVICE = 0xFFFFFFFFu,
    CS_UBLK_MAX_DEVICES = 1u << 20,
    CS_UBLK_MAX_QUEUE_DEPTH = 4096,
    CS_UBLK_MAX_QUEUES = 4096,
};
enum : uint16_t { CS_UBLK_NO_QUEUE = 0xFFFFu };

/*
 * Where the driver registers a request's buffer: the address field of the submission that fetches it.
 * Index in bits 0-15, flags in 16-23, the rest 0.
 */
enum : uint64_t { CS_UBLK_AUTO_BUFFER_FALLBACK = 1ull << 16 };

/* Where a request's data stands in the character device: the queue, the tag, and the byte within the request. */
enum : uint64_t { CS_UBLK_DATA_OFFSET = 0x80000000u };
enum : uint32_t { CS_UBLK_DATA_TAG_SHIFT = 25, CS_UBLK_DATA_QUEUE_SHIFT = 25 + 16 };

/* Feature flags ---------------------------------------------------------------------------------------------------- */

enum : uint64_t {
    CS_UBLK_F_SUPPORT_ZERO_COPY = 1ull << 0,
    CS_UBLK_F_URING_CMD_COMP_IN_TASK = 1ull << 1,
    CS_UBLK_F_NEED_GET_DATA = 1ull << 2,
    CS_UBLK_F_USER_RECOVERY = 1ull << 3,
    CS_UBLK_F_USER_RECOVERY_REISSUE = 1ull << 4,
    CS_UBLK_F_UNPRIVILEGED_DEV = 1ull << 5,
    CS_UBLK_F_CMD_IOCTL_ENCODE = 1ull << 6,
    CS_UBLK_F_USER_COPY = 1ull << 7,
    CS_UBLK_F_ZONED = 1ull << 8,
    CS_UBLK_F_USER_RECOVERY_FAIL_IO = 1ull << 9,
    CS_UBLK_F_UPDATE_SIZE = 1ull << 10,
    CS_UBLK_F_AUTO_BUF_REG = 1ull << 11,
    CS_UBLK_F_QUIESCE = 1ull << 12,
    CS_UBLK_F_PER_IO_DAEMON = 1ull << 13,
    CS_UBLK_F_BUF_REG_OFF_DAEMON = 1ull << 14,
    CS_UBLK_F_BATCH_IO = 1ull << 15,
    CS_UBLK_F_INTEGRITY = 1ull << 16,
    CS_UBLK_F_SAFE_STOP_DEV = 1ull << 17,
    CS_UBLK_F_NO_AUTO_PART_SCAN = 1ull << 18,
    CS_UBLK_F_SHMEM_ZC = 1ull << 19,
    CS_UBLK_F_IO_DESC_SIZE = 1ull << 20,
};

/* Device states ---------------------------------------------------------------------------------------------------- */

enum : uint16_t {
    CS_UBLK_S_DEV_DEAD = 0,
    CS_UBLK_S_DEV_LIVE = 1,
    CS_UBLK_S_DEV_QUIESCED = 2,
    CS_UBLK_S_DEV_FAIL_IO = 3,
};

/* Requests: the operation in the low byte of op_flags, flags above it, unshifted ----------------------------------- */

enum : uint8_t {
    CS_UBLK_OP_READ = 0,
    CS_UBLK_OP_WRITE = 1,
    CS_UBLK_OP_FLUSH = 2,
    CS_UBLK_OP_DISCARD = 3,
    CS_UBLK_OP_WRITE_SAME = 4,
    CS_UBLK_OP_WRITE_ZEROES = 5,
    CS_UBLK_OP_ZONE_OPEN = 10,
    CS_UBLK_OP_ZONE_CLOSE = 11,
    CS_UBLK_OP_ZONE_FINISH = 12,
    CS_UBLK_OP_ZONE_APPEND = 13,
    CS_UBLK_OP_ZONE_RESET_ALL = 14,
    CS_UBLK_OP_ZONE_RESET = 15,
    CS_UBLK_OP_REPORT_ZONES = 18,
};

enum : uint32_t {
    CS_UBLK_IO_F_FAILFAST_DEV = 1u << 8,
    CS_UBLK_IO_F_FAILFAST_TRANSPORT = 1u << 9,
    CS_UBLK_IO_F_FAILFAST_DRIVER = 1u << 10,
    CS_UBLK_IO_F_META = 1u << 11,
    CS_UBLK_IO_F_FUA = 1u << 13,
    CS_UBLK_IO_F_NOUNMAP = 1u << 15,
    CS_UBLK_IO_F_SWAP = 1u << 16,
    CS_UBLK_IO_F_NEED_REG_BUF = 1u << 17,
    CS_UBLK_IO_F_INTEGRITY = 1u << 18,
    CS_UBLK_IO_F_SHMEM_ZC = 1u << 19,
};

/* Parameters ------------------------------------------------------------------------------------------------------- */

enum : uint32_t {
    CS_UBLK_PARAM_TYPE_BASIC = 1u << 0,
    CS_UBLK_PARAM_TYPE_DISCARD = 1u << 1,
    CS_UBLK_PARAM_TYPE_DEVT = 1u << 2,
    CS_UBLK_PARAM_TYPE_ZONED = 1u << 3,
    CS_UBLK_PARAM_TYPE_DMA_ALIGN = 1u << 4,
    CS_UBLK_PARAM_TYPE_SEGMENT = 1u << 5,
    CS_UBLK_PARAM_TYPE_INTEGRITY = 1u << 6,
};

enum : uint32_t {
    CS_UBLK_ATTR_READ_ONLY = 1u << 0,
    CS_UBLK_ATTR_ROTATIONAL = 1u << 1,
    CS_UBLK_ATTR_VOLATILE_CACHE = 1u << 2,
    CS_UBLK_ATTR_FUA = 1u << 3,
};

/* Writes the I/O command of a uring_cmd whose other fields are prepared already. */
CS_INLINE void cs_ublk_set_io_command(struct io_uring_sqe *sqe, struct cs_ublk_io_command command) {
    memcpy(cs_sqe_command(sqe), &command, sizeof command);
}

#endif
