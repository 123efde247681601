/* Classify images with a compiled model, from C.
 *
 * Make the demo's model, and some of its images as a file:
 *
 *     lowgemm demo
 *     python -c "import numpy, lowgemm.demo as d; numpy.save('digits.npy', d.load_digits().test[:5])"
 *
 * Build with the generated header and the library, and run:
 *
 *     cc -O2 examples/classify.c -Ilowgemm-demo -Llowgemm-demo -l:digits.so -Wl,-rpath,'$ORIGIN/lowgemm-demo' -o classify
 *     ./classify digits.npy
 *
 * For every image it prints the most likely class and all logits. Any other model with one float32 input and one float32
 * output works the same: only the names of its header and its library differ.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"

static void fail(const char *what, const char *why) {
  fprintf(stderr, "classify: %s: %s\n", what, why);
  exit(1);
}

/* The numbers of a .npy file of float32 in C order; `bytes` receives how many bytes they take. */
static float *read_npy(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  unsigned char start[12];
  if (!file || fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0) fail(path, "not a .npy file");
  /* Version 1 has a header length of 2 bytes, later ones of 4. */
  size_t length = start[8] | (size_t)start[9] << 8;
  if (start[6] > 1) {
    if (fread(start + 10, 1, 2, file) != 2) fail(path, "truncated");
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  }
  char *header = malloc(length + 1);
  if (!header || fread(header, 1, length, file) != length) fail(path, "truncated");
  header[length] = 0;
  if (!strstr(header, "'descr': '<f4'") || !strstr(header, "'fortran_order': False"))
    fail(path, "not float32 in C order");
  free(header);

  size_t used = 0, room = 1 << 16;
  char *data = malloc(room);
  for (size_t n = 1; data && n > 0; used += n) {
    if (used == room && !(data = realloc(data, room *= 2))) break;
    n = fread(data + used, 1, room - used, file);
  }
  if (!data) fail(path, "out of memory");
  fclose(file);
  *bytes = used;
  return (float *)data;
}

int main(int argc, char **argv) {
  if (argc != 2) fail("usage", "classify IMAGES.npy");

  lowgemm_port input, output;
  if (lowgemm_num_inputs() != 1 || lowgemm_num_outputs() != 1) fail("model", "has more than one input or output");
  if (lowgemm_input(0, &input) != 0 || lowgemm_output(0, &output) != 0) fail("model", lowgemm_last_error());
  if (strcmp(input.dtype, "float32") != 0 || strcmp(output.dtype, "float32") != 0) fail("model", "is not float32");

  size_t bytes;
  float *images = read_npy(argv[1], &bytes);
  if (bytes == 0 || bytes % input.bytes != 0) fail(argv[1], "does not hold whole images");

  lowgemm_context *context = lowgemm_create(0); /* as many threads as there are CPUs */
  if (!context) fail("lowgemm_create", lowgemm_last_error());

  size_t classes = output.bytes / sizeof(float);
  float *logits = malloc(output.bytes);
  if (!logits) fail("output", "out of memory");
  for (size_t image = 0; image < bytes / input.bytes; image++) {
    const void *inputs[] = {images + image * (input.bytes / sizeof(float))};
    void *outputs[] = {logits};
    if (lowgemm_run(context, inputs, outputs) != 0) fail("lowgemm_run", lowgemm_last_error());
    size_t best = 0;
    for (size_t i = 1; i < classes; i++)
      if (logits[i] > logits[best]) best = i;
    printf("%zu:", best);
    for (size_t i = 0; i < classes; i++) printf(" %.9g", (double)logits[i]);
    printf("\n");
  }
  free(logits);
  free(images);
  lowgemm_destroy(context);
  return 0;
}
