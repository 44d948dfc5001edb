"""The alphabet of a WordPiece vocabulary: the characters of the text, and common characters that the text may lack.

A word with one character that is not a token becomes [UNK] as a whole. New text has letters of other languages, signs and
emoji that a small corpus lacks, so the alphabet of a large vocabulary is filled up with those.
"""

from collections import Counter

from language.base import Language
from language.letters import ARABIC, CYRILLIC, GEORGIAN, GREEK, LATIN
from tokenization.normaliser import text_normalizer

ASCII = "".join(chr(point) for point in range(0x21, 0x7F))
TOKENS_PER_FILLER = 64  # vocabulary size for each added character of the alphabet: 1,000 of 64,000

# In order of preference: signs, emoji by frequency of use, letters of languages that are often quoted.
SIGNS = "«»–…№§°²³¹½¼¾µ±×÷≤≥≠≈∞√π‰•●○■□▪▫◆◇►▶★☆♥♡♦♣♠✓✔✖✗→←↑↓↔⇒₼€£¥₽₺₴₸₾¢©®™†‡¶·¿¡"
EMOJI = """😂❤😍😭😊😘😁👍🙏😩🔥👏😉💪😅😎💕🌹😢🎉🙌👌😔💙😋🤣🥰💖🤔😜🙈💔😆🙄😳😀😃😄😇🙂🤗😏😌😒😞😟😠😡😤😥😨😪
😫😬😮😰😱😲😴😵😷🤒🤢🤮🤧🥺🥳🤩🤪🤯🤫🤭🤐🤦🤷💁🙋🙆🙅👋👎👊✊✌🤞🤝🤲👐☝👇👆👉👈💯💥💫✨⭐🌟💋💘💗💓💞
💝💜💛💚🖤🤍🤎🧡❣💐🌸🌺🌷🌻🌼🥀🌿🍀🍂🌱🌲🌳🌍🌎🌙☀☁☔⛄❄⚡🌈🌊💧🐶🐱🐰🐻🐼🦁🐯🐷🐸🐵🐔🐦🦅🦋🐝🐞🐟🐠
🐬🐳🐴🐑🐈🐕🐾🍎🍊🍋🍌🍉🍇🍓🍒🍑🍅🍆🌶🌽🍞🧀🍖🍗🍔🍟🍕🍝🍚🍰🎂🍩🍪🍫🍬🍦☕🍵🍺🍻🥂🍷🍾🍴🏠🏡🏢🏥🏫🏰🕌🗼
🏙🌆🌃🚗🚕🚌🚓🚑🚒🚲🚀✈🚢🚆⚽🏀🏈⚾🎾🏐🏆🥇🥈🥉🏅🎮🎯🎲🎵🎶🎤🎧🎸🎹🎬🎥📷📸📹📺📱📲💻⌚☎📞📧📨📩📌📍📎
📝📚📖📕📰🔗🔍🔒🔓🔑🔔🔊📢📣💡💰💵💸💳💎🎁🎈🎊🎀👑👗👠👜👓💄💍💉💊🩺🧠👀👁👄👅👂👃👶👦👧👨👩👴👵👮👷👸👪
👫💑💃🕺🏃🚶🙇💆💇👻💀☠👽🤖🎃😈👿👹🤡💩😺😻🙉🙊🏳🏴🚩☪✝☮☯♻⚠⛔🚫❌❓❗‼⁉✅☑✏✂⏰⏳⌛🔴🔵🟢🟡⚫
⚪🔺🔻🔸🔹🔶🔷🔄🔁🔙🔜🔝🆕🆗🆘🤙🤘🤟🖐🤚👣💤💢💦💨🫶🥲🫠🫡🥹🤌🏻🏼🏽🏾🏿🇦🇿🇹🇷🇺🇬🇧🇮🇩🇪🇫\u200d\ufe0f\u20e3\u20bf"""
MARKS = "\u0301\u0300\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030c\u0323\u0327\u0328\u064b\u064e\u064f\u0650\u0651\u0652"
FILLERS = SIGNS + "".join(EMOJI.split()) + LATIN + CYRILLIC + MARKS + ARABIC + GREEK + GEORGIAN


def always(language: Language) -> str:
    """Characters that are always tokens: printable ASCII and the alphabet, so that a small sample lacks no letter."""
    return ASCII + language.alphabet + language.alphabet_upper


def choose_alphabet(
    words: dict[str, int], size: int, vocab_size: int, language: Language, lowercase: bool, transliterate: bool
) -> list[str]:
    """Characters that become tokens, sorted: `always`, and the `size` most frequent characters of `words` (word to count).

    If the text has fewer, FILLERS are added up to `size`, at most one for each TOKENS_PER_FILLER tokens of the vocabulary and
    only those that the normaliser leaves in a text.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    chosen = set(sorted(counts, key=lambda c: (-counts[c], c))[:size]) | set(always(language))
    room = min(size, vocab_size // TOKENS_PER_FILLER) - len(chosen)
    rules = text_normalizer(language, lowercase, transliterate)
    letters = FILLERS if lowercase else FILLERS + LATIN.upper() + CYRILLIC.upper() + GREEK.upper()
    kept = dict.fromkeys(c for c in letters if c not in chosen and rules.normalize_str(c) == c and not c.isspace())
    return sorted(chosen | set(list(kept)[: max(room, 0)]))
