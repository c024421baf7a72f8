"""Every name a recipe or a command line may use, and where it lives. Nothing is imported until asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from compressnet.errors import UsageError, named, short

TASKS = {
    "conditioned_operator": "compressnet.tasks.conditioned_operator:ConditionedOperator",
    "image_classification": "compressnet.tasks.image_classification:ImageClassification",
    "image_operator": "compressnet.tasks.image_processing:ImageOperator",
    "image_translation": "compressnet.tasks.image_processing:ImageTranslation",
    "keyword_spotting": "compressnet.tasks.keyword_spotting:KeywordSpotting",
    "language_modelling": "compressnet.tasks.language_modelling:LanguageModelling",
    "segmentation": "compressnet.tasks.segmentation:Segmentation",
    "sequence_classification": "compressnet.tasks.sequence_classification:SequenceClassification",
    "sequence_regression": "compressnet.tasks.sequence_regression:SequenceRegression",
}
MODELS = {
    "alexnet": "compressnet.models.alexnet:AlexNet",
    "bytenet": "compressnet.models.bytenet:ByteNet",
    "can24": "compressnet.models.can:can24",
    "can24_small": "compressnet.models.can_small:can24_small",
    "can32": "compressnet.models.can:can32",
    "kws_bc_resnet": "compressnet.models.kws_bc_resnet:kws_bc_resnet",
    "kws_conv": "compressnet.models.kws_tf:kws_conv",
    "kws_ds_cnn": "compressnet.models.kws_ds_cnn:kws_ds_cnn",
    "kws_low_latency_conv": "compressnet.models.kws_tf:kws_low_latency_conv",
    "kws_low_latency_svdf": "compressnet.models.kws_svdf:kws_low_latency_svdf",
    "kws_single_fc": "compressnet.models.kws_tf:kws_single_fc",
    "kws_svdf": "compressnet.models.kws_svdf:kws_svdf",
    "kws_tiny_conv": "compressnet.models.kws_tf:kws_tiny_conv",
    "kws_tiny_embedding_conv": "compressnet.models.kws_tf:kws_tiny_embedding_conv",
    "language_model": "compressnet.models.language_model:LanguageModel",
    "resnet10": "compressnet.models.resnet:resnet10",
    "resnet18": "compressnet.models.resnet:resnet18",
    "resnet20": "compressnet.models.resnet:resnet20",
    "segmenter": "compressnet.models.segmentation:segmenter",
    "segnet": "compressnet.models.segnet:SegNet",
    "sequence_classifier": "compressnet.models.sequence_classifier:SequenceClassifier",
    "shuffleseg": "compressnet.models.segmentation:shuffleseg",
    "lstm_1997_network": "compressnet.models.lstm_1997:lstm_1997_network",
}
LAYERS = {
    "adaptive_norm": "compressnet.layers.adaptive_norm:AdaptiveNorm",
    "batch_norm2d": "compressnet.layers.plain:batch_norm2d",
    "chain": "compressnet.layers.chain:Chain",
    "conv1d": "compressnet.layers.plain:conv1d",
    "conv2d": "compressnet.layers.plain:conv2d",
    "conv_transpose2d": "compressnet.layers.plain:conv_transpose2d",
    "dilated_conv2d": "compressnet.layers.dilated_conv:DilatedConv2d",
    "embedding": "compressnet.layers.plain:embedding",
    "factored_embedding": "compressnet.layers.factored_embedding:FactoredEmbedding",
    "factored_softmax": "compressnet.layers.softmax:FactoredSoftmax",
    "full_softmax": "compressnet.layers.softmax:full_softmax",
    "guided_upsample": "compressnet.layers.guided_upsample:GuidedUpsample",
    "identity": "torch.nn:Identity",
    "layer_norm": "compressnet.layers.plain:layer_norm",
    "log_mel": "compressnet.layers.features:LogMel",
    "linear": "compressnet.layers.plain:linear",
    "lstm": "compressnet.layers.lstm:lstm",
    "lstm_1997": "compressnet.layers.lstm_1997:LSTM1997",
    "lstm_full": "compressnet.layers.lstm:LSTM",
    "lstmp": "compressnet.layers.lstm:lstmp",
    "mfcc": "compressnet.layers.features:MFCC",
    "operator": "compressnet.operators.module:OperatorModule",
    "product_linear": "compressnet.layers.plain:product_linear",
    "recurrent_stack": "compressnet.layers.recurrent_stack:RecurrentStack",
    "shuffle_unit": "compressnet.layers.shuffle:ShuffleUnit",
    "sru": "compressnet.layers.sru:SRU",
    "svdf": "compressnet.layers.svdf:SVDF",
    "torch_lstm": "compressnet.layers.torch_lstm:TorchLSTM",
}
DATASETS = {
    "cifar10": "compressnet.data.cifar10:CIFAR10",
    "cityscapes": "compressnet.data.cityscapes:Cityscapes",
    "class_folder": "compressnet.data.class_folder:ClassFolder",
    "fivek": "compressnet.data.fivek:FiveK",
    "glyphs": "compressnet.data.glyphs:Glyphs",
    "hutter": "compressnet.data.text_sets:Hutter",
    "keyword_stream": "compressnet.data.keyword_stream:KeywordStream",
    "label_folder": "compressnet.data.label_folder:LabelFolder",
    "paired_folder": "compressnet.data.paired_folder:PairedFolder",
    "photo_folder": "compressnet.data.photo_folder:PhotoFolder",
    "ptb": "compressnet.data.text_sets:PTB",
    "raise": "compressnet.data.raise_:Raise",
    "sample": "compressnet.data.sample:Sample",
    "sentence_sample": "compressnet.data.sentences:SentenceSample",
    "sentences": "compressnet.data.sentences:Sentences",
    "speech_commands": "compressnet.data.speech_commands:SpeechCommands",
    "speech_sample": "compressnet.data.speech_sample:SpeechSample",
    "street_sample": "compressnet.data.street_sample:StreetSample",
    "synthetic": "compressnet.data.synthetic:Synthetic",
    "text_file": "compressnet.data.text_sets:TextFile",
    "text_sample": "compressnet.data.text_sets:TextSample",
    "wikitext": "compressnet.data.text_sets:WikiText",
}
FORMULAS = {  # the cost of layers, by the name of the layer; needs no torch
    "lstm": "compressnet.cost_cells:lstm",
    "lstm_1997": "compressnet.cost_cells:lstm_1997",
    "lstmp": "compressnet.cost_cells:lstmp",
    "sru": "compressnet.cost_cells:sru",
}
# Other ways to a module's result: each makes of a module one that is called alike, or None where it is not
# for it, and at once: only calls need packages and time. It shares the module's parameters, or it is
# `inference_only` and may hold a copy, made in its first call with torch's number of threads then.
BACKENDS = {
    "reference": "compressnet.layers.backends:in_torch",
    "c": "compressnet.layers.backends:in_c",
    "strips": "compressnet.models.can_forms:strips",
    "winograd": "compressnet.models.can_forms:winograd",
    "winograd_precise": "compressnet.models.can_forms:winograd_precise",
    "winograd_training": "compressnet.models.can_forms:winograd_training",
    "folded": "compressnet.layers.folded:backend",
    "apply": "compressnet.tasks.image_apply:backend",
    "onnxruntime": "compressnet.export.backend:backend",
    "labels": "compressnet.models.seg_labels:labels",
    "labels_folded": "compressnet.models.seg_labels:labels_folded",
    "labels_onnxruntime": "compressnet.models.seg_labels:labels_onnxruntime",
    "window": "compressnet.models.keyword_spotting:window_backend",
}
TRANSFORMS = {  # of trained networks: `compress --method`
    "als": "compressnet.compression.als:ALS",
    "channel_in": "compressnet.compression.channel_in:ChannelIn",
    "channel_out": "compressnet.compression.channel_out:ChannelOut",
    "densify": "compressnet.compression.densify:Densify",
    "fold": "compressnet.compression.fold:Fold",
    "lstmp": "compressnet.compression.lstmp:LSTMP",
    "softmax": "compressnet.compression.softmax:Softmax",
    "spatial": "compressnet.compression.spatial:Spatial",
    "svd": "compressnet.compression.svd:SVD",
    "svdf": "compressnet.compression.svdf:ToSVDF",
    "tucker": "compressnet.compression.tucker:Tucker",
}
OPERATORS = {
    "dark_channel": "compressnet.operators.dark_channel:DarkChannel",
    "l0": "compressnet.operators.l0:L0",
    "local_laplacian": "compressnet.operators.local_laplacian:LocalLaplacian",
    "non_local": "compressnet.operators.non_local:NonLocal",
    "pencil": "compressnet.operators.pencil:Pencil",
    "rof": "compressnet.operators.rof:ROF",
    "rtv": "compressnet.operators.rtv:RTV",
    "style": "compressnet.operators.style:Style",
    "tv_l1": "compressnet.operators.tv_l1:TVL1",
    "wls_tone": "compressnet.operators.wls_tone:WLSTone",
}

REGISTRIES: dict[str, dict[str, str]] = {
    "task": TASKS,
    "model": MODELS,
    "layer": LAYERS,
    "formula": FORMULAS,
    "backend": BACKENDS,
    "data": DATASETS,
    "operator": OPERATORS,
    "method": TRANSFORMS,
}


_LISTED = 10  # names, of many that are not near


def find(kind: str, name: str) -> Callable[..., Any]:
    """Import what `name` of `kind` (a key of `REGISTRIES`) stands for.

    Raises:
        UsageError: there is no such name; the message suggests the nearest.
    """
    names = REGISTRIES[kind]
    if name not in names:
        raise UsageError(f"there is no {kind} '{named(name)}'{suggestion(name, names)}")
    module, attribute = names[name].split(":")
    return getattr(import_module(module), attribute)


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """' - did you mean ...?' with the nearest name; when none is near, the list of all, or ten of many."""
    names = sorted(names)
    near = difflib.get_close_matches(short(wrong), names, n=1)
    near = near or difflib.get_close_matches(short(wrong).lower(), names, n=1)
    if near:
        return f" - did you mean '{near[0]}'?"
    if len(names) > _LISTED:
        names = sorted(difflib.get_close_matches(short(wrong), names, n=_LISTED, cutoff=0))
        return f" (there are {', '.join(names)} and others)"
    return f" (there are: {', '.join(names)})" if names else ""
