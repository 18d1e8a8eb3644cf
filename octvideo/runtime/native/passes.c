/* Passes over channels-last maps, (clips, frames, height, width, channels) side by side in memory, each of which would
   be two or more by a library: see octvideo/runtime/passes.py. */

#include "cells.h"

static inline Int num_cells(const Int *size, const Int *factors, int axis) {
    return (size[axis] + factors[axis] - 1) / factors[axis];
}

/* Means over cells of a map of size (T, H, W, C), written to places that lie pooled_step apart. */
void pool(const Element *high, Element *pooled, Int clips, const Int *size, Int pooled_step, const Int *factors,
          int threads) {
    const Int frames = num_cells(size, factors, 0), height = num_cells(size, factors, 1);
    const Int width = num_cells(size, factors, 2), of_clip = size[0] * size[1] * size[2] * size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < frames; t++)
            for (Int y = 0; y < height; y++) {
                Int place = ((n * frames + t) * height + y) * width;
                pool_cells(high + n * of_clip, pooled + place * pooled_step, pooled_step, t, y, size, factors);
            }
}

/* high + raised, rectified if relu. */
static inline __attribute__((always_inline)) void add(Element *high, const Element *raised, Int channels, int relu) {
    for (Int start = 0; start < channels; start += CHANNELS_AT_ONCE) {
        Int count = channels - start < CHANNELS_AT_ONCE ? channels - start : CHANNELS_AT_ONCE;
        float values[CHANNELS_AT_ONCE];
#pragma omp simd
        for (Int c = 0; c < count; c++) {
            float value = load(high[start + c]) + load(raised[start + c]);
            values[c] = relu && value < 0 ? 0 : value;
        }
        store_all(high + start, values, count);
    }
}

/* high + upsample(raised), rectified if relu, written over high, of size (T, H, W, C). */
void add_raised(Element *high, const Element *raised, Int clips, const Int *size, const Int *factors, int relu,
                int threads) {
    const Int frames = num_cells(size, factors, 0), height = num_cells(size, factors, 1);
    const Int width = num_cells(size, factors, 2), channels = size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < size[0]; t++)
            for (Int y = 0; y < size[1]; y++)
                for (Int x = 0; x < size[2]; x++) {
                    Element *to = high + (((n * size[0] + t) * size[1] + y) * size[2] + x) * channels;
                    Int cell = ((n * frames + t / factors[0]) * height + y / factors[1]) * width + x / factors[2];
                    if (relu) add(to, raised + cell * channels, channels, 1);
                    else add(to, raised + cell * channels, channels, 0);
                }
}

/* Maximum over boxes; size is (T, H, W, C) of x, and the three numbers of each other argument are of time, height and
   width. Places beyond the border do not count. */
void max_pool(const Element *x, Element *out, Int clips, const Int *size, const Int *out_size, const Int *kernel,
              const Int *stride, const Int *padding, int threads) {
#pragma omp parallel for collapse(3) num_threads(threads)
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
