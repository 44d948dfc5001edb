"""Characters that are WordPiece pieces of their own: those of the text, and what a large vocabulary holds beside them.

A word with one character that is no piece becomes [UNK] as a whole. Text that nobody has seen yet holds letters of
neighbours, signs and emoji that a small corpus lacks, so a large vocabulary's alphabet is filled up with those.
"""

from collections import Counter

from language.azerbaijani import ALPHABET, ALPHABET_UPPER
from tokenization.normaliser import text_normalizer

# Characters that are always pieces: printable ASCII and the alphabet, so that no small sample lacks a letter.
ALWAYS = "".join(chr(point) for point in range(0x21, 0x7F)) + ALPHABET + ALPHABET_UPPER
PIECES_A_FILLER = 64  # of the vocabulary for each character of the alphabet that the text did not ask for: 1,000 of 64,000

# In the order in which they come in: signs, emoji by how widely they are used, letters of languages that are quoted.
SIGNS = "«»–…№§°²³¹½¼¾µ±×÷≤≥≠≈∞√π‰•●○■□▪▫◆◇►▶★☆♥♡♦♣♠✓✔✖✗→←↑↓↔⇒₼€£¥₽₺₴₸₾¢©®™†‡¶·¿¡"
EMOJI = """😂❤😍😭😊😘😁👍🙏😩🔥👏😉💪😅😎💕🌹😢🎉🙌👌😔💙😋🤣🥰💖🤔😜🙈💔😆🙄😳😀😃😄😇🙂🤗😏😌😒😞😟😠😡😤😥😨😪
😫😬😮😰😱😲😴😵😷🤒🤢🤮🤧🥺🥳🤩🤪🤯🤫🤭🤐🤦🤷💁🙋🙆🙅👋👎👊✊✌🤞🤝🤲👐☝👇👆👉👈💯💥💫✨⭐🌟💋💘💗💓💞
💝💜💛💚🖤🤍🤎🧡❣💐🌸🌺🌷🌻🌼🥀🌿🍀🍂🌱🌲🌳🌍🌎🌙☀☁☔⛄❄⚡🌈🌊💧🐶🐱🐰🐻🐼🦁🐯🐷🐸🐵🐔🐦🦅🦋🐝🐞🐟🐠
🐬🐳🐴🐑🐈🐕🐾🍎🍊🍋🍌🍉🍇🍓🍒🍑🍅🍆🌶🌽🍞🧀🍖🍗🍔🍟🍕🍝🍚🍰🎂🍩🍪🍫🍬🍦☕🍵🍺🍻🥂🍷🍾🍴🏠🏡🏢🏥🏫🏰🕌🗼
🏙🌆🌃🚗🚕🚌🚓🚑🚒🚲🚀✈🚢🚆⚽🏀🏈⚾🎾🏐🏆🥇🥈🥉🏅🎮🎯🎲🎵🎶🎤🎧🎸🎹🎬🎥📷📸📹📺📱📲💻⌚☎📞📧📨📩📌📍📎
📝📚📖📕📰🔗🔍🔒🔓🔑🔔🔊📢📣💡💰💵💸💳💎🎁🎈🎊🎀👑👗👠👜👓💄💍💉💊🩺🧠👀👁👄👅👂👃👶👦👧👨👩👴👵👮👷👸👪
👫💑💃🕺🏃🚶🙇💆💇👻💀☠👽🤖🎃😈👿👹🤡💩😺😻🙉🙊🏳🏴🚩☪✝☮☯♻⚠⛔🚫❌❓❗‼⁉✅☑✏✂⏰⏳⌛🔴🔵🟢🟡⚫
⚪🔺🔻🔸🔹🔶🔷🔄🔁🔙🔜🔝🆕🆗🆘🤙🤘🤟🖐🤚👣💤💢💦💨🫶🥲🫠🫡🥹🤌🏻🏼🏽🏾🏿🇦🇿🇹🇷🇺🇬🇧🇮🇩🇪🇫\u200d\ufe0f\u20e3\u20bf"""
LATIN = "âîûêôàèìòùáéíóúýäëïÿñãõåæøœßčšžćđěřůłńśźżąęőűňțţķļģāēīōūďťľßþðĝĥĵ" + "ạẹịọụẓḥṣṭḍḫṯ"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёәғҝөүһҹјіїєґңқұ"
MARKS = "\u0301\u0300\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030c\u0323\u0327\u0328\u064b\u064e\u064f\u0650\u0651\u0652"
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوىيءآأإئؤةپچژگکیەۇۆ،؛؟"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ"
GEORGIAN = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"
FILLERS = SIGNS + "".join(EMOJI.split()) + LATIN + CYRILLIC + MARKS + ARABIC + GREEK + GEORGIAN


def choose_alphabet(words: dict[str, int], size: int, vocab_size: int, lowercase: bool, transliterate: bool) -> list[str]:
    """Characters that are pieces, sorted: those of ALWAYS, the `size` most frequent of `words` (word to count), and
    where those are fewer FILLERS up to `size`, but no more of the whole than one in PIECES_A_FILLER of the vocabulary.

    A filler that the normaliser never leaves in a text is none.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    chosen = set(sorted(counts, key=lambda c: (-counts[c], c))[:size]) | set(ALWAYS)
    room = min(size, vocab_size // PIECES_A_FILLER) - len(chosen)
    rules = text_normalizer(lowercase, transliterate)
    letters = FILLERS if lowercase else FILLERS + LATIN.upper() + CYRILLIC.upper() + GREEK.upper()
    kept = dict.fromkeys(c for c in letters if c not in chosen and rules.normalize_str(c) == c and not c.isspace())
    return sorted(chosen | set(list(kept)[: max(room, 0)]))
