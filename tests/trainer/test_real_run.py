"""One real run, preflight to finalize: what its artifacts hold, and who can open them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import STAGE_ARTIFACT, ArtifactKind, StageName
from rlhf_store import find_artifact, open_artifact, open_store, run_folder
from rlhf_trainer.data.parquet import EVALUATION, LABELS, REFERENCE_LOGPS, SAMPLES
from rlhf_trainer.runtime.narrow import present
from support.stages import RUN, ForkServer, RealRun

pytestmark = pytest.mark.engine

END = "<|end|>"


@pytest.fixture(scope="module")
def fetched(real_run: RealRun, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int | None, StageName], Path]:
    """Every artifact of the run, verified, in a folder of its own."""
    store = open_store(real_run.storage)
    folder = tmp_path_factory.mktemp("artifacts")
    return {
        key: open_artifact(store, result.artifact).fetch(folder / f"{key[1]}-{key[0]}")
        for key, result in real_run.results.items()
        if result.artifact is not None
    }


def rows(folder: Path, pattern: str = "*.parquet") -> list[dict[str, Any]]:
    return list(pa.concat_tables([pq.read_table(file) for file in sorted(folder.rglob(pattern))]).to_pylist())


def test_every_stage_of_the_chain_sealed_its_artifact(real_run: RealRun) -> None:
    stages = {key for key, result in real_run.results.items() if result.artifact is not None}
    assert stages == {
        (None, StageName.SFT),
        (None, StageName.REWARD),
        (None, StageName.EVALUATE),
        (1, StageName.SAMPLE),
        (1, StageName.LABEL),
        (1, StageName.REFERENCE),
        (1, StageName.TRAIN),
        (1, StageName.EVALUATE),
    }


def test_what_preflight_prepared_is_what_sft_and_reward_were_trained_on(real_run: RealRun) -> None:
    """Also of a reward model that starts from pi_0: its tokenizer is the exported one, and nobody renders the rows again."""
    store = open_store(real_run.storage)
    preflight_ended = (real_run.folder / "preflight-None" / "result-0.json").stat().st_mtime
    for stage in (StageName.SFT, StageName.REWARD):
        sealed = real_run.result(stage, None).artifact
        assert sealed is not None
        name = open_artifact(store, sealed).manifest.config["tokens"]
        assert present(find_artifact(store, ArtifactKind.TOKENS, name), name).manifest.stage == stage
        file = Path(real_run.storage.url.removeprefix("file://")) / ArtifactKind.TOKENS / name / "manifest.json"
        assert file.stat().st_mtime <= preflight_ended
        kinds = {ref.kind for ref in open_artifact(store, sealed).manifest.inputs if isinstance(ref, ArtifactRef)}
        assert ArtifactKind.TOKENS not in kinds, "versions that do not know the kind read this manifest, too"


def test_data_opens_with_datasets(fetched: dict[tuple[int | None, StageName], Path]) -> None:
    from datasets import load_dataset

    schemas = {
        StageName.SAMPLE: SAMPLES,
        StageName.LABEL: LABELS,
        StageName.REFERENCE: REFERENCE_LOGPS,
        StageName.EVALUATE: EVALUATION,
    }
    for stage, schema in schemas.items():
        files = [str(file) for file in sorted(fetched[1, stage].rglob("*.parquet"))]
        data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(fetched[1, stage] / ".cache"))
        assert data.column_names == schema.names
        assert len(data) > 0


def test_every_prompt_has_all_of_its_completions(fetched: dict[tuple[int | None, StageName], Path], real_run: RealRun) -> None:
    by_prompt: dict[str, list[int]] = {}
    for row in rows(fetched[1, StageName.SAMPLE]):
        by_prompt.setdefault(row["prompt_id"], []).append(row["completion_index"])
    assert len(by_prompt) == real_run.result(StageName.PREFLIGHT, None).counts["prompts/1"]
    assert all(sorted(indices) == list(range(8)) for indices in by_prompt.values())


def test_defect_nothing_is_appended_to_what_the_engine_returned(
    fetched: dict[tuple[int | None, StageName], Path], tokenizer: Any
) -> None:
    """finish_reason = stop exactly where the last id ends a turn; a sample that was cut has no end; a log-prob for each id."""
    end = tokenizer.convert_tokens_to_ids(END)
    sampled = rows(fetched[1, StageName.SAMPLE])
    assert {row["finish_reason"] for row in sampled} == {"stop", "length"}
    for row in sampled:
        ids = row["completion_ids"]
        assert (row["finish_reason"] == "stop") == (ids[-1] == end)
        assert end not in ids[:-1]
        assert len(row["logps"]) == len(ids)
        assert row["finish_reason"] == "stop" or len(ids) == 10
        assert row["text"] == tokenizer.decode([i for i in ids if i != end], skip_special_tokens=True)


def test_defect_ids_and_never_text_pass_between_stages(fetched: dict[tuple[int | None, StageName], Path]) -> None:
    by_key = {(row["prompt_id"], row["completion_index"]): row for row in rows(fetched[1, StageName.SAMPLE])}
    for label in rows(fetched[1, StageName.LABEL]):
        for side in ("chosen", "rejected"):
            source = by_key[label["prompt_id"], label[f"{side}_index"]]
            assert label[f"{side}_ids"] == source["completion_ids"]
            assert label["prompt_ids"] == source["prompt_ids"]


def test_the_sampler_and_the_trainer_agree_on_log_probs(
    fetched: dict[tuple[int | None, StageName], Path],
) -> None:
    """vLLM's log-probs at temperature 1 and the trainer's forward, on the same ids, in fp32."""
    from support.plain_torch import completion_logp
    from support.tiny_models import load

    model = load(fetched[None, StageName.SFT])
    for row in rows(fetched[1, StageName.SAMPLE])[:20]:
        ours = float(completion_logp(model, row["prompt_ids"], row["completion_ids"]).detach())
        assert ours == pytest.approx(sum(row["logps"]), abs=1e-2)


def test_reference_log_probs_are_those_of_pi_0_on_every_pair(fetched: dict[tuple[int | None, StageName], Path]) -> None:
    from support.plain_torch import completion_logp
    from support.tiny_models import load

    model = load(fetched[None, StageName.SFT])
    labels = {(r["prompt_id"], r["chosen_index"], r["rejected_index"]): r for r in rows(fetched[1, StageName.LABEL])}
    cached = rows(fetched[1, StageName.REFERENCE])
    assert 0 < len(cached) <= len(labels)
    for row in cached[:10]:
        label = labels[row["prompt_id"], row["chosen_index"], row["rejected_index"]]
        for side in ("chosen", "rejected"):
            expected = float(completion_logp(model, label["prompt_ids"], label[f"{side}_ids"]).detach())
            assert row[f"{side}_logps"] == pytest.approx(expected, abs=1e-4)
            assert row[f"{side}_tokens"] == len(label[f"{side}_ids"])


def test_defect_dpo_starts_at_log_two(fetched: dict[tuple[int | None, StageName], Path]) -> None:
    """The template that was sampled with is the one that is trained with, and the cache is that of the policy that starts."""
    first = json.loads((fetched[1, StageName.TRAIN] / "metrics.jsonl").read_text().splitlines()[0])
    # The world's loss has a likelihood term beside it; the DPO part is a function of the margin alone, and log 2 where that is 0.
    assert math.log1p(math.exp(-first["rewards/margins"])) == pytest.approx(0.6931472, abs=1e-4)
    assert first["rewards/chosen"] == pytest.approx(0.0, abs=1e-3)


def test_checkpoints_open_with_transformers_and_say_how_a_response_ends(
    fetched: dict[tuple[int | None, StageName], Path], tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

    end = tokenizer.convert_tokens_to_ids(END)
    for key in ((None, StageName.SFT), (1, StageName.TRAIN)):
        _, info = AutoModelForCausalLM.from_pretrained(str(fetched[key]), output_loading_info=True)
        assert not info["missing_keys"]
        assert GenerationConfig.from_pretrained(str(fetched[key])).eos_token_id == [end]
        assert AutoTokenizer.from_pretrained(str(fetched[key])).chat_template == tokenizer.chat_template
    reward, info = AutoModelForSequenceClassification.from_pretrained(
        str(fetched[None, StageName.REWARD]), output_loading_info=True
    )
    assert not info["missing_keys"]
    assert reward.config.num_labels == 1
    assert reward.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_pi_1_opens_in_vllm(fetched: dict[tuple[int | None, StageName], Path], fork_server: ForkServer, real_run: RealRun) -> None:
    """evaluate loaded it there; its answers are in the artifact."""
    evaluated = real_run.config(StageName.EVALUATE)
    trained = real_run.result(StageName.TRAIN)
    assert evaluated.work.policy.model.artifact == trained.artifact  # type: ignore[union-attr]
    assert {row["decoding"] for row in rows(fetched[1, StageName.EVALUATE])} == {"sampled", "greedy"}


def test_evaluation_reports_the_metrics_that_gates_and_selection_read(real_run: RealRun) -> None:
    initial = real_run.result(StageName.EVALUATE, None).metrics
    first = real_run.result(StageName.EVALUATE).metrics
    assert initial[Metric.WIN_RATE_VS_INITIAL].value == 0.5
    assert initial[Metric.KL_TO_INITIAL].value == 0.0
    # An estimate from few samples of a policy that hardly moved: its interval, not its value, must reach what a divergence can be.
    divergence = first[Metric.KL_TO_INITIAL_PER_TOKEN]
    assert divergence.value != 0.0
    assert divergence.upper is not None
    assert divergence.upper > 0
    assert set(first) >= {
        Metric.WIN_RATE_VS_INITIAL,
        Metric.WIN_RATE_VS_PREVIOUS,
        Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL,
        Metric.REWARD_MEAN,
        Metric.JUDGE_MEAN,
        Metric.MEAN_LENGTH,
        Metric.MEAN_LENGTH_RATIO_VS_INITIAL,
        Metric.ENTROPY_PER_TOKEN,
        Metric.CLIPPED_SHARE,
        Metric.DISTINCT_2,
    }
    win_rate = first[Metric.WIN_RATE_VS_INITIAL]
    assert win_rate.lower is not None
    assert win_rate.upper is not None
    assert win_rate.lower <= win_rate.value <= win_rate.upper


def test_every_manifest_names_its_inputs_by_digest(real_run: RealRun) -> None:
    """From pi_1 back to the world's files: whoever has a checkpoint can walk to every prompt and configuration."""
    store = open_store(real_run.storage)
    seen: set[str] = set()

    def walk(ref: ArtifactRef) -> None:
        if ref.digest in seen:
            return
        seen.add(ref.digest)
        manifest = open_artifact(store, ref).manifest
        assert manifest.config["stage"] == manifest.stage.value
        for source in manifest.inputs:
            if isinstance(source, ArtifactRef):
                walk(source)
            else:
                assert source.revision

    trained = real_run.result(StageName.TRAIN).artifact
    assert trained is not None
    walk(trained)
    kinds = {key[1] for key, result in real_run.results.items() if result.artifact and result.artifact.digest in seen}
    assert kinds == {StageName.SFT, StageName.REWARD, StageName.SAMPLE, StageName.LABEL, StageName.REFERENCE, StageName.TRAIN}


def test_the_same_work_is_found_and_not_computed_again(real_run: RealRun, fork_server: ForkServer, tmp_path: Path) -> None:
    outcome = fork_server.run(real_run.config(StageName.TRAIN), tmp_path)
    assert outcome.code == 0
    assert outcome.result is not None
    assert outcome.result.found
    assert outcome.result.artifact == real_run.result(StageName.TRAIN).artifact
    assert outcome.result.metrics == real_run.result(StageName.TRAIN).metrics


def test_preflight_of_the_same_run_finds_all_of_it(real_run: RealRun, fork_server: ForkServer, tmp_path: Path) -> None:
    outcome = fork_server.run(real_run.config(StageName.PREFLIGHT, None), tmp_path)
    assert outcome.result is not None
    assert outcome.result.adoptable == 8
    assert real_run.result(StageName.PREFLIGHT, None).adoptable == 0


def test_training_leaves_no_checkpoint_behind_and_every_stage_a_pointer(real_run: RealRun) -> None:
    store = open_store(real_run.storage)
    assert not list(store.list("checkpoint/"))
    pointers = {info.key.removeprefix(f"{run_folder(RUN)}/") for info in store.list(f"{run_folder(RUN)}/")}
    assert pointers >= {"run/sft.json", "run/reward.json", "run/evaluate.json", "best.json"}
    assert pointers >= {f"iteration-1/{stage}.json" for stage in ("sample", "label", "reference", "train", "evaluate")}
    best = json.loads(store.get(f"{run_folder(RUN)}/best.json"))
    assert best["best"] in (0, 1)
    assert [iterate["iterate"] for iterate in best["iterates"]] == [0, 1]


def test_kinds_are_where_the_layout_says(real_run: RealRun) -> None:
    for (_, stage), result in real_run.results.items():
        if result.artifact is not None:
            assert result.artifact.kind is STAGE_ARTIFACT[stage]
