/* Time that no one sets, and waiting for a condition until such a time. */
#ifndef MINKE_CLOCK_H
#define MINKE_CLOCK_H

#include <pthread.h>
#include <time.h>

static inline double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline struct timespec timespec_of(double seconds) {
  struct timespec time = {.tv_sec = (time_t)seconds};
  time.tv_nsec = (long)(1e9 * (seconds - (double)time.tv_sec));
  return time;
}

static inline void condition_init(pthread_cond_t *condition) {
#ifdef __APPLE__
  pthread_cond_init(condition, NULL);
#else
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
#endif
}

/* Returns when the condition is signalled, at `deadline`, or for no reason: callers look again. */
static inline void condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, double deadline) {
#ifdef __APPLE__
  double left = deadline - seconds_now();
  struct timespec time = timespec_of(left > 0 ? left : 0);
  pthread_cond_timedwait_relative_np(condition, lock, &time);
#else
  struct timespec time = timespec_of(deadline);
  pthread_cond_timedwait(condition, lock, &time);
#endif
}

#endif
