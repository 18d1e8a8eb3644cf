/* Passes over channels-last maps, (clips, frames, height, width, channels) side by side in memory, each of which would
   be two or more by a library: see octvideo/runtime/passes.py. */

#include "cells.h"

/* One pass over high, of size (T, H, W, C), by the cells of its octave:
   - where raised is given, high + upsample(raised), rectified if relu, is written over high;
   - where pooled is given, whose places lie pooled_step apart, it becomes pool(high). */
void over_cells(Element *high, const Element *raised, Element *pooled, Int clips, const Int *size, Int pooled_step,
                const Int *factors, int relu, int threads) {
    Int cells[3];
    for (int axis = 0; axis < 3; axis++) cells[axis] = (size[axis] + factors[axis] - 1) / factors[axis];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < cells[0]; t++)
            for (Int y = 0; y < cells[1]; y++)
                for (Int x = 0; x < cells[2]; x++) {
                    Int place = ((n * cells[0] + t) * cells[1] + y) * cells[2] + x;
                    cell_at(high + n * size[0] * size[1] * size[2] * size[3], raised ? raised + place * size[3] : 0,
                            pooled ? pooled + place * pooled_step : 0, t, y, x, size, factors, relu);
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
