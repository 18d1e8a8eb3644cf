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
                pool_cells(high + n * of_clip, size[3], pooled + place * pooled_step, pooled_step, t, y, size, factors);
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

/* high + upsample(raised), rectified if relu, written over high, of size (T, H, W, C); and, where pooled is given, its
   means over cells of `pooling`, which are as large as those of `raising` or larger. */
void add_raised(Element *high, const Element *raised, Element *pooled, Int clips, const Int *size, Int pooled_step,
                const Int *raising, const Int *pooling, int relu, int threads) {
    const Int frames = num_cells(size, pooling, 0), height = num_cells(size, pooling, 1);
    const Int width = num_cells(size, pooling, 2), of_clip = size[0] * size[1] * size[2] * size[3];
    const Int raised_frames = num_cells(size, raising, 0), raised_height = num_cells(size, raising, 1);
    const Int raised_width = num_cells(size, raising, 2), channels = size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < frames; t++)
            for (Int y = 0; y < height; y++) {
                for (Int a = t * pooling[0]; a < (t + 1) * pooling[0] && a < size[0]; a++)
                    for (Int b = y * pooling[1]; b < (y + 1) * pooling[1] && b < size[1]; b++) {
                        Int row = (n * raised_frames + a / raising[0]) * raised_height + b / raising[1];
                        for (Int x = 0; x < size[2]; x++) {
                            Element *to = high + n * of_clip + ((a * size[1] + b) * size[2] + x) * channels;
                            const Element *more = raised + (row * raised_width + x / raising[2]) * channels;
                            if (relu) add(to, more, channels, 1);
                            else add(to, more, channels, 0);
                        }
                    }
                Element *to = pooled + ((n * frames + t) * height + y) * width * pooled_step;
                if (pooled) pool_cells(high + n * of_clip, channels, to, pooled_step, t, y, size, pooling);
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
