"""A store on a file system and on S3."""
