/* dumpable FILE: hides its memory from its own user, then opens a file. */
#include "probe.h"

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    printf("set=%ld", answer(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)));
    printf(" get=%ld", answer(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)));
    printf(" byte=%s\n", first_byte(argv[1]));
    return 0;
}
