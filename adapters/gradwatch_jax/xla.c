/* The reduction of gradwatch/native as a custom call of XLA on CPU, with the results of gradwatch_jax.kernel.Rows.
 *
 * Operands: control, int32[3]: whether rows are wanted, the flags of reduce.h, whether differences are meant; then m
 * arrays, and for differences the m arrays that are subtracted. Results: floats [m, 3], float32 or float64; integers
 * int32[m, 3]; and, where there are four, counts int32[m, 2] and bins int32[m, 64]. All zeros when no rows are wanted.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "reduce.h"
#include "xla/ffi/api/c_api.h"

enum { WANTED, FLAGS, MINUS };
enum { FLOATS, INTEGERS, COUNTS, BINS };

static int kind_of(XLA_FFI_DataType dtype) {
  switch (dtype) {
    case XLA_FFI_DataType_F32:
      return GRADWATCH_FLOAT32;
    case XLA_FFI_DataType_F64:
      return GRADWATCH_FLOAT64;
    case XLA_FFI_DataType_BF16:
      return GRADWATCH_BFLOAT16;
    case XLA_FFI_DataType_F16:
      return GRADWATCH_FLOAT16;
    default:
      return -1;
  }
}

static XLA_FFI_Error *error(const XLA_FFI_Api *api, const char *message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, 0, message,
                                    XLA_FFI_Error_Code_INVALID_ARGUMENT};
  return api->XLA_FFI_Error_Create(&args);
}

static const XLA_FFI_Buffer *operand(const XLA_FFI_CallFrame *frame, int64_t i) { return frame->args.args[i]; }

static int64_t elements(const XLA_FFI_Buffer *buffer) {
  int64_t n = 1;
  for (int64_t i = 0; i < buffer->rank; i++) n *= buffer->dims[i];
  return n;
}

/* Answers the question for the version that this handler was written against. */
static int told_version(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Extension_Base *extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

/* Rounds a size to float32, by its bits where the processor would flush it to zero. */
static float narrow(double size) {
  float x = (float)size;
  if (size > 0 && size < 0x1p-126) {
    uint32_t bits = (uint32_t)(size * 0x1p149);
    memcpy(&x, &bits, sizeof x);
  }
  return x;
}

/* Sums of the elements divided by 2^exponent, so that squares fit into float32. */
static void put(const gradwatch_row *row, XLA_FFI_Buffer *const *results, int64_t count, int64_t i) {
  int exponent;
  frexp(row->absmax, &exponent);
  double l2 = ldexp(row->l2, -exponent), floats[3] = {l2 * l2, ldexp(row->sum, -exponent), row->absmax};
  for (int j = 0; j < 3; j++) {
    if (results[FLOATS]->dtype == XLA_FFI_DataType_F64)
      ((double *)results[FLOATS]->data)[3 * i + j] = floats[j];
    else
      ((float *)results[FLOATS]->data)[3 * i + j] = j == 2 ? narrow(floats[j]) : (float)floats[j];
  }
  int32_t *integers = (int32_t *)results[INTEGERS]->data + 3 * i;
  integers[0] = exponent;
  integers[1] = (int32_t)row->nan;
  integers[2] = (int32_t)row->inf;
  if (count <= COUNTS) return;
  ((int32_t *)results[COUNTS]->data)[2 * i] = (int32_t)row->zeros;
  ((int32_t *)results[COUNTS]->data)[2 * i + 1] = (int32_t)row->subnormal;
  if (count > BINS) memcpy((int32_t *)results[BINS]->data + GRADWATCH_BINS * i, row->bins, sizeof row->bins);
}

static void clear(XLA_FFI_Buffer *const *results, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    size_t size = results[i]->dtype == XLA_FFI_DataType_F64 ? 8 : 4;
    memset(results[i]->data, 0, size * (size_t)elements(results[i]));
  }
}

XLA_FFI_Error *gradwatch_xla_reduce(XLA_FFI_CallFrame *frame) {
  if (told_version(frame) || frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return 0;
  int64_t count = frame->rets.size;
  if (frame->args.size < 2 || count < 2 || count > 4) return error(frame->api, "gradwatch: wrong number of buffers");
  XLA_FFI_Buffer *const *results = (XLA_FFI_Buffer *const *)frame->rets.rets;
  const int32_t *control = operand(frame, 0)->data;
  int64_t m = results[FLOATS]->dims[0];
  if (frame->args.size != 1 + m * (control[MINUS] ? 2 : 1))
    return error(frame->api, "gradwatch: operands do not fit the results");
  clear(results, count);
  if (!control[WANTED]) return 0;
  for (int64_t i = 0; i < m; i++) {
    const XLA_FFI_Buffer *array = operand(frame, 1 + i);
    const void *minus = control[MINUS] ? operand(frame, 1 + m + i)->data : 0;
    int kind = kind_of(array->dtype);
    if (kind < 0) return error(frame->api, "gradwatch: an operand is of no floating-point type");
    gradwatch_row row = {0};
    gradwatch_reduce(array->data, minus, elements(array), kind, control[FLAGS], &row);
    put(&row, results, count, i);
  }
  return 0;
}
