"""Files, folders, dumps and data sets to records; a record that cannot be read becomes a reject."""
