/*
 * Processes and signals: what the importer cannot see.
 */
#ifndef QED_UBLK_CSUPPORT_PROCESS_H
#define QED_UBLK_CSUPPORT_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* Takes up those of the descriptors 0, 1 and 2 that a careless parent has closed, so that nothing that is opened later gets
 * their numbers: text for standard output would go into an image. Using one fails as if it were still closed. */
void cs_reserve_standard_descriptors(void);

/* Lets the process open as many files as it may at all. A chain can have more than the 1024 that most shells allow at first, for
 * the sake of programs that use select. */
void cs_allow_many_open_files(void);

/* The size of the terminal that is open there; 0 or a negative errno. */
int32_t cs_terminal_size(int32_t descriptor, uint16_t *columns, uint16_t *lines);

/* Takes CAP_SYS_ADMIN from the calling thread. */
void cs_drop_system_administration(void);

/* The calling thread's name in ps and top; the first thread's is the process's. */
void cs_name_thread(const char *name);

/* Ignores SIGPIPE, and SIGXFSZ, which goes with an error anyway, and returns a signalfd for SIGTERM, SIGINT and SIGHUP; negative:
 * -errno. It has them once they are blocked; until then they end the process. */
int32_t cs_open_signals(void);

/* Blocks the three for this thread and those it makes. */
int32_t cs_block_signals(void);

/* The next signal of a signalfd, or 0 when there is none. */
int32_t cs_take_signal(int32_t descriptor);

/* Starts this program again, in a session of its own and in the root directory, with nothing on its standard input and output,
 * `errors` as its standard error, `status` as its descriptor 3, and nothing else open. `arguments` ends with null. Negative:
 * -errno. */
int32_t cs_spawn_self(char *const arguments[], int32_t errors, int32_t status, int32_t *process);

/* Starts the program that the first of `arguments` names, found in PATH where that is no path, with nothing open but its
 * standard output and standard error, which are as given or, where negative, nothing. `arguments` ends with null. Negative:
 * -errno. */
int32_t cs_spawn_program(char *const arguments[], int32_t output, int32_t errors, int32_t *process);

/* Sends an errno, and with 0 an open file, through a stream socket: the receiver has the file under a number of its own. 0 or a
 * negative errno. */
int32_t cs_send_open_file(int32_t socket, int32_t error, int32_t descriptor);

/* What the above sends: waits for it. 0 with a descriptor, the positive errno that was sent, or a negative errno; -EPIPE where
 * the sender has ended without a word. */
int32_t cs_receive_open_file(int32_t socket, int32_t *descriptor);

/* A descriptor that is readable when the process has ended, whosever child it is (Linux 5.3). Negative: -errno. */
int32_t cs_open_process(int32_t process);

/* Puts an @ in front of this process's command line, over its first byte: systemd's sign for processes that disks depend on,
 * which it does not kill in the last stage of a shutdown. */
void cs_mark_as_storage_daemon(void);

/* Closes what this process was given beside its standard input, output and error, and has opened itself by now. */
void cs_close_further_descriptors(void);

/* From now on this process leaves no core dump, however it dies. */
void cs_refuse_core_dumps(void);

/* Gives memory that was allocated and freed back to the machine. */
void cs_return_free_memory(void);

/* How many processors this thread may run on. */
int32_t cs_available_processors(void);

/* Binds this thread to those of the processors that it may run on by now; -EINVAL where there is none. */
int32_t cs_bind_thread(const int32_t *processors, uint64_t count);

/* Tells the kernel that other processes' memory is cleaned through this thread and those it makes from now on: what it
 * allocates for them does not wait for I/O (Linux 5.6). -EPERM without CAP_SYS_RESOURCE. */
int32_t cs_become_io_flusher(void);

/* Whether the limit of locked memory does not hold for this process: 1 or 0. */
int32_t cs_has_unlimited_locks(void);

/* Keeps all memory of this process from being swapped out, from when it is first used; -EPERM where memory can only be locked
 * up to a limit, because then later allocations would fail. */
int32_t cs_lock_used_memory(void);

/* Reads all of this program's file, and its libraries', that is mapped: after `cs_lock_used_memory` it stays in memory.
 * Shared with all who run them (Linux 5.14). */
int32_t cs_read_program(void);

/* Touches and locks a range; -ENOMEM above the limit, -EPERM where nothing may be locked. */
int32_t cs_lock_range(void *address, uint64_t size_bytes);

/* Locks what is in memory of a range, and the rest of it once it is touched; as `cs_lock_range`. */
int32_t cs_lock_range_on_fault(void *address, uint64_t size_bytes);

/* Has a range consist of ordinary pages, so that no more of it is in memory than was touched. */
void cs_refuse_huge_pages(void *address, uint64_t size_bytes);

/* Writes zeros into each page of a range: all of it is in memory then. */
void cs_touch_range(void *address, uint64_t size_bytes);

/* Gives a range's memory back to the kernel, also where it is locked (Linux 5.18); it reads as zeros then. */
int32_t cs_forget_range(void *address, uint64_t size_bytes);

/* Takes a real-time priority, which may use the kernel's last pages, from the calling thread. */
void cs_become_ordinary_thread(void);

/* Only touches it, all of it (Linux 5.14). */
int32_t cs_populate_range(void *address, uint64_t size_bytes);

/* A mount namespace of this process's own, in which mounts come and go as in the one that it leaves, but not the other way
 * round; and, where it passes them on, in those that are made of it. */
int32_t cs_enter_mount_namespace(bool passes_on);

/* Takes a mount out of this process's namespace, with everything below it. */
int32_t cs_detach_mount(const char *path);

#endif
