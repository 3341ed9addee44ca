"""Labelers score responses. The training reward and the judge are both one of these."""
