/*
 * The structures of the ublk driver's binary interface, and where the kernel has each member: Linux 6.0 to 7.3, 64-bit
 * machines. The meaning of each is documented where Swift names it (Sources/Ublk).
 */
#ifndef QED_UBLK_CSUPPORT_UBLK_STRUCTURES_H
#define QED_UBLK_CSUPPORT_UBLK_STRUCTURES_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(void *) == 8, "the driver has no compatibility layer for 32-bit programs");

/* A control command: byte 48 of a 128-byte submission. */
struct cs_ublk_control_command {
    uint32_t dev_id;
    uint16_t queue_id;
    uint16_t len;
    uint64_t addr;
    uint64_t data;
    uint16_t dev_path_len;
    uint16_t pad;
    uint32_t reserved;
};

struct cs_ublk_device_info {
    uint16_t nr_hw_queues;
    uint16_t queue_depth;
    uint16_t state;
    uint16_t io_desc_size; /* a pad before 7.3 */
    uint32_t max_io_buf_bytes;
    uint32_t dev_id;
    int32_t ublksrv_pid;
    uint32_t pad1;
    uint64_t flags;
    uint64_t ublksrv_flags;
    uint32_t owner_uid;
    uint32_t owner_gid;
    uint64_t reserved1;
    uint64_t reserved2;
};

/* What the kernel asks of one tag; a queue's table of them is mapped read-only. */
struct cs_ublk_io_descriptor {
    uint32_t op_flags;
    uint32_t nr_sectors;
    uint64_t start_sector;
    uint64_t addr;
};

/* An I/O command: byte 48 of an ordinary submission. */
struct cs_ublk_io_command {
    uint16_t q_id;
    uint16_t tag;
    int32_t result;
    uint64_t addr;
};

struct cs_ublk_param_basic {
    uint32_t attrs;
    uint8_t logical_bs_shift;
    uint8_t physical_bs_shift;
    uint8_t io_opt_shift;
    uint8_t io_min_shift;
    uint32_t max_sectors;
    uint32_t chunk_sectors;
    uint64_t dev_sectors;
    uint64_t virt_boundary_mask;
};

struct cs_ublk_param_discard {
    uint32_t discard_alignment;
    uint32_t discard_granularity;
    uint32_t max_discard_sectors;
    uint32_t max_write_zeroes_sectors;
    uint16_t max_discard_segments;
    uint16_t reserved;
};

struct cs_ublk_param_devt {
    uint32_t char_major;
    uint32_t char_minor;
    uint32_t disk_major;
    uint32_t disk_minor;
};

struct cs_ublk_param_zoned {
    uint32_t words[8];
};

struct cs_ublk_param_dma_align {
    uint32_t alignment;
    uint32_t pad;
};

struct cs_ublk_param_segment {
    uint64_t seg_boundary_mask;
    uint32_t max_segment_size;
    uint16_t max_segments;
    uint16_t pad;
};

struct cs_ublk_param_integrity {
    uint32_t flags;
    uint16_t max_integrity_segments;
    uint8_t interval_exp;
    uint8_t metadata_size;
    uint8_t pi_offset;
    uint8_t csum_type;
    uint8_t tag_size;
    uint8_t pad[5];
};

struct cs_ublk_params {
    uint32_t len;
    uint32_t types;
    struct cs_ublk_param_basic basic;
    struct cs_ublk_param_discard discard;
    struct cs_ublk_param_devt devt;
    struct cs_ublk_param_zoned zoned;
    struct cs_ublk_param_dma_align dma;
    struct cs_ublk_param_segment seg;
    struct cs_ublk_param_integrity integrity;
};

#define CS_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type " has another size in the kernel")
#define CS_AT(type, member, offset)                                                                                  \
    _Static_assert(offsetof(struct type, member) == (offset), #type "." #member " is elsewhere in the kernel")

CS_SIZE(cs_ublk_control_command, 32);
CS_AT(cs_ublk_control_command, dev_id, 0);
CS_AT(cs_ublk_control_command, queue_id, 4);
CS_AT(cs_ublk_control_command, len, 6);
CS_AT(cs_ublk_control_command, addr, 8);
CS_AT(cs_ublk_control_command, data, 16);
CS_AT(cs_ublk_control_command, dev_path_len, 24);
CS_AT(cs_ublk_control_command, pad, 26);
CS_AT(cs_ublk_control_command, reserved, 28);

CS_SIZE(cs_ublk_device_info, 64);
CS_AT(cs_ublk_device_info, nr_hw_queues, 0);
CS_AT(cs_ublk_device_info, queue_depth, 2);
CS_AT(cs_ublk_device_info, state, 4);
CS_AT(cs_ublk_device_info, io_desc_size, 6);
CS_AT(cs_ublk_device_info, max_io_buf_bytes, 8);
CS_AT(cs_ublk_device_info, dev_id, 12);
CS_AT(cs_ublk_device_info, ublksrv_pid, 16);
CS_AT(cs_ublk_device_info, pad1, 20);
CS_AT(cs_ublk_device_info, flags, 24);
CS_AT(cs_ublk_device_info, ublksrv_flags, 32);
CS_AT(cs_ublk_device_info, owner_uid, 40);
CS_AT(cs_ublk_device_info, owner_gid, 44);
CS_AT(cs_ublk_device_info, reserved1, 48);
CS_AT(cs_ublk_device_info, reserved2, 56);

CS_SIZE(cs_ublk_io_descriptor, 24);
CS_AT(cs_ublk_io_descriptor, op_flags, 0);
CS_AT(cs_ublk_io_descriptor, nr_sectors, 4);
CS_AT(cs_ublk_io_descriptor, start_sector, 8);
CS_AT(cs_ublk_io_descriptor, addr, 16);

CS_SIZE(cs_ublk_io_command, 16);
CS_AT(cs_ublk_io_command, q_id, 0);
CS_AT(cs_ublk_io_command, tag, 2);
CS_AT(cs_ublk_io_command, result, 4);
CS_AT(cs_ublk_io_command, addr, 8);

CS_SIZE(cs_ublk_params, 152);
CS_AT(cs_ublk_params, len, 0);
CS_AT(cs_ublk_params, types, 4);
CS_AT(cs_ublk_params, basic, 8);
CS_AT(cs_ublk_params, discard, 40);
CS_AT(cs_ublk_params, devt, 60);
CS_AT(cs_ublk_params, zoned, 76);
CS_AT(cs_ublk_params, dma, 108);
CS_AT(cs_ublk_params, seg, 120);
CS_AT(cs_ublk_params, integrity, 136);

CS_SIZE(cs_ublk_param_basic, 32);
CS_AT(cs_ublk_param_basic, attrs, 0);
CS_AT(cs_ublk_param_basic, logical_bs_shift, 4);
CS_AT(cs_ublk_param_basic, physical_bs_shift, 5);
CS_AT(cs_ublk_param_basic, io_opt_shift, 6);
CS_AT(cs_ublk_param_basic, io_min_shift, 7);
CS_AT(cs_ublk_param_basic, max_sectors, 8);
CS_AT(cs_ublk_param_basic, chunk_sectors, 12);
CS_AT(cs_ublk_param_basic, dev_sectors, 16);
CS_AT(cs_ublk_param_basic, virt_boundary_mask, 24);

CS_SIZE(cs_ublk_param_discard, 20);
CS_AT(cs_ublk_param_discard, discard_alignment, 0);
CS_AT(cs_ublk_param_discard, discard_granularity, 4);
CS_AT(cs_ublk_param_discard, max_discard_sectors, 8);
CS_AT(cs_ublk_param_discard, max_write_zeroes_sectors, 12);
CS_AT(cs_ublk_param_discard, max_discard_segments, 16);
CS_AT(cs_ublk_param_discard, reserved, 18);

CS_SIZE(cs_ublk_param_devt, 16);
CS_AT(cs_ublk_param_devt, char_major, 0);
CS_AT(cs_ublk_param_devt, char_minor, 4);
CS_AT(cs_ublk_param_devt, disk_major, 8);
CS_AT(cs_ublk_param_devt, disk_minor, 12);

CS_SIZE(cs_ublk_param_zoned, 32);

CS_SIZE(cs_ublk_param_dma_align, 8);
CS_AT(cs_ublk_param_dma_align, alignment, 0);
CS_AT(cs_ublk_param_dma_align, pad, 4);

CS_SIZE(cs_ublk_param_segment, 16);
CS_AT(cs_ublk_param_segment, seg_boundary_mask, 0);
CS_AT(cs_ublk_param_segment, max_segment_size, 8);
CS_AT(cs_ublk_param_segment, max_segments, 12);

CS_SIZE(cs_ublk_param_integrity, 16);
CS_AT(cs_ublk_param_integrity, flags, 0);
CS_AT(cs_ublk_param_integrity, max_integrity_segments, 4);
CS_AT(cs_ublk_param_integrity, interval_exp, 6);
CS_AT(cs_ublk_param_integrity, metadata_size, 7);
CS_AT(cs_ublk_param_integrity, pi_offset, 8);
CS_AT(cs_ublk_param_integrity, csum_type, 9);
CS_AT(cs_ublk_param_integrity, tag_size, 10);

#undef CS_SIZE
#undef CS_AT

#endif
