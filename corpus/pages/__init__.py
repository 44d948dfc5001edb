"""A built corpus for a reader: terminal table, HTML report, data card."""
