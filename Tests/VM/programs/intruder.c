/*
 * Has another process make a system call, as code would that has got into it, and prints what came of that: a number, negative
 * for an error, or "killed".
 *
 *   intruder THREAD open|remove|socket|execute|fork|ring|kill|code|root|nothing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* Waits for the thread to stop; ends where it is killed instead. Returns the signal. */
static int await_stop(pid_t thread) {
    int status;
    if (waitpid(thread, &status, __WALL) < 0) fail("waitpid");
    if (WIFSTOPPED(status)) return WSTOPSIG(status);
    printf("killed\n");
    exit(0);
}

int main(int count, char **words) {
    if (count != 3) return 64;
    pid_t thread = atoi(words[1]);
    const char *what = words[2];
    if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD) != 0) fail("PTRACE_SEIZE");
    if (ptrace(PTRACE_INTERRUPT, thread, 0, 0) != 0) fail("PTRACE_INTERRUPT");
    await_stop(thread);
    struct user_regs_struct before, call;
    if (ptrace(PTRACE_GETREGS, thread, 0, &before) != 0) fail("PTRACE_GETREGS");

    /* A path and a vector, far below the stack's end, where nothing is kept. */
    unsigned long place = (before.rsp - 65536) & ~15ul;
    char text[128] = "/etc/shadow";
    if (strcmp(what, "execute") == 0) strcpy(text, "/bin/true");
    for (unsigned long offset = 0; offset < sizeof text; offset += 8) {
        unsigned long word;
        memcpy(&word, text + offset, 8);
        if (ptrace(PTRACE_POKEDATA, thread, place + offset, word) != 0) fail("PTRACE_POKEDATA");
    }

    call = before;
    /* The thread has stopped in a system call: the instruction for one lies before. */
    call.rip = before.rip - 2;
    unsigned long number, arguments[6] = {0};
    if (strcmp(what, "open") == 0) {
        number = SYS_openat, arguments[0] = (unsigned long)-100, arguments[1] = place;
    } else if (strcmp(what, "remove") == 0) {
        number = SYS_unlinkat, arguments[0] = (unsigned long)-100, arguments[1] = place;
    } else if (strcmp(what, "socket") == 0) {
        number = SYS_socket, arguments[0] = 2, arguments[1] = 1;
    } else if (strcmp(what, "execute") == 0) {
        number = SYS_execve, arguments[0] = place;
    } else if (strcmp(what, "fork") == 0) {
        number = SYS_clone, arguments[0] = SIGCHLD;
    } else if (strcmp(what, "ring") == 0) {
        number = SYS_io_uring_setup, arguments[0] = 8, arguments[1] = place + 64;
    } else if (strcmp(what, "kill") == 0) {
        number = SYS_kill, arguments[0] = 1;
    } else if (strcmp(what, "code") == 0) {
        number = SYS_mmap, arguments[1] = 4096, arguments[2] = PROT_READ | PROT_EXEC,
        arguments[3] = MAP_PRIVATE | MAP_ANONYMOUS, arguments[4] = (unsigned long)-1;
    } else if (strcmp(what, "root") == 0) {
        number = SYS_setuid;
    } else if (strcmp(what, "nothing") == 0) {
        number = SYS_gettid;
    } else {
        return 64;
    }
    call.rax = number;
    /* No call is under way any more, that would begin again. */
    call.orig_rax = (unsigned long)-1;
    call.rdi = arguments[0], call.rsi = arguments[1], call.rdx = arguments[2];
    call.r10 = arguments[3], call.r8 = arguments[4], call.r9 = arguments[5];
    if (ptrace(PTRACE_SETREGS, thread, 0, &call) != 0) fail("PTRACE_SETREGS");
    /* Its beginning, and its end. */
    for (int stops = 0; stops < 2;) {
        if (ptrace(PTRACE_SYSCALL, thread, 0, 0) != 0) fail("PTRACE_SYSCALL");
        if (await_stop(thread) == (SIGTRAP | 0x80)) stops++;
    }
    if (ptrace(PTRACE_GETREGS, thread, 0, &call) != 0) fail("PTRACE_GETREGS");
    /* Where a filter kills for it the kernel has put the number back, and the signal is to come. */
    while (call.rax == number && number != SYS_gettid) {
        if (ptrace(PTRACE_CONT, thread, 0, SIGSYS) != 0) fail("PTRACE_CONT");
        (void)await_stop(thread);
    }
    printf("%ld\n", (long)call.rax);
    ptrace(PTRACE_SETREGS, thread, 0, &before);
    ptrace(PTRACE_DETACH, thread, 0, 0);
    return 0;
}
