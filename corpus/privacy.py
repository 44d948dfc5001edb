"""Personal data to typed placeholders: <EMAIL>, <PHONE>, <IBAN>, <CARD>, <IP>, <FIN>, <ID>.

Capital letters in angle brackets: plain ASCII, no rule of the cleaner touches them, and they look like no special piece
of a tokenizer. A kind is found by its form, cards and IBANs also by their check digits. FIN (the personal code of an
identity card: seven letters and digits) and the series of identity cards and passports (AZE, AA, P, ... and digits) look
like many other codes, so they need a word that says what they are close before them.
"""

import re

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\bAZ\d{2} ?[A-Z]{4}(?: ?[A-Z0-9]{4}){5}\b")
_CARD = re.compile(r"(?<![\d.,-])[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d-])|(?<!\d)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?!\d)")
# International form of any Azerbaijani number, and the national form of the mobile prefixes and of Baku (012).
_GAP = r"[ .\u2013-]?(?: ?[-\u2013] ?)?"
_PREFIX = "0(?:10|12|50|51|55|60|70|77|99|2[0-6])"
_GROUPS = rf"\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}"
_PHONE = re.compile(
    rf"(?<![\d+])(?:(?:\+|00) ?994|994(?=[ (-]|(?:10|12|50|51|55|60|70|77|99)\d{{7}}(?!\d))){_GAP}"
    rf"(?:\(0?\d{{2}}\)|0?\d{{2}}){_GAP}{_GROUPS}(?!\d)"
    rf"|\((?:\+|00)994{_GAP}\d{{2}}\){_GAP}{_GROUPS}(?!\d)"
    rf"|(?<![\d.,/-])(?:\({_PREFIX}\)|{_PREFIX}){_GAP}{_GROUPS}(?![\d.,/-]?\d)"
)
# Numbers in other groups ("050 12 34 567", "493-00-00") only after a word for telephoning.
_CALL = re.compile(
    r"\b(?:tel|telefon\w{0,6}|mob|mobil|faks|fax|whats?app|wp|zəng|zeng|əlaqə|elaqe)\.?"
    r"(?: nömrə\w{0,6}| üçün| ucun)?[ :№–-]{1,4}"
    r"(\+?\(?\d(?:[ ()-]{0,2}\d){6,12})(?![\d.,/]?\d)",
    re.IGNORECASE,
)
_FIN = re.compile(
    r"\b(?:f[iİı]n(?:[ -]?kod\w{0,6})?|fərdi identifikasiya nömrə\w{0,6})[ :№–-]{1,4}([0-9A-Z]{7})(?![\w-])", re.IGNORECASE
)
_ID = re.compile(
    r"((?:\b(?:şəxsiyyət|vəsiqə|ş/v|pasport|seriya|ser\.)[^\n\d]{0,40}?)\b)"
    r"((?:AZE|AA|AB|AC|P|C|MYI|DYI)[ -]?(?:№|N)? ?\d{6,9}|(?:№|N) ?\d{7,9})(?!\d)"
    r"|()\b(AZE ?(?:№|N)? ?\d{8}|AA ?(?:№|N)? ?\d{7}(?= seriya))(?!\d)",
    re.IGNORECASE,
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP = re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\d|-)|\b(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}\b")
_IP_WORD = re.compile(r"\bIP(?:v[46])?\b[^\d\n]{0,30}$", re.IGNORECASE)


# What a text must hold before the slow patterns above are tried.
_FIN_WORD = re.compile(r"[Ff][iİIı][Nn]|[Ff]ərdi")
_MAY_CALL = re.compile(r"994|0[1-9]\d")
# Digits in groups as a phone, a card, an address or the number of a document has them; each begins with a plain class or
# character, so that the search passes over other text quickly.
_PHONE_DIGITS = re.compile(r"\d\d\d[ .\u2013-]{0,4}\d\d[ .\u2013-]{0,4}\d\d")
_CALL_DIGITS = re.compile(r"\d[ ()-]{0,2}\d[ ()-]{0,2}\d(?:[ ()-]{0,2}\d){4}")
_CARD_DIGITS = re.compile(r"\d\d{3}[ -]?\d{4}[ -]?\d\d")
_ID_DIGITS = re.compile(r"\d\d{5}")
_IP_DIGITS = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:")
_ID_WORDS = ("vəsiqə", "ş/v", "pasport", "seriya", "ser.", "aze", "şəxsiyyət")
_CALL_WORDS = ("tel", "mob", "faks", "fax", "whatsap", "wp", "zəng", "zeng", "əlaqə", "elaqe")


def hide_personal(text: str) -> tuple[str, dict[str, int]]:
    """Replace personal data in one text; returns (text, replacements per kind, only kinds that were found)."""
    counts: dict[str, int] = {}

    def hide(kind: str, pattern: re.Pattern, accept=None, group: int = 0) -> None:
        nonlocal text

        def replace(match: re.Match) -> str:
            if accept is not None and not accept(match):
                return match.group()
            counts[kind] = counts.get(kind, 0) + 1
            which = group if match.group(group) is not None else group + 2
            begin, end = (place - match.start() for place in match.span(which))
            return f"{match.group()[:begin]}<{kind}>{match.group()[end:]}"

        text = pattern.sub(replace, text)

    if "@" in text:
        hide("EMAIL", _EMAIL)
    digits = sum(map(text.count, "0123456789"))
    if digits < 1:
        return text, counts
    if _FIN_WORD.search(text):
        hide("FIN", _FIN, lambda match: _is_mixed(match.group(1)), 1)
    if digits < 4:
        return text, counts
    if "AZ" in text:
        hide("IBAN", _IBAN, lambda match: checks_iban(match.group()))
    if digits >= 6:
        small = text.lower()
        if _ID_DIGITS.search(text) and any(word in small for word in _ID_WORDS):
            hide("ID", _ID, None, 2)
        if digits >= 7 and _MAY_CALL.search(text) and _PHONE_DIGITS.search(text):
            hide("PHONE", _PHONE)
        if digits >= 7 and _CALL_DIGITS.search(text) and any(word in small for word in _CALL_WORDS):
            hide("PHONE", _CALL, None, 1)
    if digits >= 13 and _CARD_DIGITS.search(text):
        hide("CARD", _CARD, lambda match: luhn(match.group()))
    if (text.count(".") >= 3 or text.count(":") >= 7) and _IP_DIGITS.search(text):
        hide("IP", _IP, _is_address)
    return text, counts


def checks_iban(number: str) -> bool:
    """Whether an IBAN has the right check digits (ISO 7064: the rearranged number leaves 1 modulo 97)."""
    compact = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def _is_mixed(code: str) -> bool:
    """A FIN holds digits, and what is written in small letters alone is a word."""
    return any(map(str.isdigit, code)) and (code.isdigit() or code != code.lower())


def luhn(number: str) -> bool:
    """Whether the digits of `number` pass the check that payment cards carry (13 to 19 digits)."""
    digits = [int(character) for character in number if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_address(match: re.Match) -> bool:
    """Articles of laws are numbered like addresses (218.4.1.2): ask for the word IP or for four long parts."""
    if ":" in match.group() or _IP_WORD.search(match.string[max(0, match.start() - 40) : match.start()]):
        return True
    return all(len(part) > 1 for part in match.group().split("."))
