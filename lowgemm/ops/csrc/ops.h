/* Between Python, the kernels' libraries and the pool. */
#ifndef LOWGEMM_OPS_H
#define LOWGEMM_OPS_H

#include "lowgemm_internal.h"

typedef struct {
  void *parallel_launch, *workspace_alloc, *workspace_free;
  void (*error)(const char *text);
  int32_t (*announce)(int64_t iterations);
} lgops_hooks;

/* A call of one kernel, or of a family of kernels for tiles of 1 to `tile` rows. */
typedef struct {
  const lg_kernel *kernels;
  lg_any *args;
  /* From one row of an argument to the next; 0: it has no rows; below 0: a matrix whose rows are columns in memory. */
  const int64_t *row_bytes;
  int64_t rows;
  int64_t block_tiles; /* what one thread takes at a time, so that it stays in its cache */
  int32_t count;
  int32_t tile;   /* 0: no rows, kernels[0] does everything */
  int32_t serial; /* too little work to share */
} lgops_call;

#endif
