"""What all demonstrations share: digits that are split without leaks, and progress that any output can show."""

from __future__ import annotations

import io

import numpy as np

from gradwatch.examples.digits import BATCH, BATCHES, TRAINING_DIGITS, Digits
from gradwatch.examples.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_digit_is_both_learned_and_tested() -> None:
    """The split is disjoint and loses no digit; images are scaled to [-1, 1]."""
    digits = Digits.shuffled(np.random.default_rng(0))
    training, unseen = digits.split()
    assert len(training.labels) == TRAINING_DIGITS
    np.testing.assert_array_equal(np.concatenate([training.images, unseen.images]), digits.images)
    assert (digits.images.min(), digits.images.max()) == (-1, 1)


def test_an_epoch_shows_every_digit_once() -> None:
    """The batches hold each image with its label once, in another order every epoch, and are of one size."""
    training, _ = Digits.shuffled(np.random.default_rng(0)).split()
    training = Digits(np.arange(TRAINING_DIGITS, dtype=np.float32)[:, None], training.labels)
    generator = np.random.default_rng(1)
    epochs = [training.batches(generator) for _ in range(2)]
    for batches in epochs:
        assert [len(labels) for _, labels in batches] == [BATCH] * BATCHES
        drawn = np.concatenate([images[:, 0] for images, _ in batches]).astype(int)
        assert sorted(drawn.tolist()) == list(range(TRAINING_DIGITS))
        np.testing.assert_array_equal(training.labels[drawn], np.concatenate([labels for _, labels in batches]))
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])


def test_progress_is_a_few_plain_lines_away_from_a_terminal() -> None:
    """Into a file go four lines over the whole training and the notes, without control characters."""
    stream = io.StringIO()
    progress = Progress(1000, stream)
    for i in range(1000):
        if i == 300:
            progress.note("something was found")
        progress.advance(f"loss {i}")
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "  250 of 1,000 steps, loss 249",
        "  something was found",
        "  500 of 1,000 steps, loss 499",
        "  750 of 1,000 steps, loss 749",
        "  1,000 of 1,000 steps, loss 999",
    ]


def test_progress_is_a_moving_bar_in_a_terminal() -> None:
    """In a terminal the bar is drawn over itself, notes stand above it, and the last state stays."""
    stream = Terminal()
    progress = Progress(4, stream)
    progress.advance("loss 2")
    progress.note("something was found")
    for _ in range(3):
        progress.advance("loss 1")
    progress.finish()
    shown = [line.rsplit("\x1b[K", 1)[-1] for line in stream.getvalue().split("\n")]
    assert shown == ["  something was found", f"  {'█' * 30} 4 of 4 steps, loss 1", ""]
