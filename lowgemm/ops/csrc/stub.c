/* Linked into every kernel's library: what TVM's code calls, as pointers that are set when it is loaded. */
#include <stdio.h>

#include "ops.h"

#define EXPORT __attribute__((visibility("default")))

void *__TVMBackendParallelLaunch, *__TVMBackendAllocWorkspace, *__TVMBackendFreeWorkspace;
static void (*report)(const char *text);
static int32_t (*announce)(int64_t iterations);

EXPORT void lgops_hook(const lgops_hooks *hooks) {
  __TVMBackendParallelLaunch = hooks->parallel_launch;
  __TVMBackendAllocWorkspace = hooks->workspace_alloc;
  __TVMBackendFreeWorkspace = hooks->workspace_free;
  report = hooks->error;
  announce = hooks->announce;
}

int32_t lg_announce(int64_t iterations) { return announce(iterations); }

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  char text[512];
  size_t used = (size_t)snprintf(text, sizeof text, "%s: ", kind);
  for (int32_t i = 0; i < count && used < sizeof text; i++)
    used += (size_t)snprintf(text + used, sizeof text - used, "%s", parts[i]);
  report(text);
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *text) {
  TVMFFIErrorSetRaisedFromCStrParts(kind, &text, 1);
}
