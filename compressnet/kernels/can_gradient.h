/* What the versions of can_gradient.c for several processors and widths have in common. */

#include "can_layer.h"

#define MOST_PLANES 16 /* of the network's input and output */

/* The backward pass of a middle layer, in place on an image of gradients.

   With R the raw outputs of this layer, Q those of the layer before, z = scale * Q + shift what the leaky ReLU
   between them was given, and g the gradient with respect to what this layer's leaky ReLU is given:

       D = from_output * g + from_mean * (R - mean) + constant      the gradient with respect to R
       the gradient of the weights                                  activated Q times D
       g of the layer before, in the place of g                     D convolved with the turned weights, times
                                                                    the slope at z

   Attributes:
       layer: the convolution of D: `source` and `image` are the image of g; `scale` and `shift` those of the
           layer before; `weights` turned, outputs before inputs.
       raw: R, (H, W, C).
       before: Q.
       normalised: (4, C): from_output, from_mean, constant, mean.
       mean: (C,), of Q.
       least: (C,): up to this z counts as negative. */
typedef struct {
    Layer layer;
    const float *raw, *before, *normalised, *mean, *least;
} Gradient;

/* The backward pass of the first layer: of its weights alone. `gradient`, `raw`, `normalised`: as above. */
typedef struct {
    const float *pixels;
    int64_t plane, row, column, planes;
    const float *gradient, *raw, *normalised;
    int64_t height, width;
    int64_t rows; /* of a part */
} FirstGradient;

/* The backward pass of the last layer: planes of any strides to an image of gradients g of the layer before. */
typedef struct {
    const float *planes_gradient;
    int64_t plane, row, column, planes;
    const float *before;
    float *image;
    int64_t height, width;
    const float *scale, *shift, *mean, *least;
    float slope;
    const float *weights; /* (planes, C) */
    int64_t rows;
} LastGradient;
