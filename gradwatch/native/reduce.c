/* Arrays are read a block at a time. A block's sums are taken in plain float32, which the compiler turns into vector
 * instructions, and added up in float64. Only where the block's largest element says that plain arithmetic fails
 * (squares that overflow or vanish, NaN, infinity) is the block, which lies in the cache by then, read again with care.
 *
 * Needs -fassociative-math (with -fno-signed-zeros and -fno-trapping-math), without which sums are not vectorised. */
#include "reduce.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define DISPATCHED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DISPATCHED
#endif
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 1024, TABLES = 8, FEW = 2048, LOWEST_EXPONENT = -40 };

/* Entries of a table for each exponent of float32 and float64, and a few more: the same exponent of two tables must not
 * lie a multiple of 4 kB apart, where processors mistake one for the other. */
enum { PITCH32 = 256 + 16, PITCH64 = 2048 + 16 };

#define PLAIN_LOWEST 0x2b800000u  /* bits of 2^-40, below which squares of small elements vanish in float32 */
#define PLAIN_HIGHEST 0x53800000u /* bits of 2^40, above which a block's sum of squares may overflow */
#define DOUBLE_LOWEST 0x0d800000u /* bits of 2^-100: beside such elements subnormal ones do not count */
#define INFINITE 0x7f800000u

#define PLAIN_LOWEST64 0x20b0000000000000u  /* bits of 2^-500 */
#define PLAIN_HIGHEST64 0x5f30000000000000u /* bits of 2^500 */
#define INFINITE64 0x7ff0000000000000u
#define FRACTION64 0x000fffffffffffffu

typedef struct {
  double squares, sum;
  uint64_t largest; /* bits of the largest finite size */
  int64_t nan, inf, zeros, subnormal;
  uint32_t *table; /* elements by exponent, in tables behind one another; null without a histogram */
  int tables;      /* one is cleared and added up faster, TABLES are filled faster */
} total;

INLINE uint32_t size_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffu;
}

INLINE uint64_t size_of64(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffffffffffu;
}

/* The value of float32 bits, also where the processor takes subnormals for zero. */
INLINE double exact(uint32_t size) {
  float x;
  memcpy(&x, &size, sizeof x);
  return size < 0x00800000u ? (double)(int32_t)size * 0x1p-149 : (double)x;
}

INLINE double of_bits64(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

INLINE void widen_bfloat16(const uint16_t *from, float *to, int n) {
  for (int i = 0; i < n; i++) {
    uint32_t bits = (uint32_t)from[i] << 16;
    memcpy(to + i, &bits, sizeof bits);
  }
}

INLINE void widen_float16(const uint16_t *from, float *to, int n) {
  for (int i = 0; i < n; i++) {
    uint32_t half = from[i], size = half & 0x7fffu, bits;
    float tiny = (float)(int32_t)size * 0x1p-24f;
    memcpy(&bits, &tiny, sizeof bits);
    uint32_t normal = (size << 13) + ((127u - 15u) << 23), special = (size << 13) | INFINITE;
    bits = size < 0x0400u ? bits : size < 0x7c00u ? normal : special;
    bits |= (half & 0x8000u) << 16;
    memcpy(to + i, &bits, sizeof bits);
  }
}

/* Plain sums of a block; returns its largest size as bits. */
INLINE uint32_t plain(const float *x, int n, float *squares, float *sum) {
  float q = 0, s = 0;
  int32_t largest = 0;
  for (int i = 0; i < n; i++) {
    int32_t size = (int32_t)size_of(x[i]);
    q += x[i] * x[i];
    s += x[i];
    largest = size > largest ? size : largest;
  }
  *squares = q;
  *sum = s;
  return (uint32_t)largest;
}

/* Sums of a finite block in float64. */
INLINE void wide(const float *x, int n, total *t) {
  double q = 0, s = 0;
  for (int i = 0; i < n; i++) {
    double d = x[i];
    q += d * d;
    s += d;
  }
  t->squares += q;
  t->sum += s;
}

/* Sums of any block, element by element. */
static uint32_t careful(const float *x, int n, total *t) {
  uint32_t largest = 0;
  for (int i = 0; i < n; i++) {
    uint32_t size = size_of(x[i]), bits;
    memcpy(&bits, x + i, sizeof bits);
    if (size >= INFINITE) {
      t->nan += size > INFINITE;
      t->inf += size == INFINITE;
      continue;
    }
    double d = exact(size);
    t->squares += d * d;
    t->sum += bits >> 31 ? -d : d;
    largest = size > largest ? size : largest;
  }
  return largest;
}

/* Counts zeros, and elements below the smallest normal number of their type. */
INLINE void count(const float *x, int n, uint32_t smallest_normal, total *t) {
  int32_t zeros = 0, below = 0;
  for (int i = 0; i < n; i++) {
    int32_t size = (int32_t)size_of(x[i]);
    zeros += size == 0;
    below += size < (int32_t)smallest_normal;
  }
  t->zeros += zeros;
  t->subnormal += below - zeros;
}

/* Counts elements by exponent; neighbours often share one, so they count in different tables. */
INLINE void tabulate(const float *x, int n, total *t) {
  uint32_t *table = t->table;
  uint8_t exponent[BLOCK];
  int i;
  for (i = 0; i < n; i++) exponent[i] = (uint8_t)(size_of(x[i]) >> 23);
  i = 0;
  if (t->tables == TABLES)
    for (; i + TABLES <= n; i += TABLES)
      for (int j = 0; j < TABLES; j++) table[j * PITCH32 + exponent[i + j]]++;
  for (; i < n; i++) table[exponent[i]]++;
}

INLINE void block32(const float *x, int n, int flags, uint32_t smallest_normal, total *t) {
  float squares, sum;
  uint32_t largest = plain(x, n, &squares, &sum);
  if (largest >= PLAIN_LOWEST && largest <= PLAIN_HIGHEST) {
    t->squares += squares;
    t->sum += sum;
  } else if (largest >= DOUBLE_LOWEST && largest < INFINITE) {
    wide(x, n, t);
  } else if (largest) {
    largest = careful(x, n, t);
  }
  t->largest = largest > t->largest ? largest : t->largest;
  if (flags & GRADWATCH_COUNTS) count(x, n, smallest_normal, t);
  if (t->table) tabulate(x, n, t);
}

INLINE const float *load32(const void *data, int64_t at, int n, int kind, float *buffer) {
  switch (kind) {
    case GRADWATCH_BFLOAT16:
      widen_bfloat16((const uint16_t *)data + at, buffer, n);
      return buffer;
    case GRADWATCH_FLOAT16:
      widen_float16((const uint16_t *)data + at, buffer, n);
      return buffer;
    default:
      return (const float *)data + at;
  }
}

DISPATCHED static void reduce32(const void *data, const void *minus, int64_t n, int kind, int flags, total *t) {
  float buffer[BLOCK], other[BLOCK];
  uint32_t smallest_normal = kind == GRADWATCH_FLOAT16 && !minus ? 0x38800000u : 0x00800000u;
  for (int64_t at = 0; at < n; at += BLOCK) {
    int length = n - at < BLOCK ? (int)(n - at) : BLOCK;
    const float *x = load32(data, at, length, kind, buffer);
    if (minus) {
      const float *y = load32(minus, at, length, kind, other);
      for (int i = 0; i < length; i++) buffer[i] = x[i] - y[i];
      x = buffer;
    }
    block32(x, length, flags, smallest_normal, t);
  }
}

/* Sums of float64 elements relative to 2^exponent, built from the bits because the processor may flush subnormals. */
static void scaled64(const double *x, int n, int exponent, total *t) {
  for (int i = 0; i < n; i++) {
    uint64_t size = size_of64(x[i]), bits;
    memcpy(&bits, x + i, sizeof bits);
    if (size >= INFINITE64) {
      t->nan += size > INFINITE64;
      t->inf += size == INFINITE64;
      continue;
    }
    int e = (int)(size >> 52), below = exponent - (e ? e : 1);
    if (below > 1000) continue; /* 2^-1000 of the largest element */
    double fraction = (double)(int64_t)(size & FRACTION64) * 0x1p-52 + (e ? 1 : 0);
    double d = fraction * of_bits64((uint64_t)(1023 - below) << 52);
    t->squares += d * d;
    t->sum += bits >> 63 ? -d : d;
  }
}

INLINE void block64(const double *x, int n, int flags, total *t) {
  double q = 0, s = 0;
  int64_t largest = 0, zeros = 0, below = 0;
  for (int i = 0; i < n; i++) {
    int64_t size = (int64_t)size_of64(x[i]);
    q += x[i] * x[i];
    s += x[i];
    largest = size > largest ? size : largest;
  }
  t->squares += q;
  t->sum += s;
  t->largest = (uint64_t)largest > t->largest ? (uint64_t)largest : t->largest;
  if (flags & GRADWATCH_COUNTS) {
    for (int i = 0; i < n; i++) {
      uint64_t size = size_of64(x[i]);
      zeros += size == 0;
      below += size < 0x0010000000000000u;
    }
    t->zeros += zeros;
    t->subnormal += below - zeros;
  }
  if (t->table)
    for (int i = 0; i < n; i++) t->table[i % t->tables * PITCH64 + (size_of64(x[i]) >> 52)]++;
}

typedef void pass64(const double *x, int n, int argument, total *t);

/* Runs over an array of float64, or over its differences, block by block. */
INLINE void over64(const double *data, const double *minus, int64_t n, pass64 *pass, int argument, total *t) {
  double buffer[BLOCK];
  for (int64_t at = 0; at < n; at += BLOCK) {
    int length = n - at < BLOCK ? (int)(n - at) : BLOCK;
    const double *x = data + at;
    if (minus) {
      for (int i = 0; i < length; i++) buffer[i] = x[i] - minus[at + i];
      x = buffer;
    }
    pass(x, length, argument, t);
  }
}

static void largest_finite64(const double *x, int n, int unused, total *t) {
  (void)unused;
  for (int i = 0; i < n; i++) {
    uint64_t size = size_of64(x[i]);
    if (size < INFINITE64 && size > t->largest) t->largest = size;
  }
}

DISPATCHED static void plain64(const double *data, const double *minus, int64_t n, int flags, total *t) {
  over64(data, minus, n, block64, flags, t);
}

/* Reads again what plain arithmetic cannot add up; returns the exponent the sums are relative to. */
static int careful64(const double *data, const double *minus, int64_t n, total *t) {
  t->largest = 0;
  t->squares = t->sum = 0;
  over64(data, minus, n, largest_finite64, 0, t);
  int exponent = (int)(t->largest >> 52);
  exponent = exponent ? exponent : 1;
  over64(data, minus, n, scaled64, exponent, t);
  return exponent - 1023;
}

static double power_of_two(double x, int exponent) { return ldexp(ldexp(x, exponent / 2), exponent - exponent / 2); }

static void finish64(const double *data, const double *minus, int64_t n, total *t, gradwatch_row *row) {
  int exponent = 0;
  if (t->largest && (t->largest < PLAIN_LOWEST64 || t->largest > PLAIN_HIGHEST64))
    exponent = careful64(data, minus, n, t);
  row->l2 = power_of_two(sqrt(t->squares), exponent);
  row->sum = power_of_two(t->sum, exponent);
  row->absmax = of_bits64(t->largest);
}

static uint32_t sum_of(const uint32_t *from, const uint32_t *to) {
  uint32_t sum = 0;
  while (from < to) sum += *from++;
  return sum;
}

static void fill_bins(total *t, int exponents, int pitch, uint32_t *bins) {
  uint32_t *all = t->table;
  for (int j = 1; j < t->tables; j++)
    for (int e = 0; e < exponents; e++) all[e] += all[j * pitch + e];
  int lowest = exponents / 2 - 1 + LOWEST_EXPONENT; /* of the second bin; the last exponent is NaN's and infinity's */
  bins[0] = sum_of(all, all + lowest) - (uint32_t)t->zeros;
  memcpy(bins + 1, all + lowest, (GRADWATCH_BINS - 2) * sizeof *bins);
  bins[GRADWATCH_BINS - 1] = sum_of(all + lowest + GRADWATCH_BINS - 2, all + exponents - 1);
}

void gradwatch_reduce(const void *data, const void *minus, int64_t n, int kind, int flags, gradwatch_row *row) {
  uint32_t table[TABLES * PITCH64];
  int exponents = kind == GRADWATCH_FLOAT64 ? 2048 : 256, pitch = kind == GRADWATCH_FLOAT64 ? PITCH64 : PITCH32;
  total t = {0};
  if (flags & GRADWATCH_HISTOGRAM) {
    flags |= GRADWATCH_COUNTS;
    t.tables = n < FEW ? 1 : TABLES;
    memset(table, 0, (size_t)(t.tables * pitch) * sizeof *table);
    t.table = table;
  }
  if (kind == GRADWATCH_FLOAT64) {
    plain64(data, minus, n, flags, &t);
    finish64(data, minus, n, &t, row);
  } else {
    reduce32(data, minus, n, kind, flags, &t);
    row->l2 = sqrt(t.squares);
    row->sum = t.sum;
    row->absmax = exact((uint32_t)t.largest);
  }
  row->nan = t.nan;
  row->inf = t.inf;
  row->zeros = t.zeros;
  row->subnormal = t.subnormal;
  if (t.table) fill_bins(&t, exponents, pitch, row->bins);
}

void gradwatch_reduce_all(const void *const *data, const void *const *minus, const int64_t *n, const uint8_t *kind,
                          int64_t m, int flags, char *rows, int64_t stride) {
  for (int64_t i = 0; i < m; i++)
    gradwatch_reduce(data[i], minus ? minus[i] : 0, n[i], kind[i], flags, (gradwatch_row *)(rows + i * stride));
}

int gradwatch_version(void) { return GRADWATCH_VERSION; }
