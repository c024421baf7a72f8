/* What the versions of can_layer.c for several processors and widths have in common. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TILES 24 /* of a group: what goes through the transforms and products together */

/* One 3x3 convolution of dilation d with zeros around the image, in place.

   Attributes:
       image: (H, W, C) float32, what the layer before gave; overwritten.
       scale, shift: (C,), of the normalisation of the layer before; then a leaky ReLU of `slope`.
       weights: (points, C, C), inputs before outputs, transformed for the tiles.
       saved: raw rows on either side of where tasks meet: ((phases, tasks - 1, 2), W, C).
       rows: of a phase that have moments of their own, whatever the tasks are.
       span: rows of a phase that are a task, a multiple of `rows`.
       tasks: of a phase. */
typedef struct {
    float *image;
    int64_t height, width, dilation;
    const float *scale, *shift;
    float slope;
    const float *weights;
    const float *saved;
    int64_t rows, span, tasks;
} Layer;

/* The first convolution: planes of any strides, dilation 1, into an image (H, W, C). Weights: (9, planes, C). */
typedef struct {
    const float *pixels;
    int64_t plane, row, column; /* strides */
    int64_t planes;
    float *image;
    int64_t height, width;
    const float *weights;
    int64_t rows; /* of a part */
} First;

/* The last convolution, 1x1: an image (H, W, C) to planes of any strides. Weights (planes, C). */
typedef struct {
    const float *image;
    int64_t height, width;
    const float *scale, *shift;
    float slope;
    const float *weights, *bias;
    float *out;
    int64_t plane, row, column, planes;
    int64_t rows;
} Last;

/* For a processor and number of channels: how much room a thread needs, in floats of zeros, and one task of the
   work; of layers for tiles of 0 (direct), 2, 4 and 6 outputs. `moments`: 1 + 2 C doubles of some outputs: how
   many, means, sums of squares around them; of a layer one set for each `rows` rows of the phase. */
typedef struct {
    int64_t (*room[4])(int64_t width, int64_t dilation);
    void (*layer[4])(const Layer *of, int64_t phase, int64_t task, double *moments, float *room);
    int64_t (*first_room)(int64_t width, int64_t planes);
    void (*first)(const First *of, int64_t part, double *moments, float *room);
    void (*last)(const Last *of, int64_t part);
} Version;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

/* Moments of `count` numbers a channel, as sums around `pivot`, into those there are (T. Chan et al., 1979). */
INLINE void merge_sums(double *to, const float *pivot, const float *sums, const float *squares, double count,
                       int channels) {
    const double all = to[0] + count;
    double *mean = to + 1, *spread = to + 1 + channels;
    for (int c = 0; c < channels; c++) {
        const double off = pivot[c] + sums[c] / count - mean[c];
        const double own = squares[c] - (double)sums[c] * sums[c] / count;
        mean[c] += off * (count / all);
        spread[c] += (own < 0 ? 0 : own) + off * off * (to[0] * count / all);
    }
    to[0] = all;
}
