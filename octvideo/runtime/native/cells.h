/* Cells of an octave: the places of a high map that one place of the low map covers. */

#ifndef CELLS_H
#define CELLS_H

#include "element.h"

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
static inline void element_of_case(Element *high, const Element *raised, float *sum, Int channels, int relu,
                                   int summed) {
    if (!raised) element(high, 0, sum, channels, 0, 0, 1);
    else if (relu && summed) element(high, raised, sum, channels, 1, 1, 1);
    else if (relu) element(high, raised, sum, channels, 1, 1, 0);
    else if (summed) element(high, raised, sum, channels, 0, 1, 1);
    else element(high, raised, sum, channels, 0, 1, 0);
}

/* Channels [start, start + channels) of one cell of the low map, which covers the places [first, last) of the high one;
   the mean of these goes into pooled, if there. */
static inline void cell(Element *clip, const Element *raised, Element *pooled, const Int first[3], const Int last[3],
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

/* The cell at one place of the low map, all its channels; size is (T, H, W, C) of the high map. */
static inline void cell_at(Element *clip, const Element *raised, Element *pooled, Int t, Int y, Int x, const Int *size,
                           const Int *factors, int relu) {
    Int at[3] = {t, y, x}, first[3], last[3];
    for (int axis = 0; axis < 3; axis++) {
        first[axis] = at[axis] * factors[axis];
        last[axis] = first[axis] + factors[axis];
        if (last[axis] > size[axis]) last[axis] = size[axis];
    }
    for (Int start = 0; start < size[3]; start += CHANNELS_AT_ONCE) {
        Int channels = size[3] - start < CHANNELS_AT_ONCE ? size[3] - start : CHANNELS_AT_ONCE;
        cell(clip, raised ? raised + start : 0, pooled ? pooled + start : 0, first, last, size, start, channels, relu);
    }
}

#endif
