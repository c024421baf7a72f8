/* What the versions of can_layer.c and can_gradient.c for several processors and widths have in common. */

#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define TILES 24 /* of a group: what goes through the transforms and products together */

/* One 3x3 convolution of dilation d with zeros around the image.

   Attributes:
       source: (H, W, C) float32, what the layer before gave.
       image: (H, W, C), is written; `source` itself, or apart from it.
       scale, shift: (C,), of the normalisation of the layer before; then a leaky ReLU of `slope`.
       weights: (points, C, C), inputs before outputs, transformed for the tiles.
       saved: in place, raw rows on either side of where tasks meet: ((phases, tasks - 1, 2), W, C).
       rows: of a phase that have moments of their own, whatever the tasks are.
       span: rows of a phase that are a task, a multiple of `rows`.
       tasks: of a phase. */
typedef struct {
    const float *source;
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

/* The number of this thread. */
static inline int thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* Keep the rows that one task of a layer in place reads and another one overwrites. */
static inline void save_cuts(const Layer *of, float *saved, int64_t channels) {
    const int64_t floats = of->width * channels, cuts = of->tasks - 1, phases = least(of->dilation, of->height);
    for (int64_t cut = 0; cut < phases * cuts; cut++)
        for (int64_t i = 0; i < 2; i++) {
            const int64_t y = cut / cuts + ((cut % cuts + 1) * of->span - 1 + i) * of->dilation;
            if (y < of->height)
                memcpy(saved + (cut * 2 + i) * floats, of->source + y * floats, sizeof(float) * (size_t)floats);
        }
}
