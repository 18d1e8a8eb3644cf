/* Passes over channels-last maps, (clips, frames, height, width, channels) side by side in memory, each of which would
   be two or more by a library: see kernels/passes.py and runtime/passes.py in octvideo/. */

#include <stdlib.h>

#include "cells.h"

static inline Int num_cells(const Int *size, const Int *factors, int axis) {
    return (size[axis] + factors[axis] - 1) / factors[axis];
}

/* Means over cells of a map of size (T, H, W, C), or sums, written to places that lie pooled_step apart. */
void pool(const Element *high, Element *pooled, Int clips, const Int *size, Int pooled_step, const Int *factors,
          int sums, int threads) {
    const Int frames = num_cells(size, factors, 0), height = num_cells(size, factors, 1);
    const Int width = num_cells(size, factors, 2), of_clip = size[0] * size[1] * size[2] * size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < frames; t++)
            for (Int y = 0; y < height; y++) {
                Int place = ((n * frames + t) * height + y) * width;
                const Element *clip = high + n * of_clip;
                pool_cells(clip, size[3], pooled + place * pooled_step, pooled_step, t, y, size, factors, sums);
            }
}

static inline __attribute__((always_inline)) void lay_row(const Element *from, Int between_channels, Int between_places,
                                                          Element *restrict to, Int places, const Int given,
                                                          const Int channels) {
    for (Int x = 0; x < places; x++)
        for (Int c = 0; c < channels; c++)
            to[x * channels + c] = c < given ? from[c * between_channels + x * between_places] : 0;
}

/* Rows of pixels with their channels side by side, zeros for those that are missing up to `channels`, and `padding` pixels
   of zeros at both ends; size is (T, H, W, C) of x, and steps are those between its clips, channels, frames, rows and
   pixels. */
void lay_pixels(const Element *x, const Int *steps, Element *rows, Int clips, const Int *size, Int channels, Int padding,
                int threads) {
    const Int border = padding * channels, inner = size[2] * channels;
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < size[0]; t++)
            for (Int y = 0; y < size[1]; y++) {
                Element *row = rows + ((n * size[0] + t) * size[1] + y) * (inner + 2 * border);
                const Element *from = x + n * steps[0] + t * steps[2] + y * steps[3];
                memset(row, 0, border * sizeof(Element));
                memset(row + border + inner, 0, border * sizeof(Element));
                if (size[3] == 3 && channels == 3 && steps[4] == 1) lay_row(from, steps[1], 1, row + border, size[2], 3, 3);
                else if (size[3] == 3 && channels == 4 && steps[4] == 1) lay_row(from, steps[1], 1, row + border, size[2], 3, 4);
                else lay_row(from, steps[1], steps[4], row + border, size[2], size[3], channels);
            }
}

/* to = high + share * low, rectified if relu; `to` may be high. */
static inline __attribute__((always_inline)) void add(Element *to, const Element *high, const Element *low, float share,
                                                      Int channels, int relu) {
#if MASKED
    const __m512 least = _mm512_set1_ps(relu ? 0 : -__builtin_inff()), factor = _mm512_set1_ps(share);
    for (Int c = 0; c < channels; c += 16) {
        const __mmask16 some = first_of_16(channels - c);
        const __m512 sum = _mm512_fmadd_ps(load_some(some, low + c), factor, load_some(some, high + c));
        store_some(to + c, some, _mm512_max_ps(least, sum)); /* of a maximum with NaN its second number is the result */
    }
#else
#pragma omp simd
    for (Int c = 0; c < channels; c++) {
        float value = load(high[c]) + share * load(low[c]);
        to[c] = store(relu && value < 0 ? 0 : value);
    }
#endif
}

/* Places of the cell that has this index along an axis. */
static inline Int cell_length(Int cell, const Int *size, const Int *factors, int axis) {
    const Int left = size[axis] - cell * factors[axis];
    return left < factors[axis] ? left : factors[axis];
}

/* out = high + upsample(low), of size (T, H, W, C); with `means` an element of low is shared out among the places of its
   cell, as the gradient of a mean is. The places of low lie low_step apart. */
void add_upsampled(const Element *high, const Element *low, Element *out, Int clips, const Int *size, Int low_step,
                   const Int *factors, int means, int threads) {
    const Int frames = num_cells(size, factors, 0), height = num_cells(size, factors, 1);
    const Int width = num_cells(size, factors, 2), channels = size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < size[0]; t++)
            for (Int y = 0; y < size[1]; y++) {
                const Int frame = t / factors[0], row = y / factors[1];
                const Int at = ((n * size[0] + t) * size[1] + y) * size[2] * channels;
                const Int rows = cell_length(frame, size, factors, 0) * cell_length(row, size, factors, 1);
                const Element *from = low + ((n * frames + frame) * height + row) * width * low_step;
                for (Int x = 0; x < size[2]; x++) {
                    const Int cell = x / factors[2], places = rows * cell_length(cell, size, factors, 2);
                    const Int to = at + x * channels;
                    add(out + to, high + to, from + cell * low_step, means ? 1.0f / places : 1, channels, 0);
                }
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
                            if (relu) add(to, to, more, 1, channels, 1);
                            else add(to, to, more, 1, channels, 0);
                        }
                    }
                Element *to = pooled + ((n * frames + t) * height + y) * width * pooled_step;
                if (pooled) pool_cells(high + n * of_clip, channels, to, pooled_step, t, y, size, pooling, 0);
            }
}

static inline float larger(float a, float b) { return a > b || a != a ? a : b; } /* NaN stays */

/* Maxima over the boxes of one row of the output, of which the first is that of frame t and row y. `most` has room for
   a row of x and its padding, twice: the maxima over frames and rows, and over whole boxes. */
static void max_pool_row(const Element *clip, Element *to, Int t, Int y, Int places, const Int *size, const Int *kernel,
                         const Int *stride, const Int *padding, float *most) {
    const Int channels = size[3], row = size[2] * channels;
    const Int padded = row + 2 * padding[2] * channels, boxes = padded - (kernel[2] - 1) * channels;
    for (Int c = 0; c < padded; c++) most[c] = -__builtin_inff();
    const Int first[2] = {t * stride[0] - padding[0], y * stride[1] - padding[1]};
    for (Int a = first[0]; a < first[0] + kernel[0]; a++)
        for (Int b = first[1]; b < first[1] + kernel[1]; b++) {
            if (a < 0 || a >= size[0] || b < 0 || b >= size[1]) continue;
            const Element *from = clip + (a * size[1] + b) * row;
            float *inner = most + padding[2] * channels;
#pragma omp simd
            for (Int c = 0; c < row; c++) inner[c] = larger(load(from[c]), inner[c]);
        }
    float *of_boxes = most + padded;
    memcpy(of_boxes, most, boxes * sizeof(float));
    for (Int k = 1; k < kernel[2]; k++) {
        const float *next = most + k * channels;
#pragma omp simd
        for (Int c = 0; c < boxes; c++) of_boxes[c] = larger(next[c], of_boxes[c]);
    }
    for (Int x = 0; x < places; x++) store_all(to + x * channels, of_boxes + x * stride[2] * channels, channels);
}

/* Maximum over boxes; size is (T, H, W, C) of x, and the three numbers of each other argument are of time, height and
   width. Places beyond the border do not count. Returns 0, or 1 where there is no memory for it. */
int max_pool(const Element *x, Element *out, Int clips, const Int *size, const Int *out_size, const Int *kernel,
             const Int *stride, const Int *padding, int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        float *most = malloc(2 * (size[2] + 2 * padding[2]) * size[3] * sizeof(float));
        failed = !most;
#pragma omp for collapse(3)
        for (Int n = 0; n < clips; n++)
            for (Int t = 0; t < out_size[0]; t++)
                for (Int y = 0; y < out_size[1]; y++) {
                    if (!most) continue;
                    Element *to = out + ((n * out_size[0] + t) * out_size[1] + y) * out_size[2] * size[3];
                    const Element *clip = x + n * size[0] * size[1] * size[2] * size[3];
                    max_pool_row(clip, to, t, y, out_size[2], size, kernel, stride, padding, most);
                }
        free(most);
    }
    return failed;
}
