"""A finished run whose artifacts really lie in a file:// store, small and by hand: for the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_api.resource.status import ArtifactStatus, CheckpointStatus, IterationStatus, StageStatus
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_store import ArtifactWriter, ExternalModel, Store, artifact_url, open_store
from support import example_runs

COUNTS = {
    StageName.SAMPLE: {"prompts": 64, "promptsTooLong": 0, "completions": 512, "lengthStopped": 9},
    StageName.LABEL: {"prompts": 64, "promptsIncomplete": 0, "promptsPaired": 58, "promptsTied": 6, "pairs": 58},
    StageName.TRAIN: {"pairsRead": 58, "pairsTruncated": 1, "pairsTrained": 58, "parameters": 9_000, "parametersChanged": 8_700},
}


def finished(name: str, folder: Path) -> RLHFRun:
    """`example_runs.finished`, with its artifacts sealed under `folder`."""
    url = f"file://{folder}"
    store = open_store(Storage(url=url))
    run = example_runs.finished(name, url)
    assert run.status is not None
    sealed: dict[tuple[int, StageName], ArtifactRef] = {}
    stages = [_seal(stage, 0, store, sealed) for stage in run.status.stages]
    iterations = [
        IterationStatus(
            number=item.number, metrics=item.metrics, stages=[_seal(stage, item.number, store, sealed) for stage in item.stages]
        )
        for item in run.status.iterations
    ]
    best = sealed[3, StageName.TRAIN]
    checkpoint = CheckpointStatus(url=artifact_url(store, best.kind, best.fingerprint), digest=best.digest)
    status = run.status.model_copy(update={"stages": stages, "iterations": iterations, "checkpoint": checkpoint})
    return run.model_copy(update={"status": status})


def _seal(stage: StageStatus, iteration: int, store: Store, sealed: dict[tuple[int, StageName], ArtifactRef]) -> StageStatus:
    kind = STAGE_ARTIFACT.get(stage.name)
    if kind is None:
        return stage
    fingerprint = example_runs.digest(stage.name, iteration)
    writer = ArtifactWriter(store, kind, fingerprint)
    if stage.name == StageName.EVALUATE:
        writer.add_bytes(json.dumps(evaluation(iteration)).encode(), "report.json")
    elif stage.name == StageName.TRAIN:
        writer.add_bytes("".join(json.dumps(line) + "\n" for line in training(iteration)).encode(), "metrics.jsonl")
        writer.add_bytes(b"{}", "config.json")
    else:
        writer.add_bytes(b"data", "data.bin")
    iterate = iteration if stage.name in (StageName.TRAIN, StageName.SFT) else None
    config = {"prompts": {"source": {"uri": "file:///data/prompts.jsonl"}}} if stage.name == StageName.SAMPLE else {}
    done = writer.seal(
        stage=stage.name,
        inputs=_inputs(stage.name, iteration, sealed),
        config=config,
        iterate=iterate,
        counts=COUNTS.get(stage.name),
    )
    sealed[iteration, stage.name] = done.ref
    url = artifact_url(store, kind, fingerprint)
    return stage.model_copy(update={"artifact": ArtifactStatus(url=url, digest=done.ref.digest, fingerprint=fingerprint)})


def _inputs(
    stage: StageName, iteration: int, sealed: dict[tuple[int, StageName], ArtifactRef]
) -> list[ArtifactRef | ExternalModel]:
    before = sealed.get((iteration - 1, StageName.TRAIN)) or sealed.get((0, StageName.SFT))
    if stage == StageName.SFT or before is None:
        return [ExternalModel(uri="file:///models/tiny", revision="abc")]
    if stage == StageName.SAMPLE:
        return [before]
    if stage == StageName.LABEL:
        return [sealed[iteration, StageName.SAMPLE], sealed[0, StageName.REWARD]]
    if stage == StageName.REFERENCE:
        return [sealed[iteration, StageName.LABEL], sealed[0, StageName.SFT]]
    if stage == StageName.TRAIN:
        return [before, sealed[iteration, StageName.LABEL], sealed[iteration, StageName.REFERENCE]]
    return [before]


def evaluation(iterate: int) -> dict[str, object]:
    """report.json as the evaluate stage writes it."""
    words = ["river", "apple", "stone", "cloud", "maple"]
    examples = []
    for index in range(20):
        prompt = " ".join(words[index % 5 :] + words[: index % 5])
        good = " ".join(sorted(words))
        wrong = f"{good.split(' ', 1)[1]} {good.split(' ', 1)[0]}"
        judge = 1.0 if index < 10 else 0.6 - 0.03 * (index - 10)
        examples.append(
            {
                "promptId": f"p{index}",
                "prompt": f"sort: {prompt}",
                "response": good if index < 10 else wrong,
                "initialResponse": None if iterate == 0 else wrong,
                "judge": judge,
                "initialJudge": None if iterate == 0 else 0.62 - 0.01 * (index % 4),
                "reward": judge * 4 - 1,
            }
        )
    examples[0]["response"] = "<script>alert(1)</script>"
    gain = None if iterate == 0 else {"value": 0.05 * iterate, "lower": 0.05 * iterate - 0.02, "upper": 0.05 * iterate + 0.02}
    mean = {"value": 0.72 + 0.05 * iterate, "lower": 0.71 + 0.05 * iterate, "upper": 0.73 + 0.05 * iterate}
    decoding = {"judgeMean": mean, "gainVsInitial": gain}
    return {
        "iterate": iterate,
        "examples": examples,
        "test": {"prompts": 1000, "sampled": decoding, "greedy": decoding},
        "counts": {"validation": 32},
    }


def training(iteration: int) -> list[dict[str, float]]:
    """metrics.jsonl, TRL's keys."""
    return [
        {
            "step": step,
            "loss": 0.693 - (0.1 + 0.03 * iteration) * (1 - math.exp(-step / 12)) + 0.01 * math.sin(step * 1.7),
            "rewards/chosen": 0.01 * step,
            "rewards/rejected": -0.01 * step,
            "rewards/margins": 0.8 * (1 - math.exp(-step / 20)),
            "rewards/accuracies": 0.5 + 0.3 * (1 - math.exp(-step / 10)),
            "grad_norm": 1.0,
            "learning_rate": 2e-4,
        }
        for step in range(1, 61)
    ]
