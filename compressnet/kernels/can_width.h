/* PARTS for one processor (PROCESSOR) and one number of channels (CH), in vectors of WIDE floats.
   Included many times: sizes are constants, so that the sums of a block of tiles stay in registers.

   An image falls into d x d phases, whose pixels are d apart: each is convolved with a plain 3x3. A row of tiles
   is M rows of one phase of rows, all columns. A ring holds the M + 2 rows that these read, activated, with
   zeros left and right: no tile is a special case where it is read, and its rows can be written in place.
   TILES tiles at a time:

       rows of the ring -> B' x B -> (M + 2)^2 points (TILES, C) -> each times its matrix (C, C) -> A' x A -> image
                                                                         and moments, while outputs are at hand */

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAMED(name) JOIN(JOIN(name, CH), PROCESSOR)

#define SIZED(name, m) JOIN(JOIN(name, m), JOIN(CH, PROCESSOR)) /* of one size of tiles */

#define vec NAMED(vec)
#define at_any NAMED(at_any)
#define load NAMED(load)
#define store NAMED(store)
#define all NAMED(all)
#define activated NAMED(activated)

typedef float vec __attribute__((vector_size(4 * WIDE)));
typedef float at_any __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

INLINE vec load(const float *from) { return *(const at_any *)from; }
INLINE void store(float *to, vec x) { *(at_any *)to = x; }
INLINE vec all(float x) { return x - (vec){0}; }

/* Leaky ReLU of scale * x + shift, 0 <= slope <= 1. NaN stays NaN. */
INLINE vec activated(vec x, vec scale, vec shift, vec slope) {
    typedef int32_t ints __attribute__((vector_size(4 * WIDE)));
    const vec y = x * scale + shift, low = y * slope;
    const ints above = y > low;
    return (vec)(((ints)y & above) | ((ints)low & ~above));
}

#define VECTORS (CH / WIDE)
#if WIDE == 16
#define BLOCK 12 /* tiles, or pixels, whose sums are in registers */
#elif defined(__AVX512VL__)
#define BLOCK (VECTORS == 3 ? 8 : 6)
#else
#define BLOCK (VECTORS == 3 ? 4 : 3)
#endif
#define UNROLLED _Pragma("GCC unroll 16")

/* The sums of a block: += x (BLOCK, CH)[:, k] * w (CH). Sixteen registers do not hold four vectors of weights. */
#define add_product NAMED(add_product)
INLINE void add_product(vec sums[BLOCK][VECTORS], const float *x, const float *w) {
    if (WIDE == 8 && VECTORS == 4) {
        vec each[BLOCK];
        UNROLLED for (int i = 0; i < BLOCK; i++) each[i] = all(x[i * CH]);
        UNROLLED for (int n = 0; n < VECTORS; n++) {
            const vec weight = load(w + n * WIDE);
            UNROLLED for (int i = 0; i < BLOCK; i++) sums[i][n] += each[i] * weight;
        }
        return;
    }
    vec weights[VECTORS];
    UNROLLED for (int n = 0; n < VECTORS; n++) weights[n] = load(w + n * WIDE);
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        const vec each = all(x[i * CH]);
        UNROLLED for (int n = 0; n < VECTORS; n++) sums[i][n] += each * weights[n];
    }
}

#define activate NAMED(activate) /* a row */
INLINE void activate(const Layer *of, const float *from, float *to) {
    vec scale[VECTORS], shift[VECTORS];
    const vec slope = all(of->slope);
    for (int n = 0; n < VECTORS; n++) scale[n] = load(of->scale + n * WIDE), shift[n] = load(of->shift + n * WIDE);
    for (int64_t i = 0; i < of->width; i++, from += CH, to += CH)
        UNROLLED for (int n = 0; n < VECTORS; n++)
            store(to + n * WIDE, activated(load(from + n * WIDE), scale[n], shift[n], slope));
}

/* Whether for a block of pixels from x on a column of taps (0, 1, 2) is outside of the image. */
#define all_outside NAMED(all_outside)
INLINE int all_outside(int64_t x, int64_t width, int64_t dilation, int column) {
    return (column == 0 && least(x + BLOCK, width) <= dilation) || (column == 2 && x >= width - dilation);
}

/* Sums and squares of outputs around a pivot: the mean so far, at first the first output. */
#define Sums NAMED(Sums)
typedef struct {
    vec sums[VECTORS], squares[VECTORS], pivot[VECTORS];
    int64_t count;
} Sums;

#define begin_sums NAMED(begin_sums)
INLINE void begin_sums(Sums *to, const double *moments) {
    to->count = 0;
    for (int n = 0; n < VECTORS; n++) {
        to->sums[n] = to->squares[n] = (vec){0};
        for (int i = 0; i < WIDE; i++) to->pivot[n][i] = (float)moments[1 + n * WIDE + i];
    }
}

#define end_sums NAMED(end_sums)
INLINE void end_sums(const Sums *from, double *moments) {
    float sums[CH], squares[CH], pivot[CH];
    for (int n = 0; n < VECTORS; n++) {
        store(sums + n * WIDE, from->sums[n]);
        store(squares + n * WIDE, from->squares[n]);
        store(pivot + n * WIDE, from->pivot[n]);
    }
    merge_sums(moments, pivot, sums, squares, (double)from->count, CH);
}

#define put NAMED(put)
INLINE void put(float *to, vec x, int n, Sums *sums) {
    store(to, x);
    const vec off = x - sums->pivot[n];
    sums->sums[n] += off;
    sums->squares[n] += off * off;
}

#define clear NAMED(clear)
INLINE void clear(vec sums[BLOCK][VECTORS]) {
    UNROLLED for (int i = 0; i < BLOCK; i++)
        UNROLLED for (int n = 0; n < VECTORS; n++) sums[i][n] = (vec){0};
}

/* The sums of a block to pixels beside one another. */
#define put_block NAMED(put_block)
INLINE void put_block(float *to, vec found[BLOCK][VECTORS], int64_t count, Sums *sums, int is_first) {
    if (is_first) UNROLLED for (int n = 0; n < VECTORS; n++) sums->pivot[n] = found[0][n];
    if (count >= BLOCK) {
        UNROLLED for (int i = 0; i < BLOCK; i++)
            UNROLLED for (int n = 0; n < VECTORS; n++) put(to + i * CH + n * WIDE, found[i][n], n, sums);
    } else {
        float rest[BLOCK * CH];
        UNROLLED for (int i = 0; i < BLOCK; i++)
            UNROLLED for (int n = 0; n < VECTORS; n++) store(rest + i * CH + n * WIDE, found[i][n]);
        for (int64_t i = 0; i < count; i++)
            for (int n = 0; n < VECTORS; n++)
                put(to + i * CH + n * WIDE, load(rest + i * CH + n * WIDE), n, sums);
    }
    sums->count += least(count, BLOCK);
}

/* The rows of one phase that a task reads: its own, and one on either side. */
#define raw_row NAMED(raw_row)
INLINE const float *raw_row(const Layer *of, int64_t phase, int64_t task, int64_t row) {
    const int64_t floats = of->width * CH, begin = task * of->span, cuts = of->tasks - 1;
    if (of->source == of->image) {
        if (row < begin) return of->saved + ((phase * cuts + task - 1) * 2) * floats;
        if (row >= begin + of->span) return of->saved + ((phase * cuts + task) * 2 + 1) * floats;
    }
    return of->source + (phase + row * of->dilation) * floats;
}

/* A row of a ring of the direct form, with zeros left and right. */
#define direct_floats NAMED(direct_floats)
INLINE int64_t direct_floats(int64_t width, int64_t dilation) { return (width + 2 * dilation + BLOCK) * CH + 144; }

/* The sums of a block of pixels from x on, of row y of a phase: the direct form, from a ring of three rows.
   Weights: (9, C, C). `rows`: of the phase. */
#define convolve_block NAMED(convolve_block)
INLINE void convolve_block(vec sums[BLOCK][VECTORS], const float *ring, int64_t y, int64_t x, int64_t rows,
                           int64_t width, int64_t d, const float *weights) {
    clear(sums);
    for (int tap = 0; tap < 9; tap++) {
        const int64_t row = y + tap / 3 - 1;
        if (row < 0 || row >= rows || all_outside(x, width, d, tap % 3)) continue;
        const float *from = ring + row % 3 * direct_floats(width, d) + (x + tap % 3 * d) * CH;
        _Pragma("GCC unroll 4") for (int k = 0; k < CH; k++)
            add_product(sums, from + k, weights + (tap * CH + k) * CH);
    }
}

#include PARTS

#undef JOIN2
#undef JOIN
#undef NAMED
#undef SIZED
#undef vec
#undef at_any
#undef load
#undef store
#undef all
#undef activated
#undef VECTORS
#undef BLOCK
#undef UNROLLED
#undef add_product
#undef activate
#undef all_outside
#undef Sums
#undef begin_sums
#undef end_sums
#undef clear
#undef put
#undef put_block
#undef raw_row
#undef direct_floats
#undef convolve_block
