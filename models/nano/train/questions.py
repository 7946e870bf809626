# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is asked about a scene, and what is true of it. Works on facts alone, whoever rendered them.

Facts: kind (single, several, pattern, text, compare, cut), n, background (a colour, gradient, noise, checkers, bars), objects with
shape, color, action, and where they apply color2, frame (1-based, first frame of the change), cells (place in each frame), size,
boxes (per frame, fractions); text, color; pattern; what; parts (two facts) and cut (frame) of a scene cut.
`turns(rng, facts)` gives [(attribute, question, answer)], and a fourth item (object, frame) where the question is about one object's place.
"""
from scenes import COLORS, SHAPES, cell_of, extent, size_of, state

CAPTION = ["Describe this video.", "Describe this video.", "Describe this video.", "Describe the video.", "What is shown?",
           "Describe this image.", "What do you see?", "Caption this video.", "Describe the image in one sentence."]
BOX = "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>"
LETTER = "Answer with the option's letter from the given choices directly."
GROUND = {"gradient": "a gradient background", "noise": "a noisy background", "checkers": "a checkered background", "bars": "color bars"}
SHORT = {"gradient": "Gradient", "noise": "Noise", "checkers": "Checkers", "bars": "Color bars"}
VERB = {"right": "moves left to right", "left": "moves right to left", "up": "moves up", "down": "moves down", "grow": "grows",
        "shrink": "shrinks", "still": "stays still", "appear": "appears", "disappear": "disappears"}
# Colours in the order of COLORS, shapes in that of SHAPES.
FOREIGN = [
    ("它是什么颜色？", "红色 橙色 黄色 绿色 蓝色 紫色 白色 黑色", "它是什么形状？", "圆形 正方形 三角形 星形"),
    ("Welche Farbe hat es?", "Rot Orange Gelb Grün Blau Lila Weiß Schwarz", "Welche Form hat es?", "Kreis Quadrat Dreieck Stern"),
    ("¿De qué color es?", "Rojo Naranja Amarillo Verde Azul Morado Blanco Negro", "¿Qué forma tiene?", "Círculo Cuadrado Triángulo Estrella"),
    ("De quelle couleur est-ce ?", "Rouge Orange Jaune Vert Bleu Violet Blanc Noir", "Quelle forme est-ce ?", "Cercle Carré Triangle Étoile")]
PATTERN = {"bars": "SMPTE color bars.", "snow": "TV snow.", "checkers": "A checkerboard pattern.",
           "ball": "A white ball bounces on a black background."}


def facts(scene):
    """The facts of a rendered training scene: places and boxes worked out."""
    if "parts" in scene:
        return {**scene, "parts": [facts({**p, "n": scene["n"], "aspect": scene["aspect"]}) for p in scene["parts"]],
                "objects": [look_at(o, scene["parts"][0]) for o in scene["objects"]]}
    return {**scene, "objects": [look_at(o, scene) for o in scene["objects"]]}


def look_at(o, scene):
    seen = [state(o, scene, k) for k in range(scene["n"])]
    return {**o, "size": size_of(o["r"]), "cells": [cell_of(s[0], s[1]) for s in seen],
            "edge": [min(abs(v * 3 - j) for v in s[:2] for j in (1, 2)) for s in seen],
            "boxes": [extent(o, scene, k) for k in range(scene["n"])],
            "centres": [s[:2] for s in seen]}


def article(s):
    return ("An " if s[0] in "aeiou" else "A ") + s


def name(o):
    return f"{o['color']} {o['shape']}"


def ground(f):
    return GROUND.get(f["background"], f"a {f['background']} background".replace("a orange", "an orange"))


def verb(o):
    return "turns " + o["color2"] if o["action"] == "turn" else VERB[o["action"]]


def ordered(objects):
    return sorted(objects, key=lambda o: (COLORS.index(o["color"]), SHAPES.index(o["shape"])))


def listing(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def caption(f):
    kind = f["kind"]
    if kind == "pattern":
        return PATTERN.get(f["pattern"]) or f"An empty {f['background']} background."
    if kind == "text":
        return f"The {'number' if f['text'][0].isdigit() else 'word'} \"{f['text']}\" in {f['color']} on {ground(f)}."
    if kind == "cut" or kind == "compare" and f["what"] == "background":
        a, b = f["parts"]
        return (f"{article(name(a['objects'][0]))} on {ground(a)}, then {article(name(b['objects'][0])).lower()} on {ground(b)}.")
    if kind in ("compare", "page"):
        return None
    if not f["objects"]:
        return f"An empty {f['background'] if f['background'] != 'noise' else 'noisy'} background."
    # Several things that all rest are just listed; a single one "stays still".
    moving = f["n"] > 1 and (len(f["objects"]) == 1 or any(o["action"] != "still" for o in f["objects"]))
    out = []
    for i, o in enumerate(ordered(f["objects"])):
        s = article(name(o)) + (" " + verb(o) if moving else "")
        out.append(s if i == 0 else s[0].lower() + s[1:])
    join = " from " if moving and len(out) == 1 and f["objects"][0]["action"] == "disappear" else " on "
    return listing(out) + join + ground(f) + "."


def pick(rng, items):
    return items[rng.integers(len(items))]


def single_turns(rng, f):
    o = f["objects"][0]
    it, which = pick(rng, [("it", "the object"), (f"the {o['shape']}", f"the {o['shape']}")])
    out = [("shape", pick(rng, ["What shape is it?", "What shape is the object?", f"What shape is the {o['color']} object?", "Which shape is shown?"])
            if o["action"] != "turn" else "What shape is it?", o["shape"].capitalize())]
    if o["action"] != "turn":
        out.append(("color", pick(rng, [f"What color is {it}?", f"What color is {which}?", f"What is the color of {which}?", "What colour is the object?"]), o["color"].capitalize()))
    else:
        out.append(("color", f"What color is {which} at the {pick(rng, ['start', 'start'])}?", o["color"].capitalize()))
        out.append(("color", f"What color is {which} at the end?", o["color2"].capitalize()))
    if f["n"] > 1:
        moves = o["action"] in ("right", "left", "up", "down")
        ask = pick(rng, [f"How does {which} move?", f"What does {which} do?", f"What happens to {which}?", "What happens in this video?"])
        act = "event" if o["action"] in ("appear", "disappear", "turn") else "motion"
        out += [(act, ask, f"It {verb(o)}.")] * 2
        out.append(("yesno", f"Does {which} move?", "Yes" if moves else "No") if rng.random() < (1 if moves else .4) else
                   ("yesno", f"Does {which} {pick(rng, ['appear', 'disappear', 'grow', 'shrink'])}?", None))
        if "frame" in o:
            what = {"appear": "appear", "disappear": "disappear", "turn": "change color"}[o["action"]]
            out += [("frame", f"In which frame does {which} {what}?", f"Frame {o['frame']}")]
    if o["action"] == "still":
        out.append(("size", f"How large is {which}?", o["size"].capitalize()))
    fixed = []
    for a, q, ans in out:
        if ans is None:
            ans = "Yes" if o["action"] == q[:-1].split()[-1] else "No"
        fixed.append((a, q, ans))
    if rng.random() < .25:
        fixed += foreign_turns(rng, o)
    return fixed + place_turns(rng, f, o, which) + presence_turns(rng, f)


def foreign_turns(rng, o):
    qc, cs, qs, ss = pick(rng, FOREIGN)
    out = [("foreign", qs, ss.split()[SHAPES.index(o["shape"])])]
    return out + ([("foreign", qc, cs.split()[COLORS.index(o["color"])])] if o["action"] != "turn" else [])


def place_turns(rng, f, o, which):
    n, out = f["n"], []
    k = int(rng.integers(n))
    shown = not (o["action"] == "appear" and k + 1 < o["frame"] or o["action"] == "disappear" and k + 1 >= o["frame"])
    if o["action"] in ("still", "turn"):
        out.append(("position", pick(rng, [f"Where is {which}?", f"In which part of the frame is {which}?"]), o["cells"][0].capitalize(), (o, 0)))
        out.append(("box", BOX.format(f"the {name(o)}"), boxed(f"the {name(o)}", o["boxes"][0]), (o, 0)))
    elif shown and n > 1:
        out.append(("position", f"Where is {which} in Frame{k + 1}?", o["cells"][k].capitalize(), (o, k)))
    # Close to a border between two cells the answer is a coin toss.
    return [t for t in out if t[0] != "position" or o["edge"][k if "Frame" in t[1] else 0] > 0.08]


def boxed(phrase, box):
    """0 to 1000, in steps of ten: a pixel of the model is nine."""
    return f"<ref>{phrase}</ref><box>[[{', '.join(str(int(round(v * 100)) * 10) for v in box)}]]</box>"


def presence_turns(rng, f):
    """Yes/no and absent things; half the answers each."""
    objs, out = f["objects"], []
    has = {name(o) for o in objs}
    if not objs:
        c, s = pick(rng, COLORS), pick(rng, SHAPES)
        return [("yesno", f"Is there a {pick(rng, [s, c + ' ' + s])}?".replace("a orange", "an orange"), "No"),
                ("absent", f"What color is the {s}?", f"There is no {s}.")]
    o = objs[rng.integers(len(objs))]
    if o["action"] == "turn":
        return []
    s, c = pick(rng, SHAPES), pick(rng, COLORS)
    absent = [x for x in SHAPES if x not in {p["shape"] for p in objs}]
    for _ in range(2):
        t = rng.integers(4)
        if t == 0:
            q = f"Is there a {o['shape'] if rng.random() < .5 or not absent else pick(rng, absent)}?"
            a = any(f" {p['shape']}?" in q for p in objs)
        elif t == 1:
            # Wrong in one attribute only, so that a look at the other does not answer it.
            n = name(o) if rng.random() < .5 else pick(rng, [f"{c} {o['shape']}", f"{o['color']} {s}"])
            q, a = f"Is there {article(n).lower()}?", n in has
        elif t == 2 and len([p for p in objs if p["shape"] == o["shape"]]) == 1:
            col = o["color"] if rng.random() < .5 else c
            q, a = f"Is the {o['shape']} {col}?", col == o["color"]
        else:
            col = o["color"] if rng.random() < .5 else pick(rng, COLORS)
            q, a = f"Is there anything {col}?", any(p["color"] == col for p in objs)
            if col == f["background"] or f["background"] in ("gradient", "noise"):
                q, a = f"Is there a {col} object?".replace("a orange", "an orange"), a
        out.append(("yesno", q, "Yes" if a else "No"))
    if absent and rng.random() < .8:
        x = pick(rng, absent)
        q = pick(rng, [f"What color is the {x}?", f"Where is the {x}?", BOX.format(f"the {x}")] + ([f"How does the {x} move?"] if f["n"] > 1 else []))
        out.append(("absent", q, f"There is no {x}."))
    return out


def several_turns(rng, f):
    objs = f["objects"]
    s, c = pick(rng, SHAPES), pick(rng, COLORS)
    if objs and rng.random() < .7:
        p = pick(rng, objs)
        s, c = p["shape"], p["color"]
    out = [("count", pick(rng, ["How many objects are there?", "How many shapes are there?", "How many objects do you see?"]), str(len(objs)))] * 2
    out.append(("countof", f"How many {s}s are there?", str(sum(o["shape"] == s for o in objs))))
    out.append(("countof", f"How many {c} objects are there?", str(sum(o["color"] == c for o in objs))))
    for o in objs:
        same = [p for p in objs if p["shape"] == o["shape"]]
        whole = [p for p in objs if name(p) == name(o)]
        which = f"the {o['shape']}" if len(same) == 1 else f"the {name(o)}" if len(whole) == 1 else None
        if which is None:
            continue
        if len(same) == 1:
            out.append(("color", f"What color is {which}?", o["color"].capitalize()))
        if sum(p["color"] == o["color"] for p in objs) == 1:
            out.append(("shape", f"What shape is the {o['color']} object?", o["shape"].capitalize()))
        if f.get("moving") and f["n"] > 1:
            out.append(("motion", f"How does {which} move?", f"It {verb(o)}."))
        out += place_turns(rng, f, o, which)
    rng.shuffle(out)
    return out + presence_turns(rng, f) * 2


def text_turns(rng, f):
    return [("text", pick(rng, ["What does it say?", "What is written?", "Read the text.", "What text is shown?"]), f["text"])] * 3 + [
        ("color", "What color is the text?", f["color"].capitalize()), ("count", "How many objects are there?", "0"),
        ("yesno", "Is there any text?", "Yes")]


def compare_turns(rng, f):
    a, b = (p["objects"][0] for p in f["parts"])
    ask = ["What is different between Frame1 and Frame2?", "What changes between Frame1 and Frame2?"]
    out = [("compare", pick(rng, ask), "Nothing" if f["what"] == "nothing" else "The " + f["what"])] * 4
    if f["what"] == "size":
        out += [("compare", "In which frame is the object larger?", f"Frame {1 + (b['r'] > a['r'])}")] * 2
    for k, o in enumerate((a, b)):
        out.append(("color", f"What color is the object in Frame{k + 1}?", o["color"].capitalize()))
        out.append(("shape", f"What shape is the object in Frame{k + 1}?", o["shape"].capitalize()))
        out.append(("background", f"What is the background in Frame{k + 1}?", SHORT.get(f["parts"][k]["background"]) or f["parts"][k]["background"].capitalize()))
    return out


def cut_turns(rng, f):
    a, b = (p["objects"][0] for p in f["parts"])
    out = [("event", pick(rng, ["What happens in this video?", "What happens?"]), "The scene changes.")] * 2
    out += [("frame", pick(rng, ["In which frame does the scene change?", "In which frame is the scene cut?"]), f"Frame {f['cut']}")] * 2
    out += [("shape", "What shape is it at the start?", a["shape"].capitalize()), ("shape", "What shape is it at the end?", b["shape"].capitalize())]
    if rng.random() < .5:
        out.append(("yesno", "Does the scene change?", "Yes"))
    return out


def choice(rng, attribute, question, answer):
    """A question as a list of lettered options."""
    pool = {"color": [c.capitalize() for c in COLORS], "shape": [s.capitalize() for s in SHAPES]}[attribute]
    wrong = [c for c in pool if c != answer]
    rng.shuffle(wrong)
    options = [answer] + wrong[:3]
    rng.shuffle(options)
    lines = "\n".join(f"{'ABCD'[i]}. {o}" for i, o in enumerate(options))
    return "choice", f"{question}\n{lines}\n{LETTER}", "ABCD"[options.index(answer)]


def turns(rng, f):
    kind = f["kind"]
    out = []
    if kind == "pattern":
        out = [("pattern", pick(rng, ["Which test pattern is this?", "What pattern is shown?"]), PATTERN[f["pattern"]])] if f["pattern"] in PATTERN else []
        out += [("count", "How many objects are there?", "1" if f["pattern"] == "ball" else "0")]
        out += presence_turns(rng, f) if f["pattern"] != "ball" else []
    elif kind == "page":
        out = [("yesno", "Is there any text?", "Yes")]
    else:
        out = {"single": single_turns, "several": several_turns, "text": text_turns, "compare": compare_turns, "cut": cut_turns}[kind](rng, f)
    if kind not in ("cut", "compare") and f.get("pattern") not in ("snow", "ball"):
        answer = SHORT.get(f["background"]) or f["background"].capitalize()
        out += [("background", pick(rng, ["What is the background?", "What is in the background?", "What color is the background?"]), answer)] * (2 if kind == "single" else 1)
    if kind == "single" and f["n"] > 1 and rng.random() < .3:
        out += [("yesno", "Does the scene change?", "No")]
    if kind == "single":
        out += [("count", "How many objects are there?", "1")] * (rng.random() < .3)
    return out
