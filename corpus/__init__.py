"""Raw text to clean, weighted documents; every input record is accounted for."""
