/* Statistics of arrays in memory, in one read of each. */
#ifndef GRADWATCH_REDUCE_H
#define GRADWATCH_REDUCE_H

#include <stdint.h>

enum { GRADWATCH_VERSION = 2, GRADWATCH_BINS = 64 };

enum { GRADWATCH_FLOAT32 = 0, GRADWATCH_FLOAT64 = 1, GRADWATCH_BFLOAT16 = 2, GRADWATCH_FLOAT16 = 3 };

enum { GRADWATCH_COUNTS = 1, GRADWATCH_HISTOGRAM = 2 };

/* As gradwatch/statistics.py defines them; l2, sum and absmax are 0 over no finite element. bins are written only where
 * the histogram is asked for, so that rows without them may be shorter; zeros and subnormal are 0 where not counted. */
typedef struct {
  double l2, sum, absmax;
  int64_t nan, inf, zeros, subnormal;
  uint32_t bins[GRADWATCH_BINS];
} gradwatch_row;

/* Reduces one array of n elements, or, where minus is not null, the differences data - minus, taken in float32 for
 * narrower types. Safe on every thread, also where subnormals are flushed to zero: what depends on them is read from
 * the bits. */
void gradwatch_reduce(const void *data, const void *minus, int64_t n, int kind, int flags, gradwatch_row *row);

/* The same for m arrays; minus may be null, and rows stand stride bytes apart. */
void gradwatch_reduce_all(const void *const *data, const void *const *minus, const int64_t *n, const uint8_t *kind,
                          int64_t m, int flags, char *rows, int64_t stride);

/* Sets alive[u] to 1 where an element of unit u, in an array of shape [outer, units, inner], is not zero, else to 0. */
void gradwatch_alive(const void *data, int64_t outer, int64_t units, int64_t inner, int kind, uint8_t *alive);

int gradwatch_version(void);

#endif
