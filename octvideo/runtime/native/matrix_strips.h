/* The strips of a convolution by matrix instructions (AMX): tiles of ROWS places by up to UNITS times 16 channels, whose sums
   stay in tile registers while all that the places read is multiplied with the weights.

   A register takes 16 places whose inputs lie one step apart. Where some of them read padding, or lie in another row that
   begins elsewhere, what they read is gathered first. */

#ifndef MATRIX_STRIPS_H
#define MATRIX_STRIPS_H

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNIT 16
#define UNITS 2
#define RESIDENT (1 << 20) /* bytes of weights that stay in the second cache beside a strip */
#define STRIP 392          /* places that meet the same weights one after the other */
#define GROUP 16           /* places in a register */
#define GROUPS 2
#define ROWS (GROUP * GROUPS)
#define MOST_AT_ONCE 32    /* channels that one instruction takes */

#include "places.h"

static int allowed;

/* Linux lets a process use these registers when it asks. */
static __attribute__((constructor)) void ask(void) {
    const int request_permission = 0x1023, tile_data = 18;
    allowed = !syscall(SYS_arch_prctl, request_permission, tile_data);
}

Int can_convolve(Int channels, Int taps) { return allowed && channels <= MAX_CHANNELS && taps <= MAX_TAPS; }

/* Channels are taken in equal shares, as even numbers. */
static Int channels_at_once(Int channels) {
    const Int shares = (channels + MOST_AT_ONCE - 1) / MOST_AT_ONCE;
    return ((channels + shares - 1) / shares + 1) / 2 * 2;
}

Int padded_channels(Int channels) {
    const Int at_once = channels_at_once(channels);
    return (channels + at_once - 1) / at_once * at_once;
}

/* True where the places of a map with this many channels need no copy. */
Int reads_in_place(Int channels) { return padded_channels(channels) == channels; }

static Int instructions(Int channels) { return padded_channels(channels) / channels_at_once(channels); }

/* Taps side by side on the last axis that are taken as one with more channels: all where that needs fewer instructions. */
Int taps_together(Int channels, Int width, Int dilation) {
    const Int fewer = instructions(channels * width) < instructions(channels) * width;
    return dilation == 1 && fewer && reads_in_place(channels * width) >= reads_in_place(channels) ? width : 1;
}

/* Weights, (out_channels, channels, taps), in the order in which `multiply` reads them: two channels side by side for each
   output channel. */
void pack(const Element *weights, Element *packed, Int out_channels, Int channels, Int taps, Int together) {
    const Weights given = {weights, out_channels, channels, taps};
    const Int padded = padded_channels(channels * together);
    for (Int block = 0; block < num_blocks(out_channels); block++)
        for (Int tap = 0; tap < taps; tap += together)
            for (Int c = 0; c < padded; c += 2)
                for (Int o = block_start(out_channels, block); o < block_start(out_channels, block + 1); o++)
                    for (Int e = c; e < c + 2; e++)
                        *packed++ = e < channels * together ? weight_at(&given, o, e % channels, tap + e / channels) : 0;
}

/* Up to ROWS places of the output in groups, and tap by tap where what a group's first place reads begins and how many
   bytes lie between its places; taps that all lie outside are left out. */
typedef struct {
    const Element *at[MAX_TAPS][GROUPS];
    Int step[MAX_TAPS][GROUPS], taps[MAX_TAPS], num_taps, rows;
    const Element *raised[ROWS];
} Tile;

/* What the places of a group read. */
typedef struct {
    const Element *base[GROUP];
    uint64_t reads[GROUP], any, all; /* taps that lie inside; those of any place, of all places */
    Int places, regular;             /* number; true where the bases lie one step apart */
} Group;

/* Sums are registers 0 to 3, two for each group; places are 4 and 5, weights 6 and 7. */
static void configure(Int at_once) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((packed)) config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = i == 4 || i == 5 ? at_once * sizeof(Element) : 64;
        config.rows[i] = i < 6 ? GROUP : at_once / 2;
    }
    _tile_loadconfig(&config);
}

/* True where the taps that are taken together lie side by side in memory. */
static int side_by_side(const Plan *plan) { return plan->taps_together == 1 || plan->steps[3] == plan->channels; }

static void lay_group(const Work *work, const Element *raised, Int count, Cursor *cursor, Group *group,
                      const Element **raised_rows) {
    const Plan *plan = work->plan;
    const Int halved = plan->raised_factors[2] == 2, step = plan->stride[2] * plan->steps[3];
    group->any = 0;
    group->all = count == GROUP ? work->all : 0;
    group->places = count;
    for (Int r = 0; r < count;) {
        Int x = cursor->at[2], end = x + count - r < plan->out_size[2] ? x + count - r : plan->out_size[2];
        const Int places = end - x;
        for (; x < end; x++, r++) {
            group->base[r] = cursor->in + x * step;
            group->reads[r] = cursor->reads & work->inside[2][x];
            group->any |= group->reads[r];
            group->all &= group->reads[r];
            raised_rows[r] = raised ? cursor->raised + (x >> halved) * plan->out_channels : 0;
        }
        advance(work, raised, places, cursor);
    }
    group->regular = work->padded == plan->channels * plan->taps_together && side_by_side(plan);
    for (Int r = 1; r < count; r++) group->regular &= group->base[r] - group->base[r - 1] == step;
}

/* How rows of up to 32 numbers are copied: those that the last one has and those that it has room for. */
typedef struct {
    Int rows;
    __mmask32 has, takes;
} Copying;

static Copying copying(Int count, Int room) {
    const Int rows = (room + 31) / 32, before = 32 * (rows - 1), has = count > before ? count - before : 0;
    return (Copying){rows, has ? ~0u >> (32 - has) : 0, ~0u >> (32 - (room - before))};
}

/* Copy `count` numbers and fill the room after them with zeros. */
static inline void copy(const Copying *how, Element *to, const Element *from) {
    for (Int row = 1; row < how->rows; row++, to += 32, from += 32)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    _mm512_mask_storeu_epi16(to, how->takes, _mm512_maskz_loadu_epi16(how->has, from));
}

/* Copy what a place reads at taps that are taken together, of which some are padding. */
static void gather_some(const Plan *plan, const Element *base, const Int *offsets, uint64_t inside, Int padded,
                        Element *to) {
    memset(to, 0, padded * sizeof(Element));
    for (Int i = 0; i < plan->taps_together; i++)
        if (inside >> i & 1) memcpy(to + i * plan->channels, base + offsets[i], plan->channels * sizeof(Element));
}

/* Copy what the places of a group read at the taps from one on that are taken together, zeros where that is padding. */
static void gather(const Work *work, const Group *group, Int tap, Element *to) {
    const Plan *plan = work->plan;
    const Int together = plan->taps_together, padded = work->padded;
    const uint64_t whole = ~(~(uint64_t)0 << together), readable = side_by_side(plan) ? whole : 0;
    const Copying how = copying(plan->channels * together, padded);
    for (Int r = 0; r < GROUP; r++, to += padded) {
        const uint64_t inside = r < group->places ? group->reads[r] >> tap & whole : 0;
        if (!inside || inside == readable) copy(&how, to, inside ? group->base[r] + work->offsets[tap] : zeros);
        else gather_some(plan, group->base[r], work->offsets + tap, inside, padded, to);
    }
}

/* The tile of the next `rows` places, at which the cursor stands; it moves on. */
static void lay(const Work *work, const Element *raised, Int rows, Cursor *cursor, Tile *tile, Element *gathered) {
    const Plan *plan = work->plan;
    const Int padded = work->padded, step = plan->stride[2] * plan->steps[3] * (Int)sizeof(Element);
    const uint64_t whole = ~(~(uint64_t)0 << plan->taps_together);
    Group groups[GROUPS];
    uint64_t any = 0;
    tile->rows = rows;
    const Int used = rows > GROUP ? 2 : 1;
    for (Int g = 0; g < used; g++) {
        const Int count = rows - g * GROUP < GROUP ? rows - g * GROUP : GROUP;
        lay_group(work, raised, count, cursor, &groups[g], tile->raised + g * GROUP);
        any |= groups[g].any;
    }
    Int n = 0;
    for (Int tap = 0; tap < work->taps; tap += plan->taps_together) {
        if (!(any >> tap & whole)) continue;
        for (Int g = 0; g < used; g++) {
            const Group *group = &groups[g];
            if (!(group->any >> tap & whole)) {
                tile->at[n][g] = zeros;
                tile->step[n][g] = 0;
            } else if (group->regular && (group->all >> tap & whole) == whole) {
                tile->at[n][g] = group->base[0] + work->offsets[tap];
                tile->step[n][g] = step;
            } else {
                gather(work, group, tap, gathered);
                tile->at[n][g] = gathered;
                tile->step[n][g] = padded * sizeof(Element);
                gathered += GROUP * padded;
            }
        }
        tile->taps[n++] = tap / plan->taps_together;
    }
    tile->num_taps = n;
}

/* A tile's sums, as rows of UNITS * UNIT numbers; the numbers of groups and units are constants where this is called. */
static inline __attribute__((always_inline)) void multiply(const Tile *tile, const Element *weights, Int channels,
                                                           Int at_once, float *sums, const int groups,
                                                           const int units) {
    const Int row = units * UNIT * 2; /* two channels of each output channel lie side by side */
    _tile_zero(0);
    if (units > 1) _tile_zero(1);
    if (groups > 1) _tile_zero(2);
    if (groups > 1 && units > 1) _tile_zero(3);
    for (Int i = 0; i < tile->num_taps; i++) {
        const Element *first = tile->at[i][0], *second = tile->at[i][1];
        const Element *w = weights + tile->taps[i] * channels / 2 * row;
        for (Int c = 0; c < channels; c += at_once, w += at_once / 2 * row) {
            _tile_loadd(6, w, row * sizeof(Element));
            _tile_loadd(4, first + c, tile->step[i][0]);
            _tile_dpbf16ps(0, 4, 6);
            if (units > 1) {
                _tile_loadd(7, w + 2 * UNIT, row * sizeof(Element));
                _tile_dpbf16ps(1, 4, 7);
            }
            if (groups > 1) {
                _tile_loadd(5, second + c, tile->step[i][1]);
                _tile_dpbf16ps(2, 5, 6);
                if (units > 1) _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    const Int to = UNITS * UNIT * sizeof(float);
    _tile_stored(0, sums, to);
    if (units > 1) _tile_stored(1, sums + UNIT, to);
    if (groups > 1) _tile_stored(2, sums + GROUP * UNITS * UNIT, to);
    if (groups > 1 && units > 1) _tile_stored(3, sums + GROUP * UNITS * UNIT + UNIT, to);
}

/* Add the bias and what else is to be added to the sums of some channels, rectify and store; what is added is known where
   this is called. */
static inline __attribute__((always_inline)) void finish(const Plan *plan, const Tile *tile, const float *sums,
                                                         const float *bias, Element *out, const Element *summand,
                                                         Int start, Int units, const int has_summand,
                                                         const int has_raised) {
    const __m512 least = _mm512_set1_ps(plan->relu ? 0 : -__builtin_inff());
    for (Int u = 0; u < units; u++, start += UNIT, sums += UNIT) {
        const __mmask16 some = first_of_16(plan->out_channels - start);
        const __m512 added = _mm512_loadu_ps(bias + start);
        for (Int r = 0; r < tile->rows; r++) {
            __m512 sum = _mm512_add_ps(_mm512_loadu_ps(sums + r * UNITS * UNIT), added);
            if (has_summand) sum = _mm512_add_ps(sum, load_some(some, summand + r * plan->summand_step + start));
            if (has_raised) sum = _mm512_add_ps(sum, load_some(some, tile->raised[r] + start));
            sum = _mm512_max_ps(least, sum); /* of a maximum with NaN its second number is the result */
            store_some(out + r * plan->out_step + start, some, sum);
        }
    }
}

/* Elements of memory that `convolve_strip` needs: what two tiles gather. */
static Int strip_room(const Plan *plan) {
    const Int taps = plan->kernel[0] * plan->kernel[1] * plan->kernel[2] / plan->taps_together;
    return 2 * ROWS * taps * padded_channels(plan->channels * plan->taps_together);
}

/* The channels of some blocks of a tile; `out` and `summand` begin at its first place. */
static void convolve_tile(const Work *work, const Tile *tile, Element *out, const Element *summand, Int block, Int end) {
    const Plan *plan = work->plan;
    const Int padded = work->padded, at_once = channels_at_once(plan->channels * plan->taps_together);
    const float *bias = work->maps->bias;
    float sums[ROWS * UNITS * UNIT] __attribute__((aligned(64)));
    for (; block < end; block++) {
        const Int start = work->starts[block], units = (work->starts[block + 1] - start) / UNIT;
        const Element *weights = work->maps->weights + start * work->depth;
        if (summand) /* of the next tile */
            for (Int r = 0; r < ROWS; r++)
                __builtin_prefetch(summand + (ROWS + r) * plan->summand_step + start, 0, 2);
        if (tile->rows > GROUP && units > 1) multiply(tile, weights, padded, at_once, sums, 2, 2);
        else if (tile->rows > GROUP) multiply(tile, weights, padded, at_once, sums, 2, 1);
        else if (units > 1) multiply(tile, weights, padded, at_once, sums, 1, 2);
        else multiply(tile, weights, padded, at_once, sums, 1, 1);
        if (summand && tile->raised[0]) finish(plan, tile, sums, bias, out, summand, start, units, 1, 1);
        else if (summand) finish(plan, tile, sums, bias, out, summand, start, units, 1, 0);
        else if (tile->raised[0]) finish(plan, tile, sums, bias, out, summand, start, units, 0, 1);
        else finish(plan, tile, sums, bias, out, summand, start, units, 0, 0);
    }
}

/* The places [first, last) of the output, which begins at `out`. A tile is laid before the one ahead of it is made: what
   has just been gathered cannot be read at once. */
static void convolve_strip(const Work *work, Element *out, const Element *raised, Int first, Int last, Element *room) {
    const Plan *plan = work->plan;
    const Maps *maps = work->maps;
    const Int blocks = num_blocks(plan->out_channels), of_tile = strip_room(plan) / 2;
    Tile tiles[2];
    configure(channels_at_once(plan->channels * plan->taps_together));
    for (Int block = 0; block < blocks; block += work->together) {
        const Int end = block + work->together < blocks ? block + work->together : blocks;
        Cursor cursor = start_at(work, raised, first);
        int turn = 0;
        lay(work, raised, last - first < ROWS ? last - first : ROWS, &cursor, &tiles[0], room);
        for (Int place = first; place < last; place += ROWS, turn = !turn) {
            const Int left = last - place - ROWS;
            if (left > 0) lay(work, raised, left < ROWS ? left : ROWS, &cursor, &tiles[!turn], room + !turn * of_tile);
            const Element *summand = maps->summand ? maps->summand + place * plan->summand_step : 0;
            convolve_tile(work, &tiles[turn], out + place * plan->out_step, summand, block, end);
        }
    }
    _tile_release();
}

#endif
