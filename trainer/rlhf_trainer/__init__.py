"""The stages of a run: `python -m rlhf_trainer STAGE --config FILE`."""
