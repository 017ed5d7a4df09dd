/*
 * forbid_call NUMBER COMMAND...: executes COMMAND under a filter that answers EPERM to one system call.
 * With the number of mseal or process_vm_readv it takes away what a supervisor may rely on.
 */
#include "filters.h"

int main(int argc, char **argv)
{
    if (argc < 3 || add_filter(atol(argv[1]), SECCOMP_RET_ERRNO | EPERM, 0) != 0)
        return 2;
    execv(argv[2], argv + 2);
    return errno == EACCES ? 126 : 127;
}
