"""Ground floor: errors with a remedy, files that arrive whole, and how the scripts start."""
