"""What one operation of torch costs: the MACs of those that have some, and the list of those that have none.

MACs come from torch's own formulas (`torch.utils.flop_counter.flop_registry`, which operations registered by
`register_flop_formula` join) and from those here, for what torch has no formula for or gets wrong: in-place
forms, vectors, sparse matrices, attention on the CPU. What has no formula, is in no list here and is not
marked by torch as pointwise or as a view is unknown, and must be reported: a zero would be a guess. A product
of complex numbers is four of real ones.

Elementwise operations are counted by what they put out, reductions (sums, pooling, losses) by what they read,
look-ups by their indices. A fused operation, such as a softmax or a normalisation, is one per element, and so
is a multiplication whose products are summed afterwards: torch cannot know what it was for. Moves, views,
creation and random numbers are nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

Sort = Literal["elementwise", "reduction", "lookup", "move"]

_ELEMENTWISE = """
_batch_norm_no_update _batch_norm_with_update complex cudnn_batch_norm cudnn_grid_sampler dequantize
embedding_renorm fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
_fake_quantize_per_tensor_affine_cachemask_tensor_qparams floor_divide _fused_rms_norm glu grid_sampler_2d
grid_sampler_3d hardswish linalg_cross log_sigmoid_forward _log_softmax _masked_scale native_batch_norm
_native_batch_norm_legit _native_batch_norm_legit_no_training native_dropout native_group_norm
native_layer_norm polar _prelu_kernel quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
renorm rrelu_with_noise _safe_softmax _softmax softshrink _thnn_fused_gru_cell _thnn_fused_lstm_cell
upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d
upsample_trilinear3d _weight_norm_interface
"""
_REDUCTIONS = """
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d all amax amin aminmax any
argmax argmin avg_pool2d avg_pool3d binary_cross_entropy binary_cross_entropy_with_logits bincount col2im
count_nonzero _ctc_loss cummax cummin cumprod cumsum dist equal fractional_max_pool2d fractional_max_pool3d
histc huber_loss index_add index_reduce isin kthvalue linalg_vector_norm logcumsumexp logsumexp max
max_pool2d_with_indices max_pool3d_with_indices mean median min mode mse_loss nanmedian nansum
nll_loss2d_forward nll_loss_forward norm prod scatter_add scatter_reduce segment_reduce smooth_l1_loss
soft_margin_loss std std_mean sum trace _unsafe_masked_index_put_accumulate var var_mean
"""
_LOOKUPS = "_embedding_bag _embedding_bag_forward_only embedding gather index index_select take"
_MOVES = """
alias_copy arange argsort as_strided as_strided_copy as_strided_scatter _assert_async _assert_scalar
_assert_tensor_metadata bernoulli blackman_window block_diag bucketize cat cauchy ccol_indices
channel_shuffle _chunk_cat clone _coalesce _coalesced col_indices _conj_copy constant_pad_nd
_convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo copy crow_indices dense_dim detach
diag_embed diagonal_copy diagonal_scatter _dimI _dimV empty empty_like empty_permuted empty_strided
expand_copy exponential eye fill flip full full_like _functional_assert_async
_functional_sym_constrain_range _functional_sym_constrain_range_for_size _fused_sdp_choice geometric
hamming_window hann_window im2col index_copy index_fill index_put indices _indices is_coalesced
is_non_overlapping_and_dense is_pinned is_same_size is_strides_like_format _jagged_to_padded_dense_forward
kaiser_window lift lift_fresh_copy _linalg_check_errors linspace _list_to_tensor _local_scalar_dense
log_normal logspace masked_scatter masked_select max_unpool2d max_unpool3d multinomial narrow_copy
native_channel_shuffle _nested_view_from_buffer new_empty new_empty_strided new_full new_ones new_zeros _nnz
nonzero nonzero_static normal ones ones_like _pack_padded_sequence _pad_packed_sequence
_padded_dense_to_jagged_forward permute_copy _pin_memory pixel_shuffle pixel_unshuffle poisson _print put
rand rand_like randint randint_like randn randn_like random randperm reflection_pad1d reflection_pad2d
reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
_reshape_copy resize resize_as _resize_output roll rot90 row_indices scalar_tensor scatter searchsorted
select_copy select_scatter set_ slice_copy slice_scatter sort _sparse_compressed_tensor_unsafe
_sparse_coo_tensor_unsafe _sparse_coo_tensor_with_dims_and_tensors _sparse_csr_tensor_unsafe sparse_dim
_spdiags split_copy split_with_sizes_copy squeeze squeeze_copy stack sym_constrain_range
sym_constrain_range_for_size t t_copy _to_copy _to_dense to_padded_tensor _to_sparse _to_sparse_bsr
_to_sparse_csc _to_sparse_csr topk transpose transpose_copy tril tril_indices triu triu_indices unbind_copy
unfold_copy uniform _unique _unique2 unique_consecutive unique_dim _unsafe_index _unsafe_index_put
_unsafe_masked_index unsafe_split unsafe_split_with_sizes _unsafe_view unsqueeze unsqueeze_copy
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d _values values vander view_copy zero zeros zeros_like
"""
_SORTS: dict[str, Sort] = {
    **dict.fromkeys(_ELEMENTWISE.split(), "elementwise"),
    **dict.fromkeys(_REDUCTIONS.split(), "reduction"),
    **dict.fromkeys(_LOOKUPS.split(), "lookup"),
    **dict.fromkeys(_MOVES.split(), "move"),
}
# Where the two factors of a product are among the arguments.
_PRODUCTS = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_sparse_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_sparse_addmm", "_addmm_activation"), 1),
}
REAL_PRODUCTS = 4  # of a complex one: (a + bi)(c + di) = ac - bd + (ad + bc)i
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


class Effort(NamedTuple):
    """What an operation does besides MACs."""

    elementwise: int = 0
    lookups: int = 0


def name_of(operation: Any) -> str:
    """`aten.mm`: the name by which torch's documentation calls it, without its overload."""
    return str(getattr(operation, "_overloadpacket", operation))


def is_known(operation: Any) -> bool:
    """Whether it is costed as it is; others are, if possible, by the operations that they consist of."""
    name = _functional_name(operation)
    packet = getattr(operation, "_overloadpacket", operation)
    return name in _PRODUCTS or name in _OTHERS or packet in flop_registry or sort_of(operation) is not None


def macs(operation: Any, arguments: Sequence[Any], keywords: dict[str, Any], output: Any) -> int | None:
    """Multiply-adds of one call, of real numbers, or None if there is no formula for it.

    Args:
        operation: what `__torch_dispatch__` is given.
        output: what it returned.

    Raises:
        NotImplementedError: a sparse matrix without values (on `meta`): what it costs is unknown.
    """
    products = _products(operation, arguments, keywords, output)
    is_complex = any(isinstance(argument, Tensor) and argument.is_complex() for argument in arguments)
    return products * REAL_PRODUCTS if products and is_complex else products


def _products(operation: Any, arguments: Sequence[Any], keywords: dict[str, Any], output: Any) -> int | None:
    """Multiply-adds of one call, of numbers of whatever type."""
    name = _functional_name(operation)
    if name in _PRODUCTS:
        first = _PRODUCTS[name]
        return _product(arguments[first], arguments[first + 1])
    if name in _OTHERS:
        return _OTHERS[name](arguments, output)
    packet = getattr(operation, "_overloadpacket", operation)
    formula = flop_registry.get(packet)
    return None if formula is None else formula(*arguments, **keywords, out_val=output) // 2


def effort(operation: Any, arguments: Sequence[Any], output: Any) -> Effort | None:
    """Elementwise operations and look-ups of one call without MACs, or None if the operation is unknown."""
    sort = sort_of(operation)
    if sort == "elementwise":
        return Effort(elementwise=_size(output))
    if sort == "reduction":
        return Effort(elementwise=_size(arguments))
    if sort == "lookup":
        return _look_up(_functional_name(operation), arguments)
    return None if sort is None else Effort()


@cache
def sort_of(operation: Any) -> Sort | None:
    """What kind of operation without MACs this is, or None if it is not known to be one."""
    name = _functional_name(operation)
    if name in ("max", "min") and operation._overloadname in ("other", "out"):
        return "elementwise"
    if name in _SORTS:
        return _SORTS[name]
    if getattr(operation, "is_view", False) or getattr(operation, "namespace", "") == "prim":
        return "move"
    return "elementwise" if _is_pointwise(operation, name) else None


def _functional_name(operation: Any) -> str | None:
    """`add` for `aten.add_.Tensor`; None outside torch's own operations."""
    if getattr(operation, "namespace", "") != "aten":
        return None
    name: str = operation._overloadpacket.__name__
    return name if name in _SORTS or name.startswith("__") else name.removesuffix("_")


def _is_pointwise(operation: Any, name: str | None) -> bool:
    tags = getattr(operation, "tags", ())
    if torch.Tag.pointwise in tags or name is None:
        return torch.Tag.pointwise in tags
    packet = getattr(torch.ops.aten, name, None)  # in-place forms are not always marked
    overloads = () if packet is None else packet.overloads()
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in overloads)


def _product(a: Tensor, b: Tensor) -> int | None:
    """MACs of a matrix, batched, vector or sparse product; of a sparse matrix only what is stored counts.

    None for two sparse matrices: their cost follows from where the values meet.
    """
    sparse_a, sparse_b = a.layout != torch.strided, b.layout != torch.strided
    if sparse_a and sparse_b:
        return None
    if sparse_b:
        return _stored(b) * (a.shape[-2] if a.ndim > 1 else 1)
    return (_stored(a) if sparse_a else a.numel()) * (b.shape[-1] if b.ndim == max(a.ndim, 2) else 1)


def _stored(sparse: Tensor) -> int:
    if sparse.is_meta:
        raise NotImplementedError("a sparse matrix on meta has no values to count")
    return (sparse.values() if sparse.layout in _COMPRESSED else sparse._values()).numel()


def _attention(arguments: Sequence[Any], output: Any) -> int:
    """q (B, heads, L, d) with k (B, .., S, d) and v (B, .., S, d_v): a mask takes nothing away."""
    query, key, value = arguments[:3]
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _trilinear(arguments: Sequence[Any], output: Any) -> int:
    """sum of a·b·c over some axes: one MAC for each triple, as in x W y of `nn.Bilinear`."""
    shapes = []
    for factor, axes in zip(arguments[:3], arguments[3:6], strict=True):
        for axis in sorted(axes):
            factor = factor.unsqueeze(axis)
        shapes.append(factor.shape)
    return math.prod(torch.broadcast_shapes(*shapes))


def _outer(arguments: Sequence[Any], output: Any) -> int:
    """A column by a row."""
    return arguments[1].numel() * arguments[2].numel()


def _packed_linear(arguments: Sequence[Any], output: Any) -> int:
    return output.numel() * arguments[0].shape[-1]


def _affine_grid(arguments: Sequence[Any], output: Any) -> int:
    """theta (B, 2, 3) or (B, 3, 4) with the homogeneous coordinates of every pixel."""
    return output.numel() * arguments[0].shape[-1]


_OTHERS: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_trilinear": _trilinear,
    "_weight_int4pack_mm": _packed_linear,
    "_weight_int4pack_mm_for_cpu": _packed_linear,
    "_weight_int8pack_mm": _packed_linear,
    "addr": _outer,
    "affine_grid_generator": _affine_grid,
}


def _look_up(name: str | None, arguments: Sequence[Any]) -> Effort:
    """Rows or values that are fetched; `_embedding_bag` also adds them up."""
    if name == "index":
        indices = [index for index in arguments[1] if index is not None and index.dtype != torch.bool]
        shape = torch.broadcast_shapes(*(index.shape for index in indices))
        return Effort(lookups=math.prod(shape) if indices else 0)
    if name in ("_embedding_bag", "_embedding_bag_forward_only"):
        rows = arguments[1].numel()
        return Effort(rows * arguments[0].shape[-1], rows)
    return Effort(lookups=arguments[{"embedding": 1, "take": 1}.get(name or "", 2)].numel())


def _size(value: Any) -> int:
    """Elements of the first tensor in it."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, list | tuple):
        return next((_size(item) for item in value if isinstance(item, Tensor | list | tuple)), 0)
    return 0
