/* Convolution over channels-last maps, (clips, frames, height, width, channels) side by side in memory, that adds what
   else belongs to its sum, rectifies, and pools the result while it is in the cache: see octvideo/runtime/tiles.py.

   The output is made in tiles of ROWS places by up to VECTORS vectors of channels, whose sums stay in registers while
   all that the places read is multiplied with the weights. */

#include <omp.h>
#include <stdlib.h>

#include "cells.h"
#include "vectors.h"

#define VECTORS 3
#define LINE (64 / (Int)sizeof(Element))
#define MAX_TAPS 128
#define MAX_CHANNELS 16384
#define STRIP 128           /* places that meet the same weights one after the other */
#define RESIDENT (3 << 17)  /* bytes of weights that stay in the second cache beside a strip */

/* All that stays the same between calls; three numbers are of time, height and width, steps are in elements. */
typedef struct {
    Int clips, size[3], out_size[3];
    Int steps[4]; /* between clips, frames, rows and places of the input */
    Int kernel[3], stride[3], padding[3], dilation[3];
    Int channels, out_channels;
    Int out_step, summand_step; /* between places */
    Int raised_factors[3], pool_factors[3];
    Int pooled_step, relu, threads;
    Int cache_bytes; /* of the last level */
} Plan;

typedef struct {
    const Element *in, *weights;
    const float *bias;
    Element *out;
    const Element *summand; /* as large as out, or missing */
    Element *pooled;        /* means of out over pool_factors, or missing */
} Maps;

/* True where there is a kernel for this processor and type, and for a convolution of this many channels and taps. */
Int can_convolve(Int channels, Int taps) { return LANES && channels <= MAX_CHANNELS && taps <= MAX_TAPS; }

#if LANES

/* Output channels are made in blocks of up to VECTORS vectors, which share the channels out in halves of vectors. */
static Int num_halves(Int out_channels) { return (out_channels + LANES / 2 - 1) / (LANES / 2); }
Int num_blocks(Int out_channels) { return (num_halves(out_channels) + 2 * VECTORS - 1) / (2 * VECTORS); }

/* First channel of a block; of the one after the last, the end of the padded channels. */
Int block_start(Int out_channels, Int block) {
    Int halves = num_halves(out_channels), blocks = num_blocks(out_channels), start = block * halves / blocks;
    return (block < blocks ? start + start % 2 : halves) * (LANES / 2);
}

/* Up to ROWS places of the output, and where what they read begins, tap by tap; taps that all lie outside are left
   out. */
typedef struct {
    const Element *at[MAX_TAPS][ROWS];
    const Element *ahead[MAX_TAPS]; /* what the first row reads after each tap; the others lie one step apart */
    Int step, taps[MAX_TAPS], num_taps, rows;
    Element *out[ROWS];
    const Element *summand[ROWS], *raised[ROWS];
} Tile;

static const Element zeros[MAX_CHANNELS];

/* A call, and what all its tiles share. */
typedef struct {
    const Plan *plan;
    const Maps *maps;
    Int taps, places;
    Int depth;             /* packed weights per output channel */
    Int *starts, together; /* of the blocks; how many of them stay in the cache at a time */
    Int *offsets;          /* of the taps, in elements of the input */
    uint32_t *inside[3];   /* for each place on an axis, a bit for each of the kernel's elements that reads the input */
    uint32_t whole[3];     /* all of these bits */
    Int inner[2];          /* places on the last axis, [first, last), of which all elements read the input */
} Work;

/* Add what is to be added to the sums (rows x width), rectify and store, where a tile is not full. */
static __attribute__((noinline)) void finish(const Plan *plan, const Tile *tile, const float *sums, Int start,
                                             Int width) {
    Int count = plan->out_channels - start < width ? plan->out_channels - start : width;
    for (Int r = 0; r < tile->rows; r++, sums += width)
        for (Int c = 0; c < count; c++) {
            float value = sums[c];
            if (tile->summand[r]) value += load(tile->summand[r][start + c]);
            if (tile->raised[r]) value += load(tile->raised[r][start + c]);
            tile->out[r][start + c] = store(plan->relu && value < 0 ? 0 : value);
        }
}

/* Channels [start, start + width) of a tile; width is fulls full vectors and a half one if so. The numbers of rows and
   vectors are constants where this is called, so that all sums are registers. */
static inline __attribute__((always_inline)) void multiply(const Plan *plan, const Tile *tile, const Element *weights,
                                                           const float *bias, Int start, const int rows,
                                                           const int fulls, const int half) {
    const int width = LANES * fulls + LANES / 2 * half;
    const Int step = width * DEPTH, channels = plan->channels, of_tap = (channels + DEPTH - 1) / DEPTH * step;
    Full sum[ROWS][VECTORS];
    Half rest[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < fulls; v++) sum[r][v] = FULL(loadu_ps)(bias + start + LANES * v);
        if (half) rest[r] = HALF(loadu_ps)(bias + start + LANES * fulls);
    }

    for (int r = 0; r < rows && tile->summand[0]; r++) /* of the next tile */
        for (int c = 0; c < width; c += LINE)
            __builtin_prefetch(tile->summand[r] + ROWS * plan->summand_step + start + c);

#define STEP(factor_of) \
    { \
        FullWeights b[VECTORS]; \
        HalfWeights h; \
        _Pragma("GCC unroll 4") for (int v = 0; v < fulls; v++) b[v] = full_weights(w + LANES * DEPTH * v); \
        if (half) h = half_weights(w + LANES * DEPTH * fulls); \
        _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) { \
            Factor a = factor_of(at[r] + c); \
            _Pragma("GCC unroll 4") for (int v = 0; v < fulls; v++) sum[r][v] = full_add(sum[r][v], a, b[v]); \
            if (half) rest[r] = half_add(rest[r], a, h); \
        } \
    }

    for (Int i = 0; i < tile->num_taps; i++) {
        const Element *at[ROWS], *w = weights + tile->taps[i] * of_tap;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) at[r] = tile->at[i][r];
        Int c = 0;
        const Element *ahead = tile->ahead[i];
        while (c + DEPTH <= channels) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) __builtin_prefetch(ahead + r * tile->step + c);
            const Int end = c + LINE < channels ? c + LINE : channels;
            for (; c + DEPTH <= end; c += DEPTH, w += step) STEP(factor)
        }
        if (DEPTH > 1 && c < channels) STEP(last_factor)
    }
#undef STEP

    if (tile->rows == rows && start + width <= plan->out_channels) {
        const float least = plan->relu ? 0 : -__builtin_inff();
        const Full full_least = FULL(set1_ps)(least);
        const Half half_least = HALF(set1_ps)(least);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const Element *added[2] = {tile->summand[r], tile->raised[r]};
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                if (!added[i]) continue;
                const Element *more = added[i] + start;
#pragma GCC unroll 4
                for (int v = 0; v < fulls; v++) sum[r][v] = FULL(add_ps)(sum[r][v], full_load(more + LANES * v));
                if (half) rest[r] = HALF(add_ps)(rest[r], half_load(more + LANES * fulls));
            }
            Element *out = tile->out[r] + start; /* of a maximum with NaN its second number is the result */
#pragma GCC unroll 4
            for (int v = 0; v < fulls; v++) full_store(out + LANES * v, FULL(max_ps)(full_least, sum[r][v]));
            if (half) half_store(out + LANES * fulls, HALF(max_ps)(half_least, rest[r]));
        }
        return;
    }
    float sums[ROWS * VECTORS * LANES];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < fulls; v++) FULL(storeu_ps)(sums + r * width + LANES * v, sum[r][v]);
        if (half) HALF(storeu_ps)(sums + r * width + LANES * fulls, rest[r]);
    }
    finish(plan, tile, sums, start, width);
}

typedef void Multiply(const Plan *, const Tile *, const Element *, const float *, Int);
#define HALF_ROWS (ROWS / 2)
#define MULTIPLY(rows, halves) \
    static void multiply_##rows##_##halves(const Plan *plan, const Tile *tile, const Element *weights, \
                                           const float *bias, Int start) { \
        multiply(plan, tile, weights, bias, start, rows, halves / 2, halves % 2); \
    }
MULTIPLY(ROWS, 1) MULTIPLY(ROWS, 2) MULTIPLY(ROWS, 3) MULTIPLY(ROWS, 4) MULTIPLY(ROWS, 5) MULTIPLY(ROWS, 6)
MULTIPLY(HALF_ROWS, 1) MULTIPLY(HALF_ROWS, 2) MULTIPLY(HALF_ROWS, 3)
MULTIPLY(HALF_ROWS, 4) MULTIPLY(HALF_ROWS, 5) MULTIPLY(HALF_ROWS, 6)
#define BY_WIDTH(rows) \
    {multiply_##rows##_1, multiply_##rows##_2, multiply_##rows##_3, \
     multiply_##rows##_4, multiply_##rows##_5, multiply_##rows##_6}
static Multiply *const multiply_rows[2 * VECTORS] = BY_WIDTH(ROWS), *const multiply_half_rows[2 * VECTORS] = BY_WIDTH(HALF_ROWS);

static void find_inside(const Plan *plan, int axis, Work *work) {
    const Int places = plan->out_size[axis], kernel = plan->kernel[axis];
    uint32_t *inside = work->inside[axis] = calloc(places, sizeof(uint32_t));
    work->whole[axis] = ~0u >> (32 - kernel);
    for (Int place = 0; place < places; place++)
        for (Int k = 0; k < kernel; k++) {
            Int from = place * plan->stride[axis] - plan->padding[axis] + k * plan->dilation[axis];
            inside[place] |= (uint32_t)(from >= 0 && from < plan->size[axis]) << k;
        }
}

static void find_offsets(const Plan *plan, Work *work) {
    const Int *steps = plan->steps, *dilation = plan->dilation;
    Int *offset = work->offsets = malloc(work->taps * sizeof(Int));
    for (Int t = 0; t < plan->kernel[0]; t++)
        for (Int y = 0; y < plan->kernel[1]; y++)
            for (Int x = 0; x < plan->kernel[2]; x++)
                *offset++ = t * dilation[0] * steps[1] + y * dilation[1] * steps[2] + x * dilation[2] * steps[3];
}

static Work prepare(const Plan *plan, const Maps *maps) {
    const Int blocks = num_blocks(plan->out_channels);
    Work work = {.plan = plan, .maps = maps, .taps = 1, .places = plan->clips};
    for (int axis = 0; axis < 3; axis++) {
        work.taps *= plan->kernel[axis];
        work.places *= plan->out_size[axis];
        find_inside(plan, axis, &work);
    }
    find_offsets(plan, &work);
    const Int width = plan->out_size[2];
    while (work.inner[0] < width && work.inside[2][work.inner[0]] != work.whole[2]) work.inner[0]++;
    work.inner[1] = work.inner[0];
    while (work.inner[1] < width && work.inside[2][work.inner[1]] == work.whole[2]) work.inner[1]++;
    work.depth = work.taps * ((plan->channels + DEPTH - 1) / DEPTH * DEPTH);
    work.together = RESIDENT / (work.depth * VECTORS * LANES * (Int)sizeof(Element));
    if (work.together < 1) work.together = 1;
    work.starts = malloc((blocks + 1) * sizeof(Int));
    for (Int block = 0; block <= blocks; block++) work.starts[block] = block_start(plan->out_channels, block);
    return work;
}

static void discard(Work *work) {
    for (int axis = 0; axis < 3; axis++) free(work->inside[axis]);
    free(work->offsets);
    free(work->starts);
}

/* The coordinates of a place of the output; returns its clip. */
static Int locate(const Plan *plan, Int place, Int *at) {
    for (int axis = 2; axis >= 0; axis--) {
        at[axis] = place % plan->out_size[axis];
        place /= plan->out_size[axis];
    }
    return place;
}

/* Where in the smaller map that is up-sampled lies what is added at a place. */
static Int raised_place(const Plan *plan, Int clip, const Int *at) {
    for (int axis = 0; axis < 3; axis++) {
        Int halved = plan->raised_factors[axis] == 2;
        clip = clip * ((plan->out_size[axis] + halved) >> halved) + (at[axis] >> halved);
    }
    return clip;
}

/* A place of the output on the way over a strip, and what the places of its row share. */
typedef struct {
    Int clip, at[3];
    const Element *in, *raised; /* of the row's first place */
    uint32_t reads[2];          /* the kernel's frames and rows that lie inside */
} Cursor;

static void enter_row(const Work *work, const Element *raised, Cursor *cursor) {
    const Plan *plan = work->plan;
    Int from = cursor->clip * plan->steps[0] - plan->padding[2] * plan->steps[3];
    for (int axis = 0; axis < 2; axis++) {
        from += (cursor->at[axis] * plan->stride[axis] - plan->padding[axis]) * plan->steps[axis + 1];
        cursor->reads[axis] = work->inside[axis][cursor->at[axis]];
    }
    cursor->in = work->maps->in + from;
    if (!raised) return;
    Int first[3] = {cursor->at[0], cursor->at[1], 0};
    cursor->raised = raised + raised_place(plan, cursor->clip, first) * plan->out_channels;
}

static Cursor start_at(const Work *work, const Element *raised, Int place) {
    Cursor cursor = {0};
    cursor.clip = locate(work->plan, place, cursor.at);
    enter_row(work, raised, &cursor);
    return cursor;
}

static void advance(const Work *work, const Element *raised, Int places, Cursor *cursor) {
    const Int *size = work->plan->out_size;
    cursor->at[2] += places;
    if (cursor->at[2] < size[2]) return;
    cursor->at[2] = 0;
    if (++cursor->at[1] == size[1]) {
        cursor->at[1] = 0;
        if (++cursor->at[0] == size[0]) cursor->at[0] = 0, cursor->clip++;
    }
    enter_row(work, raised, cursor);
}

/* True where the next ROWS places lie in one row and all that they read lies inside. */
static int is_inner(const Work *work, const Cursor *cursor) {
    Int x = cursor->at[2];
    return x >= work->inner[0] && x + ROWS <= work->inner[1] && cursor->reads[0] == work->whole[0] &&
           cursor->reads[1] == work->whole[1];
}

static void lay_inner(const Work *work, const Cursor *cursor, int has_raised, Tile *tile) {
    const Plan *plan = work->plan;
    const Int halved = plan->raised_factors[2] == 2, step = plan->stride[2] * plan->steps[3];
    const Element *base = cursor->in + cursor->at[2] * step;
    for (Int tap = 0; tap < work->taps; tap++) {
        for (Int r = 0; r < ROWS; r++) tile->at[tap][r] = base + work->offsets[tap] + r * step;
        tile->taps[tap] = tap;
    }
    tile->num_taps = work->taps;
    for (Int r = 0; r < ROWS; r++)
        tile->raised[r] = has_raised ? cursor->raised + ((cursor->at[2] + r) >> halved) * plan->out_channels : 0;
}

/* Places in several rows, or at a border: taps outside read zeros, and taps of which all are outside are left out. */
static void lay_border(const Work *work, const Element *raised, Int rows, Cursor *cursor, Tile *tile) {
    const Plan *plan = work->plan;
    const Int halved = plan->raised_factors[2] == 2, step = plan->stride[2] * plan->steps[3];
    const Element *base[ROWS];
    uint32_t reads[3][ROWS];
    for (Int r = 0; r < ROWS; r++) { /* those beyond the last are the last one again */
        base[r] = cursor->in + cursor->at[2] * step;
        reads[0][r] = cursor->reads[0];
        reads[1][r] = cursor->reads[1];
        reads[2][r] = work->inside[2][cursor->at[2]];
        tile->raised[r] = raised ? cursor->raised + (cursor->at[2] >> halved) * plan->out_channels : 0;
        if (r + 1 < rows) advance(work, raised, 1, cursor);
    }
    Int tap = 0, used = 0;
    for (Int t = 0; t < plan->kernel[0]; t++)
        for (Int y = 0; y < plan->kernel[1]; y++)
            for (Int x = 0; x < plan->kernel[2]; x++, tap++) {
                uint32_t any = 0;
                for (int r = 0; r < ROWS; r++) {
                    uint32_t in = reads[0][r] >> t & reads[1][r] >> y & reads[2][r] >> x & 1;
                    tile->at[used][r] = in ? base[r] + work->offsets[tap] : zeros;
                    any |= in;
                }
                tile->taps[used] = tap;
                used += any;
            }
    tile->num_taps = used;
}

/* The tile of the places [first, first + rows) in their order in memory, at which the cursor stands; it moves on. */
static void lay(const Work *work, const Element *raised, Int first, Int rows, Cursor *cursor, Tile *tile) {
    const Plan *plan = work->plan;
    const Maps *maps = work->maps;
    for (Int r = 0; r < ROWS; r++) {
        tile->out[r] = maps->out + (first + r) * plan->out_step;
        tile->summand[r] = maps->summand ? maps->summand + (first + r) * plan->summand_step : 0;
    }
    tile->rows = rows;
    tile->step = plan->stride[2] * plan->steps[3];
    int inner = rows == ROWS && is_inner(work, cursor);
    if (inner) lay_inner(work, cursor, raised != 0, tile);
    else lay_border(work, raised, rows, cursor, tile);
    advance(work, raised, inner ? ROWS : 1, cursor);
    for (Int i = 0; i + 1 < tile->num_taps; i++) tile->ahead[i] = tile->at[i + 1][0];
    if (tile->num_taps) tile->ahead[tile->num_taps - 1] = tile->at[0][0] + ROWS * tile->step; /* of the next tile */
}

/* Rows of cells are the units of work, those of one place each where nothing is pooled and nothing up-sampled. They lie
   one after the other in memory. */
static Int rows_in_frame(const Plan *plan, const Int *factors) {
    return factors[0] > 1 ? 1 : (plan->out_size[1] + factors[1] - 1) / factors[1];
}

static Int num_frames(const Plan *plan, const Int *factors) {
    return (plan->out_size[0] + factors[0] - 1) / factors[0];
}

/* First place of a row of cells, which are counted over all clips; where factors[0] is 2, it holds two frames. */
static Int start_of_row(const Plan *plan, const Int *factors, Int row) {
    const Int *size = plan->out_size;
    Int in_frame = rows_in_frame(plan, factors), frames = num_frames(plan, factors), frame = row / in_frame;
    Int clip = frame / frames, of_height = factors[0] > 1 ? 0 : row % in_frame * factors[1];
    return ((clip * size[0] + frame % frames * factors[0]) * size[1] + of_height) * size[2];
}

/* Pool one row of cells of the finished output, which begins at `out`. */
static void pool_row(const Plan *plan, const Maps *maps, const Element *out, Int row) {
    const Int *factors = plan->pool_factors;
    Int size[4] = {plan->out_size[0], plan->out_size[1], plan->out_size[2], plan->out_channels}, low[3];
    for (int axis = 0; axis < 3; axis++) low[axis] = (size[axis] + factors[axis] - 1) / factors[axis];
    Int in_frame = rows_in_frame(plan, factors), frame = row / in_frame, clip = frame / low[0];
    Int first = factors[0] > 1 ? 0 : row % in_frame, last = factors[0] > 1 ? low[1] : first + 1;
    const Element *high = out + clip * size[0] * size[1] * size[2] * plan->out_step;
    for (Int y = first; y < last; y++) {
        Element *to = maps->pooled + (frame * low[1] + y) * low[2] * plan->pooled_step;
        pool_cells(high, plan->out_step, to, plan->pooled_step, frame % low[0], y, size, factors);
    }
}

/* The places [first, last) of the output, which begins at `out`. */
static void convolve_strip(const Work *given, Element *out, const Element *raised, Int first, Int last) {
    const Int blocks = num_blocks(given->plan->out_channels);
    Maps maps = *given->maps;
    maps.out = out;
    Work work = *given;
    work.maps = &maps;
    Tile tile;
    for (Int block = 0; block < blocks; block += work.together) {
        Cursor cursor = start_at(&work, raised, first);
        for (Int place = first; place < last; place += ROWS) {
            Int rows = last - place < ROWS ? last - place : ROWS;
            lay(&work, raised, place, rows, &cursor, &tile);
            Multiply *const *by_width = rows > HALF_ROWS ? multiply_rows : multiply_half_rows;
            for (Int b = block; b < blocks && b < block + work.together; b++) {
                Int start = work.starts[b], width = work.starts[b + 1] - start;
                const Element *weights = maps.weights + start * work.depth;
                by_width[width / (LANES / 2) - 1](work.plan, &tile, weights, maps.bias, start);
            }
        }
    }
}

/* What is to be up-sampled over the places [first, last): a strip of a convolution of its own, written to `strip`.
   Returns where the first place of all would lie. */
static const Element *raise_strip(const Plan *plan, const Work *raising, Int first, Int last, Element *strip) {
    Int at[3], clip = locate(plan, first, at), from = raised_place(plan, clip, at);
    clip = locate(plan, last - 1, at);
    Element *out = strip - from * plan->out_channels;
    convolve_strip(raising, out, 0, from, raised_place(plan, clip, at) + 1);
    return out;
}

/* Copy past the caches, which a large map would only empty. */
static void stream(Element *to, const Element *from, Int count) {
    Int head = (64 - (uintptr_t)to % 64) % 64 / sizeof(Element), c = head < count ? head : count;
    memcpy(to, from, c * sizeof(Element));
    const Int step = sizeof(Full) / sizeof(Element);
    for (; c + step <= count; c += step)
        FULL(stream_ps)((float *)(to + c), FULL(loadu_ps)((const float *)(from + c)));
    memcpy(to + c, from + c, (count - c) * sizeof(Element));
}

/* How the rows of cells are shared out: in strips of several rows, which do not cross frames where there are several in
   each frame. A kernel that moves over time then meets the frames of a strip one after the other, so that it finds what
   the frame before has read in the cache. */
typedef struct {
    const Int *factors;
    Int rows, in_frame, frames; /* rows in all, in a frame, frames in a clip */
    Int at_once, per_frame, number, places; /* rows, strips in a frame (0: they cross), strips, places in a strip at most */
    Int by_column;
} Strips;

static Strips share_out(const Work *work, const Int *factors) {
    const Plan *plan = work->plan;
    const Int *size = plan->out_size, in_row = factors[0] * (factors[0] > 1 ? size[1] : factors[1]) * size[2];
    Int places = work->places / (2 * plan->threads);
    places = places < 1 ? 1 : places > STRIP ? STRIP : places;
    Strips strips = {.factors = factors, .in_frame = rows_in_frame(plan, factors), .frames = num_frames(plan, factors)};
    strips.rows = plan->clips * strips.frames * strips.in_frame;
    strips.at_once = (places + in_row - 1) / in_row;
    strips.places = strips.at_once * in_row;
    strips.number = (strips.rows + strips.at_once - 1) / strips.at_once;
    if (strips.at_once >= strips.in_frame) return strips;
    strips.per_frame = (strips.in_frame + strips.at_once - 1) / strips.at_once;
    strips.at_once = (strips.in_frame + strips.per_frame - 1) / strips.per_frame; /* as equal as can be */
    strips.number = plan->clips * strips.frames * strips.per_frame;
    strips.by_column = plan->kernel[0] > 1;
    return strips;
}

/* The rows of cells of a strip, [*row, *end). */
static void rows_of_strip(const Strips *strips, Int strip, Int *row, Int *end) {
    Int first = 0, all = strips->rows, in_clip = strips->frames * strips->per_frame;
    if (strips->per_frame) {
        Int clip = strip / in_clip, rest = strip % in_clip;
        Int frame = strips->by_column ? rest % strips->frames : rest / strips->per_frame;
        strip = strips->by_column ? rest / strips->frames : rest % strips->per_frame;
        first = (clip * strips->frames + frame) * strips->in_frame;
        all = strips->in_frame;
    }
    *row = first + strip * strips->at_once;
    *end = first + ((strip + 1) * strips->at_once < all ? (strip + 1) * strips->at_once : all);
}

/* The result at every place: bias + convolution + summand + another convolution's result up-sampled, which may be
   missing, rectified if so; and its means over the cells. Returns 0, or 1 where there is no memory for it. */
int convolve(const Plan *plan, const Maps *maps, const Plan *raising_plan, const Maps *raising_maps) {
    Work work = prepare(plan, maps), raising;
    if (raising_plan) raising = prepare(raising_plan, raising_maps);
    static const Int whole[3] = {1, 1, 1};
    const Int *factors = maps->pooled ? plan->pool_factors : raising_plan ? plan->raised_factors : whole;
    const Strips strips = share_out(&work, factors);
    const Int bytes = work.places * plan->out_channels * (Int)sizeof(Element);
    const int streams =
        maps->summand != maps->out && bytes > plan->cache_bytes / 4 && plan->out_step == plan->out_channels;
    const Int a_column = strips.by_column ? strips.frames : 1, a_share = strips.number / (4 * plan->threads);
    const Int chunk = a_share < 1 ? 1 : a_share < a_column ? a_share : a_column;
    const Int a_strip = (strips.places * plan->out_channels * (Int)sizeof(Element) + 63) / 64 * 64;
    const int needs_room = raising_plan || streams;
    char *room = needs_room ? aligned_alloc(64, 2 * plan->threads * a_strip) : 0;
    const int failed = needs_room && !room;
#pragma omp parallel num_threads(plan->threads) if (!failed)
    {
        char *mine = room ? room + 2 * omp_get_thread_num() * a_strip : 0;
        Element *out_strip = (Element *)mine, *raised_strip = (Element *)(mine ? mine + a_strip : 0);
#pragma omp for schedule(dynamic, chunk)
        for (Int s = 0; s < (failed ? 0 : strips.number); s++) {
            Int row, end;
            rows_of_strip(&strips, s, &row, &end);
            Int first = start_of_row(plan, factors, row), last = start_of_row(plan, factors, end);
            const Element *raised = raising_plan ? raise_strip(plan, &raising, first, last, raised_strip) : 0;
            Element *out = streams ? out_strip - first * plan->out_channels : maps->out;
            convolve_strip(&work, out, raised, first, last);
            for (; maps->pooled && row < end; row++) pool_row(plan, maps, out, row);
            if (streams) stream(maps->out + first * plan->out_channels, out_strip, (last - first) * plan->out_channels);
        }
        if (streams) _mm_sfence();
    }
    free(room);
    discard(&work);
    if (raising_plan) discard(&raising);
    return failed;
}

#else
Int num_blocks(Int out_channels) { return out_channels > 0; }
Int block_start(Int out_channels, Int block) { return block * out_channels; }
int convolve(const Plan *plan, const Maps *maps, const Plan *raising_plan, const Maps *raising_maps) {
    (void)plan, (void)maps, (void)raising_plan, (void)raising_maps;
    return 0;
}
#endif
