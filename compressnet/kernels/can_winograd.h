/* The middle layers by Winograd's minimal filtering; part of can_width.h. Weights: (N x N, C, C). */

#include "can_tiles.h"

#define room SIZED(room, M)
static int64_t room(int64_t width, int64_t d) { return (N + 1) * row_floats(width, d) + N * N * APART + 64; }

/* The outputs of a tile, as far as they are in the image. */
#define put_tile SIZED(put_tile, M)
INLINE void put_tile(float *to, const float *points, int64_t step, int64_t row, int64_t high, int64_t wide,
                     Sums *sums) {
    for (int n = 0; n < VECTORS; n++) {
        vec y[M][M];
        from_points(points + n * WIDE, y);
        if (high == M && wide == M) {
            UNROLLED for (int i = 0; i < M; i++)
                UNROLLED for (int j = 0; j < M; j++) put(to + i * row + j * step + n * WIDE, y[i][j], n, sums);
        } else {
            for (int64_t i = 0; i < high; i++)
                for (int64_t j = 0; j < wide; j++) put(to + i * row + j * step + n * WIDE, y[i][j], n, sums);
        }
    }
    sums->count += high * wide;
}

#define group SIZED(group, M)
INLINE void group(const Layer *of, const float *const *in, int64_t phase, int64_t y, int64_t high, int64_t from,
                  int64_t count, int64_t tiles, int64_t next, int64_t rows, double *moments, float *points) {
    const int64_t d = of->dilation, step = d * CH, row = step * of->width;
    for (int64_t q = 0; q < count; q++) { /* tiles of all phases of columns, one after the other */
        const int64_t at = first_column(from + q, d) * CH;
        for (int n = 0; n < VECTORS; n++) to_points(in, at + n * WIDE, step, points + q * CH + n * WIDE);
    }
    for (int64_t p = 0; p < N * N; p++) {
        fetch(of, of->source, phase, next, rows, p, from, from + count, tiles);
        for (int64_t q = 0; q < count; q += BLOCK)
            multiply(of->weights + p * CH * CH, points + p * APART + q * CH);
    }
    Sums sums;
    begin_sums(&sums, moments);
    if (moments[0] == 0)
        for (int n = 0; n < VECTORS; n++) {
            vec first[M][M];
            from_points(points + n * WIDE, first);
            sums.pivot[n] = first[0][0];
        }
    for (int64_t q = 0; q < count; q++) {
        const int64_t x = first_column(from + q, d);
        float *to = of->image + ((phase + y * d) * of->width + x) * CH;
        put_tile(to, points + q * CH, step, row, high, least(M, parts_of(of->width - x, d)), &sums);
    }
    end_sums(&sums, moments);
}

#define layer SIZED(layer, M)
static void layer(const Layer *of, int64_t phase, int64_t task, double *moments, float *space) {
    const int64_t d = of->dilation, width = of->width, rows = parts_of(of->height - phase, d);
    const int64_t begin = task * of->span, end = least(rows, begin + of->span), floats = row_floats(width, d);
    const int64_t tiles = tiles_of(width, d);
    float *nothing = space, *ring = space + floats, *points = space + (N + 1) * floats;
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y += M) {
        for (; ready < least(rows, least(end, y + M) + 1); ready++)
            activate(of, raw_row(of, phase, task, ready), ring + ready % N * floats + d * CH);
        const float *in[N];
        for (int i = 0; i < N; i++) {
            const int64_t row = y + i - 1;
            in[i] = row < 0 || row >= ready ? nothing : ring + row % N * floats;
        }
        for (int64_t from = 0; from < tiles; from += TILES)
            group(of, in, phase, y, least(M, end - y), from, least(TILES, tiles - from), tiles, y + M + 1,
                  least(rows, end + 1), moments + y / of->rows * (1 + 2 * CH), points);
    }
}

#include "can_tiles_end.h"
#undef room
#undef put_tile
#undef group
#undef layer
