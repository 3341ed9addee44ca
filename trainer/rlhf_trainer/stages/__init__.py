"""One file a stage; each has `run(context) -> StageResult` and can be read from top to bottom."""
