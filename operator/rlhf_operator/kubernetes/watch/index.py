"""What the watches have told so far: runs, their Jobs and Pods. It may lag behind; what matters is read live before acting.

Objects are kept as compressed text of what an observation reads, a twentieth of what they take as dictionaries.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_api.words import Phase
from rlhf_operator.kubernetes.api.resources import Json
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey, run_of
from rlhf_operator.kubernetes.objects.trim import trimmed

#: Objects that were removed, of which an answer may still be on its way.
_GONE_KEPT = 10_000


class _Place(NamedTuple):
    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True)
class _Entry:
    run: RunKey
    uid: str
    version: int
    text: bytes
    stamp: int
    """When it was put, on the index's own clock of changes."""
    phase: str
    """Of a run, so that counting them reads no texts."""


class Index:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[_Place, _Entry] = {}
        self._children: dict[RunKey, set[_Place]] = {}
        self._removed: dict[_Place, int] = {}
        self._gone: dict[str, int] = {}
        """Versions at which objects were removed, by uid: what was read before that and comes after it brings nothing back."""
        self._stamp = 0

    # --- what handlers and the relist tell ---

    def put(self, kind: Kind, obj: Json) -> RunKey | None:
        """The run to look at; None where nothing of interest has changed, or the object is no run's."""
        key = run_of(kind, obj)
        if key is None:
            return None
        text = _text(kind, obj)
        with self._lock:
            place, uid, version = _place(kind, obj), obj["metadata"]["uid"], _version(obj)
            known = self._entries.get(place)
            # One that left by its labels, and not for good, comes back with a newer version.
            if version <= self._gone.get(uid, -1) or (known is not None and known.uid == uid and known.version > version):
                return None
            return key if self._put(place, key, obj, text) else None

    def remove(self, kind: Kind, obj: Json) -> RunKey | None:
        """The run to look at; None where the object was not known, or another one has its name by now."""
        place = _place(kind, obj)
        with self._lock:
            known = self._entries.get(place)
            self._gone[obj["metadata"]["uid"]] = max(_version(obj), known.version if known is not None else 0)
            if len(self._gone) > _GONE_KEPT:
                del self._gone[next(iter(self._gone))]
            if known is None or known.uid != obj["metadata"]["uid"]:
                return None
            self._drop(place)
            self._stamp += 1
            self._removed[place] = self._stamp
            return known.run

    def mark(self) -> int:
        """Take it before a list is asked for, and give it to `replace` with what the list says."""
        with self._lock:
            return self._stamp

    def replace(self, kind: Kind, objs: Iterable[Json], *, since: int | None = None, namespace: str | None = None) -> set[RunKey]:
        """The list of all objects of a kind (in a namespace): the runs of which something came, changed or vanished.

        What the watches told after `since` is newer than the list and stays.
        """
        listed = {}
        for obj in objs:
            key = run_of(kind, obj)
            if key is not None:
                listed[_place(kind, obj)] = (key, _identity(kind, obj), _text(kind, obj))
        with self._lock:
            since = self._stamp if since is None else since
            touched = set()
            for place, (key, obj, text) in listed.items():
                known = self._entries.get(place)
                newer = self._removed.get(place, 0) > since or (known is not None and known.stamp > since)
                if not newer and self._put(place, key, obj, text):
                    touched.add(key)
            for place, known in list(self._entries.items()):
                inside = place.kind is kind and namespace in (None, place.namespace)
                if inside and place not in listed and known.stamp <= since:
                    touched.add(known.run)
                    self._drop(place)
            self._removed = {place: stamp for place, stamp in self._removed.items() if place.kind is not kind or stamp > since}
            return touched

    # --- what is asked ---

    def keys(self) -> set[RunKey]:
        """Of all runs."""
        with self._lock:
            return {entry.run for place, entry in self._entries.items() if place.kind is Kind.RUN}

    def run(self, key: RunKey) -> Json | None:
        with self._lock:
            entry = self._entries.get(_Place(Kind.RUN, *key))
        return None if entry is None else _object(entry)

    def children(self, kind: Kind, key: RunKey) -> list[Json]:
        """Jobs or Pods that carry the run's name as label; whose they really are, their owners say."""
        with self._lock:
            entries = [self._entries[place] for place in sorted(self._children.get(key, ())) if place.kind is kind]
        return [_object(entry) for entry in entries]

    def phases(self) -> Counter[str]:
        """How many runs are in each phase; one without a status is pending."""
        with self._lock:
            return Counter(entry.phase for place, entry in self._entries.items() if place.kind is Kind.RUN)

    def count(self, kind: Kind) -> int:
        with self._lock:
            return sum(place.kind is kind for place in self._entries)

    # --- with the lock held ---

    def _put(self, place: _Place, key: RunKey, obj: Json, text: bytes) -> bool:
        known = self._entries.get(place)
        if known is not None and known.run != key:
            self._drop(place)
        self._stamp += 1
        self._entries[place] = _Entry(key, obj["metadata"]["uid"], _version(obj), text, self._stamp, _phase(place.kind, obj))
        self._removed.pop(place, None)
        if place.kind is not Kind.RUN:
            self._children.setdefault(key, set()).add(place)
        return known is None or known.text != text

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place)
        places = self._children.get(entry.run, set())
        places.discard(place)
        if not places:
            self._children.pop(entry.run, None)


def _place(kind: Kind, obj: Json) -> _Place:
    return _Place(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


def _version(obj: Json) -> int:
    """Versions of one object can be compared: the API promises it from 1.35 on, etcd has always kept it."""
    version = str(obj["metadata"].get("resourceVersion") or 0)
    return int(version) if version.isdigit() else 0


def _object(entry: _Entry) -> Json:
    obj: Json = json.loads(zlib.decompress(entry.text))
    obj["metadata"]["resourceVersion"] = str(entry.version)
    return obj


def _text(kind: Kind, obj: Json) -> bytes:
    """What an observation reads of the object, without its version: text that is equal means that nothing has changed for us."""
    text = json.dumps(trimmed(kind, obj), separators=(",", ":"), sort_keys=True)
    return zlib.compress(text.encode(), level=1)


def _phase(kind: Kind, obj: Json) -> str:
    return (obj.get("status") or {}).get("phase") or Phase.PENDING if kind is Kind.RUN else ""


def _identity(kind: Kind, obj: Json) -> Json:
    """What `_put` reads of an object beside its text."""
    kept = {"name", "namespace", "uid", "resourceVersion"}
    metadata = {name: value for name, value in obj["metadata"].items() if name in kept}
    return {"metadata": metadata, "status": {"phase": _phase(kind, obj)}}
