/* The backward pass of the middle layers by Winograd's minimal filtering; part of can_width.h. The tiles are those
   of the forward pass. The gradient of what is multiplied at a point is, over all tiles, the outer product of

       the input's tile at this point            rows of the ring of activated Q -> B' x B
       the outputs' gradient at this point       rows of the ring of D -> A x A', the transpose of A' x A

   and the gradient of the inputs is the convolution of D with the turned weights, as in can_winograd.h. */

#include "can_tiles.h"

/* `A` times M values: the transpose of `outputs`. */
#define spread SIZED(spread, M)
INLINE void spread(const vec *y, vec *x) {
#if M == 2
    x[0] = y[0];
    x[1] = y[0] + y[1];
    x[2] = y[0] - y[1];
    x[3] = -y[1];
#else
    const vec even = y[0] + y[2], odd = y[1] + y[3];
    const vec even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
    x[0] = y[0];
    x[1] = even + odd;
    x[2] = even - odd;
    x[3] = even2 + odd2;
    x[4] = even2 - odd2;
    x[5] = y[3];
#endif
}

/* The M x M values in the middle of N rows, `step` between columns, to N x N points. */
#define spread_to_points SIZED(spread_to_points, M)
INLINE void spread_to_points(const float *const *rows, int64_t at, int64_t step, float *to) {
    vec half[M][N];
    UNROLLED for (int j = 0; j < M; j++) {
        vec y[M];
        UNROLLED for (int i = 0; i < M; i++) y[i] = load(rows[i + 1] + at + (j + 1) * step);
        spread(y, half[j]);
    }
    UNROLLED for (int i = 0; i < N; i++) {
        vec y[M], x[N];
        UNROLLED for (int j = 0; j < M; j++) y[j] = half[j][i];
        spread(y, x);
        UNROLLED for (int j = 0; j < N; j++) store(to + (i * N + j) * APART, x[j]);
    }
}

#define room SIZED(room, M)
static int64_t room(int64_t width, int64_t d) {
    return (2 * N + 1) * row_floats(width, d) + 2 * N * N * APART + 64;
}

/* Tiles of one row of tiles that go through together, and what is read ahead meanwhile. */
#define Group SIZED(Group, M)
typedef struct {
    int64_t phase, y, high;     /* high: rows of the image */
    int64_t from, count, tiles; /* the first one, how many, of how many in the row */
    int64_t next, rows;         /* the row to be read next, and the end */
} Group;

#define add_weights SIZED(add_weights, M)
INLINE void add_weights(const Gradient *of, const Group *at, const float *const *active,
                        const float *const *gradient, float *points, float *others, float *weights) {
    const int64_t d = of->layer.dilation, end = at->from + at->count;
    for (int64_t q = 0; q < at->count; q++) {
        const int64_t x = first_column(at->from + q, d) * CH;
        for (int n = 0; n < VECTORS; n++) to_points(active, x + n * WIDE, d * CH, points + q * CH + n * WIDE);
        for (int n = 0; n < VECTORS; n++)
            spread_to_points(gradient, x + n * WIDE, d * CH, others + q * CH + n * WIDE);
    }
    for (int64_t p = 0; p < N * N; p++) {
        fetch(&of->layer, of->before, at->phase, at->next, at->rows, p, at->from, end, at->tiles);
        fetch(&of->layer, of->layer.image, at->phase, at->next, at->rows, p, at->from, end, at->tiles);
        add_outer(points + p * APART, others + p * APART, at->count, weights + p * CH * CH);
    }
}

/* The inputs' gradient of a tile, as far as it is in the image. */
#define put_tile SIZED(put_tile, M)
INLINE void put_tile(const Gradient *of, const float *points, int64_t place, int64_t high, int64_t wide,
                     Products *sums) {
    const int64_t step = of->layer.dilation * CH, row = step * of->layer.width;
    for (int n = 0; n < VECTORS; n++) {
        float *to = of->layer.image + place + n * WIDE;
        const float *before = of->before + place + n * WIDE;
        const Slope slope = slope_of(of, n);
        vec y[M][M], sum = sums->g[n], products = sums->products[n];
        from_points(points + n * WIDE, y);
        if (high == M && wide == M) {
            UNROLLED for (int i = 0; i < M; i++)
                UNROLLED for (int j = 0; j < M; j++)
                    put_gradient(to + i * row + j * step, before + i * row + j * step, y[i][j], &slope, &sum,
                                 &products);
        } else {
            for (int64_t i = 0; i < high; i++)
                for (int64_t j = 0; j < wide; j++)
                    put_gradient(to + i * row + j * step, before + i * row + j * step, y[i][j], &slope, &sum,
                                 &products);
        }
        sums->g[n] = sum;
        sums->products[n] = products;
    }
}

#define put_inputs SIZED(put_inputs, M)
INLINE void put_inputs(const Gradient *of, const Group *at, const float *const *gradient, float *points,
                       double *sums) {
    const int64_t d = of->layer.dilation, width = of->layer.width, end = at->from + at->count;
    for (int64_t q = 0; q < at->count; q++) {
        const int64_t x = first_column(at->from + q, d) * CH;
        for (int n = 0; n < VECTORS; n++) to_points(gradient, x + n * WIDE, d * CH, points + q * CH + n * WIDE);
    }
    for (int64_t p = 0; p < N * N; p++) {
        fetch(&of->layer, of->raw, at->phase, at->next, at->rows, p, at->from, end, at->tiles);
        for (int64_t q = 0; q < at->count; q += BLOCK)
            multiply(of->layer.weights + p * CH * CH, points + p * APART + q * CH);
    }
    Products found;
    begin_products(&found);
    for (int64_t q = 0; q < at->count; q++) {
        const int64_t x = first_column(at->from + q, d), place = ((at->phase + at->y * d) * width + x) * CH;
        put_tile(of, points + q * CH, place, at->high, least(M, parts_of(width - x, d)), &found);
    }
    end_products(&found, sums);
}

#define middle SIZED(middle, M)
static void middle(const Gradient *of, int64_t phase, int64_t task, float *weights, double *sums, float *space) {
    const int64_t d = of->layer.dilation, width = of->layer.width, rows = parts_of(of->layer.height - phase, d);
    const int64_t begin = task * of->layer.span, end = least(rows, begin + of->layer.span);
    const int64_t floats = row_floats(width, d), tiles = tiles_of(width, d);
    float *nothing = space, *inputs = space + floats, *outputs_ring = inputs + N * floats;
    float *points = outputs_ring + N * floats, *others = points + N * N * APART;
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y += M) {
        for (; ready < least(rows, least(end, y + M) + 1); ready++) {
            const int64_t place = (phase + ready * d) * width * CH, ring = ready % N * floats + d * CH;
            activate(&of->layer, of->before + place, inputs + ring);
            through_norm(of->normalised, raw_row(&of->layer, phase, task, ready), of->raw + place,
                         outputs_ring + ring, width);
        }
        const float *active[N], *gradient[N];
        for (int i = 0; i < N; i++) {
            const int64_t row = y + i - 1, ring = row % N * floats;
            const int is_outside = row < 0 || row >= ready;
            active[i] = is_outside ? nothing : inputs + ring;
            gradient[i] = is_outside ? nothing : outputs_ring + ring;
        }
        for (int64_t from = 0; from < tiles; from += TILES) {
            const Group at = {phase, y, least(M, end - y), from, least(TILES, tiles - from), tiles,
                              y + M + 1, least(rows, end + 1)};
            add_weights(of, &at, active, gradient, points, others, weights);
            put_inputs(of, &at, gradient, points, sums);
        }
    }
}

#include "can_tiles_end.h"
#undef spread
#undef spread_to_points
#undef room
#undef Group
#undef add_weights
#undef put_tile
#undef put_inputs
#undef middle
