/* The gradients of the layers of can_layer.c: one pass over the memory for each layer. All functions take a batch
   of images (B, H, W, C), whose work is cut the same way whatever the number of threads, and summed in this order.

   Sums of an image: 2 C doubles, of g and of g * (Q - mean), which the normalisation before needs
   (can_gradient.h). */

#include "can_gradient.h"

/* For a processor and number of channels: how much room a thread needs, in floats of zeros, and one task of the
   work; of middle layers for tiles of 0 (direct), 2 and 4 outputs. `weights` are added to: (points, C, C) floats,
   (9, planes, C) and (planes, C) doubles. */
typedef struct {
    int64_t (*room[3])(int64_t width, int64_t dilation);
    void (*middle[3])(const Gradient *of, int64_t phase, int64_t task, float *weights, double *sums, float *room);
    int64_t (*first_room)(int64_t width, int64_t planes);
    void (*first)(const FirstGradient *of, int64_t part, double *weights, float *room);
    void (*last)(const LastGradient *of, int64_t part, double *weights, double *sums);
} Version;

#define PARTS "can_backward.h"
#include "can_processors.h"

/* Adaptive normalisation (layers/adaptive_norm.py) of a batch: from the moments of raw outputs to `affine`
   (B, 4, C): scale, shift, mean, and up to which z counts as negative: `negative` of the channel's root mean
   square. `moments`: of each image 1 + 2 C doubles, `apart` from one to the next. `bias` of the convolution, which
   the raw outputs do not have, and `beta` may be NULL. */
void compressnet_can_affine(const double *moments, const float *w0, const float *w1, const float *bias,
                            const float *beta, float *affine, int64_t channels, int64_t batch, int64_t apart,
                            float eps, float negative) {
    for (int64_t b = 0; b < batch; b++, moments += apart, affine += 4 * channels)
        for (int64_t c = 0; c < channels; c++) {
            const double mean = moments[1 + c], variance = moments[1 + channels + c] / moments[0];
            const double scale = *w0 + *w1 / __builtin_sqrt(variance + eps);
            const double middle = *w0 * (mean + (bias ? bias[c] : 0)) + (beta ? (double)*w1 * beta[c] : 0);
            affine[c] = (float)scale;
            affine[channels + c] = (float)(middle - scale * mean);
            affine[2 * channels + c] = (float)mean;
            affine[3 * channels + c] =
                negative * (float)__builtin_sqrt(middle * middle + scale * scale * variance);
        }
}

/* Its gradient: from `sums` (B, 2 C) of g to `normalised` (B, 4, C), see can_gradient.h, and to the gradients of
   w0, w1, bias and beta, (2 + 2 C) zeros that are added to. */
void compressnet_can_affine_gradient(const double *moments, const double *sums, const float *w0, const float *w1,
                                     const float *bias, const float *beta, float *normalised, double *gradients,
                                     int64_t channels, int64_t batch, int64_t apart, float eps) {
    for (int64_t b = 0; b < batch; b++, moments += apart, sums += 2 * channels, normalised += 4 * channels)
        for (int64_t c = 0; c < channels; c++) {
            const double count = moments[0], mean = moments[1 + c];
            const double of_g = sums[c], products = sums[channels + c];
            const double inverse = 1 / __builtin_sqrt(moments[1 + channels + c] / count + eps);
            normalised[c] = (float)(*w0 + *w1 * inverse);
            normalised[channels + c] = (float)(-*w1 * inverse * inverse * inverse * products / count);
            normalised[2 * channels + c] = (float)(-*w1 * inverse * of_g / count);
            normalised[3 * channels + c] = (float)mean;
            gradients[0] += products + of_g * (mean + (bias ? bias[c] : 0));
            gradients[1] += products * inverse + of_g * (beta ? beta[c] : 0);
            gradients[2 + c] += *w0 * of_g;
            gradients[2 + channels + c] += *w1 * of_g;
        }
}

static void add(double *to, const double *from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

int64_t compressnet_can_gradient_room(int64_t channels, int64_t level, int64_t tiles, int64_t width,
                                      int64_t dilation) {
    return version(channels, level)->room[tiles / 2](width, dilation);
}

int64_t compressnet_can_first_gradient_room(int64_t channels, int64_t level, int64_t width, int64_t planes) {
    return version(channels, level)->first_room(width, planes);
}

/* `gradient`, `raw`, `before`: (B, H, W, C). `normalised`: (B, 4, C). `affine`: (B, 4, C): scale, shift, mean,
   least. `shares`: (parts, points, C, C) zeros, for the weights' gradient of so many tasks each; `total`: their sum.
   `own`: (B, phases, tasks, 2 C) zeros; `sums`: (B, 2 C) zeros. `saved`: B times those of a layer in place. */
void compressnet_can_gradient(float *gradient, const float *raw, const float *before, const float *normalised,
                              const float *affine, const float *weights, float *saved, float *shares,
                              double *total, double *own, double *sums, float *room, int64_t channels,
                              int64_t level, int64_t tiles, int64_t batch, int64_t height, int64_t width,
                              int64_t dilation, int64_t span, int64_t parts, int threads, float slope) {
    const Version *with = version(channels, level);
    const int64_t phases = least(dilation, height), tasks = parts_of(parts_of(height, dilation), span);
    const int64_t image = height * width * channels, all = batch * phases * tasks, share = parts_of(all, parts);
    const int64_t points = (tiles ? (tiles + 2) * (tiles + 2) : 9) * channels * channels;
    const int64_t each = with->room[tiles / 2](width, dilation), cuts = phases * (tasks - 1) * 2 * width * channels;
    const Layer layer = {gradient, gradient, height, width, dilation, affine, affine + channels,
                         slope,    weights,  saved,  span,  span,     tasks};
    const Gradient first = {layer, raw, before, normalised, affine + 2 * channels, affine + 3 * channels};
    (void)threads;
    for (int64_t b = 0; b < batch; b++) {
        Layer of = layer;
        of.source += b * image;
        save_cuts(&of, saved + b * cuts, channels);
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && parts > 1)
#endif
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = part * share; i < least(all, (part + 1) * share); i++) {
            const int64_t b = i / (phases * tasks), numbers = 4 * channels * b;
            Gradient of = first;
            of.layer.image += b * image, of.layer.source += b * image, of.layer.saved += b * cuts;
            of.layer.scale += numbers, of.layer.shift += numbers;
            of.raw += b * image, of.before += b * image;
            of.normalised += numbers, of.mean += numbers, of.least += numbers;
            with->middle[tiles / 2](&of, i / tasks % phases, i % tasks, shares + part * points,
                                    own + i * 2 * channels, room + thread() * each);
        }
    for (int64_t i = 0; i < all; i++)
        add(sums + i / (phases * tasks) * 2 * channels, own + i * 2 * channels, 2 * channels);
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = 0; i < points; i++) total[i] += shares[part * points + i];
}

/* `shares`: (B, parts, 9, planes, C) zeros; `total`: their sum. */
void compressnet_can_first_gradient(const float *gradient, const float *raw, const float *pixels,
                                    const float *normalised, double *shares, double *total, float *room,
                                    int64_t channels, int64_t level, int64_t batch, int64_t height, int64_t width,
                                    int64_t planes, int64_t sample, int64_t plane, int64_t row, int64_t column,
                                    int64_t rows, int threads) {
    const Version *with = version(channels, level);
    const int64_t parts = parts_of(height, rows), image = height * width * channels, size = 9 * planes * channels;
    const int64_t each = with->first_room(width, planes);
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && batch * parts > 1)
#endif
    for (int64_t i = 0; i < batch * parts; i++) {
        const int64_t b = i / parts;
        const FirstGradient of = {
            pixels + b * sample, plane, row, column, planes, gradient + b * image,
            raw + b * image, normalised + b * 4 * channels, height, width, rows,
        };
        with->first(&of, i % parts, shares + i * size, room + thread() * each);
    }
    for (int64_t i = 0; i < batch * parts; i++) add(total, shares + i * size, size);
}

/* `image`, `before`: (B, H, W, C). `affine`: (B, 4, C). `shares`: (B, parts, planes + 2, C) zeros, for weights and
   sums; `total`: (planes, C), `sums`: (B, 2 C) zeros. */
void compressnet_can_last_gradient(const float *planes_gradient, const float *before, float *image,
                                   const float *affine, const float *weights, double *shares, double *total,
                                   double *sums, int64_t channels, int64_t level, int64_t batch, int64_t height,
                                   int64_t width, int64_t planes, int64_t sample, int64_t plane, int64_t row,
                                   int64_t column, int64_t rows, int threads, float slope) {
    const Version *with = version(channels, level);
    const int64_t parts = parts_of(height, rows), floats = height * width * channels;
    const int64_t size = (planes + 2) * channels;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && batch * parts > 1)
#endif
    for (int64_t i = 0; i < batch * parts; i++) {
        const int64_t b = i / parts;
        const float *numbers = affine + b * 4 * channels;
        const LastGradient of = {
            planes_gradient + b * sample, plane, row, column, planes, before + b * floats,
            image + b * floats, height, width, numbers, numbers + channels,
            numbers + 2 * channels, numbers + 3 * channels, slope, weights, rows,
        };
        with->last(&of, i % parts, shares + i * size, shares + i * size + planes * channels);
    }
    for (int64_t i = 0; i < batch * parts; i++) {
        add(total, shares + i * size, planes * channels);
        add(sums + i / parts * 2 * channels, shares + i * size + planes * channels, 2 * channels);
    }
}
