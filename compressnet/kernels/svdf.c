/* Frames of SVDF (formulas: layers/svdf.py): the features of each, into the ring, and the sums over what is there.

   Contiguous float32: x (L, B, F), feature (N, F), time (N, T) with the oldest frame first, bias (N / R) or NULL,
   ring (T, B, N), y (L, B, N / R), where N / R nodes have R filters each, next to one another. A new frame goes
   to `position` modulo T of the ring, behind which the oldest one lies: no frame is ever moved. `next` is the
   position after the last.

   A task is one batch row and the filters of some nodes: it goes through all frames with its weights in the
   cache. Filters lie side by side in a frame, and frames in the time weights: these are turned over on the way,
   WIDE filters by WIDE frames at a time. */

#include "vectors.h"

#define TILE 64 /* filters */
/* Below so many products a second thread has not begun before all is over. */
#define WORTH_THREADS 262144

#ifdef __clang__
#define PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICKED(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif

typedef struct {
    const float *x, *feature, *time, *bias;
    float *ring, *y;
    int64_t count, batch, units, rank, features, memory, slot;
    int is_relu;
} Frames;

/* Rows become columns: of pairs, of fours, of all. */
INLINE void turn_over(vec rows[WIDE]) {
    vec twos[WIDE], fours[WIDE];
    for (int i = 0; i < WIDE; i += 2) {
        twos[i] = PICKED(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        twos[i + 1] = PICKED(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < WIDE; i += 4)
        for (int half = 0; half < 2; half++) {
            const vec low = twos[i + half], high = twos[i + 2 + half];
            fours[i + 2 * half] = PICKED(low, high, 0, 1, 8, 9, 4, 5, 12, 13);
            fours[i + 2 * half + 1] = PICKED(low, high, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        rows[i] = PICKED(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[i + 4] = PICKED(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* The last numbers of x, fewer than WIDE, behind zeros for those before them, which `feature` has once more. */
INLINE vec last_of(const float *x, int64_t features, int64_t rest) {
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    const vec zero = {0};
    return chosen(lanes >= (int32_t)(WIDE - rest), load(x + features - WIDE, WIDE), zero);
}

/* Features of a frame by up to WIDE filters, `count` of them. */
INLINE vec projected(const float *x, const float *feature, int64_t features, int64_t count) {
    const float *rows[WIDE];
    vec sums[WIDE];
    const int64_t rest = features % WIDE;
    for (int i = 0; i < WIDE; i++) {
        rows[i] = feature + (i < count ? i : count - 1) * features;
        sums[i] = (vec){0};
    }
    for (int64_t j = 0; j + WIDE <= features; j += WIDE) {
        const vec own = load(x + j, WIDE);
        for (int i = 0; i < WIDE; i++) sums[i] += load(rows[i] + j, WIDE) * own;
    }
    if (rest) {
        const int64_t at = features < WIDE ? 0 : features - WIDE;
        const vec own = features < WIDE ? load(x, rest) : last_of(x, features, rest);
        for (int i = 0; i < WIDE; i++) sums[i] += load(rows[i] + at, features - at) * own;
    }
    turn_over(sums);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* Sums over WIDE frames from the k-th oldest on, or fewer, of `width` filters; the newest one is in `slot`. */
INLINE void add_frames(const Frames *of, int64_t row, int64_t first, int64_t width, int64_t slot, int64_t k,
                       vec *sums) {
    const int64_t memory = of->memory, filters = of->units * of->rank, all = filters * memory;
    const int64_t count = memory - k < WIDE ? memory - k : WIDE;
    const float *frames[WIDE];
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = slot + 1 + k + i;
        frames[i] = of->ring + ((at < memory ? at : at - memory) * of->batch + row) * filters + first;
    }
    for (int64_t j = 0; j < width; j += WIDE) {
        const int64_t last = width - j < WIDE ? width - j - 1 : WIDE - 1;
        vec weights[WIDE], sum = sums[j / WIDE];
        for (int i = 0; i < WIDE; i++) { /* what is read behind the end of a row is not used */
            const int64_t at = (first + j + (i < last ? i : last)) * memory + k;
            weights[i] = load(of->time + at, all - at);
        }
        turn_over(weights);
        if (count == WIDE && last == WIDE - 1)
            for (int i = 0; i < WIDE; i++) sum += weights[i] * load(frames[i] + j, WIDE);
        else
            for (int i = 0; i < count; i++) sum += weights[i] * load(frames[i] + j, width - j);
        sums[j / WIDE] = sum;
    }
}

/* Of filters: the sum of those of each node. */
INLINE void sum_up(const Frames *of, const float *filtered, int64_t unit, int64_t units, float *y) {
    for (int64_t u = 0; u < units; u++) {
        float sum = filtered[u * of->rank];
        for (int64_t r = 1; r < of->rank; r++) sum += filtered[u * of->rank + r];
        if (of->bias) sum += of->bias[unit + u];
        y[u] = of->is_relu && sum < 0.0f ? 0.0f : sum; /* NaN stays NaN */
    }
}

CLONES void compressnet_svdf_tile(const Frames *of, int64_t row, int64_t unit, int64_t units) {
    const int64_t rank = of->rank, filters = of->units * rank, first = unit * rank, width = units * rank;
    const float *feature = of->feature + first * of->features;
    for (int64_t l = 0; l < of->count; l++) {
        const int64_t at = l * of->batch + row, slot = (of->slot + l) % of->memory;
        float *newest = of->ring + (slot * of->batch + row) * filters + first, filtered[TILE];
        vec sums[TILE / WIDE];
        memset(sums, 0, sizeof sums);
        for (int64_t j = 0; j < width; j += WIDE) {
            const float *rows = feature + j * of->features;
            store(newest + j, projected(of->x + at * of->features, rows, of->features, width - j), width - j);
        }
        for (int64_t k = 0; k < of->memory; k += WIDE) add_frames(of, row, first, width, slot, k, sums);
        memcpy(filtered, sums, sizeof filtered);
        sum_up(of, filtered, unit, units, of->y + at * of->units + unit);
    }
}

void compressnet_svdf_step(const float *x, const float *feature, const float *time, const float *bias, float *ring,
                           const int64_t *position, float *y, int64_t *next, int64_t count, int64_t batch,
                           int64_t units, int64_t rank, int64_t features, int64_t memory, int is_relu,
                           int threads) {
    const int64_t slot = (*position % memory + memory) % memory; /* whatever it is, it is in the ring */
    const Frames of = {x,     feature, time, bias,     ring,   y,    count,
                       batch, units,   rank, features, memory, slot, is_relu};
    const int64_t most = TILE / rank, each = most < WIDE ? most : most / WIDE * WIDE;
    const int64_t tiles = (units + each - 1) / each;
    (void)threads;
    *next = *position + count;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) \
    if (threads > 1 && count * batch * units * rank * (features + memory) >= WORTH_THREADS)
#endif
    for (int64_t task = 0; task < batch * tiles; task++) {
        const int64_t unit = task % tiles * each;
        compressnet_svdf_tile(&of, task / tiles, unit, units - unit < each ? units - unit : each);
    }
}
