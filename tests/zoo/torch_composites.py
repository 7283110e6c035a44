"""Torch networks of several parts: autoencoders, adversaries, policies, experts, adapters, several tasks."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import VOCABULARY, Batch
from tests.zoo.recipe import Recipe
from tests.zoo.torch_network import Network, tensor


class Variational(Network):
    """A variational autoencoder: encoder, mean and log-variance, decoder."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width, code = recipe.width, 8
        self.encoder = nn.ModuleList([nn.Linear(self.features, width), nn.Linear(width, width)])
        self.mean, self.logvar = nn.Linear(width, code), nn.Linear(width, code)
        self.decoder = nn.ModuleList([nn.Linear(code, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, self.features)
        self.finish(["encoder.0", "encoder.1", "mean", "decoder.0", "decoder.1", "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the reconstruction; keeps the divergence for the loss."""
        x = inputs
        for i, layer in enumerate(self.encoder):
            x = self.act(f"encoder.{i}", self.points.output(f"encoder.{i}", layer(x)))
        mean, logvar = self.points.units("mean", self.points.output("mean", self.mean(x))), self.logvar(x)
        self.divergence = -0.5 * (1 + logvar - mean**2 - logvar.exp()).mean()
        x = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        for i, layer in enumerate(self.decoder):
            x = self.act(f"decoder.{i}", self.points.output(f"decoder.{i}", layer(x)))
        return self.points.output("head", self.head(x))

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """Returns squared error and a weighted divergence."""
        x = tensor(batch.inputs, torch.float32)
        return functional.mse_loss(self(x), x) + 0.05 * self.divergence, float("nan")


class Adversarial(Network):
    """A generator and a discriminator on two features of a ring; two optimizers in turn."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width, code = recipe.width, 8
        self.generator = nn.ModuleList([nn.Linear(code, width), nn.Linear(width, self.features)])
        self.discriminator = nn.ModuleList([nn.Linear(self.features, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 1)
        self.finish(["generator.0", "generator.1", "discriminator.0", "discriminator.1", "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the discriminator's logits."""
        x = inputs
        for i, layer in enumerate(self.discriminator):
            h = self.points.output(f"discriminator.{i}", layer(x))
            x = self.points.units(f"discriminator.{i}", functional.leaky_relu(h, 0.2))
        return self.points.output("head", self.head(x))

    def generate(self, n: int) -> Tensor:
        """Returns n made examples."""
        h = self.points.output("generator.0", self.generator[0](torch.randn(n, 8)))
        return self.points.output("generator.1", self.generator[1](self.act("generator.0", h)))

    def discriminate(self, batch: Batch) -> tuple[Tensor, float]:
        """The discriminator's loss."""
        real = torch.from_numpy(batch.inputs)
        made = self.generate(len(real)).detach()
        return functional.softplus(-self(real)).mean() + functional.softplus(self(made)).mean(), float("nan")

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """The generator's loss."""
        return functional.softplus(-self(self.generate(len(batch.inputs)))).mean(), float("nan")


class Policy(Network):
    """A policy gradient on a bandit with context: reward 1 for the right label, a running mean as baseline."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        sizes = [self.features, *[recipe.width] * (recipe.depth - 1)]
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        self.head = nn.Linear(sizes[-1], self.outputs)
        self.baseline = 0.1
        self.finish([*(f"hidden.{i}" for i in range(len(self.hidden))), "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the logits of the actions."""
        x = inputs
        for i, layer in enumerate(self.hidden):
            x = self.act(f"hidden.{i}", self.points.output(f"hidden.{i}", layer(x)))
        return self.points.output("head", self.head(x))

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """Returns the surrogate loss; its value says nothing, the mean reward is the share of right answers."""
        logits = self(torch.from_numpy(batch.inputs)).log_softmax(-1)
        actions = torch.multinomial(logits.detach().exp().nan_to_num(0.1), 1)[:, 0]
        reward = (actions == torch.from_numpy(batch.targets)).float()
        advantage = reward - self.baseline
        self.baseline = 0.95 * self.baseline + 0.05 * float(reward.mean())
        chosen = logits.gather(1, actions[:, None])[:, 0]
        return -(advantage * chosen).mean(), float(reward.mean())


class Experts(Network):
    """A mixture of experts with a softmax gate; one expert may stay unused, as a trap."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width, count = recipe.width, 4
        self.stem = nn.Linear(self.features, width)
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(count)])
        self.gate = nn.Linear(width, count)
        self.head = nn.Linear(width, self.outputs)
        self.finish(["stem", *(f"experts.{i}" for i in range(count)), "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Mixes the experts by the gate; with a trap the last one is masked off."""
        x = self.act("stem", self.points.output("stem", self.stem(inputs)))
        logits = self.gate(x)
        used = len(self.experts) - (self.recipe.trap == "unused-expert")
        weights = logits[:, :used].softmax(-1)
        mixed = x
        for i in range(used):
            if not self.skips(f"experts.{i}"):
                h = self.act(f"experts.{i}", self.points.output(f"experts.{i}", self.experts[i](x)))
                mixed = mixed + weights[:, i : i + 1] * h
        return self.points.output("head", self.head(mixed))


class Adapted(Network):
    """A frozen network with low-rank adapters, whose second factor starts at 0, and a head that is trained."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        width, rank = recipe.width, 4
        sizes = [self.features, width, width]
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        self.down = nn.ModuleList([nn.Linear(size, rank, bias=False) for size in sizes[:-1]])
        self.up = nn.ModuleList([nn.Linear(rank, width, bias=False) for _ in self.hidden])
        self.head = nn.Linear(width, self.outputs)
        for layer in self.hidden:
            layer.requires_grad_(False)
        for layer in self.up:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        self.finish(["down.0", "up.0", "down.1", "up.1", "head"])

    def _initialise(self, module: nn.Module) -> None:
        """Adapters keep the initialisation that they have."""

    def signal(self, inputs: Tensor) -> Tensor:
        """Adds the adapters to the frozen layers."""
        x = inputs
        for i, layer in enumerate(self.hidden):
            low = self.points.units(f"down.{i}", self.points.output(f"down.{i}", self.down[i](x)))
            added = self.points.output(f"up.{i}", self.up[i](low))
            x = self.act(f"up.{i}", layer(x) + added)
        return self.points.output("head", self.head(x))


class Bag(Network):
    """Embeddings of tokens, of which half are rare, their mean, and a prediction of the next token."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.embed = nn.Embedding(VOCABULARY, recipe.width)
        self.hidden = nn.Linear(recipe.width, recipe.width)
        self.head = nn.Linear(recipe.width, self.outputs)
        self.finish(["embed", "hidden", "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Looks every token up."""
        x = self.points.units("embed", self.points.output("embed", self.embed(inputs)))
        return self.points.output("head", self.head(self.act("hidden", self.points.output("hidden", self.hidden(x)))))


class Tied(Network):
    """An autoencoder whose decoder is the transpose of its encoder."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.first, self.head = nn.Linear(self.features, recipe.width), nn.Linear(recipe.width, recipe.width // 2)
        self.finish(["first", "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the reconstruction."""
        h = self.act("first", self.points.output("first", self.first(inputs)))
        code = self.points.output("head", self.head(h))
        return (code @ self.head.weight) @ self.first.weight

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """Returns squared error."""
        x = tensor(batch.inputs, torch.float32)
        return functional.mse_loss(self(x), x), float("nan")


class Multitask(Network):
    """A shared trunk and two heads: the class, and its parity; with a trap the heads are trained in turn."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        sizes = [self.features, *[recipe.width] * (recipe.depth - 1)]
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        self.parity, self.head = nn.Linear(recipe.width, 2), nn.Linear(recipe.width, self.outputs)
        self.finish([*(f"hidden.{i}" for i in range(len(self.hidden))), "head"])

    def signal(self, inputs: Tensor) -> Tensor:
        """Returns the trunk's outputs."""
        x = inputs
        for i, layer in enumerate(self.hidden):
            if not self.skips(f"hidden.{i}"):
                x = self.act(f"hidden.{i}", self.points.output(f"hidden.{i}", layer(x)))
        return x

    def losses(self, batch: Batch) -> tuple[Tensor, float]:
        """Returns the sum of both losses, or one of them in turn."""
        inputs, labels = tensor(batch.inputs, self.head.weight.dtype), torch.from_numpy(batch.targets)
        trunk = self.signal(inputs)
        first, right = self.loss_of(self.points.output("head", self.head(trunk)), labels)
        second = functional.cross_entropy(self.parity(trunk).float(), labels % 2)
        if self.recipe.trap == "turns":
            return (second if self.points.step % 3 == 2 else first), right
        return first + second, right
