/* Loaded before the C library: the system time of one process, as far off as a mapped file says (microseconds).
   The kernel is asked directly, so that every other clock of the process stays what it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *step_us;

__attribute__((constructor)) static void map_step(void) {
  const char *path = getenv("TIDEGATE_TEST_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *step_us, PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) step_us = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = (int)syscall(SYS_clock_gettime, clock, at);
  if (!failed && step_us && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    long long ns = at->tv_nsec + (*step_us % 1000000) * 1000;
    at->tv_sec += (time_t)(*step_us / 1000000);
    if (ns < 0) ns += 1000000000, at->tv_sec--;
    if (ns >= 1000000000) ns -= 1000000000, at->tv_sec++;
    at->tv_nsec = (long)ns;
  }
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = (suseconds_t)(now.tv_nsec / 1000);
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
