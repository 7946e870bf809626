#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Held-out clips: drawn by Cairo or GStreamer's videotestsrc, encoded to H.264 by GStreamer. Shares no code with the training scenes.

    heldout.py --out DIR [--seed S] [KIND=COUNT ...]

Kinds: single, image, pattern, cut, several, moving, text, compare. Writes DIR/NNNNN-kind.mp4 and DIR/truth.jsonl, one object a line: file,
kind, duration (of the chunk), start (of the chunk in the file), frames (to sample from the chunk) and what is true of it. Chunks last a second, patterns two. Needs the
distribution's Python with cairo and numpy, and GStreamer with x264enc, openh264enc, mp4mux.
"""
import argparse
import fcntl
import json
import math
import os
import random
import subprocess
import sys

import cairo
import numpy as np

SIZES = [(320, 240)] * 3 + [(640, 360)] * 4 + [(640, 480)] * 3 + [(854, 480)] * 2 + [(1280, 720)] * 2 + [(1920, 1080), (480, 640)]
PAINT = {"red": ("ff0000", "e01b24", "cc0000"), "orange": ("ff8c00", "ff8800", "f58220"), "yellow": ("ffff00", "f6e000", "ffee20"),
         "green": ("008000", "00ff00", "2ca02c", "00b020"), "blue": ("0000ff", "1f3fd0", "1030e0"), "purple": ("800080", "9b30b0", "7a1fa2"),
         "white": ("ffffff", "f0f0f0"), "black": ("000000", "141414")}
COLORS, SHAPES = list(PAINT), ["circle", "square", "triangle", "star"]
FONTS = ["FreeSans", "FreeSerif", "FreeMono", "Liberation Sans"]
WORDS = ("GOOD LOVE TIME YEAR WORK HAND PART LIFE CASE WEEK SIDE HEAD HOUR GAME TEAM MIND KIDS INFO FACE IDEA CARS FOOD BABY GIRL FORM WIFE TALK "
         "PLAN RISK BANK CAMP FUND GOAL HELP KIND LAND LEAD LIST LOSS MARK MEAL NAME PAIN PATH POST RATE ROLE RULE SALE SEAT SIGN SIZE SKIN "
         "SOIL SPOT STEP TASK TERM TEXT TOOL TOUR TOWN TYPE USER VOTE WINE ZONE JOKE QUAY VERY").split()


def rgb(name, r):
    h = r.choice(PAINT[name])
    return tuple(int(h[i:i + 2], 16) / 255 for i in (0, 2, 4))


def dim(a, b):
    return sum(abs(x - y) for x, y in zip(a, b))


class Ground:
    """A background that paints itself; `banned` are the object colours that would not show."""
    def __init__(self, r, kind=None, ban=()):
        self.kind = kind or r.choices(["color", "gradient", "noise"], (6, 2, 1.5))[0]
        self.name, self.banned = self.kind, []
        if self.kind == "color":
            self.name = r.choice([c for c in COLORS if c not in ban])
            self.rgb, self.banned = rgb(self.name, r), [self.name]
        elif self.kind == "gradient":
            while True:
                a, b = r.sample(COLORS, 2)
                self.ends = rgb(a, r), rgb(b, r)
                mid = [tuple(x + (y - x) * t / 8 for x, y in zip(*self.ends)) for t in range(9)]
                self.banned = [c for c in COLORS if min(dim(m, tuple(int(PAINT[c][0][i:i + 2], 16) / 255 for i in (0, 2, 4))) for m in mid) < .75]
                if dim(*self.ends) > 1 and len(self.banned) < 6:
                    break
            self.angle = r.choice([0, 90, 45, 135])
        elif self.kind == "noise":
            self.cell, self.spread, self.grey, self.still = r.uniform(2.5, 5) / 112, r.uniform(30, 60), r.random() < .7, r.random() < .7
            self.seed = r.randrange(1 << 30)

    def paint(self, c, w, h, k):
        if self.kind == "color":
            c.set_source_rgb(*self.rgb)
        elif self.kind == "gradient":
            a = math.radians(self.angle)
            dx, dy = math.cos(a) * w / 2, math.sin(a) * h / 2
            g = cairo.LinearGradient(w / 2 - dx, h / 2 - dy, w / 2 + dx, h / 2 + dy)
            g.add_color_stop_rgb(0, *self.ends[0])
            g.add_color_stop_rgb(1, *self.ends[1])
            c.set_source(g)
        else:
            rng = np.random.default_rng((self.seed, 0 if self.still else k))
            n = int(1 / self.cell)
            v = 128 + self.spread * rng.standard_normal((n, n, 1 if self.grey else 3))
            s = np.full((n, n, 4), 255, np.uint8)
            s[..., :3] = np.clip(v, 0, 255)
            tile = cairo.ImageSurface.create_for_data(s, cairo.FORMAT_RGB24, n, n)
            c.save()
            c.scale(w / n, h / n)
            c.set_source_surface(tile)
            c.get_source().set_filter(cairo.FILTER_NEAREST)
            c.paint()
            c.restore()
            return
        c.paint()


def outline(c, shape, x, y, r, turn):
    c.save()
    c.translate(x, y)
    c.rotate(turn)
    if shape == "circle":
        c.arc(0, 0, r, 0, 2 * math.pi)
    elif shape == "square":
        c.rectangle(-.85 * r, -.85 * r, 1.7 * r, 1.7 * r)
    else:
        n, tips = (3, [1, None]) if shape == "triangle" else (5, [1.08, .44])
        dy = .25 * r if shape == "triangle" else 0
        for i in range(n):
            a = 2 * math.pi * i / n - math.pi / 2
            c.line_to(math.cos(a) * r * tips[0], math.sin(a) * r * tips[0] + dy)
            if tips[1]:
                c.line_to(math.cos(a + math.pi / n) * r * tips[1], math.sin(a + math.pi / n) * r * tips[1] + dy)
        c.close_path()
    c.restore()
    # Outside the rotation: the extents of the outline itself, not of its turned box.
    return c.path_extents()


class Thing:
    """An object with a place, a size and an action over the unit time of the chunk."""
    def __init__(self, r, shape, color, w, h, small=False):
        self.shape, self.color, self.rgb = shape, color, rgb(color, r)
        m = min(w, h)
        self.size = r.choices(["small", "medium", "large"], (1, 2, 2))[0]
        self.r = {"small": r.uniform(.1, .122), "medium": r.uniform(.14, .2), "large": r.uniform(.23, .3)}[self.size]
        if small:
            self.r, self.size = r.uniform(.11, .17), None
        rx, ry = self.r * m / w, self.r * m / h
        self.x, self.y = r.uniform(rx, 1 - rx), r.uniform(ry, 1 - ry)
        self.turn = r.uniform(-.15, .15) if r.random() < .5 else 0
        self.action, self.at, self.color2, self.w, self.h = "still", None, None, w, h
        self.a = self.b = (self.x, self.y, self.r)

    def act(self, r, action, at, banned):
        self.action = action
        m = min(self.w, self.h)
        if action in ("right", "left", "up", "down"):
            i = 0 if action in ("right", "left") else 1
            pad = self.r * m / (self.w, self.h)[i]
            room = 1 - 2 * pad
            travel = r.uniform(min(.25, room), room)
            lo = pad + r.uniform(0, room - travel)
            ends = (lo, lo + travel) if action in ("right", "down") else (lo + travel, lo)
            p = [[self.x, self.y, self.r], [self.x, self.y, self.r]]
            p[0][i], p[1][i] = ends
            self.a, self.b = map(tuple, p)
        elif action in ("grow", "shrink"):
            s = r.uniform(.08, .14)
            e = [(self.x, self.y, s), (self.x, self.y, s * r.uniform(1.8, 3))]
            self.a, self.b = e if action == "grow" else e[::-1]
        elif action in ("appear", "disappear", "turn"):
            self.at = at
            if action == "turn":
                self.color2 = r.choice([c for c in COLORS if c not in banned + [self.color]])
                self.rgb2 = rgb(self.color2, r)

    def state(self, t):
        x, y, s = (p + (q - p) * t for p, q in zip(self.a, self.b))
        late = self.at is not None and t >= self.at
        shown = not (self.action == "appear" and not late or self.action == "disappear" and late)
        return x, y, s, self.rgb2 if late and self.action == "turn" else self.rgb, shown

    def paint(self, c, t):
        x, y, s, paint, shown = self.state(t)
        if not shown:
            return
        c.new_path()
        self.extent = outline(c, self.shape, x * self.w, y * self.h, s * min(self.w, self.h), self.turn)
        c.set_source_rgb(*paint)
        c.fill()

    def truth(self):
        t = {"shape": self.shape, "color": self.color, "action": self.action, "size": self.size, "x": self.x, "y": self.y, "r": self.r}
        if self.at is not None:
            t["at"] = self.at
        if self.color2:
            t["color2"] = self.color2
        if self.action in ("still", "turn"):
            c = cairo.Context(cairo.ImageSurface(cairo.FORMAT_A8, 8, 8))
            e = outline(c, self.shape, self.x * self.w, self.y * self.h, self.r * min(self.w, self.h), self.turn)
            t["box"] = [min(1, max(0, v / d)) for v, d in zip(e, (self.w, self.h, self.w, self.h))]
        return t


def encode(out, w, h, fps, r, frames=None, source=None):
    raw = f"fdsrc fd=0 blocksize=1048576 ! rawvideoparse format=bgrx width={w} height={h} framerate={fps}/1"
    coder = (f"x264enc pass=qual quantizer={r.randint(18, 30)} speed-preset=superfast key-int-max={r.choice([15, 50, 250])}" if r.random() < .8 else
             f"openh264enc bitrate={w * h * 4} complexity=low")
    line = (f"gst-launch-1.0 -q {source or raw} ! videoconvert ! video/x-raw,format=I420 ! {coder} ! h264parse ! mp4mux ! filesink location={out}").split()
    p = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    # A pipe of the usual 64 KB would have the two take turns a hundred times a frame.
    fcntl.fcntl(p.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)
    for f in frames or ():
        p.stdin.write(f)
    _, err = p.communicate()
    if p.returncode:
        sys.exit(f"gst-launch-1.0 failed on {out}: {err.decode()}")


def draw(w, h, count, paint):
    """Frames as BGRx bytes; paint(context, t, k)."""
    s = cairo.ImageSurface(cairo.FORMAT_RGB24, w, h)
    for k in range(count):
        paint(cairo.Context(s), k / count, k)
        s.flush()
        yield bytes(s.get_data())


def combo(r, ground):
    return r.choice(SHAPES), r.choice([c for c in COLORS if c not in ground.banned])


def event_time(r, n):
    """Just before sampled frame k, whether frames are taken at k/n or at (k + 1/2)/n of the chunk."""
    k = r.randrange(1, n)
    return (k - r.uniform(.05, .4)) / n, k + 1


def clip(kind, r, out):
    w, h = r.choice(SIZES)
    fps, seconds = r.choice([25, 30]), 2 if kind == "pattern" else 1
    n = {"image": 1, "compare": 2, "eight": 8}.get(kind, 4)
    truth = {"file": os.path.basename(out), "kind": kind, "width": w, "height": h, "fps": fps, "start": 0, "duration": seconds, "frames": n, "objects": []}
    count = fps * seconds
    if kind == "pattern":
        return pattern(r, out, truth)
    ground = Ground(r, r.choices(["color", "gradient"], (9, 1))[0] if kind == "text" else None)
    truth["background"] = ground.name
    at, frame = event_time(r, n) if n > 1 else (None, None)
    things, after = [], None
    if kind in ("single", "image", "compare", "cut", "eight"):
        shape, color = combo(r, ground)
        things = [Thing(r, shape, color, w, h)]
        if kind in ("single", "eight"):
            action = r.choices(["right", "left", "up", "down", "grow", "shrink", "still", "appear", "disappear", "turn"], (3, 3, 3, 3, 2, 2, 5, 4, 4, 4))[0]
            if shape == "circle" and color == "white" and ground.name == "black":
                color = things[0].color = "red"
                things[0].rgb = rgb("red", r)
            things[0].act(r, action, at, ground.banned)
        if kind in ("cut", "compare"):
            after = change(r, kind, truth, ground, things[0], w, h)
            truth["cut"] = at if kind == "cut" else .5
            at = truth["cut"]
    elif kind in ("several", "moving"):
        scatter(r, kind, ground, things, w, h)
        truth["moving"] = kind == "moving"
    glyphs = None
    if kind == "text":
        s = "".join(r.choice("0123456789") for _ in range(r.randint(1, 4))) if r.random() < .5 else r.choice(WORDS)
        near = {"white": ["yellow"], "yellow": ["white"], "red": ["orange", "purple"], "orange": ["red", "yellow"], "black": ["blue", "purple"],
                "blue": ["black", "purple"], "purple": ["blue", "black", "red"], "green": ["blue"]}
        color = r.choice([c for c in COLORS if c not in ground.banned + near.get(ground.name, [])])
        truth |= {"text": s, "color": color}
        glyphs = (s, rgb(color, r), r.choice(FONTS), r.uniform(.15, .22) * len(s) if len(s) > 2 else r.uniform(.16, .27) * len(s), r.uniform(.24, .4), r.random(), r.random())

    def paint(c, t, k):
        g, group = (after if after and t >= at else (ground, things))
        g.paint(c, w, h, k)
        for o in group:
            o.paint(c, t)
        if glyphs:
            letters(c, w, h, *glyphs)

    encode(out, w, h, fps, r, draw(w, h, count, paint))
    truth["objects"] = [o.truth() for o in things]
    if frame and things and things[0].at is not None:
        truth["objects"][0]["frame"] = frame
    if after:
        truth["cut_frame"] = frame if kind == "cut" else 2
        truth["parts"] = [{"background": ground.name, "objects": truth["objects"]}, {"background": after[0].name, "objects": [o.truth() for o in after[1]]}]
    return truth


def change(r, kind, truth, ground, o, w, h):
    """The second half of a clip that changes at once."""
    if kind == "cut":
        g = Ground(r)
        while g.name == ground.name:
            g = Ground(r)
        shape, color = combo(r, g)
        if (shape, color) == (o.shape, o.color):
            shape = r.choice([s for s in SHAPES if s != shape])
        return g, [Thing(r, shape, color, w, h)]
    what = r.choice(["color", "shape", "position", "size", "background", "nothing"])
    p = Thing(r, o.shape, o.color, w, h)
    p.__dict__.update(o.__dict__)
    g = ground
    if what == "color":
        p.color = r.choice([c for c in COLORS if c not in ground.banned + [o.color]])
        p.rgb = rgb(p.color, r)
    elif what == "shape":
        p.shape = r.choice([s for s in SHAPES if s != o.shape])
    elif what == "position":
        while math.hypot(p.x - o.x, p.y - o.y) < .3:
            q = Thing(r, o.shape, o.color, w, h)
            p.x, p.y = q.x, q.y
    elif what == "size":
        p.r = o.r * (.5 if o.r > .16 else 1.9)
        p.size = None
    elif what == "background":
        while g.name == ground.name or o.color in g.banned:
            g = Ground(r)
    p.a = p.b = (p.x, p.y, p.r)
    truth["what"] = what
    return g, [p]


def scatter(r, kind, ground, things, w, h):
    want = r.choice([2, 2, 3]) if kind == "moving" else r.randint(0, 4)
    m = min(w, h)
    while len(ground.banned) > 5:
        ground.__init__(r, "color")
    while len(things) < want:
        shape, color = combo(r, ground)
        if kind == "moving" and any((o.shape, o.color) == (shape, color) for o in things):
            continue
        o = Thing(r, shape, color, w, h, small=True)
        if kind == "moving":
            o.act(r, r.choices(["right", "left", "up", "down", "grow", "shrink", "still"], (3, 3, 3, 3, 1, 1, 4))[0], None, [])
        ts = [0, .25, .5, .75, 1]
        if all(math.hypot((o.state(t)[0] - p.state(t)[0]) * w, (o.state(t)[1] - p.state(t)[1]) * h) > (o.state(t)[2] + p.state(t)[2]) * 1.15 * m
               for p in things for t in ts):
            things.append(o)
        elif r.random() < .02:
            things.clear()


def letters(c, w, h, s, paint, font, wide, tall, u, v):
    c.select_font_face(font, cairo.FONT_SLANT_NORMAL, cairo.FONT_WEIGHT_BOLD)
    c.set_font_size(100)
    e = c.text_extents(s)
    sx, sy = wide * w / e.width, tall * h / e.height
    c.save()
    c.translate(.02 * w + u * (.96 - wide) * w, .03 * h + v * (.94 - tall) * h)
    c.scale(sx, sy)
    c.move_to(-e.x_bearing, -e.y_bearing)
    c.set_source_rgb(*paint)
    c.show_text(s)
    c.restore()


def pattern(r, out, truth):
    name = r.choice(["bars", "snow", "checkers", "ball", "plain"])
    w, h, fps = truth["width"], truth["height"], truth["fps"]
    source = {"bars": r.choice(["smpte", "smpte", "smpte75", "smpte100"]), "snow": "snow", "ball": "ball"}.get(name)
    truth |= {"pattern": name, "background": {"bars": "bars", "snow": "noise", "checkers": "checkers", "ball": "black"}.get(name)}
    seconds = truth["duration"]
    if name == "ball":
        # Its radius is 20 pixels whatever the size: above VGA it is a dot. Later chunks of a longer clip show it elsewhere.
        w, h = truth["width"], truth["height"] = r.choice([(320, 240), (640, 360), (640, 480)])
        truth["start"] = 2 * r.randrange(5)
        seconds = truth["start"] + 2
    elif name == "checkers" and r.random() < .5:
        # videotestsrc's cells are 8 pixels at most: in a large frame the model's 112 pixels show them as one colour.
        w, h, source = *r.choice([(320, 240), (400, 304)]), "checkers-8"
        truth |= {"width": w, "height": h}
    elif name == "plain":
        source = r.choice(["red", "green", "blue", "white", "black", None])
        truth["background"] = source
    if source:
        src = f"videotestsrc pattern={source} num-buffers={seconds * fps} ! video/x-raw,width={w},height={h},framerate={fps}/1"
        encode(out, w, h, fps, r, source=src)
        return truth
    if name == "checkers":
        cell, a, b = r.uniform(.04, .16), *r.sample(COLORS, 2)
        a, b = rgb(a, r), rgb(b, r)

        def paint(c, t, k):
            for j in range(int(1 / cell) + 1):
                for i in range(int(1 / cell * w / h) + 1):
                    c.set_source_rgb(*(a if (i + j) % 2 else b))
                    c.rectangle(i * cell * h, j * cell * h, cell * h + 1, cell * h + 1)
                    c.fill()
    else:
        g = Ground(r, r.choice(["color", "color", "gradient"]))
        truth["background"] = g.name

        def paint(c, t, k):
            g.paint(c, w, h, k)
    encode(out, w, h, fps, r, draw(w, h, fps * seconds, paint))
    return truth


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("counts", nargs="*", default=["single=8", "pattern=4"])
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    # Each clip has its own seed: any subset of them can be made again, and an interrupted run goes on.
    have = {json.loads(s)["file"] for s in open(f"{args.out}/truth.jsonl")} if os.path.exists(f"{args.out}/truth.jsonl") else set()
    with open(f"{args.out}/truth.jsonl", "a") as log:
        for kind, count in (c.split("=") for c in args.counts):
            for i in range(int(count)):
                name = f"{kind}-{i:04d}.mp4"
                if name not in have:
                    truth = clip(kind, random.Random(f"{args.seed} {kind} {i}"), f"{args.out}/{name}")
                    log.write(json.dumps(truth) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
