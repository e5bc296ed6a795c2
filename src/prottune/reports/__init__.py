"""Pages that people read after a stage: one HTML file each, charts inside, nothing fetched from elsewhere."""
