"""Letters quoted in text of any language, by script, in the order in which they fill up the alphabet of a large vocabulary."""

LATIN = "âîûêôàèìòùáéíóúýäëïÿñãõåæøœßčšžćđěřůłńśźżąęőűňțţķļģāēīōūďťľßþðĝĥĵ" + "ạẹịọụẓḥṣṭḍḫṯ"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёәғҝөүһҹјіїєґңқұ"
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوىيءآأإئؤةپچژگکیەۇۆ،؛؟"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ"
GEORGIAN = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"
