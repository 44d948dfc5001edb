"""Words that two neighbouring languages share in different spellings, some with another meaning: uşaq (child), uşak (servant).

Written by hand for the project; no speaker has checked the lists. Used to write a word as the neighbour does (see
language/perturbations.py), never to translate.
"""

_AZERBAIJANI_TURKISH = """və ve|də de|nə ne|hər her|mən ben|mənim benim|mənə bana|sənə sana|sənin senin|ilə ile|üçün için
kimi gibi|qədər kadar|deyil değil|bəzi bazı|digər diğer|əgər eğer|yəni yani|çünki çünkü|hətta hatta
həm hem|şəhər şehir|ölkə ülke|dövlət devlet|həyat hayat|vaxt vakit|qadın kadın|yaxın yakın|uzaq uzak
qırmızı kırmızı|qara kara|ağ ak|gecə gece|il yıl|həftə hafta|dəqiqə dakika|axşam akşam|böyük büyük
kiçik küçük|çox çok|ən en|dörd dört|yeddi yedi|səkkiz sekiz|doqquz dokuz|iyirmi yirmi|qırx kırk
əlli elli|səksən seksen|doxsan doksan|min bin|əl el|ayaq ayak|ürək yürek|kitab kitap|məktəb mektep
dərs ders|müəllim muallim|tələbə talebe|göy gök|dəniz deniz|işıq ışık|ağac ağaç|meşə meşe
çiçək çiçek|heyvan hayvan|balıq balık|quş kuş|çörək çörek|ət et|süd süt|duz tuz|xalq halk
millət millet|hökumət hükümet|qanun kanun|hüquq hukuk|siyasət siyaset|iqtisadiyyat iktisat|elm ilim
tarix tarih|mədəniyyət medeniyet|ədəbiyyat edebiyat|musiqi musiki|sənət sanat|düşmən düşman
qardaş kardeş|qız kız|uşaq uşak|qapı kapı|pəncərə pencere|divar duvar|kənd kent|bazar pazar
dükan dükkan|qiymət kıymet|vəzifə vazife|xəbər haber|qəzet gazete|məktub mektup|cavab cevap
məsələ mesele|səbəb sebep|nəticə netice|məqsəd maksat|vəziyyət vaziyet|hissə hisse|tərəf taraf
arxa arka|şərq şark|qərb garp|cənub cenup|dərin derin|yüksək yüksek|qısa kısa|soyuq soğuk
gözəl güzel|təzə taze|qoca koca|gənc genç|xəstə hasta|zəngin zengin|azad azat|məşhur meşhur
mühüm mühim|əsas esas|ümumi umumi|xüsusi hususi|müxtəlif muhtelif|heç hiç|belə böyle|elə öyle
necə nice|hansı hangi|harada nerede|əvvəl evvel|dünən dün|həmişə hemişe|bəlkə belki|artıq artık
hələ hala|görə göre|qarşı karşı|üzrə üzere|etmək etmek|olmaq olmak|gəlmək gelmek|getmək gitmek
vermək vermek|almaq almak|görmək görmek|bilmək bilmek|demək demek|yazmaq yazmak|oxumaq okumak
işləmək işlemek|yox yok|etdi etti|gəldi geldi|getdi gitti|edir ediyor|olur oluyor|gəlir geliyor
verir veriyor|deyir diyor|qrup grup|ərazi arazi|məlumat malumat|hadisə hadise|zərər zarar
təhlükə tehlike|xidmət hizmet|təbiət tabiat|sürət sürat|qüvvə kuvvet|müharibə muharebe|əsgər asker
şirkət şirket|fəaliyyət faaliyet|qayda kaide|məhsul mahsul|torpaq toprak|yarpaq yaprak"""
_KAZAKH_KYRGYZ = """және жана|бірақ бирок|үшін үчүн|болған болгон|болды болду|емес эмес|еді эле|бір бир|екі эки|үш үч
бес беш|жеті жети|сегіз сегиз|тоғыз тогуз|қала калаа|ел эл|су суу|тау тоо|тіл тил|қол кол|бас баш
ақ ак|қара кара|қызыл кызыл|жақсы жакшы|кіші кичи|жаңа жаңы|ескі эски|бұл бул|ол ал|біз биз|сіз сиз
олар алар|қандай кандай|қайда кайда|не эмне|кім ким|жоқ жок|барлық баардык|кейін кийин|кітап китеп
оқушы окуучу|ғылым илим|тарих тарых|халық калк|мемлекет мамлекет|үкімет өкмөт|қыз кыз|ұл уул
жүрек жүрөк|өмір өмүр|дүние дүйнө|уақыт убакыт|кеш кеч|ерте эрте|бүгін бүгүн|ертең эртең|кеше кече
іс иш|жұмыс жумуш|ұзақ узак|қысқа кыска|жоғары жогору|төмен төмөн|мың миң|сағат саат|орыс орус
қазақ казак|орта орто|осы ушул|сондай ошондой|мұндай мындай"""


def _read(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(pair.split()) for line in text.strip().split("\n") for pair in line.split("|")]
    return tuple((one, other) for one, other in pairs if one != other)


AZERBAIJANI_TURKISH = dict(_read(_AZERBAIJANI_TURKISH))
TURKISH_AZERBAIJANI = {turkish: azerbaijani for azerbaijani, turkish in AZERBAIJANI_TURKISH.items()}
KAZAKH_KYRGYZ = dict(_read(_KAZAKH_KYRGYZ))
