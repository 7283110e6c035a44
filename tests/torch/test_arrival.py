"""Memory in which a device's results arrive; host tensors stand in for those of a device."""

from __future__ import annotations

import torch

from gradwatch_torch.arrival import Arrival, Block, give_back, take_block

HOST = torch.device("cpu")


def test_a_block_holds_tensors_of_any_dtype_and_shape() -> None:
    """What is received is what was sent, and the flag is set behind it."""
    block = Block(HOST, 4096)
    sent = [
        torch.randn(3, 5, dtype=torch.float64),
        torch.tensor(True),
        torch.randn(7).bfloat16(),
        torch.zeros(0, 8),
        torch.arange(9, dtype=torch.int32).view(3, 3).t(),
    ]
    received = block.receive(sent)
    assert block.is_filled()
    for copy, tensor in zip(received, sent, strict=True):
        assert torch.equal(copy, tensor)
        assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape)


def test_blocks_are_used_again_at_their_address() -> None:
    """A block that was read serves the next results of its size; one that was not stays with who holds it."""
    first, second = take_block(HOST, 3000), take_block(HOST, 3000)
    assert first is not second
    give_back(first)
    assert take_block(HOST, 4096) is first
    assert take_block(HOST, 4096) not in (first, second)
    assert take_block(HOST, 4097) is not second


def test_blocks_outlive_inference_mode() -> None:
    """A block made while the user infers takes results of training later."""
    with torch.inference_mode():
        block = take_block(HOST, 1 << 15)
        block.receive([torch.ones(3)])
    assert block.receive([torch.full((3,), 2.0)])[0].tolist() == [2.0, 2.0, 2.0]


def test_a_copy_keeps_what_was_there() -> None:
    """A later change of the tensor does not reach what has arrived, which may be read twice."""
    tensor = torch.ones(2, requires_grad=True)
    arrival = Arrival([tensor])
    with torch.no_grad():
        tensor.zero_()
    assert arrival.ready()
    assert arrival.tensors()[0].tolist() == arrival.tensors()[0].tolist() == [1.0, 1.0]
