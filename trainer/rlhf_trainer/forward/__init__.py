"""The one forward pass: packed rows, log-probs, rewards; trainer, labelers, reference and evaluation share it."""
