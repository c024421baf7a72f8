/* The tiles and transforms of Winograd's minimal filtering (A. Lavin, S. Gray: Fast Algorithms for Convolutional
   Neural Networks. CVPR 2016, arXiv 1509.09308); part of can_width.h.

   Tiles of 2 read at the points 0, 1, -1; of 4 also at 2, -2; of 6 also at 1/2, -1/2; and all at infinity. */

#define N (M + 2)
#define APART (TILES * CH + 32) /* floats between points; no multiple of 4 KB, where all fall into one set */

/* `B'` times N values, in pieces, so that few of them are in registers at a time: at zero and at infinity, */
#define ends SIZED(ends, M)
INLINE void ends(const vec *x, vec *zero, vec *infinity) {
#if M == 2
    *zero = x[0] - x[2];
    *infinity = x[1] - x[3];
#elif M == 4
    *zero = 4.0f * x[0] + (x[4] - 5.0f * x[2]);
    *infinity = 4.0f * x[1] + (x[5] - 5.0f * x[3]);
#else
    *zero = (x[6] - x[0]) + 5.25f * (x[2] - x[4]);
    *infinity = (x[7] - x[1]) + 5.25f * (x[3] - x[5]);
#endif
}

/* and at p and -p: the points 1, 2 and 1/2, in this order. */
#define pair SIZED(pair, M)
INLINE void pair(const vec *x, int number, vec *plus, vec *minus) {
    vec even, odd;
#if M == 2
    even = x[2], odd = x[1];
#elif M == 4
    if (number == 0)
        even = x[4] - 4.0f * x[2], odd = x[3] - 4.0f * x[1];
    else
        even = x[4] - x[2], odd = 2.0f * (x[3] - x[1]);
#else
    if (number == 0)
        even = x[6] - 4.25f * x[4] + x[2], odd = x[5] - 4.25f * x[3] + x[1];
    else if (number == 1)
        even = x[6] - 1.25f * x[4] + 0.25f * x[2], odd = 2.0f * (x[5] - 1.25f * x[3] + 0.25f * x[1]);
    else
        even = x[6] - 5.0f * x[4] + 4.0f * x[2], odd = 0.5f * (x[5] - 5.0f * x[3] + 4.0f * x[1]);
#endif
    *plus = even + odd;
    *minus = even - odd;
    (void)number;
}

/* `A'` times N values: those of the M outputs that are even, or odd. */
#define outputs SIZED(outputs, M)
INLINE void outputs(const vec *x, int are_odd, vec *y) {
#if M == 2
    y[0] = are_odd ? x[1] - x[2] - x[3] : x[0] + x[1] + x[2];
#elif M == 4
    if (are_odd) {
        const vec a = x[1] - x[2], b = x[3] - x[4];
        y[0] = 2.0f * b + a;
        y[1] = 8.0f * b + a + x[5];
    } else {
        const vec a = x[1] + x[2], b = x[3] + x[4];
        y[0] = x[0] + a + b;
        y[1] = 4.0f * b + a;
    }
#else
    if (are_odd) {
        const vec a = x[1] - x[2], b = x[3] - x[4], c = x[5] - x[6];
        y[0] = 2.0f * b + a + 0.5f * c;
        y[1] = 8.0f * b + a + 0.125f * c;
        y[2] = 32.0f * b + a + 0.03125f * c + x[7];
    } else {
        const vec a = x[1] + x[2], b = x[3] + x[4], c = x[5] + x[6];
        y[0] = x[0] + a + b + c;
        y[1] = 4.0f * b + a + 0.25f * c;
        y[2] = 16.0f * b + a + 0.0625f * c;
    }
#endif
}

/* A row of N values to its N points. */
#define row_to_points SIZED(row_to_points, M)
INLINE void row_to_points(const vec *x, float *to) {
    vec plus, minus;
    ends(x, &plus, &minus);
    store(to, plus);
    store(to + (N - 1) * APART, minus);
    UNROLLED for (int k = 0; k < M / 2; k++) {
        pair(x, k, &plus, &minus);
        store(to + (2 * k + 1) * APART, plus);
        store(to + (2 * k + 2) * APART, minus);
    }
}

/* N rows, `step` between columns, to N x N points. */
#define to_points SIZED(to_points, M)
INLINE void to_points(const float *const *rows, int64_t at, int64_t step, float *to) {
    vec plus[N], minus[N];
    UNROLLED for (int k = -1; k < M / 2; k++) {
        UNROLLED for (int j = 0; j < N; j++) {
            vec x[N];
            UNROLLED for (int i = 0; i < N; i++) x[i] = load(rows[i] + at + j * step);
            if (k < 0)
                ends(x, plus + j, minus + j);
            else
                pair(x, k, plus + j, minus + j);
        }
        row_to_points(plus, to + (k < 0 ? 0 : 2 * k + 1) * N * APART);
        row_to_points(minus, to + (k < 0 ? N - 1 : 2 * k + 2) * N * APART);
    }
}

#define from_points SIZED(from_points, M)
INLINE void from_points(const float *from, vec y[M][M]) {
    UNROLLED for (int odd = 0; odd < 2; odd++) {
        vec half[M / 2][N];
        UNROLLED for (int j = 0; j < N; j++) {
            vec x[N], part[M / 2];
            UNROLLED for (int i = 0; i < N; i++) x[i] = load(from + (i * N + j) * APART);
            outputs(x, odd, part);
            UNROLLED for (int i = 0; i < M / 2; i++) half[i][j] = part[i];
        }
        UNROLLED for (int i = 0; i < M / 2; i++) {
            vec even[M / 2], others[M / 2];
            outputs(half[i], 0, even);
            outputs(half[i], 1, others);
            UNROLLED for (int j = 0; j < M / 2; j++) {
                y[2 * i + odd][2 * j] = even[j];
                y[2 * i + odd][2 * j + 1] = others[j];
            }
        }
    }
}

/* A block of tiles at one point: x (BLOCK, C) becomes x times w (C, C). */
#define multiply SIZED(multiply, M)
INLINE void multiply(const float *w, float *x) {
    vec sums[BLOCK][VECTORS];
    clear(sums);
    _Pragma("GCC unroll 4") for (int k = 0; k < CH; k++) add_product(sums, x + k, w + k * CH);
    UNROLLED for (int i = 0; i < BLOCK; i++)
        UNROLLED for (int n = 0; n < VECTORS; n++) store(x + i * CH + n * WIDE, sums[i][n]);
}

#define across SIZED(across, M)
INLINE int64_t across(int64_t width, int64_t d) { return parts_of(parts_of(width, d), M); } /* tiles of a phase */

#define tiles_of SIZED(tiles_of, M)
INLINE int64_t tiles_of(int64_t width, int64_t d) { /* a row of tiles: those of all phases of columns */
    const int64_t full = across(width, d) - 1;
    return d * full + least(d, width - d * M * full);
}

#define first_column SIZED(first_column, M)
INLINE int64_t first_column(int64_t tile, int64_t d) { return tile % d + tile / d * M * d; } /* of its outputs */

#define row_floats SIZED(row_floats, M)
INLINE int64_t row_floats(int64_t width, int64_t d) {
    const int64_t floats = ((across(width, d) * M + 2) * d + 8) * CH;
    return floats + (144 - floats % 1024 + 1024) % 1024; /* rows that are not in each other's sets of the cache */
}

/* Raw rows that the next row of tiles needs, into the cache while products run: the share of one point. */
#define fetch SIZED(fetch, M)
INLINE void fetch(const Layer *of, const float *image, int64_t phase, int64_t next, int64_t rows, int64_t point,
                  int64_t from, int64_t to, int64_t tiles) {
    if (next >= rows) return;
    const int64_t row = least(rows - 1, next + point % M), part = point / M, parts = N * N / M;
    const int64_t bytes = of->width * CH * 4, a = bytes * from / tiles, b = bytes * to / tiles;
    const char *base = (const char *)image + (phase + row * of->dilation) * bytes;
    for (int64_t x = a + (b - a) * part / parts; x < a + (b - a) * (part + 1) / parts; x += 64)
        __builtin_prefetch(base + x, 0, 2);
}
