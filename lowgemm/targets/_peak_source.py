"""The C program that `lowgemm.targets.peak` compiles and runs."""

# Usage: PROGRAM dot SEQUENCE | PROGRAM read BYTES; prints GOPS or GB/s.
#
# The instructions are written out, so that no compiler flag and no optimiser has a say in them.
# Twelve independent accumulators hide the latency of every sequence (two issues a cycle times five
# cycles is ten); with the two operands and two scratch registers that is all of ymm0 to ymm15.
# The one scratch register that all products of a round share is no dependency: CPUs rename it.
PROGRAM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ACCUMULATORS = 12, REPEATS = 12 };

#define CLOBBERS "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
    "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

#define DOT(name, v, body)                                                             \
  static void name(long rounds) {                                                      \
    __asm__ volatile(                                                                  \
        ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"                              \
        "vpxor %%xmm\\i,%%xmm\\i,%%xmm\\i\n .endr\n .p2align 5\n 1:\n"                  \
        ".rept 4\n .irp i,0,1,2,3,4,5,6,7,8,9,10,11\n" body " .endr\n .endr\n"         \
        "dec %0\n jnz 1b\n vzeroupper\n"                                               \
        : "+r"(rounds) : : CLOBBERS);                                                  \
  }

#define WIDE(v) \
  " vpmaddwd %%" v "14,%%" v "15,%%" v "13\n vpaddd %%" v "13,%%" v "\\i,%%" v "\\i\n"
#define BYTES(v)                                        \
  " vpmaddubsw %%" v "14,%%" v "15,%%" v "13\n"         \
  " vpmaddwd %%" v "13,%%" v "12,%%" v "13\n"           \
  " vpaddd %%" v "13,%%" v "\\i,%%" v "\\i\n"

DOT(wide_ymm, "ymm", WIDE("ymm"))
DOT(bytes_ymm, "ymm", BYTES("ymm"))
DOT(wide_zmm, "zmm", WIDE("zmm"))
DOT(bytes_zmm, "zmm", BYTES("zmm"))
DOT(vnni_ymm, "ymm", " %{vex%} vpdpbusd %%ymm14,%%ymm15,%%ymm\\i\n")
DOT(vnni_zmm, "zmm", " vpdpbusd %%zmm14,%%zmm15,%%zmm\\i\n")

/* AMX: six accumulators hide 52 cycles of latency at 16 an instruction. */
static int permit_tiles(void) { return syscall(158, 0x1023, 18) == 0; }  /* ARCH_REQ_XCOMP_PERM, XTILEDATA */

static void tiles(long rounds) {
  unsigned char config[64] = {1};
  for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;
  __asm__ volatile(
      "ldtilecfg %1\n"
      ".irp i,0,1,2,3,4,5,6,7\n tilezero %%tmm\\i\n .endr\n .p2align 5\n 1:\n"
      ".rept 8\n .irp i,0,1,2,3,4,5\n tdpbusd %%tmm7,%%tmm6,%%tmm\\i\n .endr\n .endr\n"
      "dec %0\n jnz 1b\n tilerelease\n"
      : "+r"(rounds) : "m"(config) : "cc", "memory");
}

static const struct {
  const char *name;
  void (*run)(long rounds);
  int macs;  /* multiply-accumulates for each accumulator and turn */
} SEQUENCES[] = {
    {"vpmaddwd+vpaddd ymm", wide_ymm, 16},
    {"vpmaddubsw+vpmaddwd+vpaddd ymm", bytes_ymm, 32},
    {"vpmaddwd+vpaddd zmm", wide_zmm, 32},
    {"vpmaddubsw+vpmaddwd+vpaddd zmm", bytes_zmm, 64},
    {"vpdpbusd ymm", vnni_ymm, 32},
    {"vpdpbusd zmm", vnni_zmm, 64},
    {"tdpbusd tmm", tiles, 16 * 16 * 64},
};

static void read_all(const char *data, long bytes) {
  __asm__ volatile(
      ".p2align 5\n 1:\n"
      ".irp i,0,1,2,3,4,5,6,7\n vmovdqu 32*\\i(%0),%%ymm\\i\n .endr\n"
      "add $256,%0\n sub $256,%1\n jnz 1b\n vzeroupper\n"
      : "+r"(data), "+r"(bytes) : : CLOBBERS);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Another process may take the core during any repeat: the fastest one counts. */
static double best(void (*run)(void *), void *argument) {
  double fastest = 1e9;
  for (int i = 0; i < REPEATS; i++) {
    double start = seconds();
    run(argument);
    double time = seconds() - start;
    if (time < fastest) fastest = time;
  }
  return fastest;
}

struct work {
  void (*dot)(long rounds);
  char *data;
  long bytes, count;
};

static void run_dot(void *w) {
  struct work *work = w;
  work->dot(work->count);
}

static void run_read(void *w) {
  struct work *work = w;
  for (long i = 0; i < work->count; i++) read_all(work->data, work->bytes);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  if (!strcmp(argv[1], "dot")) {
    for (unsigned i = 0; i < sizeof SEQUENCES / sizeof *SEQUENCES; i++) {
      if (strcmp(argv[2], SEQUENCES[i].name)) continue;
      if (SEQUENCES[i].run == tiles && !permit_tiles()) return 3;
      struct work work = {SEQUENCES[i].run, 0, 0, 100000};  /* 1 to 4 ms; tiles 30 */
      double macs = 4.0 * ACCUMULATORS * SEQUENCES[i].macs * work.count;
      printf("%.6g\n", 2e-9 * macs / best(run_dot, &work));
      return 0;
    }
    return 2;
  }
  long bytes = atol(argv[2]) / 256 * 256;
  if (bytes <= 0) return 2;
  long count = (8L << 20) / bytes + 1;
  char *data = aligned_alloc(256, bytes);
  if (!data) return 1;
  memset(data, 1, bytes);
  struct work work = {0, data, bytes, count};
  printf("%.6g\n", 1e-9 * bytes * count / best(run_read, &work));
  return 0;
}
"""
