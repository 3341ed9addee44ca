"""What a stage is started with: its name, its pods, its shards or ranks."""
