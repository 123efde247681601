/* CPU features by CPUID, and what the operating system saves of them by XGETBV. */
#include <cpuid.h>
#include <string.h>

#include "lowgemm_internal.h"

typedef struct {
  const char *name;
  uint32_t leaf, subleaf;
  int reg; /* eax, ebx, ecx, edx = 0..3 */
  int bit;
  uint32_t state; /* bits of XCR0 that must be set: the registers that the feature uses */
} feature_bit;

enum { EAX, EBX, ECX, EDX };
enum { YMM = 0x06, ZMM = 0xE6, TILES = 0x60000 };

static const feature_bit FEATURES[] = {
    {"fma", 1, 0, ECX, 12, YMM},
    {"f16c", 1, 0, ECX, 29, YMM},
    {"bmi2", 7, 0, EBX, 8, 0},
    {"avx2", 7, 0, EBX, 5, YMM},
    {"avx512f", 7, 0, EBX, 16, ZMM},
    {"avx512dq", 7, 0, EBX, 17, ZMM},
    {"avx512cd", 7, 0, EBX, 28, ZMM},
    {"avx512bw", 7, 0, EBX, 30, ZMM},
    {"avx512vl", 7, 0, EBX, 31, ZMM},
    {"avx512_vnni", 7, 0, ECX, 11, ZMM},
    {"avx512vbmi", 7, 0, ECX, 1, ZMM},
    {"avx_vnni", 7, 1, EAX, 4, YMM},
    {"avx512_bf16", 7, 1, EAX, 5, ZMM},
    {"amx_tile", 7, 0, EDX, 24, TILES},
    {"amx_int8", 7, 0, EDX, 25, TILES},
};

static uint32_t saved_state(void) {
  uint32_t eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 27))) return 0;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return eax;
}

int lg_cpu_has(const char *name) {
  for (size_t i = 0; i < sizeof FEATURES / sizeof FEATURES[0]; i++) {
    const feature_bit *f = &FEATURES[i];
    if (strcmp(f->name, name) != 0) continue;
    uint32_t regs[4] = {0, 0, 0, 0};
    if (!__get_cpuid_count(f->leaf, f->subleaf, &regs[0], &regs[1], &regs[2], &regs[3])) return 0;
    if (!(regs[f->reg] >> f->bit & 1)) return 0;
    return (saved_state() & f->state) == f->state;
  }
  return 0; /* a feature that this library has never heard of */
}
