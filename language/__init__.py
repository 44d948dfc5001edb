"""Language packs: one file for each language, found by `language.base.load_language`."""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)  # a folder `language` elsewhere on PYTHONPATH may hold further packs
