/* Times what lowgemm compiled, without Python: whole libraries, and calls of operators. */

#include <stdint.h>
#include <time.h>

#include "lowgemm.h"
#include "ops.h"

typedef int run_function(lowgemm_context *, const void *const *, void *const *);
typedef int step_function(const lowgemm_context *, int, lowgemm_step_info *);
typedef int ops_function(const lgops_call *);
typedef int launch_function(lg_task, void *, int);

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

/* Seconds of each of `runs` times all of `calls`, one after the other; 0 on success. */
int time_calls(ops_function *run, const lgops_call *const *calls, int count, int runs, double *seconds) {
  for (int i = 0; i < runs; i++) {
    double start = now();
    for (int c = 0; c < count; c++)
      if (run(calls[c]) != 0) return -1;
    seconds[i] = now() - start;
  }
  return 0;
}

/* ---- parallel regions without work ---- */

static launch_function *launch;
static double *into;
static int regions;

static int nothing(int task, lg_group *group, void *closure) {
  (void)task, (void)group, (void)closure;
  return 0;
}

static int kernel(void *handle, lg_any *args, int32_t count, lg_any *result) {
  (void)handle, (void)args, (void)count, (void)result;
  for (int i = 0; i < regions; i++) {
    double start = now();
    if (launch(nothing, 0, 0) != 0) return -1;
    into[i] = now() - start;
  }
  return 0;
}

/* Seconds of each of `runs` empty parallel regions, launched as kernels of operators launch theirs. */
int time_regions(ops_function *run, launch_function *parallel_launch, int runs, double *seconds) {
  lg_kernel kernels[1] = {kernel};
  lgops_call call = {.kernels = kernels};
  launch = parallel_launch, into = seconds, regions = runs;
  return run(&call);
}
