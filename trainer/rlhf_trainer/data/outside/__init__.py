"""Where models and data sets come from: hubs, buckets, folders. What is asked of them, and what tells one version from another."""
