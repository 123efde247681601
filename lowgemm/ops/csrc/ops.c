/* Calls of single kernels: arguments as the caller has them, rows cut into register tiles, work shared by one pool.
 *
 * All callers in a process share a pool. One that finds it taken works alone: so several threads may call at once, none
 * waits for another, and a parallel loop inside another runs where it is.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

#define EXPORT __attribute__((visibility("default")))

enum { MOST_ARGUMENTS = 32, MOST_DIMENSIONS = 6 };

static pthread_mutex_t pool_taken = PTHREAD_MUTEX_INITIALIZER;
static lg_pool *pool;

static _Thread_local lg_slot own;       /* of a thread that calls */
static _Thread_local int alone;         /* a parallel loop is under way in this thread, or need not begin */
static _Thread_local char message[512]; /* what a kernel said before it failed */

/* ---- what TVM's code needs; the kernels' libraries get it by way of `lgops_connect` ---- */

static int parallel_launch(lg_task task, void *closure, int num_task) {
  lg_group group = {NULL, 1};
  /* Workers have slots of the pool's. */
  if (alone || lg_current != &own || !pool || lg_pool_threads(pool) == 1 || pthread_mutex_trylock(&pool_taken) != 0) {
    lg_announced();
    return task(0, &group, closure);
  }
  alone = 1;
  int status = lg_pool_launch(pool, task, closure, num_task);
  alone = 0;
  pthread_mutex_unlock(&pool_taken);
  return status;
}

static void *workspace_alloc(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  void *block = lg_stack_push(&lg_current->stack, bytes);
  if (!block) snprintf(message, sizeof message, "out of memory for %llu bytes", (unsigned long long)bytes);
  return block;
}

static int workspace_free(int device, int id, void *block) {
  (void)device, (void)id;
  lg_stack_pop(&lg_current->stack, block);
  return 0;
}

static void kernel_error(const char *text) { snprintf(message, sizeof message, "%s", text); }

/* The hooks of a kernel's library, which stub.c defines. */
EXPORT void lgops_connect(lgops_hooks *hooks) {
  hooks->parallel_launch = (void *)parallel_launch;
  hooks->workspace_alloc = (void *)workspace_alloc;
  hooks->workspace_free = (void *)workspace_free;
  hooks->error = kernel_error;
  hooks->announce = lg_announce;
}

/* ---- threads ---- */

static pthread_key_t at_exit;
static void release(void *slot) { lg_stack_release(&((lg_slot *)slot)->stack); }
__attribute__((constructor)) static void start(void) { pthread_key_create(&at_exit, release); }

EXPORT int lgops_set_threads(int threads) {
  pthread_mutex_lock(&pool_taken);
  int status = 0;
  if (!pool || lg_pool_threads(pool) != threads) {
    lg_pool *next = lg_pool_create(threads);
    if (next) {
      if (pool) lg_pool_destroy(pool);
      pool = next;
    } else {
      status = -1;
    }
  }
  pthread_mutex_unlock(&pool_taken);
  return status;
}

EXPORT const char *lgops_message(void) { return message; }

/* ---- calls ---- */

static int run(const lgops_call *call, int64_t first, int64_t rows, int32_t tile) {
  lg_tensor tensors[MOST_ARGUMENTS];
  int64_t shapes[MOST_ARGUMENTS][MOST_DIMENSIONS], strides[MOST_ARGUMENTS][MOST_DIMENSIONS];
  lg_any args[MOST_ARGUMENTS];
  for (int32_t i = 0; i < call->count; i++) {
    args[i] = call->args[i];
    if (args[i].type_index != LG_ANY_TENSOR_PTR || !call->row_bytes[i]) continue;
    const lg_tensor *whole = call->args[i].value.v_ptr;
    tensors[i] = *whole;
    args[i].value.v_ptr = &tensors[i];
    if (call->row_bytes[i] < 0) {
      tensors[i].data = (unsigned char *)whole->data - first * call->row_bytes[i];
      continue;
    }
    memcpy(shapes[i], whole->shape, (size_t)whole->ndim * sizeof(int64_t));
    shapes[i][0] = rows / tile;
    shapes[i][1] = tile;
    tensors[i].shape = shapes[i];
    if (whole->strides) {
      memcpy(strides[i], whole->strides, (size_t)whole->ndim * sizeof(int64_t));
      strides[i][0] = strides[i][1] * tile;
      tensors[i].strides = strides[i];
    }
    tensors[i].data = (unsigned char *)whole->data + first * call->row_bytes[i];
  }
  lg_any result = {0};
  return call->kernels[tile - 1](NULL, args, call->count, &result);
}

/* Rows `first` to `last`: whole tiles, then what is left as a smaller tile. */
static int run_rows(const lgops_call *call, int64_t first, int64_t last) {
  int64_t whole = (last - first) / call->tile * call->tile;
  int status = whole ? run(call, first, whole, call->tile) : 0;
  if (status == 0 && first + whole < last) status = run(call, first + whole, last - first - whole, (int32_t)(last - first - whole));
  return status;
}

typedef struct {
  const lgops_call *call;
  int64_t tiles; /* of all rows, the last one maybe smaller */
  int32_t blocks;
} block_job;

static int run_blocks(int task, lg_group *group, void *closure) {
  const block_job *job = closure;
  const lgops_call *call = job->call;
  for (int64_t b = task; b < job->blocks; b += group->num_task) {
    int64_t first = job->tiles * b / job->blocks * call->tile;
    int64_t last = job->tiles * (b + 1) / job->blocks * call->tile;
    if (last > call->rows) last = call->rows;
    if (run_rows(call, first, last) != 0) return -1;
  }
  return 0;
}

static int dispatch(const lgops_call *call) {
  lg_any result = {0};
  if (!call->tile) return call->kernels[0](NULL, call->args, call->count, &result);
  int threads = pool && !alone ? lg_pool_threads(pool) : 1;
  block_job job = {call, (call->rows + call->tile - 1) / call->tile, 1};
  int64_t blocks = (job.tiles + call->block_tiles - 1) / call->block_tiles;
  /* Few rows: the kernel shares its columns among the threads instead. */
  if (threads > 1 && job.tiles < 4 * threads) return run_rows(call, 0, call->rows);
  if (threads > 1) blocks = (blocks + threads - 1) / threads * threads;
  if (blocks > job.tiles) blocks = job.tiles;
  if (blocks <= 1) return run_rows(call, 0, call->rows);
  job.blocks = (int32_t)blocks;
  return parallel_launch(run_blocks, &job, job.blocks);
}

EXPORT int lgops_run(const lgops_call *call) {
  lg_slot *outer = lg_current;
  if (!own.stack.first) pthread_setspecific(at_exit, &own);
  lg_current = &own;
  message[0] = 0;
  int was_alone = alone;
  alone = alone || call->serial;
  int status = dispatch(call);
  alone = was_alone;
  lg_current = outer;
  return status;
}
