/* The strips of a convolution by matrix instructions (AMX): tiles of ROWS places by up to UNITS times 16 channels, whose sums
   stay in tile registers while all that the places read is multiplied with the weights. */

#ifndef MATRIX_STRIPS_H
#define MATRIX_STRIPS_H

#include "matrix_tiles.h"

/* Add the products of some channels of a tile's groups of places with weights of its units, each of which a register holds
   where it is not taken anew. */
static inline __attribute__((always_inline)) void multiply_parts(const Part *const *places, const Int *step,
                                                                 const Part *weights, const int groups, const int units,
                                                                 const int new_places, const int new_weights) {
    const Int row = units * UNIT * 2; /* two channels of each output channel lie side by side */
    if (new_weights) _tile_loadd(6, weights, row * sizeof(Part));
    if (new_places) _tile_loadd(4, places[0], step[0]);
    _tile_dpbf16ps(0, 4, 6);
    if (units > 1) {
        if (new_weights) _tile_loadd(7, weights + 2 * UNIT, row * sizeof(Part));
        _tile_dpbf16ps(1, 4, 7);
    }
    if (groups > 1) {
        if (new_places) _tile_loadd(5, places[1], step[1]);
        _tile_dpbf16ps(2, 5, 6);
        if (units > 1) _tile_dpbf16ps(3, 5, 7);
    }
}

/* A tile's sums, as rows of UNITS * UNIT numbers; the numbers of groups and units are constants where this is called. The
   parts of numbers, which lie `plane` apart, come in such an order that from one to the next only one side changes. */
static inline __attribute__((always_inline)) void multiply(const Tile *tile, const Part *weights, Int at_once, Int plane,
                                                           float *sums, const int groups,
                                                           const int units) {
    const Int of_part = at_once * units * UNIT;
    _tile_zero(0);
    if (units > 1) _tile_zero(1);
    if (groups > 1) _tile_zero(2);
    if (groups > 1 && units > 1) _tile_zero(3);
    for (Int i = 0; i < tile->num_taps; i++) {
        const Part *w = weights + tile->before[i] * units * UNIT * PARTS;
        for (Int c = 0; c < tile->channels[i]; c += at_once, w += PARTS * of_part) {
            const Part *first = tile->at[i][0] + c, *second = groups > 1 ? tile->at[i][1] + c : first;
#define ADD_PRODUCTS(part_of_places, part_of_weights, new_places, new_weights) \
    multiply_parts((const Part *[]){first + part_of_places * plane, second + part_of_places * plane}, tile->step[i], \
                   w + part_of_weights * of_part, groups, units, new_places, new_weights)
            if (PARTS > 1) { /* the smallest first */
                ADD_PRODUCTS(2, 0, 1, 1);
                ADD_PRODUCTS(1, 0, 1, 0);
                ADD_PRODUCTS(1, 1, 0, 1);
                ADD_PRODUCTS(0, 1, 1, 0);
                ADD_PRODUCTS(0, 2, 0, 1);
            }
            ADD_PRODUCTS(0, 0, PARTS == 1, 1);
#undef ADD_PRODUCTS
        }
    }
    const Int to = UNITS * UNIT * sizeof(float);
    _tile_stored(0, sums, to);
    if (units > 1) _tile_stored(1, sums + UNIT, to);
    if (groups > 1) _tile_stored(2, sums + GROUP * UNITS * UNIT, to);
    if (groups > 1 && units > 1) _tile_stored(3, sums + GROUP * UNITS * UNIT + UNIT, to);
}

/* Add the bias and what else is to be added to the sums of some channels, rectify and store; what is added is known where
   this is called, and whether the places are in line. */
static inline __attribute__((always_inline)) void finish(const Plan *plan, const Tile *tile, const float *sums,
                                                         const float *bias, const float *least, Element *out,
                                                         const Element *summand,
                                                         Int start, Int units, const int has_summand,
                                                         const int has_raised, const int in_line) {
    const Int rows = tile->rows, out_step = plan->out_step, summand_step = plan->summand_step; /* no store changes them */
    for (Int u = 0; u < units; u++, start += UNIT, sums += UNIT) {
        const __mmask16 some = first_of_16(plan->out_channels - start);
        const __m512 added = _mm512_loadu_ps(bias + start), at_least = _mm512_loadu_ps(least + start);
        Element *to = out + tile->place[0] * out_step + start;
        const Element *more = summand + tile->place[0] * summand_step + start;
        for (Int r = 0; r < rows; r++, to += out_step, more += summand_step) {
            if (!in_line) {
                const Int place = tile->place[r];
                if (place < 0) continue;
                to = out + place * out_step + start;
                more = summand + place * summand_step + start;
            }
            __m512 sum = _mm512_add_ps(_mm512_loadu_ps(sums + r * UNITS * UNIT), added);
            if (has_summand) sum = _mm512_add_ps(sum, load_some(some, more));
            if (has_raised) sum = _mm512_add_ps(sum, load_some(some, tile->raised[r] + start));
            sum = _mm512_max_ps(at_least, sum); /* of a maximum with NaN its second number is the result */
            store_some(to, some, sum);
        }
    }
}

/* The channels of some blocks of a tile. */
static void convolve_tile(const Reading *reading, const Tile *tile, Element *out, const int has_raised, Int block,
                          Int end) {
    const Work *work = reading->work;
    const Plan *plan = work->plan;
    const Int at_once = reading->at_once, plane = reading->plane;
    const float *bias = work->maps->bias;
    const Element *summand = work->maps->summand;
    float sums[ROWS * UNITS * UNIT] __attribute__((aligned(64)));
    for (; block < end; block++) {
        const Int start = work->starts[block], units = (work->starts[block + 1] - start) / UNIT;
        const Part *weights = (const Part *)(work->maps->weights + start * work->depth);
        if (summand) /* of the next tile */
            for (Int r = 0; r < ROWS; r++)
                __builtin_prefetch(summand + (tile->place[0] + ROWS + r) * plan->summand_step + start, 0, 2);
        if (tile->rows > GROUP && units > 1) multiply(tile, weights, at_once, plane, sums, 2, 2);
        else if (tile->rows > GROUP) multiply(tile, weights, at_once, plane, sums, 2, 1);
        else if (units > 1) multiply(tile, weights, at_once, plane, sums, 1, 2);
        else multiply(tile, weights, at_once, plane, sums, 1, 1);
#define FINISH(with_summand, with_raised, are_in_line) \
    finish(plan, tile, sums, bias, work->least, out, summand, start, units, with_summand, with_raised, are_in_line)
        if (reading->copies && has_raised) FINISH(summand != 0, 1, 0);
        else if (reading->copies) FINISH(summand != 0, 0, 0);
        else if (summand && has_raised) FINISH(1, 1, 1);
        else if (summand) FINISH(1, 0, 1);
        else if (has_raised) FINISH(0, 1, 1);
        else FINISH(0, 0, 1);
#undef FINISH
    }
}

/* Some blocks of the places [first, last), which read the map itself or what is gathered in `room`. */
static void convolve_directly(const Reading *reading, Element *out, const Element *raised, Int first, Int last, Int block,
                              Int end, Part *room) {
    Cursor cursor = start_at(reading->work, raised, first);
    const int adds = raised && !reading->work->plan->low_channels; /* what is up-sampled to the result */
    Tile tile;
    for (Int place = first; place < last; place += ROWS) {
        lay(reading, raised, place, last - place < ROWS ? last - place : ROWS, &cursor, &tile, room);
        convolve_tile(reading, &tile, out, adds, block, end);
    }
}

/* Some blocks of the places [first, last), of which `copies` holds what they read. */
static void convolve_copied(const Reading *reading, Element *out, const Element *raised, Int first, Int last, Int block,
                            Int end, const Part *copies) {
    const Int width = reading->width, out_width = reading->work->plan->out_size[2];
    Tile tile;
    while (first < last) {
        const Piece piece = piece_at(reading, first, last, copies);
        enter_piece(reading, &piece, &tile);
        for (Int from = 0; from < (piece.rows - 1) * width + out_width; from += ROWS) {
            lay_copied(reading, &piece, from, raised, &tile);
            convolve_tile(reading, &tile, out, raised != 0, block, end);
        }
        copies += copy_size(reading, &piece);
        first += piece.rows * out_width;
    }
}

/* Copy what the places [first, last) read. */
static void copy_strip(const Reading *reading, Int first, Int last, Part *room) {
    while (first < last) {
        const Piece piece = piece_at(reading, first, last, room);
        copy_piece(reading, &piece, room);
        room += copy_size(reading, &piece);
        first += piece.rows * reading->work->plan->out_size[2];
    }
}

/* The places [first, last) of the output, which are whole rows; the output begins at `out`. */
static void convolve_strip(const Work *work, Element *out, const Element *raised, Int first, Int last, Element *memory) {
    const Reading reading = reading_of(work);
    Part *room = (Part *)memory;
    const Int blocks = num_blocks(work->plan->out_channels);
    if (reading.copies) copy_strip(&reading, first, last, room);
    configure(reading.at_once);
    for (Int block = 0; block < blocks; block += work->together) {
        const Int end = block + work->together < blocks ? block + work->together : blocks;
        if (reading.copies) convolve_copied(&reading, out, raised, first, last, block, end, room);
        else convolve_directly(&reading, out, raised, first, last, block, end, room);
    }
    _tile_release();
}

#endif
