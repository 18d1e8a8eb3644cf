/* Output channels are made in blocks of up to UNITS units of UNIT channels, which share the channels out. */

#ifndef BLOCKS_H
#define BLOCKS_H

#include "element.h"

static Int num_units(Int out_channels) { return (out_channels + UNIT - 1) / UNIT; }
static Int num_blocks(Int out_channels) { return (num_units(out_channels) + UNITS - 1) / UNITS; }

/* First channel of a block; of the one after the last, the end of the padded channels. Only the last has an odd number
   of units. */
static Int block_start(Int out_channels, Int block) {
    Int units = num_units(out_channels), blocks = num_blocks(out_channels), start = block * units / blocks;
    return (block < blocks ? start + start % 2 : units) * UNIT;
}

Int padded_out_channels(Int out_channels) { return num_units(out_channels) * UNIT; }

/* Elements of packed weights; `together` taps are taken as one. */
Int packed_size(Int out_channels, Int channels, Int taps, Int together);

/* Weights as they are given. */
typedef struct {
    const Element *at;
    Int out_channels, channels, taps;
} Weights;

/* A weight; 0 where there is no such channel. */
static Element weight_at(const Weights *weights, Int out_channel, Int channel, Int tap) {
    if (out_channel >= weights->out_channels || channel >= weights->channels) return 0;
    return weights->at[(out_channel * weights->channels + channel) * weights->taps + tap];
}

/* How many blocks' weights, `depth` of them for each output channel, stay in the second cache beside a strip. */
static Int blocks_together(Int depth) {
    Int together = RESIDENT / (depth * UNITS * UNIT * (Int)sizeof(Element));
    return together < 1 ? 1 : together;
}

#endif
