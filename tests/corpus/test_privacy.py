import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.cleaning import privacy
from corpus.cleaning.privacy import luhn
from language import azerbaijani
from language.base import checks_iban
from tests.azerbaijani import hide_personal


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Yazın: ali.veli@example.co.az!", "Yazın: <EMAIL>!"),
        ("Tel: +994 50 123 45 67, 994 (12) 493-00-00", "Tel: <PHONE>, <PHONE>"),
        ("00994501234567 və ya (055) 123-45-67", "<PHONE> və ya <PHONE>"),
        ("(0551234567)", "(<PHONE>)"),
        ("AZ21NABZ00000000137010001944 hesabı", "<IBAN> hesabı"),
        ("Kart 4169 7388 0000 0009 və 4111111111111111", "Kart 4169 7388 0000 0009 və <CARD>"),
        ("FİN: 5ABC123, FIN kod 7XY12Z9, fin 1ab2C3D", "FİN: <FIN>, FIN kod <FIN>, fin <FIN>"),
        ("Şəxsiyyət vəsiqəsi: AZE № 12345678", "Şəxsiyyət vəsiqəsi: <ID>"),
        ("vəsiqəsinin seriyası AA1234567; pasport № P1234567", "vəsiqəsinin seriyası <ID>; pasport № <ID>"),
        ("AZE12345678 və AA 1234567 seriyalı", "<ID> və <ID> seriyalı"),
        ("Tel.: (+994 12) 493-00-00; faks 493 00 00", "Tel.: <PHONE>; faks <PHONE>"),
        ("050-123-45-67, 055.123.45.67, 0701234567, 994501234567", "<PHONE>, <PHONE>, <PHONE>, <PHONE>"),
        ("mobil nömrəsi: 050 12 34 567; WhatsApp: +90 532 123 45 67", "mobil nömrəsi: <PHONE>; WhatsApp: <PHONE>"),
        ("+994 (50) 123 45 67-yə zəng", "<PHONE>-yə zəng"),
        ("IP ünvanı: 10.0.0.1; server 85.132.44.121", "IP ünvanı: <IP>; server <IP>"),
    ],
)
def test_each_kind_is_found(text, hidden):
    assert hide_personal(text)[0] == hidden


@pytest.mark.parametrize(
    "text",
    [
        "Bu Məcəllənin 218.4.1.2-ci maddəsi, 102.1.14.10. bəndi",
        "1994-cü il, 12.05.2020, 1.000.000 manat, 0,55",
        "4111111111111112 kart deyil; 2024 2025 2026 2027",
        "versiya 1.2.3.4, @istifadəçi, a @ b",
        "VÖEN 1234567890",
        "AZ22NABZ00000000137010001944 yanlış yoxlama rəqəmi",
        "Final 2024-də, FİN Texnologiya, fin dili: telefon 2020",
        "Qanun № 1234567-IVQ, 12 iyul 2005-ci il, № 1152-VQD; Maddə 1234567",
        "jurnalının 3-cü nömrəsində 2025/2026-cı tədris ili; sifariş nömrəm 43505124104",
        "AA batareyası, A4 kağız, AZE komandası 2024",
    ],
)
def test_impersonal_numbers_stay(text):
    assert hide_personal(text) == (text, {})


def test_counts_per_kind():
    _, counts = hide_personal("a@b.az c@d.az +994501234567")
    assert counts == {"EMAIL": 2, "PHONE": 1}


@given(
    st.lists(
        st.sampled_from(["FİN: ", "5ABC123", "tel ", "050", " ", "123", "45", "67", "vəsiqə ", "AA", "+994", "1.2", ":", "\n"])
    )
)
def test_hiding_is_idempotent_and_counts_changes(parts):
    text = "".join(parts)
    once, counts = hide_personal(text)
    assert hide_personal(once) == (once, {})
    assert bool(counts) == (once != text)


def test_check_digits_of_accounts():
    assert checks_iban("AZ21 NABZ 0000 0000 1370 1000 1944")
    assert not checks_iban("AZ22NABZ00000000137010001944")


def test_articles_and_numbers_of_real_laws_stay(az_data):
    with gzip.open(az_data / "corpus" / "laws.jsonl.gz", "rt", encoding="utf-8") as file:
        assert not [line for line in list(file)[::10] if hide_personal(json.loads(line)["text"])[1]]


def test_luhn_check_digit():
    assert luhn("4111 1111 1111 1111")
    assert not any(luhn(f"411111111111111{digit}") for digit in "023456789")
    assert not luhn("0000")


@pytest.mark.parametrize(
    ("pattern", "quick"),
    [
        ("_PHONE", "_PHONE_DIGITS"),
        ("_CALL", "_CALL_DIGITS"),
        ("_CARD", "_CARD_DIGITS"),
        ("_ID", "_ID_DIGITS"),
        ("_IP", "_IP_DIGITS"),
    ],
)
@given(st.data())
def test_the_quick_test_accepts_every_match_of_the_slow_pattern(pattern, quick, data):
    rules = privacy if hasattr(privacy, pattern) else azerbaijani
    text = data.draw(st.from_regex(getattr(rules, pattern)))
    assert getattr(rules, quick).search(text)
