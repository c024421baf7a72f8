/* Frames of log-mel energies, or of their cosine transform (formulas: layers/features.py).

   Contiguous float32: audio (B, N), hann (W), waves (2, S / 2 + 1), mel (K, C), dct (C, F) or NULL where C = F,
   mean and scale (F), out (T, B, F). S is the power of two that the DFT has points, `waves` cosines and sines of
   2 pi k / S, K its bins from `first` on. Frame t of a row is its W samples from t * hop on.

   The windowed samples, two by two, are S / 2 complex numbers; these go through a fast Fourier transform in
   Stockham's order, from one array into another and back, and are taken apart again behind it. A frame is a
   task: all that it needs stays in the cache. */

#include "vectors.h"

#define POINTS 2048 /* S / 2 at most */
#define BANDS 1024  /* C and F at most */
#define LEAST 1e-12f
#define WORTH_THREADS 8 /* frames */

typedef struct {
    const float *audio, *hann, *waves, *mel, *dct, *mean, *scale;
    float *out;
    int64_t frames, batch, samples, window, hop, size, first, bins, bands, width;
    int is_squared;
    float offset;
} Features;

typedef struct {
    float real[POINTS], imaginary[POINTS];
} Numbers;

/* Pairs of numbers that are `apart` from one another to sum and turned difference: one step of `points` / 2. */
INLINE void stage(const Numbers *x, Numbers *y, const float *cosines, const float *sines, int64_t points,
                  int64_t apart) {
    const int64_t blocks = points / 2 / apart, half = points / 2;
    for (int64_t j = 0; j < blocks; j++) {
        const float c = cosines[2 * j * apart], s = sines[2 * j * apart];
        const float *re = x->real + j * apart, *im = x->imaginary + j * apart;
        float *to_re = y->real + 2 * j * apart, *to_im = y->imaginary + 2 * j * apart;
        int64_t k = 0;
        for (; k + WIDE <= apart; k += WIDE) {
            const vec r0 = load(re + k, WIDE), r1 = load(re + half + k, WIDE);
            const vec i0 = load(im + k, WIDE), i1 = load(im + half + k, WIDE);
            const vec r = r0 - r1, i = i0 - i1;
            store(to_re + k, r0 + r1, WIDE);
            store(to_im + k, i0 + i1, WIDE);
            store(to_re + apart + k, r * c + i * s, WIDE);
            store(to_im + apart + k, i * c - r * s, WIDE);
        }
        for (; k < apart; k++) {
            const float r = re[k] - re[half + k], i = im[k] - im[half + k];
            to_re[k] = re[k] + re[half + k];
            to_im[k] = im[k] + im[half + k];
            to_re[apart + k] = r * c + i * s;
            to_im[apart + k] = i * c - r * s;
        }
    }
}

/* Squares of the magnitudes of the bins from `first` on, of a frame. */
INLINE void spectrum(const Features *of, const float *x, float *energy) {
    Numbers numbers[2], *from = numbers, *to = numbers + 1;
    const int64_t points = of->size / 2, window = of->window;
    const float *cosines = of->waves, *sines = of->waves + points + 1;
    for (int64_t n = 0; n < window / 2; n++) {
        from->real[n] = x[2 * n] * of->hann[2 * n];
        from->imaginary[n] = x[2 * n + 1] * of->hann[2 * n + 1];
    }
    for (int64_t n = window / 2; n < points; n++) from->real[n] = from->imaginary[n] = 0;
    if (window % 2) from->real[window / 2] = x[window - 1] * of->hann[window - 1];
    for (int64_t apart = 1; apart < points; apart *= 2) {
        stage(from, to, cosines, sines, points, apart);
        Numbers *const before = from;
        from = to;
        to = before;
    }
    for (int64_t b = 0; b < of->bins; b++) {
        const int64_t k = of->first + b, here = k & (points - 1), there = (points - k) & (points - 1);
        const float ar = from->real[here], ai = from->imaginary[here];
        const float cr = from->real[there], ci = from->imaginary[there];
        const float r = ar - cr, i = ai + ci; /* twice the spectrum of the odd samples, a quarter turn ahead */
        const float re = ar + cr + i * cosines[k] - r * sines[k];
        const float im = ai - ci - r * cosines[k] - i * sines[k];
        energy[b] = 0.25f * (re * re + im * im);
    }
}

/* out (count) = x (height) times a matrix (height, count). */
INLINE void product(float *out, const float *matrix, const float *x, int64_t height, int64_t count) {
    int64_t k = 0;
    for (; k + 4 * WIDE <= count; k += 4 * WIDE) {
        vec sums[4] = {{0}};
        for (int64_t j = 0; j < height; j++)
            for (int i = 0; i < 4; i++) sums[i] += x[j] * load(matrix + j * count + k + i * WIDE, WIDE);
        for (int i = 0; i < 4; i++) store(out + k + i * WIDE, sums[i], WIDE);
    }
    for (; k + WIDE <= count; k += WIDE) {
        vec sum = {0};
        for (int64_t j = 0; j < height; j++) sum += x[j] * load(matrix + j * count + k, WIDE);
        store(out + k, sum, WIDE);
    }
    for (; k < count; k++) {
        float sum = 0;
        for (int64_t j = 0; j < height; j++) sum += x[j] * matrix[j * count + k];
        out[k] = sum;
    }
}

CLONES void compressnet_log_mel_frame(const Features *of, const float *x, float *to) {
    float energy[POINTS + 1], bands[BANDS];
    spectrum(of, x, energy);
    if (!of->is_squared)
        for (int64_t k = 0; k < of->bins; k++) energy[k] = __builtin_sqrtf(energy[k]);
    product(bands, of->mel, energy, of->bins, of->bands);
    for (int64_t c = 0; c < of->bands; c += WIDE) {
        const vec zero = {0}, x = load(bands + c, of->bands - c) + of->offset;
        store(bands + c, logarithm(chosen(x < LEAST, zero + LEAST, x)), of->bands - c);
    }
    if (of->dct)
        product(to, of->dct, bands, of->bands, of->width);
    else
        memcpy(to, bands, (size_t)of->width * sizeof(float));
    for (int64_t f = 0; f < of->width; f++) to[f] = (to[f] - of->mean[f]) / of->scale[f];
}

void compressnet_log_mel_frames(const float *audio, const float *hann, const float *waves, const float *mel,
                                const float *dct, const float *mean, const float *scale, float *out,
                                int64_t frames, int64_t batch, int64_t samples, int64_t window, int64_t hop,
                                int64_t size, int64_t first, int64_t bins, int64_t bands, int64_t width,
                                int is_squared, int threads, float offset) {
    const Features of = {audio,  hann, waves, mel,   dct,  mean,  scale, out,        frames, batch, samples,
                         window, hop,  size,  first, bins, bands, width, is_squared, offset};
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && frames * batch >= WORTH_THREADS)
#endif
    for (int64_t task = 0; task < frames * batch; task++) {
        const int64_t row = task / frames, t = task % frames;
        compressnet_log_mel_frame(&of, audio + row * samples + t * hop, out + (t * batch + row) * width);
    }
}
