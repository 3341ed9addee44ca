"""Artifacts and manifests over s3:// and file://. boto3 only, no torch."""

from .artifact import (
    Artifact,
    ArtifactWriter,
    Sealed,
    artifact_folder,
    artifact_url,
    find_artifact,
    manifest_key,
    open_artifact,
    remove_files,
    removed_files,
)
from .checkpoints import CheckpointRecord, Checkpoints
from .errors import (
    AccessDenied,
    AlreadyExists,
    ConditionalWritesUnsupported,
    Corrupted,
    DiskFull,
    Incomplete,
    NoSuchBucket,
    NotFound,
    NotWritable,
    StoreError,
    Unavailable,
    WrongEndpoint,
    WrongRegion,
)
from .logs import KeptLog, LogWriter, kept_logs, log_key, logs_folder
from .manifest import MANIFEST, ExternalModel, FileEntry, Manifest, ModelLineage
from .opening import open_store
from .pointers import Pointer, metrics_key, pointer_key, run_folder, write_pointer
from .shards import ShardRecord, commit_shard, committed_shards, remove_shards
from .store import ObjectInfo, Store
from .transfer import download_files

__all__ = [
    "MANIFEST",
    "AccessDenied",
    "AlreadyExists",
    "Artifact",
    "ArtifactWriter",
    "CheckpointRecord",
    "Checkpoints",
    "ConditionalWritesUnsupported",
    "Corrupted",
    "DiskFull",
    "ExternalModel",
    "FileEntry",
    "Incomplete",
    "KeptLog",
    "LogWriter",
    "Manifest",
    "ModelLineage",
    "NoSuchBucket",
    "NotFound",
    "NotWritable",
    "ObjectInfo",
    "Pointer",
    "Sealed",
    "ShardRecord",
    "Store",
    "StoreError",
    "Unavailable",
    "WrongEndpoint",
    "WrongRegion",
    "artifact_folder",
    "artifact_url",
    "commit_shard",
    "committed_shards",
    "download_files",
    "find_artifact",
    "kept_logs",
    "log_key",
    "logs_folder",
    "manifest_key",
    "metrics_key",
    "open_artifact",
    "open_store",
    "pointer_key",
    "remove_files",
    "remove_shards",
    "removed_files",
    "run_folder",
    "write_pointer",
]
