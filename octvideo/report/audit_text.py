"""What the audit's page says around its tables."""

OPENING = """# The octave paper's costs, counted

Every figure of FLOPs and memory in Chen et al., "Drop an Octave" (ICCV 2019,
[arXiv 1904.05049](https://arxiv.org/abs/1904.05049)), beside what octvideo counts for the same network. Made by
`octvideo analyze --paper --output {folder}`; more digits are in [audit.json](audit.json).

{summary}

![counted costs over alpha, and the printed ones](report.png)

Lines are octvideo's networks. That of I3D with non-local blocks has the products of the attention, which the paper's
numbers do not.

## How it is counted

- **Unit.** One multiply-add is one. The paper's "FLOPs", and this page's, are multiply-adds of one view: one image, or
  one crop of one clip.
- **Counted** are the convolutions and matrix products of one forward pass, as they reach torch's dispatcher, by
  {tool}.
  Every row builds the network of the column "code" at its alpha, on the meta device.
- **Pooling** is average pooling, one for every element that a window reads: before each high-to-low path and for each
  stride of an octave convolution, and at the network's end. It is in no other column. The tool that the authors thank
  for their counts, CalFlops, counts poolings, and "with pooling" most octave rows come closer. Up-sampling only copies;
  its elements are in audit.json. Norms and activations are not counted.
- **Difference** is counted against printed. Above {limit:g} % a row has a reason, and a reason is a number: the network
  is built in another reading and counted again, or the count lies inside the printed digits. "Or" joins readings that
  all fit; the number cannot tell them apart.
- **Parameters** do not depend on alpha. **Activations** are the bytes that a network's layers write, in per cent of
  those at alpha 0.
- **Networks** are octvideo's: the stem and the last stage (res5) dense, one alpha between (section 4.1 of the paper);
  the low map of an odd map is rounded up (7x7 to 4x4).
"""

NONLOCAL = """## Where a non-local block meets a pair

For Oct-I3D with five non-local blocks the paper prints one number, {printed:g} at alpha .1; neither its text nor its
code says how such a block takes a pair. The options, with the Oct-I3D around them (first pooling without padding), and
without the products of the attention:
"""

NONLOCAL_END = """
octvideo builds (c). It keeps the dense block's state dict, so that a dense checkpoint loads; on input that is constant
in space it gives the dense block's output; and every position attends to every other in all channels. (e) is nearest to
the printed number, but has fewer than half of the block's parameters, so that no dense checkpoint fits. One number is
no proof that the authors did this.
"""

MEMORY = """## Activation memory

The paper's column is that of one layer, 1 - 3/4 alpha. A whole network saves less, because its stem and its last stage
are dense. Per cent of the bytes at alpha 0:
"""

END = """
## What remains open

{open_rows}
- Table 8, Oct-I3D at .2 and .5: the readings named there fit the numbers, and nothing else speaks for them. Octaves in
  res5 with low maps rounded down would explain both rows at their printed alphas, but not the row of .1, which has a
  dense res5.
- Table 8, SlowFast: the printed numbers themselves were not checked. That at .1 fits octaves in res5, that at .2 a
  dense res5.
- Figure 4 has no numbers: its costs are read off its axis.

Versions: octvideo {octvideo_version}, torch {torch_version}, torchvision {torchvision_version}, Python {python};
{date_utc}.
"""
