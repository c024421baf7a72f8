/* Cross-entropy of rows of scores, forward and backward (formulas: kernels/cross_entropy.py). Plain C.

   scores and their gradient are (N, V); words, most, sums, normalizers and dlosses (N,). All contiguous, words
   int64 and below V, the rest float32. A row is a task; a language model's fits into the level-2 cache, so that it
   comes from main memory once. */

#include "vectors.h"

/* Sums are made of sums of so many numbers, lest small ones be lost in large ones. */
#define BLOCK 512
/* Scores below which waking other threads takes longer than the work. */
#define SMALL 65536

CLONES float compressnet_cross_entropy_greatest(const float *scores, int64_t count) {
    const vec zero = {0};
    vec most = zero + scores[0];
    int64_t j = 0;
    for (; j + WIDE <= count; j += WIDE) {
        const vec x = load(scores + j, WIDE);
        most = chosen(x > most, x, most);
    }
    float one = most[0];
    for (int64_t i = 1; i < WIDE; i++) one = most[i] > one ? most[i] : one;
    for (; j < count; j++) one = scores[j] > one ? scores[j] : one;
    return one;
}

INLINE float total(vec sums) {
    float sum = 0;
    for (int64_t i = 0; i < WIDE; i++) sum += sums[i];
    return sum;
}

/* Of e^(score - most). */
CLONES float compressnet_cross_entropy_sum(const float *scores, float most, int64_t count) {
    vec sums = {0};
    int64_t j = 0;
    while (j + WIDE <= count) {
        const int64_t end = count - j < BLOCK ? count - WIDE : j + BLOCK - WIDE;
        vec block = {0};
        for (; j <= end; j += WIDE) block += exponential(load(scores + j, WIDE) - most);
        sums += block;
    }
    float sum = total(sums);
    if (j < count) {
        const vec rest = exponential(load(scores + j, count - j) - most);
        for (int64_t i = 0; i < count - j; i++) sum += rest[i];
    }
    return sum;
}

CLONES void compressnet_cross_entropy_row(const float *scores, float normalizer, float dloss, float *dscores,
                                          int64_t count) {
    for (int64_t j = 0; j < count; j += WIDE)
        store(dscores + j, dloss * exponential(load(scores + j, count - j) - normalizer), count - j);
}

void compressnet_cross_entropy_forward(const float *scores, float *most, float *sums, int64_t rows, int64_t count,
                                       int threads) {
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && rows * count >= SMALL)
#endif
    for (int64_t row = 0; row < rows; row++) {
        const float *own = scores + row * count;
        most[row] = compressnet_cross_entropy_greatest(own, count);
        sums[row] = compressnet_cross_entropy_sum(own, most[row], count);
    }
}

void compressnet_cross_entropy_backward(const float *scores, const int64_t *words, const float *normalizers,
                                        const float *dlosses, float *dscores, int64_t rows, int64_t count,
                                        int threads) {
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && rows * count >= SMALL)
#endif
    for (int64_t row = 0; row < rows; row++) {
        float *own = dscores + row * count;
        compressnet_cross_entropy_row(scores + row * count, normalizers[row], dlosses[row], own, count);
        own[words[row]] -= dlosses[row];
    }
}
