"""A run's report: one static HTML file without script or external asset. collect → Report → page."""
