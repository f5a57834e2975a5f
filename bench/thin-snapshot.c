// Has a thin pool take a snapshot of a volume in use as LVM does it, in one process: suspends the volume, tells the pool, resumes
// the volume. Three starts of dmsetup would be counted as a part of the pause, and in an emulated machine be most of it.
//
//   thin-snapshot VOLUME POOL NEW-ID VOLUME-ID
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static int control;

static void ask(unsigned long request, const char *device, unsigned int flags, const char *message) {
    static union {
        struct dm_ioctl head;
        char bytes[1024];
    } all;
    memset(&all, 0, sizeof all);
    all.head.version[0] = DM_VERSION_MAJOR;
    all.head.data_size = sizeof all;
    all.head.data_start = sizeof all.head;
    all.head.flags = flags;
    snprintf(all.head.name, sizeof all.head.name, "%s", device);
    if (message) {
        struct dm_target_msg *target = (struct dm_target_msg *)(all.bytes + sizeof all.head);
        snprintf(target->message, 128, "%s", message);
    }
    if (ioctl(control, request, &all)) {
        perror(device);
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: thin-snapshot VOLUME POOL NEW-ID VOLUME-ID\n");
        return 64;
    }
    control = open("/dev/mapper/control", O_RDWR);
    if (control < 0) {
        perror("/dev/mapper/control");
        return 1;
    }
    char message[64];
    snprintf(message, sizeof message, "create_snap %s %s", arguments[3], arguments[4]);
    ask(DM_DEV_SUSPEND, arguments[1], DM_SUSPEND_FLAG, NULL);
    ask(DM_TARGET_MSG, arguments[2], 0, message);
    ask(DM_DEV_SUSPEND, arguments[1], 0, NULL);
    return 0;
}
