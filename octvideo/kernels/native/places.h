/* A convolution, what its tiles share, and the places of its output. Maps lie channels-last: (clips, frames, height, width,
   channels) side by side in memory. */

#ifndef PLACES_H
#define PLACES_H

#include <stdlib.h>

#include "blocks.h"

#define MAX_TAPS 64 /* a bit for each */
#define MAX_CHANNELS 16384

/* All that stays the same between calls; three numbers are of time, height and width, steps are in elements. */
typedef struct {
    Int clips, size[3], out_size[3];
    Int steps[4]; /* between clips, frames, rows and places of the input */
    Int kernel[3], stride[3], padding[3], dilation[3];
    Int taps_together; /* on the last axis: 1, or all of the kernel */
    Int channels, out_channels;
    Int low_channels;                        /* those of the channels, the last, that are read of a smaller map */
    Int out_step, summand_step, raised_step; /* between places; the last of what is up-sampled */
    Int raised_factors[3], pool_factors[3]; /* 1 or 2; those of pooling are no less, where there is both */
    Int pooled_step, pooled_channels; /* the first of the output channels */
    Int relu, unrectified;            /* the first of them are rectified only after pooling */
    Int threads;
    Int cache_bytes; /* of the last level */
} Plan;

typedef struct {
    const Element *in, *weights;
    const float *bias;
    Element *out;
    const Element *summand; /* as large as out, or missing */
    Element *pooled;        /* means of out over pool_factors, or missing */
    const Element *low;     /* up-sampled and read beside `in` by a kernel of one tap, or missing */
} Maps;

/* A call, and what all its tiles share. */
typedef struct {
    const Plan *plan;
    const Maps *maps;
    void *memory; /* of the arrays below; missing where there was none for them */
    Int taps, places;
    Int strip;             /* most places that are made at a time */
    Int depth;             /* packed weights per output channel */
    Int *starts, together; /* of the blocks; how many of them stay in the cache at a time */
    Int *offsets;          /* of the taps, in elements of the input */
    float *least;          /* for each output channel: 0 where it is rectified */
    uint64_t *inside[3];   /* for each place on an axis, the taps that read the input */
    uint64_t all;          /* taps */
    Int inner[2];          /* places on the last axis, [first, last), of which all taps read the input */
} Work;

static const Element zeros[MAX_CHANNELS];

/* The taps that have an element of the kernel on an axis. */
static uint64_t taps_of(const Plan *plan, int axis, Int element) {
    const Int *kernel = plan->kernel;
    Int at[3], tap = 0;
    uint64_t taps = 0;
    for (at[0] = 0; at[0] < kernel[0]; at[0]++)
        for (at[1] = 0; at[1] < kernel[1]; at[1]++)
            for (at[2] = 0; at[2] < kernel[2]; at[2]++, tap++) taps |= (uint64_t)(at[axis] == element) << tap;
    return taps;
}

static void find_inside(const Plan *plan, int axis, Work *work) {
    for (Int k = 0; k < plan->kernel[axis]; k++) {
        const uint64_t taps = taps_of(plan, axis, k);
        Int from = k * plan->dilation[axis] - plan->padding[axis];
        for (Int place = 0; place < plan->out_size[axis]; place++, from += plan->stride[axis])
            if (from >= 0 && from < plan->size[axis]) work->inside[axis][place] |= taps;
    }
}

static void find_offsets(const Plan *plan, Work *work) {
    const Int *steps = plan->steps, *dilation = plan->dilation;
    Int *offset = work->offsets;
    for (Int t = 0; t < plan->kernel[0]; t++)
        for (Int y = 0; y < plan->kernel[1]; y++)
            for (Int x = 0; x < plan->kernel[2]; x++)
                *offset++ = t * dilation[0] * steps[1] + y * dilation[1] * steps[2] + x * dilation[2] * steps[3];
}

static void find_blocks(const Plan *plan, Work *work) {
    const Int blocks = num_blocks(plan->out_channels);
    work->depth = packed_size(1, plan->channels, work->taps, plan->taps_together) / padded_out_channels(1);
    work->together = blocks_together(work->depth);
    for (Int block = 0; block <= blocks; block++) work->starts[block] = block_start(plan->out_channels, block);
}

/* One piece of memory, of zeros, for all arrays; returns false where there is none. */
static int find_memory(const Plan *plan, Work *work) {
    const Int *size = plan->out_size, blocks = num_blocks(plan->out_channels);
    const Int channels = padded_out_channels(plan->out_channels); /* even */
    work->memory = calloc(size[0] + size[1] + size[2] + work->taps + blocks + 1 + channels / 2, sizeof(Int));
    if (!work->memory) return 0;
    work->inside[0] = work->memory;
    for (int axis = 1; axis < 3; axis++) work->inside[axis] = work->inside[axis - 1] + size[axis - 1];
    work->offsets = (Int *)(work->inside[2] + size[2]);
    work->starts = work->offsets + work->taps;
    work->least = (float *)(work->starts + blocks + 1);
    return 1;
}

static Work prepare(const Plan *plan, const Maps *maps) {
    Work work = {.plan = plan, .maps = maps, .places = plan->clips};
    work.taps = plan->kernel[0] * plan->kernel[1] * plan->kernel[2];
    work.all = ~(uint64_t)0 >> (64 - work.taps);
    for (int axis = 0; axis < 3; axis++) work.places *= plan->out_size[axis];
    if (!find_memory(plan, &work)) return work;
    for (int axis = 0; axis < 3; axis++) find_inside(plan, axis, &work);
    find_offsets(plan, &work);
    find_blocks(plan, &work);
    for (Int c = 0; c < padded_out_channels(plan->out_channels); c++)
        work.least[c] = plan->relu && c >= plan->unrectified ? 0 : -__builtin_inff();
    const Int width = plan->out_size[2];
    while (work.inner[0] < width && work.inside[2][work.inner[0]] != work.all) work.inner[0]++;
    work.inner[1] = work.inner[0];
    while (work.inner[1] < width && work.inside[2][work.inner[1]] == work.all) work.inner[1]++;
    return work;
}

/* The coordinates of a place of the output; returns its clip. */
static Int locate(const Plan *plan, Int place, Int *at) {
    for (int axis = 2; axis >= 0; axis--) {
        at[axis] = place % plan->out_size[axis];
        place /= plan->out_size[axis];
    }
    return place;
}

/* Where in the smaller map that is up-sampled lies what belongs to a place. */
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
    uint64_t reads;             /* taps whose frames and rows lie inside */
} Cursor;

static void enter_row(const Work *work, const Element *raised, Cursor *cursor) {
    const Plan *plan = work->plan;
    Int from = cursor->clip * plan->steps[0] - plan->padding[2] * plan->steps[3];
    for (int axis = 0; axis < 2; axis++)
        from += (cursor->at[axis] * plan->stride[axis] - plan->padding[axis]) * plan->steps[axis + 1];
    cursor->reads = work->inside[0][cursor->at[0]] & work->inside[1][cursor->at[1]];
    cursor->in = work->maps->in + from;
    if (!raised) return;
    Int first[3] = {cursor->at[0], cursor->at[1], 0};
    cursor->raised = raised + raised_place(plan, cursor->clip, first) * plan->raised_step;
}

static Cursor start_at(const Work *work, const Element *raised, Int place) {
    Cursor cursor = {0};
    cursor.clip = locate(work->plan, place, cursor.at);
    enter_row(work, raised, &cursor);
    return cursor;
}

static inline void advance(const Work *work, const Element *raised, Int places, Cursor *cursor) {
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

#endif
