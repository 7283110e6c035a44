"""PyTorch for gradwatch: gradients at the optimizer's step, activations from the passes of sampled steps."""

from gradwatch_torch.adapter import TorchAdapter

__all__ = ["TorchAdapter"]
