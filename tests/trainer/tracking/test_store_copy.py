"""The curves of a training at work are in the store, and to keep them there changes nothing for the training."""

from __future__ import annotations

import json
import logging
import threading
from functools import partial
from pathlib import Path

import pytest

from rlhf_api.resource.storage import Storage
from rlhf_store import Store, open_store
from rlhf_trainer.tracking import store_copy
from rlhf_trainer.tracking.store_copy import StoreCopy, whole_lines
from support.waiting import wait_until

KEY = "runs/default/quickstart/u1/metrics/train-1.jsonl"
#: Longer than any test takes: nothing is put because time goes by.
NEVER = 600.0


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 0.5}) + "\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(Storage(url=f"file://{tmp_path}/store"))


def kept(store: Store) -> list[int]:
    if store.head(KEY) is None:
        return []
    return [json.loads(text)["step"] for text in store.get(KEY).decode().splitlines()]


def have(store: Store, steps: int) -> bool:
    return kept(store) == list(range(1, steps + 1))


def test_steps_are_in_the_store_while_the_training_goes_on(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with StoreCopy(lambda: store, KEY, file, every=0.01), file.open("a") as metrics:
        for step in (1, 2, 3):
            metrics.write(line(step))
            metrics.flush()
            wait_until(partial(have, store, step), f"step {step} in the store")


def test_the_last_steps_are_put_at_the_end_however_short_the_training(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with StoreCopy(lambda: store, KEY, file, every=NEVER):
        file.write_text(line(1) + line(2))
    assert kept(store) == [1, 2]


def test_a_training_that_fails_leaves_its_curves(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"

    def fail() -> None:
        with StoreCopy(lambda: store, KEY, file, every=NEVER):
            file.write_text(line(1))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert kept(store) == [1]


def test_a_resumed_attempt_goes_on_behind_its_checkpoint_and_has_no_step_twice(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with StoreCopy(lambda: store, KEY, first, every=NEVER):
        first.write_text("".join(map(line, range(1, 6))))
    with StoreCopy(lambda: store, KEY, second, every=NEVER):
        second.write_text("".join(map(line, range(1, 4))))
        with second.open("a") as metrics:
            metrics.write("".join(map(line, range(4, 8))))
    assert kept(store) == list(range(1, 8))


def test_a_store_that_is_away_costs_the_copy_alone_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "metrics.jsonl"
    tries = 0

    def away() -> Store:
        nonlocal tries
        tries += 1
        raise OSError("nobody answers")

    with caplog.at_level(logging.WARNING), StoreCopy(away, KEY, file, every=0.01):
        file.write_text(line(1))
        wait_until(lambda: tries > 3, "several tries")
    assert [record.getMessage().partition("; ")[2] for record in caplog.records] == ["it goes on: nobody answers"]


def test_a_store_that_comes_back_has_every_step(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    answers = iter([OSError("nobody answers")])

    def open_it() -> Store:
        for error in answers:
            raise error
        return store

    with StoreCopy(open_it, KEY, file, every=0.01):
        file.write_text(line(1) + line(2))
        wait_until(lambda: kept(store) == [1, 2], "both steps in the store")


def test_a_store_that_never_answers_does_not_hold_the_end_of_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_copy, "END_SECONDS", 0.05)
    answer = threading.Event()

    def hanging() -> Store:
        answer.wait()
        raise OSError

    file = tmp_path / "metrics.jsonl"
    with caplog.at_level(logging.WARNING), StoreCopy(hanging, KEY, file, every=NEVER):
        file.write_text(line(1))
    assert "did not take it within" in caplog.text
    answer.set()


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert whole_lines(file) == b""
    file.write_text(line(1) + '{"step": 2, "lo')
    assert whole_lines(file) == line(1).encode()


def test_of_a_training_without_end_so_much_is_put_and_no_more_and_its_last_step(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(map(line, range(1, 1001))))
    content = whole_lines(file, 5_000)
    steps = [json.loads(text)["step"] for text in content.decode().splitlines()]
    assert len(content) <= 5_000 + len(line(1000))
    assert (steps[0], steps[-1]) == (1, 1000)
    assert steps == sorted(set(steps))
