/* Convolution over channels-last maps that adds what else belongs to its sum, rectifies, and pools the result while it is
   in the cache: see octvideo/runtime/tiles.py. */

#include <omp.h>

#include "cells.h"
#include "vectors.h"
#if MATRICES
#include "matrix_strips.h"
#elif LANES
#include "vector_strips.h"
#endif

#if LANES

Int can_convolve(Int channels, Int taps) { return channels <= MAX_CHANNELS && taps <= MAX_TAPS; }

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

/* Pool one row of cells of the finished output, which begins at `out`. What was not rectified is rectified now. */
static void pool_row(const Plan *plan, const Maps *maps, const Element *out, Int row) {
    const Int *factors = plan->pool_factors;
    Int size[4] = {plan->out_size[0], plan->out_size[1], plan->out_size[2], plan->pooled_channels}, low[3];
    for (int axis = 0; axis < 3; axis++) low[axis] = (size[axis] + factors[axis] - 1) / factors[axis];
    Int in_frame = rows_in_frame(plan, factors), frame = row / in_frame, clip = frame / low[0];
    Int first = factors[0] > 1 ? 0 : row % in_frame, last = factors[0] > 1 ? low[1] : first + 1;
    const Element *high = out + clip * size[0] * size[1] * size[2] * plan->out_step;
    const float least = plan->relu && plan->unrectified ? 0 : -__builtin_inff();
    for (Int y = first; y < last; y++) {
        Element *to = maps->pooled + (frame * low[1] + y) * low[2] * plan->pooled_step;
        pool_cells(high, plan->out_step, to, plan->pooled_step, frame % low[0], y, size, factors, 0, least);
    }
}

/* What is to be up-sampled over the places [first, last): a strip of a convolution of its own, written to `strip`.
   Returns where the first place of all would lie. */
static const Element *raise_strip(const Plan *plan, const Work *raising, Int first, Int last, Element *strip,
                                  Element *room) {
    Int at[3], clip = locate(plan, first, at), from = raised_place(plan, clip, at);
    clip = locate(plan, last - 1, at);
    Element *out = strip - from * plan->out_channels;
    convolve_strip(raising, out, 0, from, raised_place(plan, clip, at) + 1, room);
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
    Int places = work->places / (plan->threads > 1 ? 2 * plan->threads : 1);
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

/* Elements, filled up to whole lines of the cache. */
static Int whole_lines(Int elements) {
    const Int line = 64 / (Int)sizeof(Element);
    return (elements + line - 1) / line * line;
}

/* Elements of memory that a thread needs: for a strip of the output that is streamed, for what is up-sampled into it, and for
   what the two convolutions copy or gather. */
typedef struct {
    Int out, raised, all;
} Room;

static Room room_of(const Work *work, const Work *raising, int streams) {
    const Int strip = whole_lines(work->strip * work->plan->out_channels), own = strip_room(work);
    const Int raising_own = raising ? strip_room(raising) : 0;
    Room room = {streams ? strip : 0, raising ? strip : 0, 0};
    room.all = room.out + room.raised + whole_lines(own > raising_own ? own : raising_own);
    return room;
}

/* The result at every place: bias + convolution (of the input, and of `low` up-sampled beside it where that is there) +
   summand + another convolution's result up-sampled, which may be missing, rectified if so; and its means over the cells.
   Returns 0, or 1 where there is no memory for it. */
int convolve(const Plan *plan, const Maps *maps, const Plan *raising_plan, const Maps *raising_maps) {
    Work work = prepare(plan, maps), raising = {0};
    if (raising_plan) raising = prepare(raising_plan, raising_maps);
    static const Int whole[3] = {1, 1, 1};
    const Int *factors = maps->pooled ? plan->pool_factors : raising_plan || maps->low ? plan->raised_factors : whole;
    const Strips strips = share_out(&work, factors);
    const Int bytes = work.places * plan->out_channels * (Int)sizeof(Element);
    const int streams =
        maps->summand != maps->out && bytes > plan->cache_bytes / 4 && plan->out_step == plan->out_channels;
    const Int a_column = strips.by_column ? strips.frames : 1, a_share = strips.number / (4 * plan->threads);
    const Int chunk = a_share < 1 ? 1 : a_share < a_column ? a_share : a_column;
    work.strip = raising.strip = strips.places;
    const Room each = room_of(&work, raising_plan ? &raising : 0, streams);
    Element *room = each.all ? aligned_alloc(64, plan->threads * each.all * sizeof(Element)) : 0;
    const int failed = !work.memory || (raising_plan && !raising.memory) || (each.all && !room);
#pragma omp parallel num_threads(plan->threads) if (!failed)
    {
        Element *out_strip = room + omp_get_thread_num() * each.all, *raised_strip = out_strip + each.out;
        Element *scratch = raised_strip + each.raised;
#pragma omp for schedule(dynamic, chunk)
        for (Int s = 0; s < (failed ? 0 : strips.number); s++) {
            Int row, end;
            rows_of_strip(&strips, s, &row, &end);
            Int first = start_of_row(plan, factors, row), last = start_of_row(plan, factors, end);
            const Element *raised = maps->low;
            if (raising_plan) raised = raise_strip(plan, &raising, first, last, raised_strip, scratch);
            Element *out = streams ? out_strip - first * plan->out_channels : maps->out;
            convolve_strip(&work, out, raised, first, last, scratch);
            for (; maps->pooled && row < end; row++) pool_row(plan, maps, out, row);
            if (streams) stream(maps->out + first * plan->out_channels, out_strip, (last - first) * plan->out_channels);
        }
        if (streams) _mm_sfence();
    }
    free(room);
    free(work.memory);
    free(raising.memory);
    return failed;
}

#else /* the others are never called */
Int can_convolve(void) { return 0; }
Int reads_in_place(Int channels) { return channels > 0; }
Int copies_strips(void) { return 0; }
Int matrices_pay(void) { return 0; }
Int reads_low(void) { return 0; }
Int taps_together(void) { return 1; }
Int executed(void) { return 0; }
Int padded_out_channels(Int out_channels) { return out_channels; }
Int packed_size(void) { return 0; }
void pack(void) {}
int convolve(void) { return 1; }
#endif
