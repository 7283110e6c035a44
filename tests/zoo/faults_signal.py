"""Plants that spoil the signal on its way: vanishing, exploding, dead units, saturation, cut graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tests.zoo.families import hidden_layers
from tests.zoo.fault import Fault, Planted, Random, inner, late
from tests.zoo.recipe import Effect, Event, Recipe

CHAINS: Final = ("mlp", "plain", "cnn", "multitask")
PLAIN: Final = ("mlp", "plain", "multitask")
CUTS: Final = ("mlp", "plain", "cnn", "transformer", "multitask", "vae", "resnet")
DESCENT: Final = ("sgd", "momentum", "nesterov")
SHRUNK: Final = frozenset({"update-too-small", "clipping"})
GROWN: Final = frozenset({"nonfinite", "update-too-large", "spike", "oscillating", "saturated", "dead-units"})
DEAD: Final = frozenset({"vanishing", "disconnected", "update-too-large", "spike", "update-too-small"})
PACKED: Final = frozenset({"vanishing", "exploding", "update-too-small"})


def _low(recipe: Recipe) -> tuple[int, ...]:
    """The lower half of the chain."""
    return tuple(range(max(1, (hidden_layers(recipe) + 1) // 2)))


def _around(recipe: Recipe, position: int) -> tuple[int, ...]:
    """The layer before a place between two layers, and the one behind it: code between them belongs to either."""
    return position, min(position + 1, hidden_layers(recipe))


def _clean(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, norm="" if recipe.family != "transformer" else recipe.norm, **changes)


def sigmoid_depth(recipe: Recipe, random: Random) -> Planted:
    """Sigmoids in a deep plain net: each layer takes at least a factor 4 off the gradient."""
    depth = int(random.integers(8, 16))
    twin = _clean(recipe, depth=depth, activation="tanh", init="glorot")
    return Planted(replace(twin, activation="sigmoid", init="default"), twin, _low(twin))


def small_weights(recipe: Recipe, random: Random) -> Planted:
    """All weights too small by a factor: signal and gradient shrink by it in each layer."""
    depth = int(random.integers(7, 13)) if recipe.family != "cnn" else 7
    twin = _clean(recipe, depth=depth, activation="relu", init="he")
    return Planted(replace(twin, gain=float(random.uniform(0.15, 0.4))), twin, _low(twin))


def wrong_gain(recipe: Recipe, random: Random) -> Planted:
    """Glorot's initialisation under ReLU, 20 layers and more: chi is 1/2 (He 2015)."""
    twin = _clean(recipe, depth=int(random.integers(24, 36)), activation="relu", init="he", steps=50)
    return Planted(replace(twin, init="glorot"), twin, _low(twin))


def shrinking_step(recipe: Recipe, random: Random) -> Planted:
    """One operation that makes the signal 10,000 times smaller."""
    twin = _clean(recipe)
    position = inner(recipe, random, hidden_layers(recipe))
    effect = Effect(position, "scale", size=10.0 ** float(random.uniform(-5, -3.5)))
    return Planted(replace(twin, effects=(effect,)), twin, (*range(position), *_around(recipe, position)))


def short_memory(recipe: Recipe, random: Random) -> Planted:
    """A recurrent weight of spectral radius 0.2, and a class that the first of 24 steps tells."""
    twin = replace(recipe, data="memory", recurrent=1.0, steps=100)
    return Planted(replace(twin, recurrent=float(random.uniform(0.1, 0.3))), twin, (0, 1))


def growing_layer(recipe: Recipe, random: Random) -> Planted:
    """One weight matrix 20 to 40 times too large."""
    twin = _clean(recipe, activation="relu", init="he")
    position = int(random.integers(0, hidden_layers(recipe)))
    return Planted(replace(twin, gains=((position, float(random.uniform(20, 40))),)), twin, (position,))


def growing_layers(recipe: Recipe, random: Random) -> Planted:
    """All weights too large by a factor."""
    twin = _clean(recipe, activation="relu", init="he", depth=max(recipe.depth, 6))
    return Planted(replace(twin, gain=float(random.uniform(2, 3))), twin, tuple(range(hidden_layers(twin) + 1)))


def growing_later(recipe: Recipe, random: Random) -> Planted:
    """One weight matrix becomes 30 times larger in the middle of training."""
    twin = _clean(recipe, activation="relu", init="he")
    step, position = late(recipe, random), int(random.integers(0, hidden_layers(recipe)))
    event = Event(step, "weight", position, float(random.uniform(20, 60)))
    return Planted(replace(twin, events=(event,)), twin, (position,), step)


def growing_step(recipe: Recipe, random: Random) -> Planted:
    """An operation that multiplies the signal, from the start or later."""
    twin = _clean(recipe)
    position = inner(recipe, random, hidden_layers(recipe))
    step = late(recipe, random) if random.random() < 0.5 else 0
    effect = Effect(position, "scale", step, float(random.uniform(20, 60)))
    return Planted(replace(twin, effects=(effect,)), twin, _around(recipe, position), step)


def growing_memory(recipe: Recipe, random: Random) -> Planted:
    """A recurrent weight of spectral radius well above 1 under ReLU, over 8 steps."""
    twin = replace(recipe, activation="relu", recurrent=0.9)
    return Planted(replace(twin, recurrent=float(random.uniform(4, 8))), twin, (1,))


def growing_stream(recipe: Recipe, random: Random) -> Planted:
    """Residual blocks without normalisation whose branches are too strong."""
    twin = replace(recipe, depth=6, steps=40)
    sick = replace(twin, norm="", gain=float(random.uniform(1.5, 2.5)))
    return Planted(sick, twin, tuple(range(hidden_layers(twin) + 1)))


def closed_gates(recipe: Recipe, random: Random) -> Planted:
    """A forget gate whose bias closes it, and a class that the first of 24 steps tells."""
    twin = replace(recipe, data="memory", forget=3.0, steps=100)
    return Planted(replace(twin, forget=-float(random.uniform(3, 5))), twin, (0, 1))


def _rectified(recipe: Recipe) -> tuple[int, ...]:
    """Positions of the layers behind which a nonlinearity stands."""
    layers = range(hidden_layers(recipe))
    if recipe.family == "transformer":
        return tuple(i for i in layers if i % 4 == 3)
    return tuple(i for i in layers if (recipe.family, i) != ("vae", 2))


def dead_from_start(recipe: Recipe, random: Random) -> Planted:
    """Biases so low that no unit of a ReLU layer is ever active."""
    twin = _clean(recipe, activation="relu")
    position = int(random.choice(_rectified(recipe)))
    return Planted(replace(twin, bias=((position, -float(random.uniform(20, 60))),)), twin, (position,))


def dead_later(recipe: Recipe, random: Random) -> Planted:
    """The same, in the middle of training."""
    twin = _clean(recipe, activation="relu")
    step, position = late(recipe, random), int(random.choice(_rectified(recipe)))
    event = Event(step, "bias", position, -float(random.uniform(30, 90)))
    return Planted(replace(twin, events=(event,)), twin, (position,), step)


def dead_everywhere(recipe: Recipe, random: Random) -> Planted:
    """Low biases in all hidden layers: most units of each are dead."""
    twin = _clean(recipe, activation="relu")
    layers = tuple(range(hidden_layers(recipe)))
    sick = replace(twin, bias=tuple((i, -float(random.uniform(3, 6))) for i in layers))
    return Planted(sick, twin, layers)


def dead_by_shock(recipe: Recipe, random: Random) -> Planted:
    """One step with a learning rate hundreds of times too high throws the biases down."""
    twin = _clean(recipe, activation="relu")
    step = late(recipe, random)
    event = Event(step, "rate-once", size=float(random.uniform(100, 400)))
    return Planted(replace(twin, events=(event,)), twin, tuple(range(hidden_layers(recipe))), step)


def saturated_weights(recipe: Recipe, random: Random) -> Planted:
    """Weights 10 to 30 times too large under tanh."""
    twin = _clean(recipe, activation="tanh", init="glorot")
    sick = replace(twin, gain=float(random.uniform(10, 30)))
    return Planted(sick, twin, tuple(range(hidden_layers(recipe))))


def saturated_inputs(recipe: Recipe, random: Random) -> Planted:
    """Raw inputs, hundreds of times too large, under tanh or sigmoid."""
    twin = _clean(recipe, activation="tanh", init="glorot")
    return Planted(replace(twin, input_scale=float(random.uniform(100, 300))), twin, (0,))


def saturated_biases(recipe: Recipe, random: Random) -> Planted:
    """Biases that push a tanh layer into its bound."""
    twin = _clean(recipe, activation="tanh", init="glorot")
    position = int(random.integers(0, hidden_layers(recipe)))
    return Planted(replace(twin, bias=((position, float(random.choice([-8.0, 8.0]))),)), twin, (position,))


def saturated_later(recipe: Recipe, random: Random) -> Planted:
    """A tanh layer's weights grow 100 times in the middle of training."""
    twin = _clean(recipe, activation="tanh", init="glorot")
    step, position = late(recipe, random), int(random.integers(0, hidden_layers(recipe)))
    event = Event(step, "weight", position, float(random.uniform(60, 200)))
    return Planted(replace(twin, events=(event,)), twin, (position,), step)


def cut(how: str) -> Any:
    """Plants an operation through which no gradient passes."""

    def plant(recipe: Recipe, random: Random) -> Planted:
        twin = replace(recipe, norm=recipe.norm)
        position = inner(recipe, random, hidden_layers(recipe))
        return Planted(replace(twin, effects=(Effect(position, how),)), twin, _around(recipe, position))

    return plant


def unused_layer(recipe: Recipe, random: Random) -> Planted:
    """A layer that is built and optimized, and that the forward pass leaves out."""
    twin = _clean(recipe, depth=max(recipe.depth, 4))
    position = int(random.integers(1, hidden_layers(twin)))
    return Planted(replace(twin, skipped=(position,)), twin, (position,))


FAULTS: Final[dict[str, Fault]] = {
    "sigmoid-depth": Fault("vanishing", sigmoid_depth, ("plain",), SHRUNK),
    "small-weights": Fault("vanishing", small_weights, ("mlp", "plain", "cnn"), SHRUNK, optimizers=DESCENT),
    "wrong-gain": Fault("vanishing", wrong_gain, ("plain",), SHRUNK, optimizers=DESCENT),
    "shrinking-step": Fault("vanishing", shrinking_step, CHAINS, SHRUNK, optimizers=DESCENT),
    "short-memory": Fault("vanishing", short_memory, ("rnn",), SHRUNK, optimizers=("adam", "rmsprop")),
    "closed-gates": Fault("vanishing", closed_gates, ("lstm",), SHRUNK, optimizers=("adam", "rmsprop")),
    "growing-layer": Fault("exploding", growing_layer, CHAINS, GROWN, optimizers=DESCENT),
    "growing-layers": Fault("exploding", growing_layers, PLAIN, GROWN, optimizers=DESCENT),
    "growing-later": Fault("exploding", growing_later, CHAINS, GROWN, optimizers=DESCENT),
    "growing-step": Fault("exploding", growing_step, CHAINS, GROWN, optimizers=DESCENT),
    "growing-memory": Fault("exploding", growing_memory, ("rnn",), GROWN, optimizers=("sgd", "adam")),
    "growing-stream": Fault("exploding", growing_stream, ("resnet",), GROWN, optimizers=DESCENT, frameworks=("torch",)),
    "dead-from-start": Fault("dead-units", dead_from_start, (*CHAINS, "vae", "transformer"), DEAD),
    "dead-later": Fault("dead-units", dead_later, (*CHAINS, "vae", "transformer"), DEAD),
    "dead-everywhere": Fault("dead-units", dead_everywhere, CHAINS, DEAD),
    "dead-by-shock": Fault("dead-units", dead_by_shock, PLAIN, DEAD, frozenset({"update-too-large"}), ("sgd",)),
    "saturated-weights": Fault("saturated", saturated_weights, PLAIN, PACKED),
    "saturated-inputs": Fault("saturated", saturated_inputs, PLAIN, PACKED | {"plumbing"}, frozenset({"plumbing"})),
    "saturated-biases": Fault("saturated", saturated_biases, PLAIN, PACKED),
    "saturated-later": Fault("saturated", saturated_later, PLAIN, PACKED | {"spike"}),
    "detach": Fault("disconnected", cut("detach"), CUTS),
    "round": Fault("disconnected", cut("round"), PLAIN),
    "sign": Fault("disconnected", cut("sign"), PLAIN),
    "unused-layer": Fault("disconnected", unused_layer, PLAIN),
}
