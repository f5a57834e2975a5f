#define _GNU_SOURCE
#include "csupport_file.h"

#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

int32_t cs_read_partition_table(int32_t descriptor) { return ioctl(descriptor, BLKRRPART, 0) == 0 ? 0 : -errno; }

int32_t cs_freeze_file_system(int32_t descriptor) { return ioctl(descriptor, FIFREEZE, 0) == 0 ? 0 : -errno; }

int32_t cs_thaw_file_system(int32_t descriptor) { return ioctl(descriptor, FITHAW, 0) == 0 ? 0 : -errno; }

int32_t cs_has_dirty_pages(int32_t descriptor) {
    /* cachestat(2), which C libraries and headers do not know yet: the same number everywhere. */
    enum { CS_SYS_CACHESTAT = 451 };
    struct { uint64_t offset, length; } all = {0, 0};
    struct { uint64_t cached, dirty, in_writeback, evicted, recently_evicted; } counts = {0};
    if (syscall(CS_SYS_CACHESTAT, descriptor, &all, &counts, 0) != 0) return -errno;
    return counts.dirty != 0 || counts.in_writeback != 0;
}

int32_t cs_write_back_block_device(int32_t descriptor) {
    if (ioctl(descriptor, BLKFLSBUF, 0) != 0) return -errno;
    return fsync(descriptor) == 0 ? 0 : -errno;
}

int32_t cs_sync_file_system(int32_t descriptor) { return syncfs(descriptor) == 0 ? 0 : -errno; }

int32_t cs_block_device_number(const char *path, uint32_t *major_number, uint32_t *minor_number) {
    struct statx status;
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &status) != 0) return -errno;
    if (!S_ISBLK(status.stx_mode)) return 0;
    *major_number = status.stx_rdev_major;
    *minor_number = status.stx_rdev_minor;
    return 1;
}

int32_t cs_loop_backing_number(const char *path, uint32_t *major_number, uint32_t *minor_number) {
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return -errno;
    struct loop_info64 info;
    int32_t result = ioctl(descriptor, LOOP_GET_STATUS64, &info) == 0 ? 0 : -errno;
    close(descriptor);
    if (result != 0) return result;
    *major_number = major(info.lo_rdevice);
    *minor_number = minor(info.lo_rdevice);
    return info.lo_rdevice != 0;
}

int32_t cs_fallocate(int32_t descriptor, int32_t mode, uint64_t offset, uint64_t size_bytes) {
    return fallocate(descriptor, mode, (off_t)offset, (off_t)size_bytes) == 0 ? 0 : -errno;
}

int32_t cs_find(const char *path, uint32_t flags) {
    int descriptor = -1;
    if (flags & CS_FIND_NO_MAGIC_LINKS) {
        struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
        descriptor = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
        if (descriptor >= 0) return descriptor;
        /* Before Linux 5.6, or in a sandbox that does not know the call. */
        if (errno != ENOSYS && errno != EPERM) return -errno;
    }
    descriptor = open(path, O_PATH | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t cs_type_of(int32_t found) {
    struct stat status;
    return fstat(found, &status) != 0 ? -errno : (int32_t)(status.st_mode & S_IFMT);
}

int32_t cs_is_kernel_interface(int32_t found) {
    static const unsigned long interfaces[] = {
        PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC, CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC, BPF_FS_MAGIC, EFIVARFS_MAGIC, PSTOREFS_MAGIC, SELINUX_MAGIC, SMACK_MAGIC,
        BINFMTFS_MAGIC, DEVPTS_SUPER_MAGIC, RDTGROUP_SUPER_MAGIC, NSFS_MAGIC, 0x62656570 /* configfs */,
    };
    struct statfs status;
    if (fstatfs(found, &status) != 0) return -errno;
    for (size_t i = 0; i < sizeof interfaces / sizeof *interfaces; i++) {
        if ((unsigned long)status.f_type == interfaces[i]) return 1;
    }
    return 0;
}

int32_t cs_tells_holes_truly(int32_t found) {
    /* Not OpenZFS, which reported holes over data until the end of 2023; not FUSE or a file system of another machine, where
     * it depends on who serves it. An overlay passes the question on, to one of these almost everywhere. */
    static const unsigned long truthful[] = {
        EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC,
    };
    struct statfs status;
    if (fstatfs(found, &status) != 0) return -errno;
    for (size_t i = 0; i < sizeof truthful / sizeof *truthful; i++) {
        if ((unsigned long)status.f_type == truthful[i]) return 1;
    }
    return 0;
}

static void name_descriptor(int32_t descriptor, char name[32]) { snprintf(name, 32, "/proc/self/fd/%d", descriptor); }

int64_t cs_path_of(int32_t found, char *buffer, uint64_t buffer_bytes) {
    char name[32];
    name_descriptor(found, name);
    ssize_t count = readlink(name, buffer, buffer_bytes);
    return count < 0 ? -errno : count;
}

static int is_same_file(int32_t one, int32_t other) {
    struct stat first, second;
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

int32_t cs_open_found(int32_t found, const char *path, uint32_t flags) {
    char name[32];
    name_descriptor(found, name);
    int mode = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    mode |= (flags & CS_OPEN_WRITE) ? O_RDWR : O_RDONLY;
    if (flags & CS_OPEN_DIRECT) mode |= O_DIRECT;
    int descriptor = open(name, mode);
    if (descriptor < 0 && errno == ENOENT && access("/proc/self/fd", F_OK) != 0) {
        descriptor = open(path, mode);
        if (descriptor >= 0 && !is_same_file(descriptor, found)) {
            close(descriptor);
            return -ESTALE;
        }
    }
    if (descriptor < 0) return -errno;
    /* io_uring would answer EAGAIN instead of waiting for the disk while the flag stays. */
    int status = fcntl(descriptor, F_GETFL);
    if (status < 0 || fcntl(descriptor, F_SETFL, status & ~O_NONBLOCK) != 0) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

int32_t cs_clear_direct(int32_t descriptor) {
    int status = fcntl(descriptor, F_GETFL);
    if (status < 0 || fcntl(descriptor, F_SETFL, status & ~O_DIRECT) != 0) return -errno;
    return 0;
}

int32_t cs_status_of(int32_t descriptor, struct cs_file_status *result) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) return -errno;
    result->type = status.st_mode & S_IFMT;
    result->allocated_bytes = (uint64_t)status.st_blocks * 512;
    result->size_bytes = (uint64_t)status.st_size;
    result->device = status.st_dev;
    if (S_ISBLK(status.st_mode)) {
        uint64_t size_bytes = 0;
        if (ioctl(descriptor, BLKGETSIZE64, &size_bytes) != 0) return -errno;
        result->size_bytes = size_bytes;
    }
    return 0;
}

/* The file's handle, or false where the file system has none that stays: FUSE numbers its nodes anew in each mount, and FAT
 * makes both handles and inode numbers up. */
static bool take_handle(int32_t descriptor, const struct statfs *file_system, struct cs_file_traits *traits) {
    const unsigned long fuse = 0x65735546;
    if ((unsigned long)file_system->f_type == fuse || (unsigned long)file_system->f_type == MSDOS_SUPER_MAGIC) return false;
    union {
        struct file_handle header;
        uint8_t bytes[sizeof(struct file_handle) + sizeof traits->handle];
    } handle;
    memset(&handle, 0, sizeof handle);
    handle.header.handle_bytes = sizeof traits->handle;
    int mount = 0;
    if (name_to_handle_at(descriptor, "", &handle.header, &mount, AT_EMPTY_PATH) != 0) return false;
    if (handle.header.handle_bytes > sizeof traits->handle) return false;
    traits->handle_type = (uint32_t)handle.header.handle_type;
    traits->handle_bytes = handle.header.handle_bytes;
    memcpy(traits->handle, handle.bytes + sizeof(struct file_handle), traits->handle_bytes);
    return true;
}

int32_t cs_traits_of(int32_t descriptor, struct cs_file_traits *traits) {
    memset(traits, 0, sizeof *traits);
    struct statx status;
    memset(&status, 0, sizeof status);
    if (statx(descriptor, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO | STATX_BTIME, &status) != 0) return -errno;
    if (S_ISBLK(status.stx_mode)) {
        traits->block_device = (uint64_t)makedev(status.stx_rdev_major, status.stx_rdev_minor);
        return 0;
    }
    struct statfs file_system;
    if (fstatfs(descriptor, &file_system) != 0) return -errno;
    /* Major number 0: not a disk's, but the next one that was free when the file system was mounted. */
    if (status.stx_dev_major != 0) traits->device = (uint64_t)makedev(status.stx_dev_major, status.stx_dev_minor);
    _Static_assert(sizeof file_system.f_fsid == sizeof traits->file_system, "f_fsid is 64 bits");
    memcpy(&traits->file_system, &file_system.f_fsid, sizeof traits->file_system);
    if (take_handle(descriptor, &file_system, traits)) return 0;
    traits->inode = status.stx_ino;
    if (status.stx_mask & STATX_BTIME) {
        traits->birth_seconds = status.stx_btime.tv_sec;
        traits->birth_nanoseconds = status.stx_btime.tv_nsec;
    }
    return 0;
}

int32_t cs_is_in_memory(int32_t descriptor) {
    const unsigned long ramfs = 0x858458f6;
    struct statfs status;
    if (fstatfs(descriptor, &status) != 0) return -errno;
    return (unsigned long)status.f_type == TMPFS_MAGIC || (unsigned long)status.f_type == ramfs;
}

int32_t cs_direct_alignment(int32_t descriptor, struct cs_direct_alignment *alignment) {
    /* struct statx is 256 bytes; glibc's may lack the two words that Linux 6.1 put at 152 and 156. */
    union {
        uint8_t bytes[256];
        uint32_t words[64];
    } status;
    const unsigned int statx_dioalign = 0x2000;
    memset(&status, 0, sizeof status);
    if (syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH, statx_dioalign, &status) != 0) return -errno;
    if (!(status.words[0] & statx_dioalign)) return -ENOTSUP;
    alignment->memory_bytes = status.words[152 / 4];
    alignment->offset_bytes = status.words[156 / 4];
    return 0;
}

int64_t cs_pread_fully(int32_t descriptor, void *buffer, uint64_t byte_count, uint64_t offset) {
    uint64_t done = 0;
    while (done < byte_count) {
        ssize_t result = pread(descriptor, (uint8_t *)buffer + done, byte_count - done, (off_t)(offset + done));
        if (result < 0 && errno == EINTR) continue;
        if (result < 0) return -errno;
        if (result == 0) break;
        done += (uint64_t)result;
    }
    return (int64_t)done;
}

int32_t cs_ftruncate(int32_t descriptor, uint64_t size_bytes) {
    return ftruncate(descriptor, (off_t)size_bytes) == 0 ? 0 : -errno;
}

int64_t cs_file_length(int32_t descriptor) {
    struct cs_file_status status;
    int32_t result = cs_status_of(descriptor, &status);
    return result < 0 ? result : (int64_t)status.size_bytes;
}

static struct flock one_byte(short type, uint64_t offset) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)offset;
    lock.l_len = 1;
    return lock;
}

int32_t cs_lock_byte_shared(int32_t descriptor, uint64_t offset) {
    struct flock lock = one_byte(F_RDLCK, offset);
    return fcntl(descriptor, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

int32_t cs_unlock_byte(int32_t descriptor, uint64_t offset) {
    struct flock lock = one_byte(F_UNLCK, offset);
    return fcntl(descriptor, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

int32_t cs_byte_is_locked(int32_t descriptor, uint64_t offset) {
    struct flock lock = one_byte(F_WRLCK, offset);
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -errno;
    return lock.l_type == F_UNLCK ? 0 : 1;
}

int32_t cs_next_data(int32_t descriptor, uint64_t offset, uint64_t *start, uint64_t *end) {
    off_t data = lseek(descriptor, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        off_t length = lseek(descriptor, 0, SEEK_END);
        if (length < 0) return -errno;
        *start = *end = (uint64_t)length > offset ? (uint64_t)length : offset;
        return 0;
    }
    if (data < 0) return -errno;
    off_t hole = lseek(descriptor, data, SEEK_HOLE);
    if (hole < 0) return -errno;
    *start = (uint64_t)data;
    *end = (uint64_t)hole;
    return 0;
}
