"""One process of a group, under torchrun: each kind of message that training sends. Prints the back end.

torchrun --nproc-per-node 1 benchmarks/cuda_checks/one_rank.py DEVICE
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import nn

from compressnet.layers.sru import SRU
from compressnet.training.device import choose
from compressnet.training.distributed import data_parallel, local_rank


class Net(nn.Module):
    """A recurrent layer and what is on top, as one module with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.output = SRU(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.output(self.cell(x)[0]).square().mean()
        return loss


def main() -> None:
    device = choose(sys.argv[1], local_rank())
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend)
    try:
        messages(device)
        gradients(device)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    sys.stdout.write(f"{backend}\n")


def messages(device: torch.device) -> None:
    """Sums in float64 and float32, objects to and from all."""
    for dtype in (torch.float64, torch.float32):
        tensor = torch.tensor([1.5, -2.0], dtype=dtype, device=device)
        dist.all_reduce(tensor)
        assert tensor.tolist() == [1.5, -2.0]
    box: list[object] = [("run", None)]
    dist.broadcast_object_list(box, src=0)
    assert box == [("run", None)]
    every: list[object] = [None]
    dist.all_gather_object(every, {"cpu": torch.get_rng_state()})
    assert isinstance(every[0], dict)
    assert torch.equal(every[0]["cpu"], torch.get_rng_state())


def gradients(device: torch.device) -> None:
    """Those of the wrapped module are those of the module, also when they are summed over pieces."""
    torch.manual_seed(0)
    net = Net().to(device)
    wrapped = data_parallel(net)
    x = torch.randn(7, 3, 4, device=device)
    net(x).backward()
    wanted = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    wrapped(x).backward()
    found = [p.grad for p in net.parameters() if p.grad is not None]
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    with wrapped.no_sync():  # type: ignore[operator]
        wrapped(x).backward()
    wrapped(x).backward()


if __name__ == "__main__":
    main()
