/* The thread pool of one context.
 *
 * A launch publishes a job and the caller at once begins to work on it; workers that are awake join in, claiming tasks
 * one by one. Nobody waits for a worker to wake: if none does, the caller does all the work itself. So a region costs no
 * wake-up when it is short, load from other processes slows it but cannot hang it, and no result depends on who ran what.
 *
 * Kernels announce how many iterations a parallel loop has. Where tasks would have unequal numbers of them, a task is as
 * many calls of the loop as it has iterations, so that tasks differ by one at most.
 *
 * Every thread has a share of the tasks, consecutive ones, and takes from the others' when it has done its own: from
 * layer to layer it then works on the same part of an image, which lies in its own cache.
 *
 * A share's ticket holds the job's number and the next unclaimed task in one word, so that a worker which read a job that
 * has ended meanwhile fails to claim from it. Workers spin for a tenth of a millisecond after their last task, then sleep.
 * They are woken on other CPUs than the caller's.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lowgemm_internal.h"

enum { SPIN_NANOSECONDS = 100000, TASKS_PER_THREAD = 4, FEW_ITERATIONS = 192 };

typedef struct {
  pthread_t thread;
  lg_slot slot;
  int share; /* its own */
  _Atomic pid_t id; /* 0 until it runs */
  cpu_set_t allowed; /* its CPUs, as they were before it was kept off the caller's */
  _Atomic int kept_off;
} worker;

typedef struct {
  _Alignas(64) _Atomic uint64_t ticket; /* job << 32 | next task */
} share;

struct lg_pool {
  int threads;
  worker *workers; /* threads - 1, of which `started` run */
  int started;
  unsigned forks; /* when they were started */
  share *shares; /* one of each thread, the caller's first */
  uint32_t job;
  _Alignas(64) _Atomic(lg_task) task;
  _Atomic(void *) closure;
  _Atomic int num_task;
  _Atomic int calls; /* of the task function, divided among the tasks */
  _Atomic int failed;
  _Alignas(64) _Atomic int done;
  _Alignas(64) _Atomic uint32_t wake; /* the futex that idle workers sleep on */
  _Atomic int sleeping;
  _Atomic int stop;
};

_Thread_local lg_slot *lg_current;
static _Thread_local int announced;

int32_t lg_announce(int64_t iterations) {
  announced = iterations <= FEW_ITERATIONS ? (int)iterations : 0;
  return 0;
}

int lg_announced(void) {
  int iterations = announced;
  announced = 0;
  return iterations;
}

/* How many forks lie between the process that loaded this library and this one. A child has none of its parent's workers. */
static atomic_uint forks;

static void count_fork(void) { atomic_fetch_add(&forks, 1); }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static void pause_cpu(void) { __asm__ volatile("pause"); }

static uint64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The first task behind share `index`. */
static int share_end(const lg_pool *pool, int index, int num_task) {
  return (int)((int64_t)num_task * (index + 1) / pool->threads);
}

/* Claim and run tasks of share `index` of the published job until none is left. */
static void work_on(lg_pool *pool, int index) {
  _Atomic uint64_t *share_ticket = &pool->shares[index].ticket;
  for (;;) {
    uint64_t ticket = atomic_load_explicit(share_ticket, memory_order_acquire);
    /* Acquire: who sees a field of the next job also sees that the ticket of this one is gone, and claims nothing. */
    lg_task task = atomic_load_explicit(&pool->task, memory_order_acquire);
    void *closure = atomic_load_explicit(&pool->closure, memory_order_acquire);
    int num_task = atomic_load_explicit(&pool->num_task, memory_order_acquire);
    int calls = atomic_load_explicit(&pool->calls, memory_order_acquire);
    uint32_t next = (uint32_t)ticket;
    if ((int)next >= share_end(pool, index, num_task)) return;
    if (!atomic_compare_exchange_weak_explicit(share_ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                               memory_order_relaxed))
      continue;
    lg_group group = {NULL, calls};
    int last = (int)((int64_t)(next + 1) * calls / num_task);
    for (int i = (int)((int64_t)next * calls / num_task); i < last; i++)
      if (task(i, &group, closure) != 0) atomic_store_explicit(&pool->failed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
  }
}

static void work(lg_pool *pool, int own) {
  for (int i = 0; i < pool->threads; i++) work_on(pool, (own + i) % pool->threads);
}

static int has_work(lg_pool *pool) {
  for (int i = 0; i < pool->threads; i++) {
    uint64_t ticket = atomic_load(&pool->shares[i].ticket);
    int num_task = atomic_load_explicit(&pool->num_task, memory_order_relaxed);
    if ((int)(uint32_t)ticket < share_end(pool, i, num_task)) return 1;
  }
  return 0;
}

/* Set every share's ticket: to its first task, or to none. */
static void set_tickets(lg_pool *pool, int num_task, int open) {
  pool->job++;
  for (int i = 0; i < pool->threads; i++) {
    uint32_t next = open ? (uint32_t)share_end(pool, i - 1, num_task) : 0x7fffffffu;
    atomic_store_explicit(&pool->shares[i].ticket, (uint64_t)pool->job << 32 | next, memory_order_seq_cst);
  }
}

/* If workers sleep, keep the pool's off the CPU of this thread, on which some schedulers would wake them: there they would
 * wait for this thread to do all of the job. They may use it again as soon as they have nothing to do. */
static void keep_off_this_cpu(lg_pool *pool) {
  if (!atomic_load(&pool->sleeping)) return;
  int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  for (int i = 0; i < pool->started; i++) {
    worker *other = &pool->workers[i];
    pid_t id = atomic_load_explicit(&other->id, memory_order_acquire);
    cpu_set_t left;
    if (!id || atomic_load(&other->kept_off) || sched_getaffinity(id, sizeof left, &left) != 0) continue;
    other->allowed = left;
    CPU_CLR(here, &left);
    if (CPU_COUNT(&left) && sched_setaffinity(id, sizeof left, &left) == 0) atomic_store(&other->kept_off, 1);
  }
}

static void *run_worker(void *argument) {
  worker *self = argument;
  lg_pool *pool = self->slot.pool;
  lg_current = &self->slot;
  atomic_store(&self->id, (pid_t)syscall(SYS_gettid));
  uint64_t idle_since = nanoseconds();
  for (unsigned spins = 0;; spins++) {
    if (has_work(pool)) {
      work(pool, self->share);
      idle_since = nanoseconds();
      continue;
    }
    if (atomic_load_explicit(&pool->stop, memory_order_acquire)) break;
    if (atomic_load(&self->kept_off)) {
      sched_setaffinity(0, sizeof self->allowed, &self->allowed);
      atomic_store(&self->kept_off, 0);
    }
    if (spins % 64 || nanoseconds() - idle_since < SPIN_NANOSECONDS) {
      pause_cpu();
      continue;
    }
    uint32_t wake = atomic_load(&pool->wake);
    atomic_fetch_add(&pool->sleeping, 1);
    if (!has_work(pool) && !atomic_load(&pool->stop))
      syscall(SYS_futex, &pool->wake, FUTEX_WAIT_PRIVATE, wake, NULL, NULL, 0);
    atomic_fetch_sub(&pool->sleeping, 1);
    idle_since = nanoseconds();
  }
  return NULL;
}

static void wake_all(lg_pool *pool) {
  atomic_fetch_add(&pool->wake, 1);
  if (atomic_load(&pool->sleeping))
    syscall(SYS_futex, &pool->wake, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static int start_workers(lg_pool *pool) {
  pool->forks = atomic_load(&forks);
  atomic_store(&pool->sleeping, 0);
  for (pool->started = 0; pool->started < pool->threads - 1; pool->started++) {
    worker *next = &pool->workers[pool->started];
    next->slot.pool = pool;
    next->share = pool->started + 1;
    atomic_store(&next->id, 0);
    atomic_store(&next->kept_off, 0);
    if (pthread_create(&next->thread, NULL, run_worker, next) != 0) return -1;
  }
  return 0;
}

/* Wait for the workers to end, unless they stayed behind in the parent process. */
static void stop_workers(lg_pool *pool) {
  int gone = pool->forks != atomic_load(&forks);
  atomic_store(&pool->stop, 1);
  if (!gone) wake_all(pool);
  for (int i = 0; i < pool->started; i++) {
    if (!gone) pthread_join(pool->workers[i].thread, NULL);
    lg_stack_release(&pool->workers[i].slot.stack);
  }
  atomic_store(&pool->stop, 0);
}

lg_pool *lg_pool_create(int threads) {
  lg_pool *pool = aligned_alloc(64, (sizeof(lg_pool) + 63) / 64 * 64);
  if (!pool) return NULL;
  *pool = (lg_pool){.threads = threads};
  pool->shares = aligned_alloc(64, (size_t)threads * sizeof(share));
  pool->workers = calloc((size_t)threads, sizeof(worker));
  if (!pool->shares || !pool->workers) {
    free(pool->shares);
    free(pool->workers);
    free(pool);
    return NULL;
  }
  set_tickets(pool, 0, 0);
  if (start_workers(pool) != 0) {
    lg_pool_destroy(pool);
    return NULL;
  }
  return pool;
}

void lg_pool_destroy(lg_pool *pool) {
  stop_workers(pool);
  free(pool->shares);
  free(pool->workers);
  free(pool);
}

int lg_pool_threads(const lg_pool *pool) { return pool->threads; }

int lg_pool_launch(lg_pool *pool, lg_task task, void *closure, int num_task) {
  int iterations = lg_announced();
  int calls = num_task;
  /* More tasks than threads, so that a thread which is slowed down leaves work to the others. */
  if (num_task <= 0) {
    num_task = pool->threads == 1 ? 1 : pool->threads * TASKS_PER_THREAD;
    if (iterations && iterations < num_task) num_task = iterations;
    /* A task of TVM's makes ceil(iterations / tasks) of them, and the last ones none. */
    calls = iterations % num_task ? iterations : num_task;
  }
  if (pool->threads == 1 || num_task == 1) {
    lg_group group = {NULL, num_task};
    for (int i = 0; i < num_task; i++)
      if (task(i, &group, closure) != 0) return -1;
    return 0;
  }
  if (pool->forks != atomic_load_explicit(&forks, memory_order_relaxed)) {
    stop_workers(pool);
    start_workers(pool); /* without them, or with fewer, the job gets done all the same */
  }
  atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->failed, 0, memory_order_relaxed);
  /* Close the old job before its fields change: no worker may pair the old number with the new fields. */
  set_tickets(pool, num_task, 0);
  atomic_store_explicit(&pool->task, task, memory_order_release);
  atomic_store_explicit(&pool->closure, closure, memory_order_release);
  atomic_store_explicit(&pool->num_task, num_task, memory_order_release);
  atomic_store_explicit(&pool->calls, calls, memory_order_release);
  set_tickets(pool, num_task, 1);
  keep_off_this_cpu(pool);
  wake_all(pool);
  work(pool, 0);
  for (unsigned spins = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < num_task; spins++) {
    pause_cpu();
    if (spins % 1024 == 1023) sched_yield(); /* the worker may wait for this very CPU */
  }
  return atomic_load_explicit(&pool->failed, memory_order_relaxed) ? -1 : 0;
}
