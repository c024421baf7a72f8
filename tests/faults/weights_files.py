"""Mutated weights files through `compressnet.load`, and a small use of those that open.

WEIGHTS="a.safetensors b.safetensors" python -m tests.faults.weights_files [COUNT] [FIRST]

Descriptions are sealed anew, with the digest of the tensors beside them, as a stranger can. What opens
without that has the values and the description of a file that was not mutated.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import random
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from compressnet import subject, weights

from . import networks
from .common import arguments, work
from .fuzzing import Case, Wrong, campaign
from .mutation import BAD_JSON, EVIL, places, put

Header = dict[str, Any]
META, KEY = "__metadata__", "compressnet"
TYPES = {"F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "C64": 8, "F8_E4M3": 1}
LAYERS = ["identity", "linear", "conv2d", "lstm", "sru", "operator", "adaptive_norm", "nothing", "", 3, None]
LAYER_ARGUMENTS = [{}, {"in_features": 3, "out_features": 2}, {"in_features": 10**6, "out_features": 10**6},
                   {"input_size": 1, "hidden_size": 10**8},
                   {"operator": "rof"}, {"x": 1}, [], None, "x",
                   {"in_features": -1, "out_features": 1}]  # fmt: skip
HEADERS = [b"", b"{", b"[]", b"null", b"{}", b'{"a":1}', b"\xff\xfe", b" " * 10**6,
           b"[" * 10**5 + b"]" * 10**5, b'{"a":' * 5000 + b"1" + b"}" * 5000,
           b'{"__metadata__":{"compressnet":1}}', b'{"__metadata__":[]}', b'{"__metadata__":{}}']  # fmt: skip
DESCRIPTIONS = [*BAD_JSON, '{"format": 1e999}', '{"format": 99}', '{"format": -1}', '{"format": "1"}',
                '{"format": true}', '{"format": 1, "format": 1}',
                '{"format": 1' + "0" * 5000 + "}"]  # fmt: skip


class File(NamedTuple):
    """A weights file in its parts."""

    data: bytes
    header: Header
    body: bytes
    described: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of its tensors."""
        return [name for name in self.header if name != META]


class Mutant(NamedTuple):
    """A file that was changed.

    Attributes:
        sealed: with a digest and a seal that are right.
    """

    kind: str
    data: bytes
    sealed: bool = False


def read(path: Path) -> File:
    """A weights file in its parts."""
    data = path.read_bytes()
    end = 8 + int(struct.unpack("<Q", data[:8])[0])
    header = json.loads(data[8:end])
    return File(data, header, data[end:], json.loads(header[META][KEY]))


def joined(header: Header | bytes, body: bytes) -> bytes:
    """A file of a header and tensors, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def described(header: Header, body: bytes, fields: Any) -> bytes:
    """A file with this description, digested and sealed if it can be."""
    if isinstance(fields, dict):
        fields = sealed(fields, header, body)
    return joined({**header, META: {**header[META], KEY: json.dumps(fields)}}, body)


def sealed(fields: dict[str, Any], header: Header, body: bytes) -> dict[str, Any]:
    """A description with digest and seal. By the rules, not by our code: a stranger has written it."""
    rest = {key: value for key, value in fields.items() if key not in ("digest", "seal")}
    if "digest" in fields:
        rest["digest"] = _digest(rest, header, body)
    return {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _digest(fields: dict[str, Any], header: Header, body: bytes) -> str:
    of = [fields.get(key) for key in ("model", "model_args", "edits", "assets")]
    summary = hashlib.sha256(json.dumps(of, sort_keys=True).encode())
    plain = {name: entry for name, entry in header.items() if name != META}
    for name, tensor in sorted(safetensors.torch.load(joined(plain, body)).items()):
        summary.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        summary.update(_bytes(tensor))
    return summary.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def of_bytes(rng: random.Random, file: File) -> Mutant:
    """Bytes of the file changed, cut off, more; another length of the header."""
    data, how = file.data, rng.choice(["bytes", "bytes", "cut", "grow", "length"])
    if how == "bytes":
        new, begin = bytearray(data), rng.choice([0, 0, 8])
        end = min(len(data), rng.choice([16, 500, len(data)]))
        for _ in range(rng.choice([1, 2, 8, 64])):
            new[rng.randrange(begin, end)] = rng.randrange(256)
        return Mutant(how, bytes(new))
    if how == "cut":
        return Mutant(how, data[: rng.choice([0, 1, 7, 8, 9, rng.randrange(len(data)), len(data) - 1])])
    if how == "grow":
        at = rng.choice([0, 8, len(data), rng.randrange(len(data))])
        return Mutant(how, data[:at] + rng.randbytes(rng.choice([1, 4, 100])) + data[at:])
    length = int(struct.unpack("<Q", data[:8])[0])
    lengths = [
        0,
        1,
        2,
        length - 1,
        length + 1,
        len(data),
        len(data) - 8,
        2**31,
        2**32,
        2**63,
        2**64 - 1,
        10**8,
    ]
    return Mutant(how, struct.pack("<Q", rng.choice(lengths)) + data[8:])


def of_header(rng: random.Random, file: File) -> Mutant:
    """No header of safetensors, or metadata of others."""
    if rng.random() < 0.6:
        return Mutant("header text", joined(rng.choice(HEADERS), file.body))
    metadata: Any = rng.choice(
        [{}, {KEY: 1}, {KEY: None}, {"x": "y"}, [], None, "x", {KEY: {"a": 1}}, {KEY: "{}", "more": "x"}]
    )
    return Mutant("metadata", joined({**file.header, META: metadata}, file.body))


def of_tensor(rng: random.Random, file: File) -> Mutant:
    """The entry of a tensor: type, shape, place, name, or what stands there."""
    header, name = copy.deepcopy(file.header), rng.choice(file.names)
    entry, how = (
        header[name],
        rng.choice(["dtype", "shape", "offsets", "rename", "delete", "double", "entry"]),
    )
    begin, end = entry["data_offsets"]
    if how == "dtype":
        entry["dtype"] = rng.choice([*TYPES, "f32", "", "X", 3, None])
    elif how == "shape":
        shape = entry["shape"]
        entry["shape"] = rng.choice([[], [0], [-1], [1], [10**9], [10**12], [2**63], [2**32, 2**32],
                                     [2**62, 4], [1] * 1000, shape[::-1], [*shape, 1], [1.5],
                                     "x", None, [None]])  # fmt: skip
    elif how == "offsets":
        entry["data_offsets"] = rng.choice([[0, 0], [end, begin], [begin + 1, end + 1], [0, end - begin],
                                            [begin, 2 * len(file.body)], [-1, 4],
                                            [2**63, 2**63 + 4], [2**64, 2**64], [begin], [], None, "x",
                                            [begin, end, 1], [begin + 0.5, end]])  # fmt: skip
    elif how == "rename":
        new = rng.choice(["x", "", f"{name}.", "../../x", "\x1b[31m", "a" * 10000, rng.choice(file.names),
                          "line\nbreak", "[red]"])  # fmt: skip
        header[new] = header.pop(name)
    elif how == "delete":
        del header[name]
    elif how == "double":
        header["again"] = entry
    else:
        header[name] = rng.choice([None, 1, [], {}, "x", {"dtype": "F32"}])
    if rng.random() < 0.5:
        try:
            return Mutant(f"tensor {how}, sealed", described(header, file.body, file.described), True)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError):
            pass  # of tensors that nobody can read there is no digest
    return Mutant(f"tensor {how}", joined(header, file.body))


def of_values(rng: random.Random, file: File) -> Mutant:
    """Other values: NaN, infinities, huge, zero; sealed anew or not."""
    body, value = bytearray(file.body), rng.choice([float("nan"), float("inf"), -float("inf"), 1e38, 0.0])
    for _ in range(rng.choice([1, 10, 1000])):
        at = rng.randrange(len(body) // 4) * 4
        body[at : at + 4] = struct.pack("<f", value)
    if rng.random() < 0.5:
        return Mutant(f"values {value}, sealed", described(file.header, bytes(body), file.described), True)
    return Mutant(f"values {value}", joined(file.header, bytes(body)))


def of_another_type(rng: random.Random, file: File) -> Mutant:
    """A tensor of as many values of another type, all offsets as they must be: a valid file of zeros."""
    chosen, dtype = rng.choice(file.names), rng.choice(list(TYPES))
    header, pieces, offset = {META: file.header[META]}, [], 0
    for name in file.names:
        entry = dict(file.header[name])
        begin, end = entry["data_offsets"]
        piece = file.body[begin:end]
        if name == chosen:
            piece, entry["dtype"] = bytes((end - begin) // 4 * TYPES[dtype]), dtype
        entry["data_offsets"] = [offset, offset + len(piece)]
        offset += len(piece)
        pieces.append(piece)
        header[name] = entry
    if rng.random() < 0.7:
        return Mutant(f"{dtype}, sealed", described(header, b"".join(pieces), file.described), True)
    return Mutant(dtype, joined(header, b"".join(pieces)))


def of_description(rng: random.Random, file: File) -> Mutant:
    """A field of the description is another or one too many; nine of ten are sealed anew."""
    place = rng.choice(list(places(file.described)))
    new = put(file.described, place, rng.choice(EVIL))
    if rng.random() < 0.2 and isinstance(new, dict):
        more = ["extra", "task", "model", "format", "edits", "assets", "data", "smoke"]
        new[rng.choice(more)] = rng.choice(EVIL)
    kind = f"description {'.'.join(map(str, place))[:40]}"
    if rng.random() < 0.9:
        return Mutant(f"{kind}, sealed", described(file.header, file.body, new), True)
    header = {**file.header, META: {KEY: json.dumps(new)}}
    return Mutant(kind, joined(header, file.body))


def of_text(rng: random.Random, file: File) -> Mutant:
    """The description is no JSON of ours."""
    whole = json.dumps(file.described)
    text = rng.choice([*DESCRIPTIONS, whole[: rng.randrange(100)], f"{whole}x"])
    return Mutant("text", joined({**file.header, META: {KEY: text}}, file.body))


def of_edits(rng: random.Random, file: File) -> Mutant:
    """Edits that nobody wrote, sealed."""
    one, other = rng.choice(file.names), rng.choice(file.names)
    module = one.rpartition(".")[0]
    where = rng.choice([module, "", "x", ".", "..", "a.b.c", "forward", "training", "__class__", "_modules",
                        f"{module}.weight", 7])  # fmt: skip
    layer = {"layer": rng.choice(LAYERS), "args": rng.choice(LAYER_ARGUMENTS)}
    edit: Any = rng.choice([
        {"modules": {str(where): layer}}, {"modules": {str(where): layer}},
        {"modules": {str(where): "lstm"}}, {"modules": [where]}, {"modules": None},
        {"ties": [[one, other]]}, {"ties": [[module, "x"]]}, {"ties": [["a"]]}, {"ties": 3},
        {"ties": [[1, 2]]}, {"ties": [[other, "forward"]]},
        {"ties": [[other, "__class__"]]}, {"other": 1}, [], "x", None, 3,
    ])  # fmt: skip
    fields = {**file.described, "edits": [edit] * rng.choice([1, 1, 1, 2, 50])}
    return Mutant("edits, sealed", described(file.header, file.body, fields), True)


def of_another_file(rng: random.Random, file: File, others: list[File]) -> Mutant:
    """The description of another file."""
    other = rng.choice(others)
    return Mutant("another's", joined({**file.header, META: other.header[META]}, file.body))


def mutant(rng: random.Random, files: list[File]) -> Mutant:
    """One of the above."""
    file = rng.choice(files)
    ways = {of_bytes: 5, of_header: 2, of_tensor: 3, of_another_type: 1, of_values: 1, of_description: 5,
            of_edits: 2, of_text: 1}  # fmt: skip
    if rng.random() < 0.05:
        return of_another_file(rng, file, files)
    return rng.choices(list(ways), list(ways.values()))[0](rng, file)


def used(loaded: subject.Loaded) -> None:
    """What a network is for, on something small."""
    kinds = set(loaded.task.sample_types)
    text, numbers = work() / "small.txt", work() / "numbers.txt"
    text.write_text("the class is a name\n" * 3)
    numbers.write_text("0.1,0.2\n" * 3)
    if "text" in kinds:
        list(loaded.apply([], prompt="the class", length=3))
    given = networks.picture() if "photograph" in kinds else numbers if "sequence" in kinds else text
    list(loaded.apply([given]))


def opened(new: Mutant, files: list[File]) -> str:
    """Open and use a mutant; see that what opened is what was written."""
    path = work() / f"mutant-{os.getpid()}.safetensors"
    path.write_bytes(new.data)
    loaded = subject.load(str(path))
    tensors = weights.raw_tensors(loaded.model)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise Wrong("opened with values that are not finite", new.kind)
    if not new.sealed and not any(_same(loaded, tensors, file) for file in files):
        raise Wrong("opened with other values", new.kind)
    used(loaded)
    return "opened, sealed anew" if new.sealed else "opened with the same values"


def _same(loaded: subject.Loaded, tensors: dict[str, Tensor], file: File) -> bool:
    assert loaded.architecture is not None
    of_files = {
        key: value for key, value in file.described.items() if key not in ("format", "digest", "seal")
    }
    own = safetensors.torch.load(file.data)
    return (
        dataclasses.asdict(loaded.architecture) == of_files
        and own.keys() == tensors.keys()
        and all(_bytes(own[name]) == _bytes(tensors[name]) for name in own)
    )


def main() -> int:
    """The campaign; its exit code."""
    torch.set_num_threads(1)
    given, files = arguments(3000), [read(path) for path in networks.weights()]
    for file in files:  # what is sealed here is sealed as ours, or nothing behind the seal would be tried
        opened(Mutant("none", described(file.header, file.body, file.described)), files)

    def case(number: int) -> Case:
        new = mutant(random.Random(number), files)
        return Case(new.kind, lambda: opened(new, files))

    return campaign("weights files", case, given).finish()


if __name__ == "__main__":
    sys.exit(main())
