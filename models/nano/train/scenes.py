# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random scenes, and their rendering in numpy at the model's own resolution.

A scene is a plain dict. Its facts (kind, n, background, objects, text, pattern, after) are what questions.py speaks about; keys under
"look" only matter to the renderer. Coordinates are fractions of the frame; radii are fractions of the shorter side; `times` are
the moments of the sampled frames, 0 to 1 over the chunk. Frames are squashed to a square, as the model's preprocessing does.
"""
import glob
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE, GRID, PATCH = 112, 8, 14
COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "white", "black"]
SHAPES = ["circle", "square", "triangle", "star"]
MOVES = ["right", "left", "up", "down", "grow", "shrink", "still"]
EVENTS = ["appear", "disappear", "turn"]
ACTIONS = MOVES + EVENTS
PATTERNS = ["bars", "snow", "checkers", "ball", "plain"]
CELLS = ["top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right"]
ASPECTS = [(4, 3), (16, 9), (16, 9), (1, 1), (3, 2), (9, 16), (4, 3)]
CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
GROUNDS = COLORS + ["gradient", "noise", "checkers", "bars"]

# Lowest and highest RGB of each name: what a drawing program or a codec may make of it.
RANGES = {"red": ((195, 0, 0), (255, 45, 45)), "orange": ((240, 120, 0), (255, 155, 30)), "yellow": ((235, 215, 0), (255, 255, 60)),
          "green": ((0, 120, 0), (50, 255, 50)), "blue": ((0, 0, 190), (50, 80, 255)), "purple": ((110, 0, 120), (165, 50, 185)),
          "white": ((225, 225, 225), (255, 255, 255)), "black": ((0, 0, 0), (28, 28, 28))}


def held_out(shape, color, action):
    """One in ten combinations is never trained on, so that the held-out clips can ask for it."""
    return (SHAPES.index(shape) * 7 + COLORS.index(color) * 3 + ACTIONS.index(action) * 13) % 10 == 4


def rgb(rng, name):
    lo, hi = RANGES[name]
    c = rng.uniform(lo, hi)
    # Whites and blacks stay grey; a free draw would tint them.
    return np.full(3, c[0]) if name in ("white", "black") else c


def pick(rng, items, p=None):
    return items[rng.choice(len(items), p=p)]


def background(rng, kind=None):
    kind = kind or pick(rng, ["color", "gradient", "noise"], (0.66, 0.2, 0.14))
    if kind == "color":
        name = pick(rng, COLORS)
        return {"name": name, "look": {"rgb": rgb(rng, name)}, "avoid": [name]}
    if kind == "gradient":
        a, b = rng.choice(len(COLORS), 2, replace=False)
        ends = rgb(rng, COLORS[a]), rgb(rng, COLORS[b])
        steps = [ends[0] + (ends[1] - ends[0]) * t for t in np.linspace(0, 1, 6)]
        near = [c for c in COLORS if min(np.abs(s - np.mean(RANGES[c], 0)).sum() for s in steps) < 170]
        return {"name": "gradient", "look": {"ends": ends, "angle": rng.choice([0, 90, 45, 135, rng.uniform(0, 180)])}, "avoid": near}
    if kind == "noise":
        return {"name": "noise", "avoid": [],
                "look": {"grain": rng.uniform(1, 5), "std": np.exp(rng.uniform(np.log(5), np.log(70))), "mean": rng.uniform(90, 160), "static": rng.random() < .5,
                         "color": rng.random() < .35, "hard": rng.random() < .3}}
    if kind == "checkers":
        a, b = rng.choice(len(COLORS), 2, replace=False)
        pair = [COLORS[a], COLORS[b]] if rng.random() < 0.6 else ["red", "green"]
        return {"name": "checkers", "look": {"rgb": [rgb(rng, c) for c in pair], "cell": np.exp(rng.uniform(np.log(2.4), np.log(22), 1))
                * (1, 1) * rng.uniform(0.8, 1.25, 2), "phase": rng.uniform(0, 1, 2) * (rng.random() < .5)}, "avoid": COLORS}
    return {"name": "bars", "look": {"level": rng.uniform(0.72, 1), "split": (rng.uniform(.62, .7), rng.uniform(.72, .78)),
                                     "full": rng.random() < .25}, "avoid": COLORS}


def times(rng, n):
    return (np.arange(n) + rng.uniform(0, 0.99)) / n if n > 1 else np.array([rng.random()])


def cell_of(x, y):
    return CELLS[min(int(y * 3), 2) * 3 + min(int(x * 3), 2)]


def radius(rng, big=False):
    return float(rng.uniform(0.15, 0.34) if big else np.exp(rng.uniform(np.log(0.095), np.log(0.34))))


def size_of(r):
    return "small" if r < 0.13 else "large" if r > 0.215 else "medium"


def thing(rng, shape, color, x, y, r):
    return {"shape": shape, "color": color, "action": "still", "x": float(x), "y": float(y), "r": r,
            "look": {"rgb": rgb(rng, color), "inner": float(rng.uniform(.38, .52)), "rot": float(rng.uniform(-12, 12) if shape != "star" else rng.uniform(-36, 36))
                     * (rng.random() < .6), "from": (float(x), float(y), r), "to": (float(x), float(y), r)}}


def inside(rng, r, aspect, crop=0.25):
    """A centre that keeps most of the object in view."""
    w, h = aspect
    rx, ry = r * min(w, h) / w * (1 - crop), r * min(w, h) / h * (1 - crop)
    return rng.uniform(rx, 1 - rx), rng.uniform(ry, 1 - ry)


def animate(rng, o, action, n, aspect, at=None):
    """Give object o an action over the chunk."""
    look, r = o["look"], o["r"]
    o["action"] = action
    if action in ("right", "left", "up", "down"):
        axis = 0 if action in ("right", "left") else 1
        margin = min(0.4, r * min(aspect) / aspect[axis] * rng.uniform(0, 1))
        travel = rng.uniform(0.14 if n > 2 else 0.25, 1 - 2 * margin - 0.01)
        lo = rng.uniform(margin, 1 - margin - travel)
        a, b = [o["x"], o["y"]], [o["x"], o["y"]]
        a[axis], b[axis] = (lo, lo + travel) if action in ("right", "down") else (lo + travel, lo)
        b[1 - axis] += rng.uniform(-.12, .12) * travel * (rng.random() < .3)
        look["from"], look["to"] = (*a, r), (*b, r)
    elif action in ("grow", "shrink"):
        small = rng.uniform(0.06, 0.16)
        large = min(0.48, small * rng.uniform(1.5 if n > 2 else 2.2, 4))
        ends = (small, large) if action == "grow" else (large, small)
        look["from"], look["to"] = (o["x"], o["y"], ends[0]), (o["x"], o["y"], ends[1])
    elif action in EVENTS:
        o["frame"] = int(at or rng.integers(1, n)) + 1
        if action == "turn":
            o["color2"] = pick(rng, [c for c in COLORS if c != o["color"] and c not in o.get("avoid", [])])
            look["rgb2"] = rgb(rng, o["color2"])


def state(o, scene, k):
    """(x, y, r, color name, rgb, visible) of an object in frame k (from 0)."""
    t, look = scene["times"][k], o["look"]
    x, y, r = (a + (b - a) * t for a, b in zip(look["from"], look["to"]))
    late = "frame" in o and k + 1 >= o["frame"]
    turned = late and o["action"] == "turn"
    visible = not (o["action"] == "appear" and not late or o["action"] == "disappear" and late)
    return x, y, r, o["color2"] if turned else o["color"], look["rgb2"] if turned else look["rgb"], visible


def single(rng, n, action=None, big=False):
    aspect = pick(rng, ASPECTS)
    scene = {"kind": "single", "n": n, "aspect": aspect, "times": times(rng, n)}
    while True:
        ground = background(rng)
        free = [c for c in COLORS if c not in ground["avoid"]]
        act = "still" if n == 1 else action or pick(rng, ACTIONS, [.1, .1, .1, .1, .08, .08, .16, .09, .09, .1])
        shape, color = pick(rng, SHAPES), pick(rng, free) if free else "red"
        # A small white disc on black is GStreamer's ball.
        if free and not held_out(shape, color, act) and not (shape == "circle" and color == "white" and ground["name"] == "black"):
            break
    r = radius(rng, big)
    o = thing(rng, shape, color, *inside(rng, r, aspect), r)
    o["avoid"] = ground["avoid"]
    animate(rng, o, act, n, aspect)
    return scene | {"background": ground["name"], "ground": ground["look"], "objects": [o]}


def several(rng, n, count=None, moving=False):
    """Up to four objects apart from each other; moving ones keep apart in every frame."""
    aspect = pick(rng, ASPECTS)
    ground = background(rng)
    while len(ground["avoid"]) > 5:
        ground = background(rng)
    count = pick(rng, [0, 1, 2, 3, 4], (.08, .17, .27, .25, .23)) if count is None else count
    scene = {"kind": "several", "n": n, "aspect": aspect, "times": times(rng, n), "background": ground["name"], "ground": ground["look"],
             "objects": [], "moving": moving}
    free = [c for c in COLORS if c not in ground["avoid"]]
    shape0, color0, alike = pick(rng, SHAPES), pick(rng, free), rng.random()
    for _ in range(60):
        if len(scene["objects"]) == count:
            break
        shape = shape0 if alike < 0.25 else pick(rng, SHAPES)
        color = color0 if 0.15 < alike < 0.35 else pick(rng, free)
        r = float(rng.uniform(0.1, 0.24 if count < 3 else 0.17))
        o = thing(rng, shape, color, *inside(rng, r, aspect, 0), r)
        o["avoid"] = ground["avoid"]
        act = pick(rng, MOVES, (.16, .16, .16, .16, .06, .06, .24)) if moving else "still"
        if held_out(shape, color, act) or any((p["shape"], p["color"]) == (shape, color) for p in scene["objects"]) and moving:
            continue
        animate(rng, o, act, n, aspect)
        if all(apart(scene, o, p, k) for p in scene["objects"] for k in range(n)):
            scene["objects"].append(o)
    return scene


def apart(scene, a, b, k):
    w, h = scene["aspect"]
    (xa, ya, ra, *_), (xb, yb, rb, *_) = state(a, scene, k), state(b, scene, k)
    return np.hypot((xa - xb) * w, (ya - yb) * h) > (ra + rb) * 1.08 * min(w, h)


def pattern(rng, n, name=None):
    name = name or pick(rng, PATTERNS if n > 1 else [p for p in PATTERNS if p != "ball"])
    kind = {"bars": "bars", "snow": "noise", "checkers": "checkers", "ball": "color"}.get(name) or pick(rng, ["color", "gradient"], (.75, .25))
    ground = background(rng, kind)
    scene = {"kind": "pattern", "n": n, "aspect": pick(rng, ASPECTS), "times": times(rng, n), "pattern": name, "background": ground["name"],
             "ground": ground["look"], "objects": []}
    if name == "snow":
        scene["ground"] |= {"static": n == 1, "color": False}
    if name == "ball":
        scene |= {"background": "black", "ground": {"rgb": np.full(3, rng.uniform(0, 20))}}
        r = rng.uniform(0.03, 0.1)
        o = thing(rng, "circle", "white", .5, .5, float(r))
        # A slow bounce on both axes; never along one only.
        a, s = rng.uniform(0, 2 * np.pi, 2), rng.uniform(.5, 2.2) * rng.choice([-1, 1], 2) * rng.uniform(.8, 1.2, 2)
        m = np.array([o["r"] * min(scene["aspect"]) / d for d in scene["aspect"]])
        scene["path"] = m + (1 - 2 * m) * (0.5 + 0.5 * np.sin(a + scene["times"][:, None] * s))
        scene["ball"] = o
    return scene


def face(rng):
    return {"font": int(rng.integers(1 << 30)), "stroke": int(pick(rng, [-1, 0, 1, 2], (.1, .74, .13, .03)))}


def letters(rng, words, digits=0.45):
    if rng.random() < digits:
        return "".join(rng.choice(list("0123456789"), rng.integers(1, 5)))
    if rng.random() < 0.5:
        return pick(rng, words)
    return "".join(rng.choice(list(CHARS[:26]), rng.choice([1, 2, 3, 4], p=(.1, .1, .2, .6))))


def text(rng, n, words, digits=0.45):
    ground = background(rng, pick(rng, ["color", "gradient"], (.85, .15)))
    while len(ground["avoid"]) > 5:
        ground = background(rng, "color")
    s = letters(rng, words, digits)
    near = {"white": "yellow", "yellow": "white", "red": "orange", "orange": "red", "black": "blue", "blue": "black", "purple": "blue", "green": "green"}
    color = pick(rng, [c for c in COLORS if c not in ground["avoid"] and near.get(ground["name"]) != c])
    width = rng.uniform(0.13, 0.235) * max(len(s), 1) if len(s) > 2 else rng.uniform(0.14, 0.3) * len(s)
    height = rng.uniform(0.2, 0.42)
    return {"kind": "text", "n": n, "aspect": pick(rng, ASPECTS), "times": times(rng, n), "background": ground["name"], "ground": ground["look"],
            "objects": [], "text": s, "color": color,
            "lines": [(s, {"rgb": rgb(rng, color), "w": width, "h": height, "x": rng.uniform(0.01, max(.011, .99 - width)),
                           "y": rng.uniform(0.02, .98 - height), **face(rng)})]}


def page(rng, words):
    """Lines of words all over a frame: a dozen letters to learn from where a sign has four."""
    scene = {**text(rng, 1, words), "kind": "page"}
    free = [c for c in COLORS if c != scene["background"]] if scene["background"] in COLORS else [scene["color"]]
    one, lines, y = rng.random() < 0.5, [], rng.uniform(0, 0.06)
    while True:
        h, w = rng.uniform(0.15, 0.42), rng.uniform(0.09, 0.24)
        if y + h > 1:
            break
        x = rng.uniform(0, 0.1)
        while True:
            s = letters(rng, words)
            if x + w * len(s) > 1:
                break
            look = scene["lines"][0][1] if one else {"rgb": rgb(rng, pick(rng, free)), **face(rng)}
            lines.append((s, {**look, "x": x, "y": y, "w": w * len(s), "h": h}))
            x += w * (len(s) + rng.uniform(0.3, 0.7))
        y += h * rng.uniform(1.0, 1.25)
    return scene | {"lines": lines or scene["lines"]}


def compare(rng):
    """Two frames of one object that differ in one thing, or in none."""
    what = pick(rng, ["color", "shape", "position", "size", "background", "nothing"])
    a = single(rng, 2, "still")
    b = {**a, "objects": [{**a["objects"][0], "look": dict(a["objects"][0]["look"])}]}
    o = b["objects"][0]
    for _ in range(50):
        if what == "color":
            o["color"] = pick(rng, [c for c in COLORS if c not in o["avoid"] + [a["objects"][0]["color"]]])
            o["look"]["rgb"] = rgb(rng, o["color"])
        elif what == "shape":
            o["shape"] = pick(rng, [s for s in SHAPES if s != a["objects"][0]["shape"]])
        elif what == "position":
            x, y = inside(rng, o["r"], a["aspect"])
            if np.hypot(x - o["x"], y - o["y"]) < 0.25:
                continue
            o["x"], o["y"] = float(x), float(y)
        elif what == "size":
            o["r"] = float(np.clip(o["r"] * rng.choice([rng.uniform(.4, .65), rng.uniform(1.55, 2.5)]), .07, .45))
            if 0.68 < o["r"] / a["objects"][0]["r"] < 1.5:
                o["r"] = a["objects"][0]["r"]
                continue
        elif what == "background":
            ground = background(rng)
            if ground["name"] == a["background"] or o["color"] in ground["avoid"]:
                continue
            b["background"], b["ground"] = ground["name"], ground["look"]
        break
    else:
        what, b = "nothing", a
    o["look"]["from"] = o["look"]["to"] = (o["x"], o["y"], o["r"])
    return {"kind": "compare", "n": 2, "aspect": a["aspect"], "times": a["times"], "what": what, "objects": a["objects"],
            "background": a["background"], "parts": [a, b], "cut": 2}


def cut(rng, n):
    a, b = single(rng, n, "still"), single(rng, n, "still")
    while (a["background"] == b["background"]) or (a["objects"][0]["shape"], a["objects"][0]["color"]) == (b["objects"][0]["shape"], b["objects"][0]["color"]):
        b = single(rng, n, "still")
    b["aspect"] = a["aspect"]
    return {"kind": "cut", "n": n, "aspect": a["aspect"], "times": a["times"], "parts": [a, b], "cut": int(rng.integers(1, n)) + 1,
            "objects": [], "background": a["background"]}


# --- drawing ---------------------------------------------------------------------------------------------------------------------

def distance(shape, x, y, inner):
    """Signed distance, in radii, to the outline of a shape of radius about 1 centred on its box; inner: radius of a star's inner corners."""
    if shape == "circle":
        return np.hypot(x, y) - 1
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85
    if shape == "triangle":
        y = y - 0.29
        return np.maximum(y - 0.575, np.abs(x) * 0.866 - y * 0.5 - 0.575)
    a = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    rho = np.hypot(x, y)
    # The edge runs from the tip (1.08, 0) to the inner corner at 36 degrees.
    ix, iy = inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
    nx, ny = iy, 1.08 - ix
    return (rho * np.cos(a) * nx + rho * np.sin(a) * ny - 1.08 * nx) / np.hypot(nx, ny)


CORNERS = {"square": np.array([(-.85, -.85), (.85, -.85), (.85, .85), (-.85, .85)]),
           "triangle": np.array([(-.996, .865), (.996, .865), (0, -.86)]),
           "star": np.array([(1.08 * np.sin(t), -1.08 * np.cos(t)) for t in np.arange(5) * 2 * np.pi / 5])}


def extent(o, scene, k):
    """[x1, y1, x2, y2] of the object in frame k, in fractions, clipped to the frame."""
    x, y, r, *_ = state(o, scene, k)
    w, h = scene["aspect"]
    rx, ry = r * min(w, h) / w, r * min(w, h) / h
    p = CORNERS.get(o["shape"])
    if p is None:
        lo, hi = np.array([-1, -1]), np.array([1, 1])
    else:
        t = np.deg2rad(o["look"]["rot"])
        p = p @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
        lo, hi = p.min(0), p.max(0)
    return np.clip([x + lo[0] * rx, y + lo[1] * ry, x + hi[0] * rx, y + hi[1] * ry], 0, 1)


def draw_shape(canvas, shape, color, x, y, rx, ry, rot, soft, inner=.45):
    """Blend in place; returns the slice and the coverage."""
    h, w = canvas.shape[:2]
    x, y, rx, ry = x * w, y * h, rx * w, ry * h
    m = 1.35
    x0, x1, y0, y1 = max(0, int(x - m * rx - 2)), min(w, int(x + m * rx + 3)), max(0, int(y - m * ry - 2)), min(h, int(y + m * ry + 3))
    if x1 <= x0 or y1 <= y0:
        return None
    lx = (np.arange(x0, x1, dtype=np.float32)[None] + 0.5 - x) / rx
    ly = (np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5 - y) / ry
    if rot:
        c, s = np.cos(np.deg2rad(rot)), np.sin(np.deg2rad(rot))
        lx, ly = lx * c + ly * s, ly * c - lx * s
    alpha = np.clip(0.5 - distance(shape, lx, ly, inner) * np.sqrt(rx * ry) / soft, 0, 1)[..., None]
    box = (slice(y0, y1), slice(x0, x1))
    canvas[box] += (color - canvas[box]) * alpha
    return box, alpha[..., 0]


def grain(rng, look, size):
    g = max(1, int(np.ceil(size / look["grain"])))
    v = rng.standard_normal((g, g, 3 if look["color"] else 1)).astype(np.float32)
    if look["hard"]:
        v = np.sign(v) * 0.9
    if g < size:
        at = (np.arange(size) * g // size)
        v = v[at][:, at]
    return np.clip(look["mean"] + look["std"] * v, 0, 255) + np.zeros(3, np.float32)


def draw_ground(rng, name, look, n, size):
    """[n, size, size, 3] float."""
    out = np.empty((n, size, size, 3), np.float32)
    if name in COLORS:
        out[:] = look["rgb"]
    elif name == "gradient":
        a = np.deg2rad(look["angle"])
        u = np.linspace(-.5, .5, size, dtype=np.float32)
        t = u[None] * np.cos(a) + u[:, None] * np.sin(a)
        t = ((t - t.min()) / (t.max() - t.min()))[..., None]
        out[:] = look["ends"][0] + (look["ends"][1] - look["ends"][0]) * t
    elif name == "noise":
        for k in range(n):
            out[k] = out[0] if k and look["static"] else grain(rng, look, size)
    elif name == "checkers":
        # Sampled at 3x and averaged: cells may be finer than pixels.
        u = (np.arange(size * 3) + 0.5) / 3 * SIZE / size
        cx, cy = (np.floor(u / c + p).astype(int) for c, p in zip(look["cell"], look["phase"]))
        m = ((cx[None] + cy[:, None]) & 1).reshape(size, 3, size, 3).mean((1, 3))[..., None]
        out[:] = look["rgb"][0] * m + look["rgb"][1] * (1 - m)
    else:
        v, s = look["level"] * 255, look["split"]
        bars = np.array([(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)]) * v
        x = np.arange(size) * 7 // size
        out[:] = bars[x]
        if not look["full"]:
            y1, y2 = int(s[0] * size), int(s[1] * size)
            out[:, y1:y2] = (bars[::-1] * (np.arange(7) % 2 == 0)[:, None])[x]
            low = np.array([(0, 0, .5), (1, 1, 1), (0, .5, 1), (0, 0, 0), (.08, .08, .08), (0, 0, 0)]) * v
            out[:, y2:] = low[np.minimum(np.arange(size) * 6 // size, 5)]
            dots = np.arange(size) > size * 3 // 4
            out[:, y2:, dots] = rng.uniform(90, 165, (n, size - y2, dots.sum(), 1))
    return out


def fonts():
    """Any sans, serif and mono faces of these two families; Pillow's own if there are none."""
    names = [f"/usr/share/fonts/truetype/dejavu/DejaVu{f}.ttf" for f in
             ("Sans", "Sans-Bold", "SansMono-Bold", "SansMono", "Serif", "Serif-Bold", "SansCondensed-Bold", "SerifCondensed-Bold")]
    names += [f"/usr/share/fonts/truetype/liberation*/Liberation{f}.ttf" for f in
              ("Sans-Regular", "Sans-Bold", "Sans-Bold", "Serif-Bold", "Serif-Bold", "Serif-Regular", "Mono-Bold", "Mono-Regular", "SansNarrow-Bold")]
    files = [f for n in names for f in sorted(glob.glob(n))]
    return [ImageFont.truetype(f, 48) for f in files] or [ImageFont.load_default(48)]


FONTS = []


def draw_text(canvas, s, g):
    """Blend text into [n, S, S, 3]; returns (char, x1, x2) in fractions."""
    if not FONTS:
        FONTS.extend(fonts())
    font = FONTS[g["font"] % len(FONTS)]
    box = font.getbbox(s)
    im = Image.new("L", (box[2] - box[0] + 2, box[3] - box[1] + 2))
    ImageDraw.Draw(im).text((1 - box[0], 1 - box[1]), s, fill=255, font=font)
    # Other fonts have thinner and thicker strokes.
    if g["stroke"]:
        im = im.filter((ImageFilter.MinFilter if g["stroke"] < 0 else ImageFilter.MaxFilter)(2 * abs(g["stroke"]) + 1))
    size = canvas.shape[1]
    w, h = max(3, round(g["w"] * size)), max(3, round(g["h"] * size))
    x, y = round(g["x"] * size), round(g["y"] * size)
    a = np.asarray(im.resize((w, h), Image.BICUBIC), np.float32)[: size - y, : size - x, None] / 255
    canvas[:, y:y + a.shape[0], x:x + a.shape[1]] += (g["rgb"] - canvas[:, y:y + a.shape[0], x:x + a.shape[1]]) * a
    ends = [g["x"] + (font.getlength(s[:i]) - box[0]) / im.width * g["w"] for i in range(len(s) + 1)]
    return list(zip(s, ends, ends[1:]))


def so_far(labels, o, k, visible):
    """What has happened to the only object by frame k, and in which frame."""
    late = "frame" in o and k + 1 >= o["frame"]
    act = o["action"] if late or o["action"] in MOVES else "still"
    labels["act"][k] = ACTIONS.index(act) if visible or late else len(ACTIONS) + 1
    labels["at"][k] = o["frame"] if late else 0


def render(rng, scene, jpeg=0.5):
    """u8 [n, 112, 112, 3] and labels, each with n first: of patches shape, color, ground, char and slot (its place in the word) [64], box [64, 4]
    (offset of the centre, half extents), cover [64, 4] by each object; of frames objs [4, 10] (there, shape, color, centre, box, motion),
    text [4], act, at (see heads.py); -100 where there is nothing to learn."""
    n = scene["n"]
    labels = {k: np.zeros((n, 64), np.int8) for k in ("shape", "color", "ground", "char", "slot")}
    labels |= {"box": np.zeros((n, 64, 4), np.float32), "cover": np.zeros((n, 64, 4), np.float16), "objs": np.zeros((n, 4, 10), np.float32),
               "text": np.zeros((n, 4), np.int8), "act": np.full(n, -100, np.int16), "at": np.full(n, -100, np.int16)}
    labels["objs"][..., 9] = -100
    if "parts" in scene:
        a, b = ({**p, "n": n, "aspect": scene["aspect"]} for p in scene["parts"])
        seed = int(rng.integers(1 << 30))
        (fa, la), (fb, lb) = (render(np.random.default_rng(seed), p, jpeg) for p in (a, b))
        k = scene["cut"] - 1
        labels = {key: np.concatenate([la[key][:k], lb[key][k:]]) for key in la}
        if scene["kind"] == "cut":
            labels["act"][1:k], labels["act"][k:], labels["at"][:k], labels["at"][k:] = ACTIONS.index("still"), len(ACTIONS), 0, k + 1
        else:
            labels["act"][:], labels["at"][:] = -100, -100
        return np.concatenate([fa[:k], fb[k:]]), labels
    # Most are drawn at the model's size; some larger and shrunk as the plugin will.
    size = SIZE if rng.random() > 0.08 else int(rng.integers(170, 300))
    canvas = draw_ground(rng, scene["background"], scene["ground"], n, size)
    labels["ground"][:] = GROUNDS.index(scene["background"])
    soft = rng.uniform(0.8, 1.7)
    w, h = scene["aspect"]
    for k in range(n):
        for j, o in enumerate(scene["objects"]):
            x, y, r, color, paint, visible = state(o, scene, k)
            if scene["kind"] == "single" and k:
                so_far(labels, o, k, visible)
            if not visible:
                continue
            move = MOVES.index(o["action"]) if o["action"] in MOVES and k else -100
            labels["objs"][k, j] = (1, SHAPES.index(o["shape"]), COLORS.index(color), x, y, *extent(o, scene, k), move)
            rx, ry = r * min(w, h) / w, r * min(w, h) / h
            hit = draw_shape(canvas[k], o["shape"], paint, x, y, rx, ry, o["look"]["rot"], soft, o["look"]["inner"])
            if hit is None:
                continue
            # Which patches it covers by more than a fifth, or that hold its centre.
            full = np.zeros((size, size), np.float32)
            full[hit[0]] = hit[1]
            full = full if size == SIZE else np.asarray(Image.fromarray(full).resize((SIZE, SIZE), Image.BOX))
            cover = full.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3))
            cover[min(GRID - 1, max(0, int(y * GRID))), min(GRID - 1, max(0, int(x * GRID)))] = 1
            labels["cover"][k, :, j] = np.where(cover.ravel() > 0.04, cover.ravel(), 0)
            on = np.flatnonzero(cover > 0.2)
            labels["shape"][k, on] = 1 + SHAPES.index(o["shape"])
            labels["color"][k, on] = 1 + COLORS.index(color)
            labels["box"][k, on] = np.stack([(x * GRID - on % GRID - .5) / 4, (y * GRID - on // GRID - .5) / 4,
                                             np.full(len(on), rx * GRID / 2), np.full(len(on), ry * GRID / 2)], 1)
        if "ball" in scene:
            r = scene["ball"]["r"]
            draw_shape(canvas[k], "circle", rng.uniform(245, 255), *scene["path"][k], r * min(w, h) / w, r * min(w, h) / h, 0, soft)
            at = (min(7, int(scene["path"][k][1] * 8))) * 8 + min(7, int(scene["path"][k][0] * 8))
            labels["shape"][k, at], labels["color"][k, at] = 1, 1 + COLORS.index("white")
    for word, g in scene.get("lines", ()):
        mid = (np.arange(GRID) + 0.5) / GRID
        rows = np.abs(mid - g["y"] - g["h"] / 2) < max(g["h"], 0.13) / 2
        for i, (c, x1, x2) in enumerate(draw_text(canvas, word, g)):
            columns = (mid > x1) & (mid < x2)
            columns[min(7, max(0, int((x1 + x2) / 2 * GRID)))] = True
            on = np.flatnonzero(rows[:, None] & columns)
            labels["char"][:, on], labels["slot"][:, on] = 1 + CHARS.index(c), 1 + i
            if scene["kind"] == "text":
                labels["text"][:, i] = 1 + CHARS.index(c)
    # What a camera or a codec does: a little gain, offset, sensor noise; then JPEG with subsampled chroma for H.264's share.
    canvas *= rng.uniform(0.94, 1.06)
    canvas += rng.uniform(-6, 6)
    if rng.random() < 0.4:
        canvas += rng.standard_normal(canvas.shape[:3], np.float32)[..., None] * rng.uniform(1, 7)
    frames = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < jpeg or size != SIZE:
        quality = int(rng.integers(35, 98))
        out = np.empty((n, SIZE, SIZE, 3), np.uint8)
        for k in range(n):
            buf = io.BytesIO()
            Image.fromarray(frames[k]).save(buf, "JPEG", quality=quality, subsampling=2 if rng.random() < .8 else 0)
            im = Image.open(buf)
            out[k] = np.asarray(im if size == SIZE else im.resize((SIZE, SIZE), Image.BICUBIC))
        frames = out
    return frames, labels


# --- curriculum ------------------------------------------------------------------------------------------------------------------

def still_life(rng, words, pages=True):
    """One frame for the dense pretraining: much text, whose letters take longest, and single objects, large and small."""
    u = rng.random()
    return (single(rng, 1, big=rng.random() < .4) if u < .2 else several(rng, 1) if u < .37 else page(rng, words) if u < .82 and pages
            else text(rng, 1, words) if u < .97 else pattern(rng, 1))


def sample(rng, n, rows, words, again=False):
    """A scene of n frames; `rows`, those already trained on, move the mixture from one object to everything. again: the second course, with more words."""
    hard = float(np.clip((rows - 1500) / 6500, 0, 1))
    more = float(np.clip((rows - 8000) / 8000, 0, 1))
    if n == 1:
        # Four different pictures a row: the place for what time does not change.
        kinds = {"single": 0.4, "pattern": 0.12, "several": 0.15 + 0.85 * hard, "text": 1.8 if again else 1.2, "page": 0.2 if again else 0.4}
    else:
        kinds = {"single": 1.0, "pattern": 0.12, "cut": 0.16, "several": 0.1 + 0.25 * hard, "moving": 0.4 * more, "text": 0.15,
                 "compare": (0.2 + 0.5 * hard) * (n == 2)}
    p = np.array(list(kinds.values()))
    kind = pick(rng, list(kinds), p / p.sum())
    if kind == "single":
        return single(rng, n, big=rng.random() < 0.5 * (1 - hard))
    if kind in ("several", "moving"):
        moving = kind == "moving"
        return several(rng, n, pick(rng, [1, 2, 3], (.15, .5, .35)) if moving else None, moving)
    return {"pattern": lambda: pattern(rng, n), "cut": lambda: cut(rng, n), "text": lambda: text(rng, n, words, *[0.25] * again), "page": lambda: page(rng, words),
            "compare": lambda: compare(rng)}[kind]()
