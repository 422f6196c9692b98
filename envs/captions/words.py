"""Words of captions in five languages: nouns with their genders, colours with their endings.

Whole phrases are written wherever a language would inflect: things stand in the nominative in
German and Czech, places come with their preposition.
"""

from typing import NamedTuple

LANGUAGES = ("en", "de", "fr", "cs", "zh")
"""English first: the others are for tests only."""


class Noun(NamedTuple):
    """A thing in five languages.

    Attributes:
        en: English.
        de: German, its gender (m, f, n) first.
        fr: French, likewise (m, f).
        cs: Czech, likewise (m, f, n).
        zh: Chinese, its measure word first.
    """

    en: str
    de: str
    fr: str
    cs: str
    zh: str


class Place(NamedTuple):
    """A place: what it is called in English, and "in the place" in the other languages."""

    en: str
    de: str
    fr: str
    cs: str
    zh: str


NOUNS: dict[str, Noun] = {
    # Of the houses.
    "bed": Noun("bed", "n Bett", "m lit", "f postel", "张 床"),
    "sofa": Noun("sofa", "n Sofa", "m canapé", "f pohovka", "张 沙发"),
    "armchair": Noun("armchair", "m Sessel", "m fauteuil", "n křeslo", "把 扶手椅"),
    "chair": Noun("chair", "m Stuhl", "f chaise", "f židle", "把 椅子"),
    "stool": Noun("stool", "m Hocker", "m tabouret", "f stolička", "张 凳子"),
    "table": Noun("table", "m Tisch", "f table", "m stůl", "张 桌子"),
    "dining table": Noun(
        "dining table", "m Esstisch", "f table à manger", "m jídelní stůl", "张 餐桌"
    ),
    "coffee table": Noun(
        "coffee table", "m Couchtisch", "f table basse", "m konferenční stolek", "张 茶几"
    ),
    "desk": Noun("desk", "m Schreibtisch", "m bureau", "m psací stůl", "张 书桌"),
    "chest": Noun("chest of drawers", "f Kommode", "f commode", "f komoda", "个 五斗柜"),
    "nightstand": Noun(
        "nightstand", "m Nachttisch", "f table de chevet", "m noční stolek", "个 床头柜"
    ),
    "wardrobe": Noun("wardrobe", "m Kleiderschrank", "f armoire", "f šatní skříň", "个 衣柜"),
    "sideboard": Noun("sideboard", "f Anrichte", "m buffet", "m příborník", "个 餐具柜"),
    "television": Noun("television", "m Fernseher", "m téléviseur", "m televizor", "台 电视机"),
    "bookcase": Noun("bookcase", "n Bücherregal", "f bibliothèque", "f knihovna", "个 书架"),
    "shelf": Noun("shelf", "n Regal", "f étagère", "m regál", "个 架子"),
    "kitchen sink": Noun("kitchen sink", "f Spüle", "m évier", "m kuchyňský dřez", "个 厨房水槽"),
    "stove": Noun("stove", "m Herd", "f cuisinière", "m sporák", "个 炉灶"),
    "fridge": Noun("fridge", "m Kühlschrank", "m réfrigérateur", "f lednička", "台 冰箱"),
    "kitchen island": Noun(
        "kitchen island",
        "f Kücheninsel",
        "m îlot de cuisine",
        "m kuchyňský ostrůvek",
        "个 厨房岛台",
    ),
    "toilet": Noun("toilet", "f Toilette", "f cuvette de toilettes", "m záchod", "个 马桶"),
    "sink": Noun("sink", "n Waschbecken", "m lavabo", "n umyvadlo", "个 洗手池"),
    "bathtub": Noun("bathtub", "f Badewanne", "f baignoire", "f vana", "个 浴缸"),
    "shower": Noun("shower", "f Dusche", "f douche", "m sprchový kout", "个 淋浴间"),
    "washing machine": Noun(
        "washing machine", "f Waschmaschine", "f machine à laver", "f pračka", "台 洗衣机"
    ),
    "laundry basket": Noun(
        "laundry basket", "m Wäschekorb", "m panier à linge", "m koš na prádlo", "个 洗衣篮"
    ),
    "plant": Noun("plant", "f Pflanze", "f plante", "f rostlina", "盆 植物"),
    "fireplace": Noun("fireplace", "m Kamin", "f cheminée", "m krb", "个 壁炉"),
    "floor lamp": Noun("floor lamp", "f Stehlampe", "m lampadaire", "f stojací lampa", "盏 落地灯"),
    "picture": Noun("picture", "n Bild", "m tableau", "m obraz", "幅 画"),
    "notice board": Noun(
        "notice board", "f Pinnwand", "m tableau d'affichage", "f nástěnka", "块 布告板"
    ),
    "mirror": Noun("mirror", "m Spiegel", "m miroir", "n zrcadlo", "面 镜子"),
    "towel": Noun("towel", "n Handtuch", "f serviette", "m ručník", "条 毛巾"),
    "rug": Noun("rug", "m Teppich", "m tapis", "m koberec", "块 地毯"),
    "treadmill": Noun("treadmill", "n Laufband", "m tapis de course", "m běžecký pás", "台 跑步机"),
    "weight bench": Noun(
        "weight bench", "f Hantelbank", "m banc de musculation", "f posilovací lavice", "张 举重凳"
    ),
    "bench": Noun("bench", "f Bank", "m banc", "f lavice", "条 长凳"),
    "column": Noun("column", "f Säule", "f colonne", "m sloup", "根 柱子"),
    # Of the table.
    "duck": Noun(
        "toy duck", "f Spielzeugente", "m canard en plastique", "f kachnička", "只 玩具鸭"
    ),
    "teddy": Noun("teddy bear", "m Teddybär", "m ours en peluche", "m plyšový medvěd", "只 泰迪熊"),
    "mug": Noun("mug", "f Tasse", "f tasse", "m hrnek", "个 杯子"),
    "ball": Noun("ball", "m Ball", "m ballon", "m míč", "个 球"),
    "domino": Noun("domino", "m Dominostein", "m domino", "n domino", "块 多米诺骨牌"),
    "ring": Noun("ring", "m Ring", "m anneau", "m kruh", "个 圆环"),
    "rabbit": Noun("rabbit", "m Hase", "m lapin", "m králík", "只 兔子"),
    "tray": Noun("tray", "n Tablett", "m plateau", "m tác", "个 托盘"),
    "cube": Noun("cube", "m Würfel", "m cube", "f kostka", "个 方块"),
    "plank": Noun("plank", "n Brett", "f planche", "n prkno", "块 木板"),
    "block": Noun("block", "m Klotz", "m bloc", "m kvádr", "块 积木"),
}
"""Things by the name that facts give them."""

PLACES: dict[str, Place] = {
    "living room": Place(
        "living room", "im Wohnzimmer", "dans le salon", "v obývacím pokoji", "客厅里"
    ),
    "kitchen": Place("kitchen", "in der Küche", "dans la cuisine", "v kuchyni", "厨房里"),
    "dining room": Place(
        "dining room", "im Esszimmer", "dans la salle à manger", "v jídelně", "餐厅里"
    ),
    "office": Place("office", "im Büro", "dans le bureau", "v pracovně", "办公室里"),
    "laundry room": Place(
        "laundry room", "in der Waschküche", "dans la buanderie", "v prádelně", "洗衣房里"
    ),
    "gym": Place("gym", "im Fitnessraum", "dans la salle de sport", "v posilovně", "健身房里"),
    "bedroom": Place("bedroom", "im Schlafzimmer", "dans la chambre", "v ložnici", "卧室里"),
    "bathroom": Place(
        "bathroom", "im Badezimmer", "dans la salle de bains", "v koupelně", "浴室里"
    ),
    "closet": Place("closet", "im Abstellraum", "dans le débarras", "v komoře", "储藏室里"),
    "hallway": Place("hallway", "im Flur", "dans le couloir", "na chodbě", "走廊里"),
    "table": Place("table", "auf dem Tisch", "sur la table", "na stole", "桌子上"),
}
"""Places by the name that facts give them; `table` is a table top."""

SIDE_WORDS: dict[str, dict[str, str]] = {
    "en": {"left": "on the left", "middle": "in the middle", "right": "on the right"},
    "de": {"left": "links", "middle": "in der Mitte", "right": "rechts"},
    "fr": {"left": "à gauche", "middle": "au milieu", "right": "à droite"},
    "cs": {"left": "vlevo", "middle": "uprostřed", "right": "vpravo"},
    "zh": {"left": "左边", "middle": "中间", "right": "右边"},
}

GERMAN_COLORS = {
    "red": "rot", "orange": "orangefarben", "yellow": "gelb", "green": "grün", "blue": "blau",
    "purple": "lila", "pink": "rosa", "brown": "braun", "white": "weiß", "grey": "grau",
    "black": "schwarz",
}  # fmt: skip
GERMAN_UNBENDING = ("lila", "rosa")
GERMAN_ENDINGS = {"m": "er", "f": "e", "n": "es"}
GERMAN_ARTICLES = {"m": "ein", "f": "eine", "n": "ein"}

FRENCH_COLORS: dict[str, tuple[str, str]] = {
    "red": ("rouge", "rouge"), "orange": ("orange", "orange"), "yellow": ("jaune", "jaune"),
    "green": ("vert", "verte"), "blue": ("bleu", "bleue"), "purple": ("violet", "violette"),
    "pink": ("rose", "rose"), "brown": ("marron", "marron"), "white": ("blanc", "blanche"),
    "grey": ("gris", "grise"), "black": ("noir", "noire"),
}  # fmt: skip
"""Masculine and feminine."""
FRENCH_ARTICLES = {"m": "un", "f": "une"}

CZECH_COLORS = {
    "red": "červen", "orange": "oranžov", "yellow": "žlut", "green": "zelen", "blue": "modr",
    "purple": "fialov", "pink": "růžov", "brown": "hněd", "white": "bíl", "grey": "šed",
    "black": "čern",
}  # fmt: skip
"""Stems of hard adjectives."""
CZECH_ENDINGS = {"m": "ý", "f": "á", "n": "é"}

CHINESE_COLORS = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色",
    "purple": "紫色", "pink": "粉色", "brown": "棕色", "white": "白色", "grey": "灰色",
    "black": "黑色",
}  # fmt: skip
