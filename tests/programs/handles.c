/*
 * handles FILE: opens a file by handle, so that no path is seen. When no handle is given out, one of
 * the usual form (inode, generation 0) is made up.
 */
#include "probe.h"

#include <libgen.h>

int main(int argc, char **argv)
{
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } handle = {.head.handle_bytes = 128};
    struct stat found = {0};
    char directory[4096];
    char byte = '?';
    int mount_id, mount;
    long result;

    if (argc != 2)
        return 2;
    snprintf(directory, sizeof directory, "%s", argv[1]);
    mount = open(dirname(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    result = answer(name_to_handle_at(AT_FDCWD, argv[1], &handle.head, &mount_id, 0));
    printf("name_to_handle_at=%ld\n", result);
    if (result != 0) {
        uint32_t parts[2] = {0, 0};
        if (stat(argv[1], &found) == 0)
            parts[0] = (uint32_t)found.st_ino;
        handle.head.handle_type = 1;
        handle.head.handle_bytes = sizeof parts;
        memcpy(handle.head.f_handle, parts, sizeof parts);
    }
    result = answer(open_by_handle_at(mount, &handle.head, O_RDONLY));
    if (result >= 0 && read((int)result, &byte, 1) == 1)
        printf("open_by_handle_at=%c\n", byte);
    else
        printf("open_by_handle_at=%ld\n", result);
    return 0;
}
