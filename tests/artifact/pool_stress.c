/* Pools in several threads at once, each job checked for having done every task exactly once: while workers spin, after
 * they fell asleep, with more threads than CPUs, and in a child after fork(). Prints nothing and returns 0 if all is well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lowgemm_internal.h"

enum { CALLERS = 3, POOLS = 6, JOBS = 4000, MOST_TASKS = 40 };

typedef struct {
  int counts[MOST_TASKS]; /* written without atomics: the pool alone keeps the threads apart */
  int num_task;
  int fails;
} job;

static int count(int id, lg_group *group, void *closure) {
  job *j = closure;
  if (id < 0 || id >= j->num_task || group->num_task != j->num_task) abort();
  volatile unsigned char *block = lg_current ? lg_stack_push(&lg_current->stack, 64u + 100u * (unsigned)id) : NULL;
  if (block) block[0] = block[63] = 1;
  j->counts[id]++;
  if (block) lg_stack_pop(&lg_current->stack, (void *)block);
  return id == 0 && j->fails ? -1 : 0;
}

static int right(lg_pool *pool, int num_task, int fails) {
  job j;
  memset(&j, 0, sizeof j);
  j.num_task = num_task;
  j.fails = fails;
  if (lg_pool_launch(pool, count, &j, num_task) != (fails ? -1 : 0)) return 0;
  for (int i = 0; i < num_task && !fails; i++)
    if (j.counts[i] != 1) return 0;
  return 1;
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

int main(void) {
  const char *error = forked();
  if (!error) error = idle();
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
