"""A tiny world (model, tokenizer, data, manifest), and one real run of it whose artifacts the engine tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_api.resource.storage import Storage
from rlhf_trainer.models.loading import new_reward_model
from rlhf_trainer.quickstart.world import make_world
from support.stages import TINY, ForkServer, RealRun, run_whole_chain, spec_of_world


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models of these sizes are slower on several."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quickstart world that is made in a second; treat it as read-only."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder, 0, TINY, f"file://{folder}/store")
    return folder


@pytest.fixture(scope="session")
def tokenizer(world: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(world / "model"))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A store of the test's own."""
    return Storage(url=f"file://{tmp_path}/store")


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("forkserver")).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def real_run(world: Path, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """The world's run, from preflight to finalize."""
    # Without the likelihood term the loss starts at log 2, which says that template, weights and cache agree.
    train = spec_of_world(world).train.to_wire() | {"loss": {"type": "Sigmoid", "beta": 0.1}}
    return run_whole_chain(spec_of_world(world, train=train), tmp_path_factory.mktemp("run"), fork_server)


@pytest.fixture(scope="session")
def reward(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a head that says something, and the world's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "reward"
    model = new_reward_model(world / "model", torch.float32, seed=0)
    with torch.no_grad():
        model.score.weight.mul_(50)
    model.save_pretrained(str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (world / "model" / name).exists():
            shutil.copy(world / "model" / name, folder)
    return folder
