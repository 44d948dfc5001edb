"""The build in stages over units of work; each unit is a folder that is written atomically."""
