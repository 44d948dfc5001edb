import pytest

from corpus.privacy import hide_personal, luhn


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Yazın: ali.veli@example.co.az!", "Yazın: <EMAIL>!"),
        ("Tel: +994 50 123 45 67, 994 (12) 493-00-00", "Tel: <PHONE>, <PHONE>"),
        ("00994501234567 və ya (055) 123-45-67", "<PHONE> və ya <PHONE>"),
        ("(0551234567)", "(<PHONE>)"),
        ("AZ21NABZ00000000137010001944 hesabı", "<IBAN> hesabı"),
        ("Kart 4169 7388 0000 0009 və 4111111111111111", "Kart 4169 7388 0000 0009 və <CARD>"),
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
    ],
)
def test_numbers_that_are_nobodys_stay(text):
    assert hide_personal(text) == (text, {})


def test_counts_per_kind():
    _, counts = hide_personal("a@b.az c@d.az +994501234567")
    assert counts == {"EMAIL": 2, "PHONE": 1}


def test_luhn_knows_the_check_digit():
    assert luhn("4111 1111 1111 1111")
    assert not any(luhn(f"411111111111111{digit}") for digit in "023456789")
    assert not luhn("0000")
