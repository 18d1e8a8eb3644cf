/* The strips of a convolution by vectors: tiles of ROWS places by up to VECTORS vectors of channels, whose sums stay in
   registers while all that the places read is multiplied with the weights. */

#ifndef VECTOR_STRIPS_H
#define VECTOR_STRIPS_H

#include "vectors.h"

#define ROWS (LANES / 2) /* 8 x 3 sums, 3 weights and a factor are 28 of 32 registers; 4 x 3 and these are all 16 */
#define VECTORS 3
#define UNIT (LANES / 2)
#define UNITS (2 * VECTORS)
#define RESIDENT (3 << 17) /* bytes of weights that stay in the second cache beside a strip */
#define STRIP 256          /* places that meet the same weights one after the other */
#define AT_ONCE (2 * DEPTH) /* channels */
#define LINE (64 / (Int)sizeof(Element))

#include "places.h"

static Int padded_channels(Int channels) { return (channels + AT_ONCE - 1) / AT_ONCE * AT_ONCE; }
Int reads_in_place(Int channels) { return channels > 0; }

/* Multiply-adds that instructions make of a convolution: whether their channels are there or not. */
Int executed(Int places, Int out_channels, Int channels, Int taps, Int together) {
    (void)together;
    return places * padded_out_channels(out_channels) * channels * taps;
}

/* What only matrix instructions do. */
Int copies_strips(Int height, Int width, Int stride_of_rows, Int stride_of_places) {
    (void)height, (void)width, (void)stride_of_rows, (void)stride_of_places;
    return 0;
}

Int matrices_pay(Int channels, Int out_channels, Int taps, Int copies) {
    (void)channels, (void)out_channels, (void)taps, (void)copies;
    return 0;
}

Int reads_low(Int channels, Int low_channels) {
    (void)channels, (void)low_channels;
    return 0;
}

Int taps_together(Int channels, Int width, Int dilation, Int copies) {
    (void)channels, (void)width, (void)dilation, (void)copies;
    return 1;
}

Int packed_size(Int out_channels, Int channels, Int taps, Int together) {
    return padded_out_channels(out_channels) * padded_channels(channels) * (taps / together);
}

/* Weights, (out_channels, channels, taps), in the order in which `multiply` reads them. */
void pack(const Element *weights, Element *packed, Int out_channels, Int channels, Int taps, Int together,
          Int low_channels) {
    (void)together, (void)low_channels;
    const Weights given = {weights, out_channels, channels, taps};
    for (Int block = 0; block < num_blocks(out_channels); block++) {
        const Int start = block_start(out_channels, block), end = block_start(out_channels, block + 1);
        const Int half = start + (end - start) / LANES * LANES; /* where it begins, if there is one */
        for (Int tap = 0; tap < taps; tap++)
            for (Int c = 0; c < channels; c += AT_ONCE) {
                for (Int d = 0; d < AT_ONCE; d += DEPTH)
                    for (Int o = start; o < half; o++)
                        for (Int e = 0; e < DEPTH; e++) *packed++ = weight_at(&given, o, c + d + e, tap);
                for (Int o = half; o < end; o++)
                    for (Int e = 0; e < AT_ONCE; e++) *packed++ = weight_at(&given, o, c + e, tap);
            }
    }
}

/* Up to ROWS places of the output, and where what they read begins, tap by tap; taps that all lie outside are left
   out. */
typedef struct {
    const Element *at[MAX_TAPS][ROWS];
    const Element *ahead[MAX_TAPS]; /* what the first row reads after each tap */
    Int taps[MAX_TAPS], num_taps, rows;
    Element *out[ROWS];
    const Element *summand[ROWS], *raised[ROWS];
} Tile;

/* Add what is to be added to the sums (rows x width), rectify and store, where a tile is not full. */
static __attribute__((noinline)) void finish(const Plan *plan, const Tile *tile, const float *sums,
                                             const float *least, Int start, Int width) {
    Int count = plan->out_channels - start < width ? plan->out_channels - start : width;
    for (Int r = 0; r < tile->rows; r++, sums += width)
        for (Int c = 0; c < count; c++) {
            float value = sums[c];
            if (tile->summand[r]) value += load(tile->summand[r][start + c]);
            if (tile->raised[r]) value += load(tile->raised[r][start + c]);
            tile->out[r][start + c] = store(value < least[start + c] ? least[start + c] : value);
        }
}

/* Channels [start, start + width) of a tile; width is fulls full vectors and a half one if so. The numbers of rows and
   vectors are constants where this is called, so that all sums are registers. A half vector of output channels takes two
   factors at a time, so that its sums fill a vector. */
static inline __attribute__((always_inline)) void multiply(const Plan *plan, const Tile *tile, const Element *weights,
                                                           const float *bias, const float *least, Int start,
                                                           const int rows, const int fulls, const int half) {
    const int width = LANES * fulls + LANES / 2 * half;
    const Int channels = plan->channels, whole = channels / AT_ONCE * AT_ONCE;
    const Int of_tap = padded_channels(channels) * width;
    Full sum[ROWS][VECTORS], pairs[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < fulls; v++) sum[r][v] = FULL(loadu_ps)(bias + start + LANES * v);
        if (half) pairs[r] = FULL(setzero_ps)();
    }

    for (int r = 0; r < rows && tile->summand[0]; r++) /* of the next tile */
        for (int c = 0; c < width; c += LINE)
            __builtin_prefetch(tile->summand[r] + ROWS * plan->summand_step + start + c);

#define STEP(num_factors, factor_of, factors_of) \
    { \
        _Pragma("GCC unroll 2") for (int d = 0; d < num_factors; d++) \
            _Pragma("GCC unroll 8") for (int r = 0; r < rows; r++) \
                _Pragma("GCC unroll 4") for (int v = 0; v < fulls; v++) \
                    sum[r][v] = add_product(sum[r][v], factor_of, w + LANES * DEPTH * (d * fulls + v)); \
        _Pragma("GCC unroll 8") for (int r = 0; r < rows && half; r++) \
            pairs[r] = add_products(pairs[r], factors_of, w + LANES * AT_ONCE * fulls); \
    }

    for (Int i = 0; i < tile->num_taps; i++) {
        const Element *at[ROWS], *w = weights + tile->taps[i] * of_tap;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) at[r] = tile->at[i][r];
        Int c = 0;
        const Int ahead = ((intptr_t)tile->ahead[i] - (intptr_t)at[0]) / (Int)sizeof(Element);
        while (c < whole) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) __builtin_prefetch(at[r] + (c + ahead));
            const Int end = c + LINE < whole ? c + LINE : whole;
            for (; c < end; c += AT_ONCE, w += AT_ONCE * width)
                STEP(2, factor(at[r] + c + d * DEPTH), factors(at[r] + c))
        }
        if (c == channels) continue;
        int64_t last[ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) last[r] = last_factors(at[r] + c, channels - c);
        STEP(DEPTH, (int32_t)(last[r] >> 32 * d), last[r]) /* of floats only one is left */
    }
#undef STEP

    Half rest[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows && half; r++)
        rest[r] = HALF(add_ps)(add_pairs(pairs[r]), HALF(loadu_ps)(bias + start + LANES * fulls));
    if (tile->rows == rows && start + width <= plan->out_channels) {
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
            const float *at_least = least + start;
#pragma GCC unroll 4
            for (int v = 0; v < fulls; v++)
                full_store(out + LANES * v, FULL(max_ps)(FULL(loadu_ps)(at_least + LANES * v), sum[r][v]));
            if (half) half_store(out + LANES * fulls, HALF(max_ps)(HALF(loadu_ps)(at_least + LANES * fulls), rest[r]));
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
    finish(plan, tile, sums, least, start, width);
}

typedef void Multiply(const Plan *, const Tile *, const Element *, const float *, const float *, Int);
#define HALF_ROWS (ROWS / 2)
#define MULTIPLY(rows, halves) \
    static void multiply_##rows##_##halves(const Plan *plan, const Tile *tile, const Element *weights, \
                                           const float *bias, const float *least, Int start) { \
        multiply(plan, tile, weights, bias, least, start, rows, halves / 2, halves % 2); \
    }
MULTIPLY(ROWS, 1) MULTIPLY(ROWS, 2) MULTIPLY(ROWS, 3) MULTIPLY(ROWS, 4) MULTIPLY(ROWS, 5) MULTIPLY(ROWS, 6)
MULTIPLY(HALF_ROWS, 1) MULTIPLY(HALF_ROWS, 2) MULTIPLY(HALF_ROWS, 3)
MULTIPLY(HALF_ROWS, 4) MULTIPLY(HALF_ROWS, 5) MULTIPLY(HALF_ROWS, 6)
#define BY_WIDTH(rows) \
    {multiply_##rows##_1, multiply_##rows##_2, multiply_##rows##_3, \
     multiply_##rows##_4, multiply_##rows##_5, multiply_##rows##_6}
static Multiply *const multiply_rows[2 * VECTORS] = BY_WIDTH(ROWS);
static Multiply *const multiply_half_rows[2 * VECTORS] = BY_WIDTH(HALF_ROWS);

/* True where the next ROWS places lie in one row and all that they read lies inside. */
static int is_inner(const Work *work, const Cursor *cursor) {
    Int x = cursor->at[2];
    return x >= work->inner[0] && x + ROWS <= work->inner[1] && cursor->reads == work->all;
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
        tile->raised[r] = has_raised ? cursor->raised + ((cursor->at[2] + r) >> halved) * plan->raised_step : 0;
}

/* Places in several rows, or at a border: taps outside read zeros, and taps of which all are outside are left out. */
static void lay_border(const Work *work, const Element *raised, Int rows, Cursor *cursor, Tile *tile) {
    const Plan *plan = work->plan;
    const Int halved = plan->raised_factors[2] == 2, step = plan->stride[2] * plan->steps[3];
    const Element *base[ROWS];
    uint64_t reads[ROWS];
    for (Int r = 0; r < ROWS; r++) { /* those beyond the last are the last one again */
        base[r] = cursor->in + cursor->at[2] * step;
        reads[r] = cursor->reads & work->inside[2][cursor->at[2]];
        tile->raised[r] = raised ? cursor->raised + (cursor->at[2] >> halved) * plan->raised_step : 0;
        if (r + 1 < rows) advance(work, raised, 1, cursor);
    }
    Int used = 0;
    for (Int tap = 0; tap < work->taps; tap++) {
        uint64_t any = 0;
        for (int r = 0; r < ROWS; r++) {
            uint64_t in = reads[r] >> tap & 1;
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
    int inner = rows == ROWS && is_inner(work, cursor);
    if (inner) lay_inner(work, cursor, raised != 0, tile);
    else lay_border(work, raised, rows, cursor, tile);
    advance(work, raised, inner ? ROWS : 1, cursor);
    for (Int i = 0; i + 1 < tile->num_taps; i++) tile->ahead[i] = tile->at[i + 1][0];
    if (tile->num_taps) /* of the next tile */
        tile->ahead[tile->num_taps - 1] = tile->at[0][0] + ROWS * plan->stride[2] * plan->steps[3];
}

/* Elements of memory that a strip needs. */
static Int strip_room(const Work *work) {
    (void)work;
    return 0;
}

/* The places [first, last) of the output, which begins at `out`. */
static void convolve_strip(const Work *given, Element *out, const Element *raised, Int first, Int last, Element *room) {
    (void)room;
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
                by_width[width / UNIT - 1](work.plan, &tile, maps.weights + start * work.depth, maps.bias, work.least, start);
            }
        }
    }
}

#endif
