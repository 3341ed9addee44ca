"""What a program does with runs: read and check a manifest, submit it, steer. Nothing here prints."""
