"""Personal data to typed placeholders: <EMAIL>, <PHONE>, <IBAN>, <CARD>, <IP>.

Capital letters in angle brackets: plain ASCII, no rule of the cleaner touches them, and they look like no special piece
of a tokenizer. Each kind is found by its form alone, cards also by their check digit.
"""

import re

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\bAZ\d{2} ?[A-Z]{4}(?: ?[A-Z0-9]{4}){5}\b")
_CARD = re.compile(r"(?<![\d.,-])[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d-])|(?<!\d)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?!\d)")
# International form of any Azerbaijani number, and the national form of the mobile prefixes and of Baku (012).
_GAP, _PREFIX = r"[ .-]?", "0(?:10|12|50|51|55|60|70|77|99)"
_PHONE = re.compile(
    rf"(?<![\d+])(?:(?:\+|00)994|994(?=[ (-])){_GAP}"
    rf"(?:\(0?\d{{2}}\)|0?\d{{2}}){_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}(?!\d)"
    rf"|(?<![\d.,/-])(?:\({_PREFIX}\)|{_PREFIX}){_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}(?![\d.,/-]?\d)"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP = re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\d|-)|\b(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}\b")
_IP_WORD = re.compile(r"\bIP(?:v[46])?\b[^\d\n]{0,30}$", re.IGNORECASE)


def hide_personal(text: str) -> tuple[str, dict[str, int]]:
    """Replace personal data in one text; returns (text, replacements per kind, only kinds that were found)."""
    counts: dict[str, int] = {}

    def hide(kind: str, pattern: re.Pattern, accept=None) -> None:
        nonlocal text

        def replace(match: re.Match) -> str:
            if accept is not None and not accept(match):
                return match.group()
            counts[kind] = counts.get(kind, 0) + 1
            return f"<{kind}>"

        text = pattern.sub(replace, text)

    if "@" in text:
        hide("EMAIL", _EMAIL)
    digits = sum(map(text.count, "0123456789"))
    if digits < 4:
        return text, counts
    if "AZ" in text:
        hide("IBAN", _IBAN)
    if digits >= 9:
        hide("PHONE", _PHONE)
    if digits >= 13:
        hide("CARD", _CARD, lambda match: luhn(match.group()))
    if text.count(".") >= 3 or text.count(":") >= 7:
        hide("IP", _IP, _is_address)
    return text, counts


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
