"""Artifacts and manifests over s3:// and file://. boto3 only, no torch."""
