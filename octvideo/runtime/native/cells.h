/* Cells of an octave: the places of a high map that one place of the low map covers. */

#ifndef CELLS_H
#define CELLS_H

#include "element.h"

#define CHANNELS_AT_ONCE 512
#define MOST_PLACES 8 /* of a cell: two on each of three axes */

/* The means of up to MOST_PLACES rows of channels; num_rows is a constant where this is called. */
static inline __attribute__((always_inline)) void mean(const Element *const *rows, const int num_rows,
                                                       Element *restrict to, Int channels) {
    const float share = 1.0f / num_rows;
    for (Int start = 0; start < channels; start += CHANNELS_AT_ONCE) {
        Int count = channels - start < CHANNELS_AT_ONCE ? channels - start : CHANNELS_AT_ONCE;
#ifdef BFLOAT16
        float values[CHANNELS_AT_ONCE];
#else
        float *restrict values = to + start;
#endif
#pragma omp simd
        for (Int c = 0; c < count; c++) {
            float sum = load(rows[0][start + c]);
#pragma GCC unroll 8
            for (int r = 1; r < num_rows; r++) sum += load(rows[r][start + c]);
            values[c] = sum * share;
        }
#ifdef BFLOAT16
        store_all(to + start, values, count);
#endif
    }
}

static inline void mean_of(const Element *const *rows, int num_rows, Element *to, Int channels) {
    if (num_rows == 4) mean(rows, 4, to, channels);
    else if (num_rows == 2) mean(rows, 2, to, channels);
    else if (num_rows == 8) mean(rows, 8, to, channels);
    else mean(rows, 1, to, channels);
}

/* Pool the cells of row y of frame t of the low map; size is (T, H, W, C) of the high one. The places of either lie one
   step apart. */
static inline void pool_cells(const Element *clip, Int clip_step, Element *to, Int step, Int t, Int y, const Int *size,
                              const Int *factors) {
    const Element *rows[MOST_PLACES];
    int num_rows = 0;
    for (Int a = t * factors[0]; a < (t + 1) * factors[0] && a < size[0]; a++)
        for (Int b = y * factors[1]; b < (y + 1) * factors[1] && b < size[1]; b++)
            for (Int c = 0; c < factors[2]; c++) rows[num_rows++] = clip + ((a * size[1] + b) * size[2] + c) * clip_step;
    Int x = 0;
    for (; x + factors[2] <= size[2]; x += factors[2], to += step) {
        mean_of(rows, num_rows, to, size[3]);
        for (int r = 0; r < num_rows; r++) rows[r] += factors[2] * clip_step;
    }
    if (x == size[2]) return;
    for (int r = 0; r < num_rows; r += 2) rows[r / 2] = rows[r]; /* half a cell at the end: every other place */
    mean_of(rows, num_rows / 2, to, size[3]);
}

#endif
