/*
 * sig_storm PIN CALLS SIGNALS KIND [THREADS]: signals at a high rate while open() runs in a loop, and once
 * more in every handler. Each call's result and registers are checked right after it, and each frame.
 * The supervisor makes .../good what can be opened and .../bad what cannot (ENOTDIR).
 *
 *   usr     another process sends SIGUSR1; what comes while one is pending is lost, as always
 *   queue   another process queues numbered real-time signals: none may be lost, doubled or swapped
 *   timer   the kernel sends SIGALRM
 *   trap    another process sends SIGTRAP, which a supervisor that steps us must not confuse with its own
 *   stop    another process stops and continues us; SIGCONT has a handler
 */
#include "sig_frame.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { PAUSE_AT_MOST_US = 3000, CALLS_A_PAUSE = 4, MEASURED = 8, THREADS_AT_MOST = 8 };

static _Atomic long signals, nested_failures, bad_frames, bad_registers, bad_origins, frames;
static _Atomic long bad_results, done;
static _Atomic int expected;
static _Thread_local const char *volatile current;
static long calls, wanted, pause_at_most = PAUSE_AT_MOST_US;
static unsigned long mask_before;
static int wanted_code, queue, ordered;
static pid_t sender;
static char good[] = "/nonexistent/storm/good", bad[] = "/nonexistent/storm/bad";

static long open_path(const char *path)
{
    const char *changed;
    long result = marked_open(path, O_RDONLY | O_CLOEXEC, &changed);

    bad_registers += changed != NULL;
    return result;
}

/* Signals come at random, so that they meet a call at every point of it; and rarely enough for calls
   to get through in between. */
static long random_pause(void)
{
    static unsigned long state = 88172645463325252;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (long)(state % (unsigned long)pause_at_most);
}

/* Where even the quickest of some calls takes long, as in an emulated machine, it is less often. */
static void measure(void)
{
    double least = 1;

    for (int i = 0; i < MEASURED; i++) {
        double begin = now(), each;

        close((int)open_path(good));
        each = now() - begin;
        least = each < least ? each : least;
    }
    if (least * 1e6 * CALLS_A_PAUSE > (double)pause_at_most)
        pause_at_most = (long)(least * 1e6 * CALLS_A_PAUSE);
}

static void set_timer(void)
{
    const struct itimerval once = {{0, 0}, {0, random_pause() + 1}};
    setitimer(ITIMER_REAL, &once, NULL);
}

static void handler(int number, siginfo_t *info, void *context)
{
    struct seen seen = look_at(context, current);
    long fd;

    signals++;
    bad_frames += seen.pins != 0 || seen.stepping || seen.mask != mask_before || (seen.in_call && !seen.own);
    frames += seen.in_call;
    bad_origins += info->si_code != wanted_code || (sender != 0 && info->si_pid != sender);
    if (number == SIGRTMIN && ordered)
        bad_origins += info->si_value.sival_int != expected++;
    fd = open_path(good);
    if (fd >= 0)
        close((int)fd);
    else
        nested_failures++;
    if (number == SIGALRM)
        set_timer();
}

static void send_all(pid_t target, int number)
{
    for (long i = 0; i < wanted;) {
        int sent = queue ? sigqueue(target, number, (union sigval){.sival_int = (int)i})
                         : kill(target, number == SIGCONT ? SIGSTOP : number);
        if (sent == 0)
            i++;
        else if (errno != EAGAIN)
            return;
        pause_for((double)random_pause() / 1e6);
        if (number == SIGCONT) {
            kill(target, SIGCONT);
            pause_for((double)random_pause() / 1e6);
        }
    }
}

/* At least so many calls, and as many as it takes for the queue to run dry. */
static void *work(void *unused)
{
    for (long i = 0; i < calls || (queue && signals < wanted && i < 20 * calls); i++) {
        long result;
        current = i & 1 ? bad : good;
        result = open_path(current);
        if (i & 1)
            bad_results += result != -ENOTDIR;
        else if (result < 0)
            bad_results++;
        else
            close((int)result);
        done++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    const struct itimerval never = {{0, 0}, {0, 0}};
    pthread_t threads[THREADS_AT_MOST];
    long count;
    int timer, number;
    pid_t self = getpid();

    if ((argc != 5 && argc != 6) || !read_pin(argv[1]))
        return 2;
    calls = atol(argv[2]);
    wanted = atol(argv[3]);
    count = argc == 6 ? atol(argv[5]) : 1;
    if (count > THREADS_AT_MOST)
        return 2;
    queue = strcmp(argv[4], "queue") == 0;
    timer = strcmp(argv[4], "timer") == 0;
    number = queue                            ? SIGRTMIN
             : timer                          ? SIGALRM
             : strcmp(argv[4], "trap") == 0 ? SIGTRAP
             : strcmp(argv[4], "stop") == 0 ? SIGCONT
                                              : SIGUSR1;
    wanted_code = queue ? SI_QUEUE : timer ? SI_KERNEL : SI_USER;
    ordered = count == 1;
    current = good;
    mask_before = mask_now();
    measure();
    handle(number, handler, SA_RESTART);
    if (timer) {
        set_timer();
    } else {
        sigset_t one;
        pid_t child;
        /* Until the sender is known, its signals wait. */
        sigemptyset(&one);
        sigaddset(&one, number);
        sigprocmask(SIG_BLOCK, &one, NULL);
        child = fork();
        if (child < 0)
            return 1;
        if (child == 0) {
            die_with(self);
            send_all(self, number);
            _exit(0);
        }
        sender = child;
        sigprocmask(SIG_UNBLOCK, &one, NULL);
    }
    for (long i = 1; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    work(NULL);
    for (long i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    if (timer) {
        setitimer(ITIMER_REAL, &never, NULL);
    } else {
        kill(sender, SIGKILL);
        while (waitpid(sender, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    printf("calls=%ld signals=%ld frames=%ld nested_failures=%ld same_mask=%d\n", done, signals,
           frames, nested_failures, mask_now() == mask_before);
    printf("bad_results=%ld bad_registers=%ld bad_frames=%ld bad_origins=%ld\n", bad_results,
           bad_registers, bad_frames, bad_origins);
    return 0;
}
