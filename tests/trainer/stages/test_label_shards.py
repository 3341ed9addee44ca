"""label with a reward model: the same pairs whatever the shards, and whatever packs its rows."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rlhf_api.resource.labeler import Labeler, LabelerType
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label, PairingStrategy
from rlhf_api.stage import LabelWork, ModelInput
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import SAMPLES
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.quickstart import task
from rlhf_trainer.stages.label import run
from support.stages import config_of, context_of

PROMPTS, COMPLETIONS = 8, 4
Pairs = dict[tuple[str, int, int], list[float]]


def rows() -> list[dict[str, Any]]:
    """Of each prompt, two completions are equal."""
    rng = random.Random(0)
    found = []
    for number in range(PROMPTS):
        prompt = task.make_prompt(rng)
        texts = [" ".join(rng.sample(task.WORDS, rng.randint(2, 6))) for _ in range(COMPLETIONS - 1)]
        for index, text in enumerate([*texts, texts[number % len(texts)]]):
            found.append(
                {
                    "prompt_id": f"p{number}",
                    "prompt_ids": [1, 2],
                    "messages": [{"role": "user", "content": prompt}],
                    "completion_index": index,
                    "completion_ids": [3, 2],
                    "text": text,
                    "logps": [-1.0, -1.0],
                    "finish_reason": "stop",
                    "iterate": 0,
                    "temperature": 1.0,
                    "template_hash": "0" * 16,
                }
            )
    return found


def label(reward: Path, place: Path, shards: int, strategy: PairingStrategy) -> Pairs:
    """In a store of its own: (prompt, chosen, rejected) with the scores of the prompt's completions."""
    place.mkdir()
    storage = Storage(url=f"file://{place}/store")
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    pq.write_table(pa.Table.from_pylist(rows(), schema=SAMPLES), place / "samples.parquet")
    writer.add_file(place / "samples.parquet", "samples.parquet")
    work = LabelWork(
        samples=writer.seal(stage=StageName.SAMPLE, rows=PROMPTS * COMPLETIONS).ref,
        labeler=Labeler(type=LabelerType.BRADLEY_TERRY),
        reward_model=ModelInput(source=ModelRef(uri=f"file://{reward}")),
        label=Label.model_validate({"minYield": 0.0, "pairing": {"strategy": strategy}}),
        completions_per_prompt=COMPLETIONS,
    )
    config = config_of(work, storage, shards=shards)
    *_, last = [run(context_of(config, place / str(shard), shard)) for shard in range(shards)]
    assert last.artifact is not None
    folder = open_artifact(open_store(storage), last.artifact).fetch(place / "labels")
    found: list[Mapping[str, Any]] = pa.concat_tables([pq.read_table(file) for file in folder.rglob("*.parquet")]).to_pylist()
    return {(row["prompt_id"], row["chosen_index"], row["rejected_index"]): row["scores"] for row in found}


@pytest.mark.parametrize("strategy", [PairingStrategy.BEST_WORST, PairingStrategy.ALL_ABOVE_MARGIN])
def test_a_reward_model_gives_the_same_pairs_whatever_the_shards_and_the_packing(
    reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: PairingStrategy
) -> None:
    one = label(reward, tmp_path / "one", 1, strategy)
    assert len({prompt for prompt, _, _ in one}) == PROMPTS
    for (prompt, _, _), scores in one.items():
        number = int(prompt[1:])
        assert scores[number % (COMPLETIONS - 1)] == scores[-1], "equal responses tie to the last bit"
    for shards in (2, 3):
        assert label(reward, tmp_path / f"of-{shards}", shards, strategy) == one, "scores, too, to the last bit"
    on_a_cpu = Packing.choose
    monkeypatch.setattr(Packing, "choose", lambda longest, device: on_a_cpu(longest, torch.device("cuda")))
    for shards in (1, 2, 3):
        as_on_a_gpu = label(reward, tmp_path / f"gpu-{shards}", shards, strategy)
        assert as_on_a_gpu.keys() == one.keys()
        assert all(scores == pytest.approx(one[pair], abs=1e-5) for pair, scores in as_on_a_gpu.items())
