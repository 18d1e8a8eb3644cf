/* Passes over channels-last maps, (clips, frames, height, width, channels) side by side in memory, each of which would
   be two or more by a library: see octvideo/runtime/passes.py, which compiles this file once for each type. */

#include <stdint.h>
#include <string.h>

typedef int64_t Int;

#ifdef BFLOAT16
typedef uint16_t Element;

static inline float load(Element x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#ifdef __AVX512BF16__
#include <immintrin.h>

/* Compilers do not find this instruction for a loop over `store`. */
static inline void store_all(Element *restrict to, const float *restrict from, Int count) {
    Int c = 0;
    for (; c + 16 <= count; c += 16)
        _mm256_storeu_si256((__m256i *)(to + c), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + c)));
    if (c < count) {
        __mmask16 rest = (1u << (count - c)) - 1;
        _mm256_mask_storeu_epi16(to + c, rest, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, from + c)));
    }
}
#define STORE_ALL
#endif

static inline Element store(float value) { /* rounded to the nearest, half to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}
#else
typedef float Element;

static inline float load(Element x) { return x; }
static inline Element store(float value) { return value; }
#endif

#ifndef STORE_ALL
static inline void store_all(Element *restrict to, const float *restrict from, Int count) {
#pragma omp simd
    for (Int c = 0; c < count; c++) to[c] = store(from[c]);
}
#endif

#define CHANNELS_AT_ONCE 512

/* value = high + raised (if there), rectified (if relu), over high (if written); sum += value (if summed). */
static inline __attribute__((always_inline)) void element(Element *high, const Element *raised, float *sum,
                                                          Int channels, int relu, int written, int summed) {
#ifdef BFLOAT16
    float values[CHANNELS_AT_ONCE];
#else
    float *values = high;
#endif
#pragma omp simd
    for (Int c = 0; c < channels; c++) {
        float value = raised ? load(high[c]) + load(raised[c]) : load(high[c]);
        value = relu && value < 0 ? 0 : value;
        if (written) values[c] = value;
        if (summed) sum[c] += value;
    }
#ifdef BFLOAT16
    if (written) store_all(high, values, channels);
#endif
}

/* The same with constants, so that each case is a loop without branches. */
static void element_of_case(Element *high, const Element *raised, float *sum, Int channels, int relu, int summed) {
    if (!raised) element(high, 0, sum, channels, 0, 0, 1);
    else if (relu && summed) element(high, raised, sum, channels, 1, 1, 1);
    else if (relu) element(high, raised, sum, channels, 1, 1, 0);
    else if (summed) element(high, raised, sum, channels, 0, 1, 1);
    else element(high, raised, sum, channels, 0, 1, 0);
}

/* Channels [start, start + channels) of one cell of the low map, which covers the places [first, last) of the high one;
   the mean of these goes into pooled, if there. */
static void cell(Element *clip, const Element *raised, Element *pooled, const Int first[3], const Int last[3],
                 const Int size[4], Int start, Int channels, int relu) {
    float sum[CHANNELS_AT_ONCE];
    for (Int c = 0; pooled && c < channels; c++) sum[c] = 0;
    Int count = 0;
    for (Int t = first[0]; t < last[0]; t++)
        for (Int y = first[1]; y < last[1]; y++)
            for (Int x = first[2]; x < last[2]; x++, count++)
                element_of_case(clip + ((t * size[1] + y) * size[2] + x) * size[3] + start, raised, sum, channels, relu,
                                pooled != 0);
    if (!pooled) return;
    float share = 1.0f / count;
#pragma omp simd
    for (Int c = 0; c < channels; c++) sum[c] *= share;
    store_all(pooled, sum, channels);
}

/* One pass over high, of size (T, H, W, C), by the cells of its octave:
   - where raised is given, high + upsample(raised), rectified if relu, is written over high;
   - where joined is given, it becomes the concatenation of low and pool(high) along the channels. */
void over_cells(Element *high, const Element *raised, const Element *low, Element *joined, Int clips, const Int *size,
                Int low_channels, const Int *factors, int relu) {
    Int cells[3], width = low_channels + size[3];
    for (int axis = 0; axis < 3; axis++) cells[axis] = (size[axis] + factors[axis] - 1) / factors[axis];
#pragma omp parallel for collapse(3)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < cells[0]; t++)
            for (Int y = 0; y < cells[1]; y++)
                for (Int x = 0; x < cells[2]; x++) {
                    Int place = ((n * cells[0] + t) * cells[1] + y) * cells[2] + x, at[3] = {t, y, x}, first[3], last[3];
                    for (int axis = 0; axis < 3; axis++) {
                        first[axis] = at[axis] * factors[axis];
                        last[axis] = first[axis] + factors[axis];
                        if (last[axis] > size[axis]) last[axis] = size[axis];
                    }
                    Element *clip = high + n * size[0] * size[1] * size[2] * size[3];
                    Element *row = joined ? joined + place * width : 0;
                    if (row && low_channels) memcpy(row, low + place * low_channels, low_channels * sizeof(Element));
                    for (Int start = 0; start < size[3]; start += CHANNELS_AT_ONCE) {
                        Int channels = size[3] - start < CHANNELS_AT_ONCE ? size[3] - start : CHANNELS_AT_ONCE;
                        cell(clip, raised ? raised + place * size[3] + start : 0, row ? row + low_channels + start : 0,
                             first, last, size, start, channels, relu);
                    }
                }
}

/* Maximum over boxes; size is (T, H, W, C) of x, and the three numbers of each other argument are of time, height and
   width. Places beyond the border do not count. */
void max_pool(const Element *x, Element *out, Int clips, const Int *size, const Int *out_size, const Int *kernel,
              const Int *stride, const Int *padding) {
#pragma omp parallel for collapse(3)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < out_size[0]; t++)
            for (Int y = 0; y < out_size[1]; y++)
                for (Int to = 0; to < out_size[2]; to++) {
                    Int at[3] = {t, y, to}, first[3], last[3];
                    for (int axis = 0; axis < 3; axis++) {
                        first[axis] = at[axis] * stride[axis] - padding[axis];
                        last[axis] = first[axis] + kernel[axis];
                        if (first[axis] < 0) first[axis] = 0;
                        if (last[axis] > size[axis]) last[axis] = size[axis];
                    }
                    Element *row = out + (((n * out_size[0] + t) * out_size[1] + y) * out_size[2] + to) * size[3];
                    for (Int start = 0; start < size[3]; start += CHANNELS_AT_ONCE) {
                        Int channels = size[3] - start < CHANNELS_AT_ONCE ? size[3] - start : CHANNELS_AT_ONCE;
                        float most[CHANNELS_AT_ONCE];
                        for (Int c = 0; c < channels; c++) most[c] = -__builtin_inff();
                        for (Int a = first[0]; a < last[0]; a++)
                            for (Int b = first[1]; b < last[1]; b++)
                                for (Int d = first[2]; d < last[2]; d++) {
                                    const Element *from =
                                        x + (((n * size[0] + a) * size[1] + b) * size[2] + d) * size[3] + start;
#pragma omp simd
                                    for (Int c = 0; c < channels; c++) {
                                        float value = load(from[c]);
                                        most[c] = value > most[c] || value != value ? value : most[c]; /* NaN stays */
                                    }
                                }
                        store_all(row + start, most, channels);
                    }
                }
}
