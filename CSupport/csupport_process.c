#define _GNU_SOURCE
#include "csupport_process.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static sigset_t handled_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

void cs_reserve_standard_descriptors(void) {
    int descriptor;
    do {
        /* A descriptor that names a place and can be neither read nor written. */
        descriptor = open("/", O_PATH);
    } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    if (descriptor >= 0) close(descriptor);
}

void cs_allow_many_open_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int32_t cs_terminal_size(int32_t descriptor, uint16_t *columns, uint16_t *lines) {
    struct winsize size;
    if (ioctl(descriptor, TIOCGWINSZ, &size) != 0) return -errno;
    *columns = size.ws_col;
    *lines = size.ws_row;
    return 0;
}

void cs_name_thread(const char *name) { (void)prctl(PR_SET_NAME, name, 0, 0, 0); }

int32_t cs_open_signals(void) {
    sigset_t set = handled_signals();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t cs_block_signals(void) {
    sigset_t set = handled_signals();
    return -pthread_sigmask(SIG_BLOCK, &set, 0);
}

int32_t cs_take_signal(int32_t descriptor) {
    struct signalfd_siginfo info;
    ssize_t count;
    do {
        count = read(descriptor, &info, sizeof info);
    } while (count < 0 && errno == EINTR);
    return count == sizeof info ? (int32_t)info.ssi_signo : 0;
}

int32_t cs_spawn_self(char *const arguments[], int32_t errors, int32_t status, int32_t *process) {
    extern char **environ;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, ignored;
    pid_t pid = 0;
    sigemptyset(&none);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, status, 3);
    /* It outlives whoever started it: a pipe that it kept open would never end for its reader, and a directory that it was in
     * could not be unmounted. */
    posix_spawn_file_actions_addclosefrom_np(&actions, 4);
    posix_spawn_file_actions_addchdir_np(&actions, "/");
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &ignored);
    int error = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    *process = pid;
    return -error;
}

int32_t cs_send_open_file(int32_t socket, int32_t error, int32_t descriptor) {
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } control = {{0}};
    struct iovec word = {&error, sizeof error};
    struct msghdr message = {.msg_iov = &word, .msg_iovlen = 1};
    if (error == 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof error ? 0 : -errno;
}

int32_t cs_receive_open_file(int32_t socket, int32_t *descriptor) {
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } control = {{0}};
    int32_t error = 0;
    struct iovec word = {&error, sizeof error};
    struct msghdr message = {
        .msg_iov = &word, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t count;
    do {
        count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    if (count != sizeof error) return -EPIPE;
    if (error != 0) return error;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS) return -EPIPE;
    memcpy(descriptor, CMSG_DATA(header), sizeof *descriptor);
    return 0;
}

int32_t cs_spawn_program(char *const arguments[], int32_t output, int32_t errors, int32_t *process) {
    extern char **environ;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid = 0;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (output >= 0) posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (errors >= 0) posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    int error = posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    *process = pid;
    return -error;
}

int32_t cs_open_process(int32_t process) {
    int descriptor = (int)syscall(SYS_pidfd_open, process, 0);
    return descriptor < 0 ? -errno : descriptor;
}

void cs_mark_as_storage_daemon(void) {
    /* glibc's name of the program is the first argument, where the kernel has put it. */
    if (program_invocation_name && *program_invocation_name) *program_invocation_name = '@';
}

void cs_close_further_descriptors(void) { closefrom(STDERR_FILENO + 1); }

void cs_return_free_memory(void) { (void)malloc_trim(0); }

void cs_refuse_core_dumps(void) { (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

/* As many processors as a kernel can be built for. */
enum { PROCESSOR_WORDS = 8192 / 64 };

int32_t cs_available_processors(void) {
    uint64_t mask[PROCESSOR_WORDS] = {0};
    int32_t count = 0;
    if (syscall(SYS_sched_getaffinity, 0, sizeof mask, mask) < 0) return 1;
    for (int word = 0; word < PROCESSOR_WORDS; word++) count += __builtin_popcountll(mask[word]);
    return count;
}

int32_t cs_bind_thread(const int32_t *processors, uint64_t count) {
    uint64_t allowed[PROCESSOR_WORDS] = {0}, wanted[PROCESSOR_WORDS] = {0};
    if (syscall(SYS_sched_getaffinity, 0, sizeof allowed, allowed) < 0) return -errno;
    for (uint64_t index = 0; index < count; index++) {
        uint32_t processor = (uint32_t)processors[index];
        if (processor < PROCESSOR_WORDS * 64) wanted[processor / 64] |= 1ull << (processor % 64);
    }
    for (int word = 0; word < PROCESSOR_WORDS; word++) allowed[word] &= wanted[word];
    return syscall(SYS_sched_setaffinity, 0, sizeof allowed, allowed) < 0 ? -errno : 0;
}

int32_t cs_become_io_flusher(void) {
#ifndef PR_SET_IO_FLUSHER
    enum { PR_SET_IO_FLUSHER = 57, PR_GET_IO_FLUSHER = 58 };
#endif
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) return -errno;
    int state = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
    return state == 1 ? 0 : state < 0 ? -errno : -EINVAL;
}

int32_t cs_has_unlimited_locks(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY) return 1;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0) return 0;
    return (data[CAP_IPC_LOCK / 32].effective >> (CAP_IPC_LOCK % 32)) & 1;
}

void cs_drop_system_administration(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0) return;
    data[CAP_SYS_ADMIN / 32].effective &= ~(1u << (CAP_SYS_ADMIN % 32));
    data[CAP_SYS_ADMIN / 32].permitted &= ~(1u << (CAP_SYS_ADMIN % 32));
    (void)syscall(SYS_capset, &header, data);
}

int32_t cs_lock_used_memory(void) {
    if (!cs_has_unlimited_locks()) return -EPERM;
    return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0 ? 0 : -errno;
}

/* Reads what an object was loaded from into memory, as far as it can be mapped: segments of the file, without the zeros behind
 * them. Reading copies nothing that could be written to. */
static int read_segments(struct dl_phdr_info *object, size_t size, void *failure) {
    enum { CS_MADV_POPULATE_READ = 22 };
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    for (int index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_R) || segment->p_filesz == 0) continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_filesz;
        /* SAFETY: the loader's own account of what it has mapped, and nothing is changed. */
        if (madvise((void *)start, end - start, CS_MADV_POPULATE_READ) != 0) *(int32_t *)failure = -errno;
    }
    return 0;
}

int32_t cs_read_program(void) {
    int32_t failure = 0;
    dl_iterate_phdr(read_segments, &failure);
    return failure;
}

int32_t cs_lock_range(void *address, uint64_t size_bytes) {
    return mlock(address, size_bytes) == 0 ? 0 : -errno;
}

int32_t cs_lock_range_on_fault(void *address, uint64_t size_bytes) {
    return mlock2(address, size_bytes, MLOCK_ONFAULT) == 0 ? 0 : -errno;
}

void cs_refuse_huge_pages(void *address, uint64_t size_bytes) { madvise(address, size_bytes, MADV_NOHUGEPAGE); }

void cs_touch_range(void *address, uint64_t size_bytes) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t offset = 0; offset < size_bytes; offset += page) *((volatile uint8_t *)address + offset) = 0;
}

int32_t cs_forget_range(void *address, uint64_t size_bytes) {
    enum { CS_MADV_DONTNEED_LOCKED = 24 };
    if (madvise(address, size_bytes, CS_MADV_DONTNEED_LOCKED) == 0) return 0;
    if (madvise(address, size_bytes, MADV_DONTNEED) == 0) return 0;
    return -errno;
}

void cs_become_ordinary_thread(void) {
    struct sched_param none = {.sched_priority = 0};
    sched_setscheduler(0, SCHED_OTHER, &none);
}

int32_t cs_populate_range(void *address, uint64_t size_bytes) {
    enum { CS_MADV_POPULATE_WRITE = 23 };
    return madvise(address, size_bytes, CS_MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
}

int32_t cs_enter_mount_namespace(bool passes_on) {
    if (unshare(CLONE_NEWNS) != 0) return -errno;
    if (mount("none", "/", 0, MS_REC | MS_SLAVE, 0) != 0) return -errno;
    return !passes_on || mount("none", "/", 0, MS_REC | MS_SHARED, 0) == 0 ? 0 : -errno;
}

int32_t cs_detach_mount(const char *path) {
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : -errno;
}
