/* Tiles of a convolution by matrix instructions (AMX): what they read, so that the inputs of 16 places lie one step apart,
   as a register takes them.

   A kernel that moves over rows and columns reads a copy of its strip, with the padding, in which that is so for all of its
   taps; places at the end of a row that belong to no output are made and thrown away. Other kernels read the map itself
   where they can, or what is gathered for a tile.

   The instructions take bfloat16. A float32 is the sum of three such parts, whose copies lie in three planes. Six products of
   parts make up one of float32; the three that are left out (lowest times middle, lowest times lowest) are at most 6 * 2^-24
   of it, where float32 rounds by 2^-24. The instructions take numbers below 2^-126 for zero, so that those below some 1e-31
   lose their lowest parts. Infinities come out as NaN, and so do weights that round to one (above 3.39e38). */

#ifndef MATRIX_TILES_H
#define MATRIX_TILES_H

#include <immintrin.h>

#ifdef BFLOAT16
#define PARTS 1
#define STRIP 392 /* places that meet the same weights one after the other */
#else
#define PARTS 3
#define STRIP 196
#endif
#define UNIT 16
#define UNITS 2
#define RESIDENT (1 << 20) /* bytes of weights that stay in the second cache beside a strip */
#define GROUP 16           /* places in a register */
#define GROUPS 2
#define ROWS (GROUP * GROUPS)
#define MOST_COPIED (3 << 19) /* bytes of a strip: more would leave the second cache before they are read again */
#define MOST_AT_ONCE 32       /* channels that one instruction takes */

#include "places.h"

typedef uint16_t Part; /* of a number, a bfloat16 */

/* True where matrices take less time than vectors: with float32 where each number that is split meets enough weights, and what
   is gathered stays in the cache. It is asked before any map is there: of a strip too large to be copied (MOST_COPIED), which
   the map's size decides, it knows nothing. */
Int matrices_pay(Int channels, Int out_channels, Int taps, Int copies) {
    if (PARTS == 1) return 1;
    const Int depth = channels * taps;
    return copies ? out_channels > 16 : depth <= 2048 && out_channels >= (depth >= 512 ? 64 : 96);
}

/* Channels are taken in equal shares, as even numbers. */
static Int channels_at_once(Int channels) {
    const Int shares = (channels + MOST_AT_ONCE - 1) / MOST_AT_ONCE;
    return ((channels + shares - 1) / shares + 1) / 2 * 2;
}

static Int padded_channels(Int channels) {
    const Int at_once = channels_at_once(channels);
    return (channels + at_once - 1) / at_once * at_once;
}

/* True where the places of a map with this many channels need no copy. */
Int reads_in_place(Int channels) { return padded_channels(channels) == channels; }

static Int even(Int channels) { return (channels + 1) / 2 * 2; }

static Int instructions(Int channels) { return padded_channels(channels) / channels_at_once(channels); }

/* Multiply-adds that instructions make of a convolution: whether their places and channels are there or not. A float32 product
   counts once. */
Int executed(Int places, Int out_channels, Int channels, Int taps, Int together) {
    const Int of_place = together > 1 ? even(channels) : padded_channels(channels), groups = (places + GROUP - 1) / GROUP;
    const Int of_tap = instructions(of_place * together) * MOST_AT_ONCE;
    return groups * GROUP * padded_out_channels(out_channels) * (taps / together) * of_tap;
}

/* True for kernels of one tap that should read a smaller map, up-sampled, beside their input: the products with it are then
   made at all places, which must not take more instructions where they are dear. */
Int reads_low(Int channels, Int low_channels) {
    return PARTS == 1 || instructions(channels + low_channels) == instructions(channels);
}

/* Taps side by side on the last axis that are taken as one with more channels: all where that needs fewer instructions. */
Int taps_together(Int channels, Int width, Int dilation, Int copies) {
    const Int wide = even(channels) * width;
    const int fewer = reads_in_place(wide) && instructions(wide) < instructions(channels) * width;
    return copies && dilation == 1 && fewer ? width : 1;
}

/* True for kernels that can read a copy of their strip. */
Int copies_strips(Int height, Int width, Int stride_of_rows, Int stride_of_places) {
    return height * width > 1 && (stride_of_rows == 1 || PARTS > 1) && stride_of_places == 1;
}

/* One part of a number, each rounded to the nearest. */
static Part part_of(float number, int part) {
    for (; part > 0; part--) number -= widened(rounded(number));
    return rounded(number);
}

/* True where a low part fills instructions of its own without taking more of them, so that the input beside it need not be
   gathered with it. Together they are not padded: an instruction takes as many channels of each as of both. */
static int is_apart(Int channels, Int low_channels) {
    const Int own = channels - low_channels, at_once = channels_at_once(own);
    return PARTS == 1 && low_channels && reads_in_place(channels) && reads_in_place(own) && low_channels % at_once == 0 &&
           channels / at_once == instructions(channels);
}

/* The channel that lies at a position of a copied place: see `copy_row`. */
static Int channel_at(Int position, Int channels) {
    const Int first = position / 32 * 32;
    if (PARTS == 1 || first + 32 > channels) return position;
    return first + position % 2 * 16 + position % 32 / 2;
}

/* Weights, (out_channels, channels, taps), in the order in which `multiply` reads them: part by part what an instruction
   takes, two channels side by side for each output channel. */
void pack(const Element *weights, Element *packed, Int out_channels, Int channels, Int taps, Int together,
          Int low_channels) {
    const Weights given = {weights, out_channels, channels, taps};
    const Int of_place = together > 1 ? even(channels) : padded_channels(channels), all = of_place * together;
    const Int at_once = channels_at_once(all), own = channels - low_channels;
    Part *to = (Part *)packed;
    for (Int block = 0; block < num_blocks(out_channels); block++)
        for (Int tap = 0; tap < taps; tap += together)
            for (Int first = 0; first < all; first += at_once)
                for (int part = 0; part < PARTS; part++)
                    for (Int c = first; c < first + at_once; c += 2)
                        for (Int o = block_start(out_channels, block); o < block_start(out_channels, block + 1); o++)
                            for (Int e = c; e < c + 2; e++) {
                                const Int at = e % of_place;
                                const Int channel = at < own ? channel_at(at, own) : own + channel_at(at - own, low_channels);
                                *to++ = part_of(load(weight_at(&given, o, channel, tap + e / of_place)), part);
                            }
}

static Int elements(Int parts) { return parts * (Int)sizeof(Part) / (Int)sizeof(Element); }

Int packed_size(Int out_channels, Int channels, Int taps, Int together) {
    const Int of_place = together > 1 ? even(channels) : padded_channels(channels);
    return elements(PARTS * padded_out_channels(out_channels) * of_place * taps);
}

/* Sums are registers 0 to 3, two for each group; places are 4 and 5, weights 6 and 7. */
static void configure(Int at_once) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((packed)) config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = i == 4 || i == 5 ? at_once * sizeof(Part) : 64;
        config.rows[i] = i < 6 ? GROUP : at_once / 2;
    }
    _tile_loadconfig(&config);
}

/* How rows of up to 32 numbers are copied: those that the last one has and those that it has room for. */
typedef struct {
    Int rows;
    __mmask32 has, takes;
} Copying;

/* `count` reaches into the last row of the room. */
static Copying copying(Int count, Int room) {
    const Int rows = (room + 31) / 32, before = 32 * (rows - 1), has = count - before;
    return (Copying){rows, ~0u >> (32 - has), ~0u >> (32 - (room - before))};
}

#ifdef BFLOAT16
/* Copy the numbers that a mask has and fill the room after them with zeros. */
static inline void copy_row(__mmask32 has, __mmask32 takes, Part *to, Int plane, const Element *from, const int in_order) {
    (void)plane, (void)in_order;
    _mm512_mask_storeu_epi16(to, takes, _mm512_maskz_loadu_epi16(has, from));
}
#else
/* Split up to 32 numbers, whose parts lie `plane` apart. They are cut off, not rounded: what is left is exact either way. Of a
   full row the number 16 places on lies beside each of the first 16, which takes no permutation. */
static inline void copy_row(__mmask32 has, __mmask32 takes, Part *to, Int plane, const Element *from, const int in_order) {
    const __m512i upper = _mm512_set1_epi32(~0u << 16);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i both = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(4 << 16 | 4)); /* 16-bit numbers, two to a lane */
    const __m512i upper_halves = _mm512_add_epi32(both, _mm512_set1_epi32(3 << 16 | 1));
    __m512i first = (__m512i)load_some((__mmask16)has, from), second = (__m512i)load_some(has >> 16, from + 16);
    const int side_by_side = has == ~0u && !in_order;
#pragma GCC unroll 3
    for (int part = 0; part < PARTS; part++, to += plane) {
        const __m512i of_first = _mm512_and_si512(first, upper), of_second = _mm512_and_si512(second, upper);
        if (side_by_side) _mm512_storeu_si512(to, _mm512_or_si512(of_second, _mm512_srli_epi32(first, 16)));
        else _mm512_mask_storeu_epi16(to, takes, _mm512_permutex2var_epi16(first, upper_halves, second));
        first = (__m512i)((__m512)first - (__m512)of_first);
        second = (__m512i)((__m512)second - (__m512)of_second);
    }
}
#endif

/* Copy `count` numbers and fill the room after them with zeros; in the order in which they lie, or as `copy_row` likes it. */
static inline void copy(const Copying *how, Part *to, Int plane, const Element *from, const int in_order) {
    for (Int row = 1; row < how->rows; row++, to += 32, from += 32) copy_row(~0u, ~0u, to, plane, from, in_order);
    copy_row(how->has, how->takes, to, plane, from, in_order);
}

static void fill_with_zeros(Part *to, Int plane, Int count) {
    for (int part = 0; part < PARTS; part++) memset(to + part * plane, 0, count * sizeof(Part));
}

/* How a convolution's tiles read. */
typedef struct {
    const Work *work;
    int overlaps;          /* true for places of which a copy has each number once */
    int apart;             /* true where the low part alone is gathered */
    Int copies;            /* true where they read a copy of their strip */
    Int channels, at_once; /* that a tap takes, and that an instruction takes of them */
    Int pitch;             /* numbers between places of a copy */
    Int plane;             /* numbers that are copied or gathered at a time */
    Int width;             /* places in a row of a strip's copy */
    Copying copying, copying_low;
    __mmask32 after_low;   /* zeros behind the low channels */
} Reading;

/* Rows of a frame in the copy of a piece: they lie apart by what they leave when divided by the stride, so that what
   one tap reads of them for the next row of the output lies in the next row. */
static Int copied_rows(const Plan *plan, Int rows) {
    const Int stride = plan->stride[1];
    return (rows + ((plan->kernel[1] - 1) * plan->dilation[1] + stride - 1) / stride) * stride;
}

/* Numbers of a copy of a strip. */
static Int strip_copy(const Plan *plan, Int places, Int width, Int pitch) {
    const Int rows = (places + plan->out_size[2] - 1) / plan->out_size[2], pieces = rows / plan->out_size[1] + 2;
    const Int copied = copied_rows(plan, rows) + (pieces - 1) * copied_rows(plan, 0);
    return (plan->kernel[0] * copied * width + ROWS) * pitch;
}

static Reading reading_of(const Work *work) {
    const Plan *plan = work->plan;
    const Int together = plan->taps_together, of_place = together > 1 ? even(plan->channels) : padded_channels(plan->channels);
    Reading reading = {.work = work, .channels = of_place * together, .at_once = channels_at_once(of_place * together)};
    reading.apart = is_apart(plan->channels, plan->low_channels);
    /* Places a multiple of 1 KiB apart share few sets of the cache. Taps taken together must lie side by side, but have few
       channels. */
    reading.pitch = of_place + (together > 1 || of_place % (PARTS > 1 ? 64 : 512) ? 0 : 32);
    reading.width = plan->out_size[2] + (plan->kernel[2] - 1) * plan->dilation[2];
    /* Places that overlap, as windows on pixels do, are copied as one. */
    const int can_copy = copies_strips(plan->kernel[1], plan->kernel[2], plan->stride[1], plan->stride[2]);
    reading.overlaps = can_copy && plan->kernel[2] == 1 && !plan->padding[2] && plan->size[2] > 1 && plan->steps[3] > 0 &&
                       plan->steps[3] < plan->channels && of_place == plan->channels && of_place < 32;
    if (reading.overlaps) {
        reading.pitch = plan->steps[3];
        reading.width += (of_place - 1) / reading.pitch;
    }
    const Int own = plan->channels - plan->low_channels;
    reading.copying = copying(own, plan->low_channels ? own : of_place);
    if (plan->low_channels) reading.copying_low = copying(plan->low_channels, plan->low_channels);
    if (of_place > plan->channels) reading.after_low = ~0u >> (32 - (of_place - plan->channels));
    const Int copied = strip_copy(plan, work->strip, reading.width, reading.pitch);
    reading.copies = can_copy && (together > 1 || reading.overlaps || PARTS * copied * (Int)sizeof(Part) <= MOST_COPIED);
    reading.plane = reading.copies ? copied + reading.channels : ROWS * (work->taps + reading.apart) * reading.pitch;
    return reading;
}

/* Up to ROWS places of the output in groups, and tap by tap where what a group's first place reads begins and how many
   bytes lie between its places; taps that all lie outside are left out. */
typedef struct {
    const Part *at[MAX_TAPS][GROUPS];
    Int step[MAX_TAPS][GROUPS], num_taps, rows;
    Int channels[MAX_TAPS], before[MAX_TAPS]; /* that are read at a tap, and whose weights lie before its own */
    Int place[ROWS]; /* -1 for those that are thrown away */
    const Element *raised[ROWS];
} Tile;

/* Rows of one frame, of which a strip's copy holds what they read. */
typedef struct {
    Int clip, at[3];     /* of the first place */
    Int first, rows;     /* place, number of rows */
    Int height;          /* rows of a frame in the copy */
    const Part *copy;    /* frame by frame of the kernel */
} Piece;

/* The rows of the places [first, last) that lie in the frame of the first one. */
static Piece piece_at(const Reading *reading, Int first, Int last, const Part *copy) {
    const Plan *plan = reading->work->plan;
    Piece piece = {.first = first, .copy = copy};
    piece.clip = locate(plan, first, piece.at);
    const Int left = (last - first) / plan->out_size[2], in_frame = plan->out_size[1] - piece.at[1];
    piece.rows = left < in_frame ? left : in_frame;
    piece.height = copied_rows(plan, piece.rows);
    return piece;
}

static Int copy_size(const Reading *reading, const Piece *piece) {
    return reading->work->plan->kernel[0] * piece->height * reading->width * reading->pitch;
}

/* Copy one row of the input, from the place that is read by the first tap of the first output on. */
static void copy_places(const Reading *reading, const Element *from, Part *to) {
    const Plan *plan = reading->work->plan;
    const Int before = plan->padding[2], pitch = reading->pitch, plane = reading->plane;
    const Int inside = before + plan->size[2] < reading->width ? before + plan->size[2] : reading->width;
    if (reading->overlaps) {
        const Int count = (plan->size[2] - 1) * pitch + plan->channels;
        const Copying all = copying(count, count);
        copy(&all, to, plane, from, 1);
        return;
    }
    fill_with_zeros(to, plane, (before < reading->width ? before : reading->width) * pitch);
    const int in_rows = PARTS == 1 || pitch % 32 == 0;
    if (in_rows && pitch == plan->channels && plan->steps[3] == pitch && inside > before) {
        const Copying all = copying((inside - before) * pitch, (inside - before) * pitch);
        copy(&all, to + before * pitch, plane, from, 0);
    } else
        for (Int x = before; x < inside; x++)
            copy(&reading->copying, to + x * pitch, plane, from + (x - before) * plan->steps[3], 0);
    if (inside < reading->width) fill_with_zeros(to + inside * pitch, plane, (reading->width - inside) * pitch);
}

/* Copy what a piece reads; frames that lie outside, and whose taps are left out, are not written. */
static void copy_piece(const Reading *reading, const Piece *piece, Part *to) {
    const Plan *plan = reading->work->plan;
    const Int row = reading->width * reading->pitch;
    for (Int k = 0; k < plan->kernel[0]; k++, to += piece->height * row) {
        const Int t = piece->at[0] * plan->stride[0] - plan->padding[0] + k * plan->dilation[0];
        if (t < 0 || t >= plan->size[0]) continue;
        for (Int i = 0; i < piece->height; i++) {
            const Int in_phase = piece->height / plan->stride[1], phase = i / in_phase;
            const Int y = (piece->at[1] + i % in_phase) * plan->stride[1] - plan->padding[1] + phase;
            const Element *from = reading->work->maps->in + piece->clip * plan->steps[0] + t * plan->steps[1];
            if (y < 0 || y >= plan->size[1]) fill_with_zeros(to + i * row, reading->plane, row);
            else copy_places(reading, from + y * plan->steps[2], to + i * row);
        }
    }
}

/* Where the places of a piece's tile go, row by row of the copy from its place `from` on. */
static void find_places(const Reading *reading, const Piece *piece, Int from, const Element *raised, Tile *tile) {
    const Plan *plan = reading->work->plan;
    const Int width = reading->width, halved = plan->raised_factors[2] == 2;
    Int y = from / width, x = from % width;
    for (Int r = 0; r < tile->rows; y++, x = 0) {
        const Int at[3] = {piece->at[0], piece->at[1] + y, 0};
        const Element *raised_row = raised ? raised + raised_place(plan, piece->clip, at) * plan->raised_step : 0;
        for (; x < width && r < tile->rows; x++, r++) {
            tile->place[r] = x < plan->out_size[2] ? piece->first + y * plan->out_size[2] + x : -1;
            tile->raised[r] = raised ? raised_row + (x >> halved) * plan->raised_step : 0;
        }
    }
}

/* What the first tile of a piece reads of its copy. */
static void enter_piece(const Reading *reading, const Piece *piece, Tile *tile) {
    const Work *work = reading->work;
    const Plan *plan = work->plan;
    const Int *kernel = plan->kernel;
    Int n = 0;
    for (Int tap = 0; tap < work->taps; tap += plan->taps_together) {
        if (!(work->inside[0][piece->at[0]] >> tap & 1)) continue;
        const Int x = tap % kernel[2] * plan->dilation[2], y = tap / kernel[2] % kernel[1] * plan->dilation[1];
        const Int t = tap / kernel[2] / kernel[1], stride = plan->stride[1];
        const Int row = t * piece->height + y % stride * (piece->height / stride) + y / stride;
        const Part *at = piece->copy + (row * reading->width + x) * reading->pitch;
        for (Int g = 0; g < GROUPS; g++) {
            tile->at[n][g] = at + g * GROUP * reading->pitch;
            tile->step[n][g] = reading->pitch * sizeof(Part);
        }
        tile->channels[n] = reading->channels;
        tile->before[n++] = tap / plan->taps_together * reading->channels;
    }
    tile->num_taps = n;
}

/* The tile of a piece that begins at place `from` of its copy; the tiles come one after the other. */
static void lay_copied(const Reading *reading, const Piece *piece, Int from, const Element *raised, Tile *tile) {
    const Int end = (piece->rows - 1) * reading->width + reading->work->plan->out_size[2];
    tile->rows = end - from < ROWS ? end - from : ROWS;
    find_places(reading, piece, from, raised, tile);
    for (Int n = 0; from && n < tile->num_taps; n++)
        for (Int g = 0; g < GROUPS; g++) tile->at[n][g] += ROWS * reading->pitch;
}

/* What the places of a group read. */
typedef struct {
    const Element *base[GROUP];
    uint64_t reads[GROUP], any, all; /* taps that lie inside; those of any place, of all places */
    Int places, regular;             /* number; true where the bases lie one step apart */
} Group;

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
            raised_rows[r] = raised ? cursor->raised + (x >> halved) * plan->raised_step : 0;
        }
        advance(work, raised, places, cursor);
    }
    group->regular = 1;
    for (Int r = 1; r < count; r++) group->regular &= group->base[r] - group->base[r - 1] == step;
}

/* Copy what the places of a group read at a tap, zeros where that is padding. */
static void gather(const Reading *reading, const Group *group, Int tap, Part *to) {
    const Int offset = reading->work->offsets[tap];
    for (Int r = 0; r < GROUP; r++, to += reading->pitch) {
        const int inside = r < group->places && group->reads[r] >> tap & 1;
        copy(&reading->copying, to, reading->plane, inside ? group->base[r] + offset : zeros, 0);
    }
}

/* Copy what the places of a group read of the input, and after it what they read of the smaller map. */
static void gather_both(const Reading *reading, const Group *group, const Element *const *low, Part *to) {
    const Plan *plan = reading->work->plan;
    const Int own = plan->channels - plan->low_channels, plane = reading->plane;
    for (Int r = 0; r < GROUP; r++, to += reading->pitch) {
        const int inside = r < group->places;
        copy(&reading->copying, to, plane, inside ? group->base[r] : zeros, 0);
        copy(&reading->copying_low, to + own, plane, inside ? low[r] : zeros, 0);
        for (int part = 0; part < PARTS; part++)
            _mm512_mask_storeu_epi16(to + part * plane + plan->channels, reading->after_low, _mm512_setzero_si512());
    }
}

/* Gather the low part that the places of a group read. */
static void gather_low(const Reading *reading, const Group *group, const Element *const *low, Part *to) {
    for (Int r = 0; r < GROUP; r++, to += reading->pitch)
        copy(&reading->copying_low, to, reading->plane, r < group->places ? low[r] : zeros, 0);
}

/* What a group of a tile reads at a tap; returns the room after what is gathered for it. */
static Part *lay_tap(const Reading *reading, const Group *group, Int tap, Int n, Int g, Tile *tile, Part *gathered) {
    const Plan *plan = reading->work->plan;
    const int readable = reading->channels == plan->channels && (!plan->low_channels || reading->apart);
    tile->step[n][g] = 0;
    if (PARTS == 1 && !(group->any >> tap & 1)) {
        tile->at[n][g] = (const Part *)zeros;
        return gathered;
    }
    if (PARTS == 1 && readable && group->regular && group->all >> tap & 1) {
        tile->at[n][g] = (const Part *)(group->base[0] + reading->work->offsets[tap]);
        tile->step[n][g] = plan->stride[2] * plan->steps[3] * (Int)sizeof(Element);
        return gathered;
    }
    if (plan->low_channels && !reading->apart) gather_both(reading, group, tile->raised + g * GROUP, gathered);
    else gather(reading, group, tap, gathered);
    tile->at[n][g] = gathered;
    tile->step[n][g] = reading->pitch * sizeof(Part);
    return gathered + GROUP * reading->pitch;
}

/* The tile of the places from `first` on, at which the cursor stands; it moves on. */
static void lay(const Reading *reading, const Element *raised, Int first, Int rows, Cursor *cursor, Tile *tile,
                Part *gathered) {
    const Work *work = reading->work;
    const Int low_channels = reading->apart ? work->plan->low_channels : 0, own = reading->channels - low_channels;
    Group groups[GROUPS];
    uint64_t any = 0;
    tile->rows = rows;
    const Int used = rows > GROUP ? 2 : 1;
    for (Int r = 0; r < rows; r++) tile->place[r] = first + r;
    for (Int g = 0; g < used; g++) {
        const Int count = rows - g * GROUP < GROUP ? rows - g * GROUP : GROUP;
        lay_group(work, raised, count, cursor, &groups[g], tile->raised + g * GROUP);
        any |= groups[g].any;
    }
    Int n = 0;
    for (Int tap = 0; tap < work->taps; tap++) {
        if (!(any >> tap & 1)) continue;
        for (Int g = 0; g < used; g++) gathered = lay_tap(reading, &groups[g], tap, n, g, tile, gathered);
        tile->channels[n] = own;
        tile->before[n++] = tap * reading->channels;
    }
    for (Int g = 0; g < used && low_channels; g++, gathered += GROUP * reading->pitch) {
        gather_low(reading, &groups[g], tile->raised + g * GROUP, gathered);
        tile->at[n][g] = gathered;
        tile->step[n][g] = reading->pitch * sizeof(Part);
    }
    if (low_channels) {
        tile->channels[n] = low_channels;
        tile->before[n++] = own;
    }
    tile->num_taps = n;
}

/* Elements of memory for what is copied of a strip, or gathered for a tile. */
static Int strip_room(const Work *work) {
    const Reading reading = reading_of(work);
    return elements(PARTS * reading.plane + 1);
}

#endif
