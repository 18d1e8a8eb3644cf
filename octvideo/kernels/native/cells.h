/* Cells of an octave: the places of a high map that one place of the low map covers. */

#ifndef CELLS_H
#define CELLS_H

#include "element.h"

#define MOST_PLACES 8 /* of a cell: two on each of three axes */

/* The sum of up to MOST_PLACES rows of channels, times `share`, but no less than `least`; num_rows is a constant where this is
   called. */
static inline __attribute__((always_inline)) void add_up(const Element *const *rows, const int num_rows,
                                                         Element *restrict to, Int channels, float share,
                                                         float least) {
#if HAS_AVX512
    for (Int c = 0; c < channels; c += 16) {
        const __mmask16 some = first_of_16(channels - c);
        __m512 sum = load_some(some, rows[0] + c);
#pragma GCC unroll 8
        for (int r = 1; r < num_rows; r++) sum = _mm512_add_ps(sum, load_some(some, rows[r] + c));
        const __m512 value = _mm512_mul_ps(sum, _mm512_set1_ps(share));
        store_some(to + c, some, _mm512_max_ps(_mm512_set1_ps(least), value)); /* NaN, as the second, stays */
    }
#else
#pragma omp simd
    for (Int c = 0; c < channels; c++) {
        float sum = load(rows[0][c]);
#pragma GCC unroll 8
        for (int r = 1; r < num_rows; r++) sum += load(rows[r][c]);
        to[c] = store(sum * share < least ? least : sum * share);
    }
#endif
}

/* The mean of rows, or their sum, but no less than `least`. */
static inline void pool_rows(const Element *const *rows, int num_rows, Element *to, Int channels, int sums,
                             float least) {
    const float share = sums ? 1 : 1.0f / num_rows;
    if (num_rows == 4) add_up(rows, 4, to, channels, share, least);
    else if (num_rows == 2) add_up(rows, 2, to, channels, share, least);
    else if (num_rows == 8) add_up(rows, 8, to, channels, share, least);
    else add_up(rows, 1, to, channels, share, least);
}

/* Pool the cells of row y of frame t of the low map, by sums or means that are no less than `least`; size is (T, H, W, C)
   of the high one. The places of either lie one step apart. */
static inline void pool_cells(const Element *clip, Int clip_step, Element *to, Int step, Int t, Int y, const Int *size,
                              const Int *factors, int sums, float least) {
    const Element *rows[MOST_PLACES];
    int num_rows = 0;
    for (Int a = t * factors[0]; a < (t + 1) * factors[0] && a < size[0]; a++)
        for (Int b = y * factors[1]; b < (y + 1) * factors[1] && b < size[1]; b++)
            for (Int c = 0; c < factors[2]; c++) rows[num_rows++] = clip + ((a * size[1] + b) * size[2] + c) * clip_step;
    Int x = 0;
    for (; x + factors[2] <= size[2]; x += factors[2], to += step) {
        pool_rows(rows, num_rows, to, size[3], sums, least);
        for (int r = 0; r < num_rows; r++) rows[r] += factors[2] * clip_step;
    }
    if (x == size[2]) return;
    for (int r = 0; r < num_rows; r += 2) rows[r / 2] = rows[r]; /* half a cell at the end: every other place */
    pool_rows(rows, num_rows / 2, to, size[3], sums, least);
}

#endif
