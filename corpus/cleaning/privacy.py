"""Typed placeholders for personal data: <EMAIL>, <CARD>, <IP>, and those of the language's pack: <PHONE>, <IBAN>, <ID> ...

A placeholder has capital letters in angle brackets: plain ASCII that no cleaning rule changes and that differs from every
special token of a tokenizer. A kind is found by its form, cards and IBANs also by their check digits. The forms of phone
and identity numbers depend on the country, so their rules are in the language's pack (language.base.PersonalRule).
"""

import re

from language.base import Language

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_CARD = re.compile(r"(?<![\d.,-])[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d-])|(?<!\d)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?!\d)")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IP = re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\d|-)|\b(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}\b")
_IP_WORD = re.compile(r"\bIP(?:v[46])?\b[^\d\n]{0,30}$", re.IGNORECASE)


# What a text must contain before the slow patterns above are tried.
_CARD_DIGITS = re.compile(r"\d\d{3}[ -]?\d{4}[ -]?\d\d")
_IP_DIGITS = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:")


def hide_personal(text: str, language: Language) -> tuple[str, dict[str, int]]:
    """Replace personal data in one text; returns (text, replacements of each kind found)."""
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
    for rule in language.personal:
        if digits >= rule.digits and rule.may(text):
            hide(rule.kind, rule.pattern, rule.accept, rule.group)
    if digits >= 13 and _CARD_DIGITS.search(text):
        hide("CARD", _CARD, lambda match: luhn(match.group()))
    if (text.count(".") >= 3 or text.count(":") >= 7) and _IP_DIGITS.search(text):
        hide("IP", _IP, _is_address)
    return text, counts


def luhn(number: str) -> bool:
    """Whether the digits of `number` (13 to 19) pass the check of payment cards."""
    digits = [int(character) for character in number if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_address(match: re.Match) -> bool:
    """Articles of laws are numbered like addresses (218.4.1.2): require the word IP or four long parts."""
    if ":" in match.group() or _IP_WORD.search(match.string[max(0, match.start() - 40) : match.start()]):
        return True
    return all(len(part) > 1 for part in match.group().split("."))
