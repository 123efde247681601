/* Pools in several threads at once, each job checked for having done every task exactly once: while workers spin, after
 * they fell asleep, with more threads than CPUs, and in a child after fork(). A worker that is woken runs beside its caller.
 * Prints nothing and returns 0 if all is well. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lowgemm_internal.h"

enum { CALLERS = 3, POOLS = 6, JOBS = 4000, MOST_TASKS = 40, MOST_ITERATIONS = 250, FEW_ITERATIONS = 192 };

typedef struct {
  int counts[MOST_ITERATIONS]; /* written without atomics: the pool alone keeps the threads apart */
  int iterations;
  int num_task; /* what tasks must be told, if it is known */
  int fails;
} job;

/* As many iterations as TVM's code gives a task. */
static int count(int id, lg_group *group, void *closure) {
  job *j = closure;
  if (id < 0 || id >= group->num_task || (j->num_task && group->num_task != j->num_task)) abort();
  volatile unsigned char *block = lg_current ? lg_stack_push(&lg_current->stack, 64u + 100u * (unsigned)id) : NULL;
  if (block) block[0] = block[63] = 1;
  int each = (j->iterations + group->num_task - 1) / group->num_task;
  for (int i = id * each; i < (id + 1) * each && i < j->iterations; i++) j->counts[i]++;
  if (block) lg_stack_pop(&lg_current->stack, (void *)block);
  return id == 0 && j->fails ? -1 : 0;
}

static int launch(lg_pool *pool, job *j, int num_task) {
  if (lg_pool_launch(pool, count, j, num_task) != (j->fails ? -1 : 0)) return 0;
  for (int i = 0; i < j->iterations && !j->fails; i++)
    if (j->counts[i] != 1) return 0;
  return 1;
}

static int right(lg_pool *pool, int num_task, int fails) {
  job j = {.iterations = num_task, .num_task = num_task, .fails = fails};
  return launch(pool, &j, num_task);
}

/* A kernel's loop, which it has announced. If its iterations do not divide evenly, tasks are called for each. */
static int right_loop(lg_pool *pool, int iterations, int fails) {
  int tasks = lg_pool_threads(pool) == 1 ? 1 : 4 * lg_pool_threads(pool);
  if (iterations < tasks) tasks = iterations;
  int each = iterations <= FEW_ITERATIONS && iterations % tasks;
  job j = {.iterations = iterations, .num_task = each ? iterations : 0, .fails = fails};
  lg_announce(iterations);
  return launch(pool, &j, 0);
}

static void *caller(void *argument) {
  unsigned seed = (unsigned)(size_t)argument;
  for (int p = 0; p < POOLS; p++) {
    lg_pool *pool = lg_pool_create(1 + rand_r(&seed) % 5);
    if (!pool) return "no pool";
    lg_slot slot = {.pool = pool};
    lg_current = &slot;
    for (int i = 0; i < JOBS; i++) {
      if (!right(pool, 1 + rand_r(&seed) % MOST_TASKS, rand_r(&seed) % 50 == 0)) return "a task was lost or done twice";
      if (!right_loop(pool, 1 + rand_r(&seed) % MOST_ITERATIONS, rand_r(&seed) % 50 == 0))
        return "an iteration was lost or done twice";
      if (rand_r(&seed) % 50 == 0) usleep(rand_r(&seed) % 400); /* around the time after which workers sleep */
    }
    lg_current = NULL;
    lg_stack_release(&slot.stack);
    lg_pool_destroy(pool);
  }
  return NULL;
}

/* A child computes on its parent's pool and destroys it; the parent's goes on. */
static const char *forked(void) {
  lg_pool *pool = lg_pool_create(3);
  if (!right(pool, 12, 0)) return "before fork";
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    int well = 1;
    for (int i = 0; i < 100; i++) well = well && right(pool, 12, 0);
    lg_pool_destroy(pool);
    _exit(well ? 0 : 1);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) return "in the child";
  child = fork();
  if (child == 0) {
    alarm(20);
    lg_pool_destroy(pool); /* unused in this process */
    _exit(0);
  }
  if (waitpid(child, &status, 0) != child || status != 0) return "destroyed in the child";
  if (!right(pool, 12, 0)) return "after fork";
  lg_pool_destroy(pool);
  return NULL;
}

/* Idle workers sleep: hardly any CPU time passes in a tenth of a second. */
static const char *idle(void) {
  lg_pool *pool = lg_pool_create(4);
  if (!right(pool, 12, 0)) return "before idling";
  clock_t before = clock();
  usleep(100000);
  double seconds = (double)(clock() - before) / CLOCKS_PER_SEC;
  lg_pool_destroy(pool);
  return seconds < 0.05 ? NULL : "idle workers keep a CPU busy";
}

typedef struct {
  pthread_t caller;
  cpu_set_t allowed; /* the worker's CPUs when it began */
  _Atomic int begun;
} meeting;

/* The caller sleeps until the worker has a task, too. */
static int meet(int id, lg_group *group, void *closure) {
  (void)id, (void)group;
  meeting *m = closure;
  if (!pthread_equal(pthread_self(), m->caller)) {
    sched_getaffinity(0, sizeof m->allowed, &m->allowed);
    atomic_store(&m->begun, 1);
  }
  while (!atomic_load(&m->begun)) usleep(10);
  return 0;
}

/* A worker that slept is woken on the other CPUs, wherever the caller is. On a busy machine it may not sleep every time. */
static const char *woken(void) {
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) return NULL;
  const char *error = NULL;
  lg_pool *pool = lg_pool_create(2);
  for (int cpu = 0; cpu < CPU_SETSIZE && !error; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    int others = 0;
    for (int i = 0; i < 20; i++) {
      usleep(2000);
      meeting m = {.caller = pthread_self()};
      lg_pool_launch(pool, meet, &m, 2);
      others += CPU_COUNT(&m.allowed) == CPU_COUNT(&all) - 1 && !CPU_ISSET(cpu, &m.allowed);
    }
    if (others < 5) error = "workers are woken on their caller's CPU";
  }
  sched_setaffinity(0, sizeof all, &all);
  lg_pool_destroy(pool);
  return error;
}

int main(void) {
  const char *error = forked();
  if (!error) error = idle();
  if (!error) error = woken();
  pthread_t threads[CALLERS];
  for (size_t i = 0; i < CALLERS; i++)
    if (pthread_create(&threads[i], NULL, caller, (void *)(i + 1)) != 0) return 2;
  for (int i = 0; i < CALLERS; i++) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    if (result) error = result;
  }
  if (error) puts(error);
  return error ? 1 : 0;
}
