"""Arguments with which everything registered can be built small. Without torch."""

from __future__ import annotations

from typing import Any

# Of models whose defaults are huge, smaller arguments; of what has a fixed window, the size it has.
ARGUMENTS_OF_MODELS: dict[str, dict[str, Any]] = {
    "alexnet": {"hidden": 16, "num_classes": 7},
    "bytenet": {"hidden_size": 16, "sets": 1},
    "kws_low_latency_svdf": {"units": 16, "hidden_size": 8},
    "kws_svdf": {"size": "30k"},
    "resnet10": {"widths": [8, 16, 24, 32]},
    "resnet18": {"widths": [8, 16, 24, 32], "num_classes": 7},
    "segmenter": {"encoder": "mobilenet", "decoder": "unet", "width": 0.25, "num_classes": 7},
    "shuffleseg": {"width": 0.5, "num_classes": 7},
}
SIZES: dict[str, Any] = {
    "alexnet": 67,  # smaller pictures leave it nothing to pool
    "kws_conv": 98,
    "kws_low_latency_conv": 98,
    "kws_low_latency_svdf": 98,
    "kws_single_fc": 98,
    "kws_svdf": 49,
    "kws_tiny_conv": 98,
    "kws_tiny_embedding_conv": 98,
    "svdf": None,
}
CONDITIONS = 3  # numbers, of models that take some beside their input
# Of layers, what they cannot do without. Sizes are multiples of nothing, where a layer allows that.
ARGUMENTS_OF_LAYERS: dict[str, dict[str, Any]] = {
    "adaptive_norm": {"channels": 7},
    "batch_norm2d": {"num_features": 7},
    "chain": {
        "layers": [
            {"layer": "conv2d", "args": {"in_channels": 3, "out_channels": 5, "kernel_size": [3, 1]}},
            {"layer": "dilated_conv2d", "args": {"in_channels": 5, "out_channels": 6, "dilation": 2}},
        ]
    },
    "conv2d": {"in_channels": 3, "out_channels": 5, "kernel_size": 3},
    "dilated_conv2d": {"in_channels": 6, "out_channels": 6, "dilation": 4},
    "embedding": {"num_embeddings": 19, "embedding_dim": 5},
    "factored_embedding": {"num_embeddings": 19, "embedding_dim": 7, "rank": 3},
    "factored_softmax": {"hidden_size": 7, "vocab_size": 19, "rank": 3},
    "full_softmax": {"hidden_size": 7, "vocab_size": 19},
    "layer_norm": {"normalized_shape": 7},
    "linear": {"in_features": 5, "out_features": 7},
    "log_mel": {},
    "lstm": {"input_size": 5, "hidden_size": 13, "num_layers": 2},
    "lstm_1997": {"input_size": 5, "blocks": 3, "block_size": 2, "output_size": 4},
    "lstm_full": {
        "input_size": 5,
        "hidden_size": 13,
        "proj_size": 6,
        "peepholes": True,
        "layer_norm": True,
        "cell_clip": 0.8,
        "proj_clip": 0.6,
        "biases": 2,
    },
    "lstmp": {"input_size": 5, "hidden_size": 13, "proj_size": 6, "nonrecurrent_proj_size": 3},
    "mfcc": {},
    "operator": {"operator": "rof"},
    "product_linear": {"in_features": 5, "out_features": 7},
    "recurrent_stack": {"cell": "lstm:peepholes=false", "input_size": 5, "hidden_size": 13},
    "shuffle_unit": {"in_channels": 12, "out_channels": 24, "stride": 2},
    "sru": {"input_size": 5, "hidden_size": 13, "num_layers": 2},
    "svdf": {"features": 5, "units": 7, "memory": 6, "rank": 2, "activation": "relu"},
    "torch_lstm": {"input_size": 5, "hidden_size": 13, "num_layers": 2},
}
