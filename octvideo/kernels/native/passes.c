/* Passes over channels-last maps, (clips, frames, height, width, channels) side by side in memory, each of which would
   be two or more by a library: see kernels/passes.py and runtime/passes.py in octvideo/. */

#include "cells.h"

static inline Int num_cells(const Int *size, const Int *factors, int axis) {
    return (size[axis] + factors[axis] - 1) / factors[axis];
}

/* Means over cells of a map of size (T, H, W, C), or sums; places lie high_step apart, those of the result pooled_step. */
void pool(const Element *high, Int high_step, Element *pooled, Int clips, const Int *size, Int pooled_step,
          const Int *factors, int sums, int threads) {
    const Int frames = num_cells(size, factors, 0), height = num_cells(size, factors, 1);
    const Int width = num_cells(size, factors, 2), of_clip = size[0] * size[1] * size[2] * high_step;
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < frames; t++)
            for (Int y = 0; y < height; y++) {
                Int place = ((n * frames + t) * height + y) * width;
                const Element *clip = high + n * of_clip;
                Element *to = pooled + place * pooled_step;
                pool_cells(clip, high_step, to, pooled_step, t, y, size, factors, sums, -__builtin_inff());
            }
}

static inline __attribute__((always_inline)) void lay_row(const Element *from, Int between_channels, Int between_places,
                                                          Element *restrict to, Int places, const Int given,
                                                          const Int channels) {
    for (Int x = 0; x < places; x++)
        for (Int c = 0; c < channels; c++)
            to[x * channels + c] = c < given ? from[c * between_channels + x * between_places] : 0;
}

/* Three colours one after the other, as videos come, to pixels of four channels. */
static void lay_colours(const Element *from, Int between_channels, Element *to, Int places) {
    Int x = 0;
#if HAS_AVX512
    const Element *red = from, *green = red + between_channels, *blue = green + between_channels;
#endif
#if HAS_AVX512 && defined(BFLOAT16)
    for (; x + 8 <= places; x += 8) {
        const __m512i r = _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(red + x)));
        const __m512i g = _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(green + x)));
        const __m512i b = _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(blue + x)));
        const __m512i pixels = _mm512_or_si512(r, _mm512_or_si512(_mm512_slli_epi64(g, 16), _mm512_slli_epi64(b, 32)));
        _mm512_storeu_si512(to + x * 4, pixels);
    }
#elif HAS_AVX512
    const __m512i each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    for (; x + 4 <= places; x += 4) {
        const __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(red + x)), g = _mm512_castps128_ps512(_mm_loadu_ps(green + x));
        const __m512 b = _mm512_castps128_ps512(_mm_loadu_ps(blue + x));
        __m512 pixels = _mm512_maskz_permutexvar_ps(0x1111, each, r);
        pixels = _mm512_mask_permutexvar_ps(pixels, 0x2222, each, g);
        _mm512_storeu_ps(to + x * 4, _mm512_mask_permutexvar_ps(pixels, 0x4444, each, b));
    }
#endif
    lay_row(from + x, between_channels, 1, to + x * 4, places - x, 3, 4);
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
                Element *to = row + border;
                const int in_colour = size[3] == 3 && steps[4] == 1; /* and colour by colour, as videos come */
                if (in_colour && channels == 3) lay_row(from, steps[1], 1, to, size[2], 3, 3);
                else if (in_colour && channels == 4) lay_colours(from, steps[1], to, size[2]);
                else lay_row(from, steps[1], steps[4], to, size[2], size[3], channels);
            }
}

/* to = high + share * low, rectified if relu; `to` may be high. */
static inline __attribute__((always_inline)) void add(Element *to, const Element *high, const Element *low, float share,
                                                      Int channels, int relu) {
#if HAS_AVX512
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
                if (!pooled) continue;
                Element *to = pooled + ((n * frames + t) * height + y) * width * pooled_step;
                pool_cells(high + n * of_clip, channels, to, pooled_step, t, y, size, pooling, 0, -__builtin_inff());
            }
}

/* Boxes of a pooling and the map on which they lie; three numbers are of time, height and width. */
typedef struct {
    const Int *size, *kernel, *stride, *padding;
    Int step; /* between places of the map */
} Boxes;

/* The places of a box that lie on the map, [from, to) on each axis. */
typedef struct {
    Int from[3], to[3];
} Box;

static inline void clip_box(const Boxes *boxes, int axis, Int place, Box *box) {
    const Int from = place * boxes->stride[axis] - boxes->padding[axis], to = from + boxes->kernel[axis];
    box->from[axis] = from < 0 ? 0 : from;
    box->to[axis] = to < boxes->size[axis] ? to : boxes->size[axis];
}

#define AT_ONCE 64 /* channels, of which the maxima stay in registers */
#define VECTOR 16

/* The maxima of up to `vectors` times VECTOR channels over a box; NaN stays. `vectors` is a constant where this is called. */
static inline __attribute__((always_inline)) void max_of_box(const Boxes *boxes, const Box *box, const Element *clip,
                                                             Element *to, Int channels, const int vectors) {
#if HAS_AVX512
    const __mmask16 last = first_of_16(channels - VECTOR * (vectors - 1));
    __m512 most[AT_ONCE / VECTOR];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) most[v] = _mm512_set1_ps(-__builtin_inff());
#else
    float most[AT_ONCE];
    for (Int c = 0; c < channels; c++) most[c] = -__builtin_inff();
#endif
    for (Int t = box->from[0]; t < box->to[0]; t++)
        for (Int y = box->from[1]; y < box->to[1]; y++) {
            const Element *at = clip + ((t * boxes->size[1] + y) * boxes->size[2] + box->from[2]) * boxes->step;
            for (Int x = box->from[2]; x < box->to[2]; x++, at += boxes->step) {
#if HAS_AVX512
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) {
                    const __m512 values = load_some(v < vectors - 1 ? 0xffff : last, at + VECTOR * v);
                    const __mmask16 numbers = _mm512_cmp_ps_mask(values, values, _CMP_ORD_Q);
                    /* of a maximum with NaN its second number is the result */
                    most[v] = _mm512_mask_max_ps(values, numbers, values, most[v]);
                }
#else
#pragma omp simd
                for (Int c = 0; c < channels; c++) {
                    const float value = load(at[c]);
                    most[c] = most[c] > value || most[c] != most[c] ? most[c] : value;
                }
#endif
            }
        }
#if HAS_AVX512
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        store_some(to + VECTOR * v, v < vectors - 1 ? 0xffff : last, most[v]);
#else
    for (Int c = 0; c < channels; c++) to[c] = store(most[c]);
#endif
}

static void max_of_channels(const Boxes *boxes, const Box *box, const Element *clip, Element *to, Int channels) {
    for (; channels >= AT_ONCE; channels -= AT_ONCE, clip += AT_ONCE, to += AT_ONCE)
        max_of_box(boxes, box, clip, to, AT_ONCE, 4);
    if (channels > 3 * VECTOR) max_of_box(boxes, box, clip, to, channels, 4);
    else if (channels > 2 * VECTOR) max_of_box(boxes, box, clip, to, channels, 3);
    else if (channels > VECTOR) max_of_box(boxes, box, clip, to, channels, 2);
    else if (channels) max_of_box(boxes, box, clip, to, channels, 1);
}

/* Maximum over boxes; size is (T, H, W, C) of x, whose places lie `step` apart, and the three numbers of each other argument
   are of time, height and width. Places beyond the border do not count. */
void max_pool(const Element *x, Int step, Element *out, Int clips, const Int *size, const Int *out_size, const Int *kernel,
              const Int *stride, const Int *padding, int threads) {
    const Boxes boxes = {size, kernel, stride, padding, step};
    const Int channels = size[3];
#pragma omp parallel for collapse(3) num_threads(threads)
    for (Int n = 0; n < clips; n++)
        for (Int t = 0; t < out_size[0]; t++)
            for (Int y = 0; y < out_size[1]; y++) {
                const Element *clip = x + n * size[0] * size[1] * size[2] * step;
                Element *to = out + ((n * out_size[0] + t) * out_size[1] + y) * out_size[2] * channels;
                Box box;
                clip_box(&boxes, 0, t, &box);
                clip_box(&boxes, 1, y, &box);
                for (Int place = 0; place < out_size[2]; place++, to += channels) {
                    clip_box(&boxes, 2, place, &box);
                    max_of_channels(&boxes, &box, clip, to, channels);
                }
            }
}
