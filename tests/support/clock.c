// Puts the wall's clock of one process ahead, by the seconds in a file that the test shares (KHALA_TEST_CLOCK). Loaded
// before libc (LD_PRELOAD). What passes (the monotonic clock) is left alone, as by a clock that is set; who waits until a
// time of day waits until this clock shows it, and so for longer when it is put back.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile long *ahead;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("KHALA_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

// glibc has an older kind of each for programs of before 2003.
static void *of_libc(const char *name) {
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

// How often conditions were signalled, by their addresses: a wait that is cut into slices must not miss one between two.
static atomic_uint signals[4096];

static atomic_uint *signals_of(const pthread_cond_t *cond) {
    return &signals[((uintptr_t)cond >> 4) % 4096];
}

typedef int (*wake)(pthread_cond_t *);

int pthread_cond_signal(pthread_cond_t *cond) {
    static wake real;
    if (!real) real = (wake)of_libc("pthread_cond_signal");
    atomic_fetch_add(signals_of(cond), 1);
    return real(cond);
}

int pthread_cond_broadcast(pthread_cond_t *cond) {
    static wake real;
    if (!real) real = (wake)of_libc("pthread_cond_broadcast");
    atomic_fetch_add(signals_of(cond), 1);
    return real(cond);
}

typedef int (*wait_until)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    static wait_until real;
    if (!real) real = (wait_until)of_libc("pthread_cond_timedwait");
    // The monotonic clock counts from the machine's start: no condition waits until 2001 by it.
    if (!ahead || until->tv_sec < 1000000000) return real(cond, mutex, until);
    unsigned before = atomic_load(signals_of(cond));
    for (;;) {
        struct timespec left = *until, slice;
        left.tv_sec -= *ahead;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &slice);
        slice.tv_nsec += 50000000; // to see when the clock was set meanwhile
        if (slice.tv_nsec >= 1000000000) slice.tv_sec += 1, slice.tv_nsec -= 1000000000;
        int is_last = left.tv_sec < slice.tv_sec || (left.tv_sec == slice.tv_sec && left.tv_nsec <= slice.tv_nsec);
        int result = real(cond, mutex, is_last ? &left : &slice);
        if (result != ETIMEDOUT || is_last) return result;
        if (atomic_load(signals_of(cond)) != before) return 0;
    }
}

// C11's, which librdkafka takes: in glibc the same things under other names.
int cnd_signal(cnd_t *cond) {
    return pthread_cond_signal((pthread_cond_t *)cond) == 0 ? thrd_success : thrd_error;
}

int cnd_broadcast(cnd_t *cond) {
    return pthread_cond_broadcast((pthread_cond_t *)cond) == 0 ? thrd_success : thrd_error;
}

int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    int result = pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until);
    return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}
