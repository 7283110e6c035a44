/* What is counted per unit of a layer. The array is read as [outer, units, inner] in storage order. */
#include "reduce.h"

#include <stddef.h>
#include <string.h>

enum { ROWS_BETWEEN_LOOKS = 16 };

static int all_set(const uint8_t *alive, int64_t units) { return !memchr(alive, 0, (size_t)units); }

/* Each element but zero, of either sign, has a bit below the sign: NaN counts as alive, too. */
#define DEFINE_ALIVE(name, type, below_sign)                                                           \
  static void name(const type *x, int64_t outer, int64_t units, int64_t inner, uint8_t *alive) {       \
    for (int64_t row = 0; row < outer; row++) {                                                        \
      if (row % ROWS_BETWEEN_LOOKS == 0 && row && all_set(alive, units)) return;                       \
      if (inner == 1) {                                                                                \
        for (int64_t u = 0; u < units; u++) alive[u] |= (x[u] & below_sign) != 0;                      \
      } else {                                                                                         \
        for (int64_t u = 0; u < units; u++)                                                            \
          for (int64_t i = 0; i < inner && !alive[u]; i++) alive[u] = (x[u * inner + i] & below_sign) != 0; \
      }                                                                                                \
      x += units * inner;                                                                              \
    }                                                                                                  \
  }

DEFINE_ALIVE(alive16, uint16_t, 0x7fffu)
DEFINE_ALIVE(alive32, uint32_t, 0x7fffffffu)
DEFINE_ALIVE(alive64, uint64_t, 0x7fffffffffffffffu)

void gradwatch_alive(const void *data, int64_t outer, int64_t units, int64_t inner, int kind, uint8_t *alive) {
  memset(alive, 0, (size_t)units);
  if (kind == GRADWATCH_FLOAT64)
    alive64(data, outer, units, inner, alive);
  else if (kind == GRADWATCH_FLOAT32)
    alive32(data, outer, units, inner, alive);
  else
    alive16(data, outer, units, inner, alive);
}
