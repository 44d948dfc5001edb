"""Similar texts: exact and near duplicates, and task items inside the corpus."""
