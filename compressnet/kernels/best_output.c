/* The best output of every pixel of scores that are enlarged on the way, bilinearly.

   Float32 scores (B, K, h, w) of any strides; out (B, kept_height, kept_width), the upper left part of
   (B, H, W). As torch enlarges without align_corners: pixel x lies at (x + 0.5) w / W - 0.5 of the smaller map.

   Enlarged scores, K times as large as the result, are never whole in memory. A task is a few rows of a few
   columns: a row of the map is widened once, and the two rows that a pixel lies between are mixed, compared
   and forgotten. */

#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

#define COLUMNS 256 /* of a task */
#define ROWS 64
#define WORTH_THREADS 4 /* tasks */

typedef struct {
    const float *scores;
    uint8_t *out;
    int64_t batch, classes, height, width, to_height, to_width, kept_height, kept_width;
    int64_t image, map, row, column; /* strides of the scores */
} Scores;

typedef struct {
    int64_t low, high;
    float share; /* of the higher one */
} Place;

/* Where pixel `at` of `to` lies among `from`. */
INLINE Place placed(int64_t at, int64_t from, int64_t to) {
    if (from == to) return (Place){at, at, 0}; /* floats have no numbers of their own for long sides */
    const float where = ((float)at + 0.5f) * ((float)from / (float)to) - 0.5f;
    int64_t low = where > 0 ? (int64_t)where : 0;
    if (low > from - 1) low = from - 1;
    const float share = where - (float)low;
    return (Place){low, low + (share > 0 && low < from - 1), share < 0 ? 0 : share > 1 ? 1 : share};
}

/* Row of a map to (K, COLUMNS). */
INLINE void widen(const Scores *of, const float *row, const Place *places, int64_t columns, float *to) {
    for (int64_t k = 0; k < of->classes; k++) {
        const float *from = row + k * of->map;
        float *line = to + k * COLUMNS;
        if (of->width != of->to_width)
            for (int64_t x = 0; x < columns; x++) {
                const Place p = places[x];
                line[x] = (1 - p.share) * from[p.low * of->column] + p.share * from[p.high * of->column];
            }
        else if (of->column == 1)
            memcpy(line, from + places->low, (size_t)columns * sizeof(float));
        else
            for (int64_t x = 0; x < columns; x++) line[x] = from[(places->low + x) * of->column];
    }
}

/* The best of two rows (K, COLUMNS) that are mixed; the first among equals. */
INLINE void choose(const float *low, const float *high, float share, int64_t classes, int64_t columns,
                   uint8_t *to) {
    for (int64_t x = 0; x < columns; x += WIDE) {
        vec best = (1 - share) * load(low + x, WIDE) + share * load(high + x, WIDE);
        ints which = {0};
        for (int64_t k = 1; k < classes; k++) {
            const int64_t at = k * COLUMNS + x;
            const vec score = (1 - share) * load(low + at, WIDE) + share * load(high + at, WIDE);
            const ints better = score > best;
            best = chosen(better, score, best);
            which = (better & (int32_t)k) | (~better & which);
        }
        for (int64_t i = 0; i < WIDE && x + i < columns; i++) to[x + i] = (uint8_t)which[i];
    }
}

CLONES void compressnet_best_output_part(const Scores *of, int64_t image, int64_t top, int64_t left,
                                         float *space) {
    const int64_t columns = of->kept_width - left < COLUMNS ? of->kept_width - left : COLUMNS;
    const int64_t bottom = top + ROWS < of->kept_height ? top + ROWS : of->kept_height;
    Place places[COLUMNS];
    for (int64_t x = 0; x < columns; x++) places[x] = placed(left + x, of->width, of->to_width);
    int64_t held[2] = {-1, -1}; /* two rows beside one another are an even and an odd one */
    float *rows[2] = {space, space + of->classes * COLUMNS};
    for (int64_t y = top; y < bottom; y++) {
        const Place p = placed(y, of->height, of->to_height);
        for (int64_t r = p.low; r <= p.high; r++)
            if (held[r & 1] != r) {
                widen(of, of->scores + image * of->image + r * of->row, places, columns, rows[r & 1]);
                held[r & 1] = r;
            }
        uint8_t *to = of->out + (image * of->kept_height + y) * of->kept_width + left;
        choose(rows[p.low & 1], rows[p.high & 1], p.share, of->classes, columns, to);
    }
}

/* `space`: for each thread two rows (K, COLUMNS) of zeros. */
void compressnet_best_output(const float *scores, uint8_t *out, float *space, int64_t batch, int64_t classes,
                             int64_t height, int64_t width, int64_t to_height, int64_t to_width,
                             int64_t kept_height, int64_t kept_width, int64_t image, int64_t map, int64_t row,
                             int64_t column, int threads) {
    const Scores of = {scores,      out,        batch, classes, height, width, to_height, to_width,
                       kept_height, kept_width, image, map,     row,    column};
    const int64_t across = (kept_width + COLUMNS - 1) / COLUMNS, down = (kept_height + ROWS - 1) / ROWS;
    const int64_t room = 2 * classes * COLUMNS, tasks = batch * down * across;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && tasks >= WORTH_THREADS)
#endif
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t part = task / across;
#ifdef _OPENMP
        float *mine = space + omp_get_thread_num() * room;
#else
        float *mine = space;
#endif
        compressnet_best_output_part(&of, part / down, part % down * ROWS, task % across * COLUMNS, mine);
    }
}
