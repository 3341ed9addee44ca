"""rlhfctl: submits and inspects runs, and drives them on this machine. Never imports torch."""
