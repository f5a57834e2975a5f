// How long a lock of a file outlives the process that had it, where the file was registered with a ring and where it was not.
//
//   cc -O2 bench/registered-files.c -o /tmp/registered-files -luring && /tmp/registered-files FILE
//
// The file is made. A child locks a byte of it (an open file description's lock, as QEMU's are), has a ring, and is killed; once
// it is reaped its parent tries to get the lock. Three times each way, in turn.
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static int lock(int file) {
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
    return fcntl(file, F_OFD_SETLK, &byte);
}

static void hold(const char *path, int registers, int ready) {
    int file = open(path, O_RDWR | O_CREAT, 0600);
    struct io_uring ring;
    struct io_uring_params parameters = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    if (file < 0 || lock(file) || io_uring_queue_init_params(64, &ring, &parameters) ||
        (registers && io_uring_register_files(&ring, &file, 1)) || write(ready, "", 1) != 1)
        _exit(1);
    for (;;) pause();
}

static void measure(const char *path, int registers) {
    int ready[2];
    char byte;
    if (pipe(ready)) exit(1);
    pid_t child = fork();
    if (child == 0) hold(path, registers, ready[1]);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) exit(1);
    close(ready[0]);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    double reaped = milliseconds();
    int file = open(path, O_RDWR);
    while (lock(file)) usleep(100);
    printf("%-14s %6.2f ms\n", registers ? "registered" : "not registered", milliseconds() - reaped);
    close(file);
}

int main(int count, char **words) {
    if (count != 2) return 64;
    for (int round = 0; round < 3; round++)
        for (int registers = 0; registers < 2; registers++) measure(words[1], registers);
}
