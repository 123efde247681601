/* Times a library made by lowgemm without Python. */

#include <stdint.h>
#include <time.h>

#include "lowgemm.h"

typedef int run_function(lowgemm_context *, const void *const *, void *const *);
typedef int step_function(const lowgemm_context *, int, lowgemm_step_info *);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Seconds of each of `runs` whole runs; 0 on success. */
int time_runs(run_function *run, lowgemm_context *context, const void *const *inputs,
              void *const *outputs, int runs, double *seconds) {
  for (int i = 0; i < runs; i++) {
    double start = now();
    if (run(context, inputs, outputs) != 0) return -1;
    seconds[i] = now() - start;
  }
  return 0;
}

/* The same of the steps that multiply alone. Profiling must be on. */
int time_products(run_function *run, step_function *step, int steps, lowgemm_context *context,
                  const void *const *inputs, void *const *outputs, int runs, double *seconds) {
  for (int i = 0; i < runs; i++) {
    if (run(context, inputs, outputs) != 0) return -1;
    uint64_t total = 0;
    for (int s = 0; s < steps; s++) {
      lowgemm_step_info info;
      step(context, s, &info);
      if (info.macs) total += info.nanoseconds;
    }
    seconds[i] = 1e-9 * total;
  }
  return 0;
}
