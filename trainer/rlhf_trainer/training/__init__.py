"""One DeepSpeed loop, three losses: SFT, Bradley-Terry, DPO and its relatives."""
