"""Rules of URIs: the store, models, data."""

from __future__ import annotations

import re

from rlhf_api.base import Model
from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.data import Source
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC, models

_PROMPTS: Loc = (*SPEC, "prompts", "source", "uri")
_STORAGE: Loc = (*SPEC, "storage")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


def store_is_shared(spec: RLHFRunSpec) -> Problems:
    """On a cluster every pod must reach the store: a folder is for one machine. Not a rule of local runs."""
    if spec.storage.url.startswith("file:"):
        yield Problem((*_STORAGE, "url"), "a folder, which pods on other nodes do not see", "write s3://bucket/prefix")


def certificates_are_files(spec: RLHFRunSpec) -> Problems:
    """A rule of local runs: only a cluster has ConfigMaps. Where the store is a folder, `store_settings_fit` says what is wrong."""
    storage = spec.storage
    if storage.ca_bundle is not None and not storage.url.startswith("file:"):
        yield Problem(
            (*_STORAGE, "caBundle"),
            "a ConfigMap, which a local run has none of",
            "remove it, and set the environment variable AWS_CA_BUNDLE to the file with the certificates",
            depends=((*_STORAGE, "url"),),
        )


def store_settings_fit(spec: RLHFRunSpec) -> Problems:
    storage = spec.storage
    if not storage.url.startswith("file:"):
        return
    given = {"endpointURL": storage.endpoint_url, "region": storage.region, "caBundle": storage.ca_bundle}
    for name, value in given.items():
        if value is not None:
            yield Problem((*_STORAGE, name), "a folder has none", f"remove {name}", depends=((*_STORAGE, "url"),))


def uris_are_whole(spec: RLHFRunSpec) -> Problems:
    """Absolute folders, names of hub repositories and of buckets."""
    yield from _uri((*_STORAGE, "url"), spec.storage.url)
    for loc, model in models(spec, SPEC):
        if isinstance(model, ModelRef | Source):
            yield from _uri((*loc, "uri"), model.uri)


def _uri(loc: Loc, uri: str) -> Problems:
    scheme, rest = uri.split("://", 1)
    if scheme == "file" and not rest.startswith("/"):
        yield Problem(loc, "not absolute", f"write file:///… (three slashes), as file:///{rest}")
    if scheme == "s3" and not _BUCKET.match(rest.split("/")[0]):
        yield Problem(
            loc,
            f"{rest.split('/')[0]!r} is no name of a bucket",
            "3 to 63 small letters, digits, - and ., a letter or digit at both ends",
        )
    if scheme == "hf" and (rest.count("/") != 1 or not all(rest.split("/"))):
        yield Problem(loc, "no repository of the hub", "write hf://owner/name")


def placeholders(spec: RLHFRunSpec) -> Problems:
    """{iteration} has a meaning in prompts.source.uri, and nothing in braces has one anywhere else."""
    for loc, model in models(spec, SPEC):
        for field, text in _texts(model):
            place = (*loc, field)
            for found in _PLACEHOLDER.findall(text):
                if place == _PROMPTS and found != "{iteration}":
                    yield Problem(place, f"{found} has no meaning", "write {iteration}, the one placeholder there is")
                elif place != _PROMPTS:
                    yield Problem(place, f"{found} has no meaning here", "only spec.prompts.source.uri may use {iteration}")


def _texts(model: Model) -> list[tuple[str, str]]:
    if isinstance(model, Source):
        return [("uri", model.uri), ("split", model.split), ("revision", model.revision or ""), ("config", model.config or "")]
    return [("uri", model.uri), ("revision", model.revision or "")] if isinstance(model, ModelRef) else []


def revisions_fit(spec: RLHFRunSpec) -> Problems:
    """Only a hub has revisions, a token and configurations."""
    for loc, model in models(spec, SPEC):
        if isinstance(model, ModelRef | Source) and not model.uri.startswith("hf:"):
            config = model.config if isinstance(model, Source) else None
            for name, value in (("revision", model.revision), ("credentials", model.credentials), ("config", config)):
                if value is not None:
                    yield Problem(
                        (*loc, name), "only a model or data set of a hub has this", f"remove {name}", depends=((*loc, "uri"),)
                    )


def held_out_leaves_some(spec: RLHFRunSpec) -> Problems:
    """Fractions of the same source."""
    prompts = spec.prompts
    validation, test = prompts.validation, prompts.test
    if test is None or validation.source is not None or test.source is not None:
        return
    held_out = (validation.fraction or 0.0) + (test.fraction or 0.0)
    if held_out >= 1.0:
        yield Problem(
            (*SPEC, "prompts", "test", "fraction"),
            f"together with validation.fraction {held_out:g} of the prompts are held out, and none are left to learn from",
            "write fractions whose sum is below 1",
            depends=((*SPEC, "prompts", "validation", "fraction"),),
        )
