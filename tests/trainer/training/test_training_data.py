"""What a training is given, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.model import Dtype, ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Loss, WarmStart
from rlhf_api.stage import ModelInput, PolicyInput, ReferenceWork, SftWork, StageConfig, TrainWork
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store, remove_files
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.layouts import demonstrations_of, preferences_of
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing, build_batch
from rlhf_trainer.models import heads
from rlhf_trainer.models.folder import MASTER_FILE, model_folder
from rlhf_trainer.models.heads import use_language_head
from rlhf_trainer.models.loading import without_dropout
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import train
from rlhf_trainer.stages.train import GUARD_TOLERANCE
from rlhf_trainer.training.job import ObjectiveName, TrainingJob
from rlhf_trainer.training.objectives import PreferenceObjective, SupervisedObjective
from rlhf_trainer.training.prepared.encoding import Comparison, encode_demonstrations, encode_preferences
from rlhf_trainer.training.prepared.recipe import whole
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal
from support.runs import RUN, spec_of, walk
from support.stages import config_of, context_of
from support.tiny_models import load, random_pairs, save_tiny_llama
from support.vocabularies import LLAMA3, template, tokenizer, vocabulary


def sft_config(world: Path, storage: Storage, **changes: Any) -> StageConfig:
    work = SftWork.model_validate(
        {
            "policy": PolicyInput(model=ModelInput(source=ModelRef(uri=f"file://{world}/model")), dtype=Dtype.FLOAT32),
            "data": [{"name": "demonstrations", "uri": f"file://{world}/demonstrations.parquet"}],
            "optimization": {"learningRate": 1e-3, "globalBatchSize": 4},
            "maxLength": 26,
            "deepspeed": {},
            **changes,
        }
    )
    return config_of(work, storage, iteration=None)


def test_defect_training_on_nothing_is_an_error(world: Path, storage: Storage, tmp_path: Path) -> None:
    context = context_of(sft_config(world, storage), tmp_path)
    work = context.config.work
    assert isinstance(work, SftWork)
    job, vocabulary = new_job(context, ObjectiveName.SUPERVISED, work.policy, work)
    counts = {"pairsRead": 7, "pairsPromptTooLong": 7}
    with pytest.raises(ConfigurationProblem, match=r"nothing to train on \(pairsPromptTooLong 7, pairsRead 7\)") as raised:
        train_and_seal(context, job, 0, vocabulary, Lineage([]), counts)
    assert raised.value.reason == "NoData"


def test_defect_policy_and_reference_are_loaded_in_one_dtype() -> None:
    """The released trainer loaded the policy in fp16 against a reference in bf16."""
    from rlhf_operator.core.plan.planner import Planner

    for dtype in ("bfloat16", "float32"):
        spec = spec_of(policy={"model": {"uri": "hf://example/base"}, "dtype": dtype})
        configs, _ = walk(Planner(RUN, spec))
        used = [work.reference.dtype for work in (c.work for c in configs) if isinstance(work, ReferenceWork)]
        for work in (c.work for c in configs):
            if isinstance(work, TrainWork):
                assert work.reference is not None
                used += [work.start.dtype, work.reference.dtype]
        assert len(used) == 6
        assert set(used) == {Dtype(dtype)}


def test_defect_the_trainer_never_computes_reference_log_probs_in_its_loop(tmp_path: Path) -> None:
    """One forward for a batch: the reference's log-probs come with the pairs."""
    model = load(save_tiny_llama(tmp_path / "model"))
    use_language_head(model)
    forwards: list[object] = []
    model.base_model.register_forward_hook(lambda *arguments: forwards.append(arguments[0]))
    pairs = random_pairs(3)
    first = PreferenceObjective(Loss())(model, build_batch([pairs]))
    assert len(forwards) == 1
    moved = [Example(p.prompt, p.completions, None, reference=(p.reference[0] - 5.0, p.reference[1])) for p in pairs]
    second = PreferenceObjective(Loss(beta=0.1))(model, build_batch([moved]))
    assert second.metrics["rewards/chosen"] - first.metrics["rewards/chosen"] == pytest.approx(3 * 0.5, abs=1e-4)


def test_the_accuracy_of_demonstrations_is_how_often_the_most_likely_token_is_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TRL's mean_token_accuracy; a token that leads with less than half of the probability counts too."""
    monkeypatch.setattr(heads, "CHUNK", 3)
    model = load(save_tiny_llama(tmp_path / "model"))
    ids = [5, 9]
    with torch.no_grad():
        while len(ids) < 12:
            logits = model(torch.tensor([ids])).logits[0, -1]
            # Every other token is the one that the model would say; none has half of the probability.
            assert float(logits.softmax(-1).max()) < 0.5
            ids.append(int(logits.argsort()[-1 - len(ids) % 2]))
    use_language_head(model)
    summed = SupervisedObjective()(model, build_batch([[Example(ids[:2], [ids[2:]])]]))
    assert summed.metrics == {"mean_token_accuracy": 5.0}
    summed.loss.backward()


@pytest.mark.parametrize("dtype", list(Dtype))
def test_the_guard_passes_the_reference_and_stops_every_other(tmp_path: Path, dtype: Dtype) -> None:
    """Cached log-probs of: the reference itself, packed differently; other weights; prompts under another template."""
    from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm

    folder = save_tiny_llama(tmp_path / "reference")
    model = load_causal_lm(folder, TORCH_DTYPE[dtype])
    examples = random_pairs(6, reference=False)

    def cached(under: Any, pairs: list[Example], packing: Packing) -> dict[int, tuple[float, ...]]:
        found: dict[int, tuple[float, ...]] = {}
        for batch in score_examples(under, pairs, packing):
            for number, example in enumerate(batch.examples):
                found[id(example)] = tuple(batch.logps[2 * number : 2 * number + 2])
        return found

    def with_cache(of: dict[int, tuple[float, ...]], pairs: list[Example]) -> list[Example]:
        return [
            Example(example.prompt, example.completions, None, reference=of[id(pair)])
            for example, pair in zip(examples, pairs, strict=True)
        ]

    own = with_cache(cached(model, examples, Packing(1, 1)), examples)
    templated = [Example([3, 9, *example.prompt[1:], 9], example.completions) for example in examples]
    other_template = with_cache(cached(model, templated, Packing(64, 256)), templated)
    other = load_causal_lm(save_tiny_llama(tmp_path / "other", seed=1), TORCH_DTYPE[dtype])
    other_weights = with_cache(cached(other, examples, Packing(64, 256)), examples)
    check(folder, dtype, own)
    for wrong in (other_template, other_weights):
        with pytest.raises(ConfigurationProblem, match="nats per token") as raised:
            check(folder, dtype, wrong)
        assert raised.value.reason == "ReferenceMismatch"


def small_vocabulary() -> Vocabulary:
    return vocabulary(tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4]))


def check(folder: Path, dtype: Dtype, examples: list[Example]) -> None:
    from rlhf_trainer.training.job import Guard
    from rlhf_trainer.training.rank.guard import check_reference

    guard = Guard(reference_folder=str(folder), tolerance=GUARD_TOLERANCE[dtype])
    check_reference(guard, dtype, examples, torch.device("cpu"), Packing(64, 256))


def test_demonstrations_are_cut_counted_and_dropped_with_a_reason(world: Path, storage: Storage, tmp_path: Path) -> None:
    context = context_of(sft_config(world, storage), tmp_path)
    work = context.config.work
    assert isinstance(work, SftWork)
    _, vocabulary = new_job(context, ObjectiveName.SUPERVISED, work.policy, work)
    source = work.data[0].model_copy(update={"max_unusable_rows": 0.5})
    question, answer = {"role": "user", "content": "sort : moon river"}, {"role": "assistant", "content": "moon river"}
    counts: dict[str, int] = {}
    rows = [{"messages": [question, answer]}, {"messages": [question]}, {"messages": [question, answer] * 3}]
    items, tally = demonstrations_of(source, rows, "sft.data").read(rows)
    found = encode_demonstrations(items, tally, vocabulary, 14, counts)
    tally.report(counts)
    assert counts == {"conversations": 2, "conversationsTruncated": 1, "unusable/noAnswer": 1, "layout/Messages": 2}
    assert [len(example.completions[0]) for example in found] == [11, 14]


def test_training_drops_nothing_at_random() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Starcoder2Config, Starcoder2ForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=16, attention_dropout=0.5))
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    )
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    drops = {"attention_dropout": 0.5, "residual_dropout": 0.5, "embedding_dropout": 0.5}
    starcoder = Starcoder2ForCausalLM(Starcoder2Config(**sizes, intermediate_size=16, num_key_value_heads=2, **drops))
    for model in (llama, gpt2, starcoder):
        dropped = model.train()(input_ids=ids).logits
        whole = model.eval()(input_ids=ids).logits
        assert not torch.equal(dropped, whole), "it has dropout"
        torch.testing.assert_close(without_dropout(model).train()(input_ids=ids).logits, whole)


@pytest.mark.parametrize(
    ("chosen", "rejected", "scores", "reason"),
    [
        ("a", "a", (None, None), "pairsEqual"),
        ("a", "b", (1.0, 1.0), "pairsTied"),
        ("a", "b", (0.0, 1.0), "pairsTied"),
        ("a", "b", (1.0, 0.8), "pairsBelowMargin"),
        ("a", "b", (1.0, 0.0), None),
        ("a", "b", (None, None), None),
    ],
)
def test_preferences_are_cleaned_and_every_drop_has_a_reason(
    chosen: str, rejected: str, scores: tuple[float | None, float | None], reason: str | None
) -> None:
    row = {"prompt": "q", "chosen": chosen, "rejected": rejected, "chosen_score": scores[0], "rejected_score": scores[1]}
    items, tally = preferences_of(DataSource(name="d", uri="file:///d"), [row], "data").read([row])
    counts: dict[str, int] = {}
    found = encode_preferences(items, tally, small_vocabulary(), Comparison(whole(99), 0.5), counts)
    assert counts == {"pairsRead": 1} | ({reason: 1} if reason else {})
    assert len(found) == (reason is None)


def test_a_warm_start_takes_masters_where_they_are_and_where_the_manifest_wants_them(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    store = open_store(storage)
    writer = ArtifactWriter(store, ArtifactKind.POLICY, "a" * 64)
    writer.add_bytes(b"fp32", MASTER_FILE)
    writer.add_bytes(b"{}", "config.json")
    sealed = writer.seal(stage=StageName.TRAIN)
    context = context_of(sft_config(world, storage), tmp_path)
    outside = ModelInput(source=ModelRef(uri=f"file://{world}/model"))

    def masters(warm_start: str, model: ModelInput, folder: Path) -> str | None:
        work = SimpleNamespace(warm_start=WarmStart(warm_start), start=SimpleNamespace(model=model))
        return train._master_weights(context, folder, work)  # type: ignore[arg-type]

    own = ModelInput(artifact=sealed.ref)
    assert masters("Master", outside, world / "model") is None
    folder = model_folder(context, own)
    assert masters("Exported", own, folder) is None
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["config.json"]
    assert masters("Master", own, folder) == str(folder / MASTER_FILE)
    assert (folder / MASTER_FILE).read_bytes() == b"fp32"

    remove_files(open_artifact(store, sealed.ref), [MASTER_FILE])
    without = open_artifact(store, sealed.ref).fetch(tmp_path / "again")
    assert masters("Exported", own, without) is None
    # Going on from the export would be other work under the same fingerprint.
    with pytest.raises(ConfigurationProblem, match=r"checkpoints: Delete.*warmStart: Exported"):
        masters("Master", own, without)


def test_a_job_reads_back_as_it_was_written(tmp_path: Path, world: Path, storage: Storage) -> None:
    context = context_of(sft_config(world, storage), tmp_path)
    work = context.config.work
    assert isinstance(work, SftWork)
    job, _ = new_job(context, ObjectiveName.SUPERVISED, work.policy, work)
    job.write()
    assert TrainingJob.read(job.job_file) == job
