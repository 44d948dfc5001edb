"""Raw text to clean, weighted documents in which every line that came in is accounted for."""
