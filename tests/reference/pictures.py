"""Preprocessing of the reference (InternVL's dynamic_preprocess on PIL) and the input pictures of the goldens."""
import math

import numpy as np
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def grid_of(width, height, max_tiles, size, min_tiles=1):
    """-> (columns, rows)"""
    candidates = sorted({(i, j) for n in range(min_tiles, max_tiles + 1) for i in range(1, n + 1)
                         for j in range(1, n + 1) if min_tiles <= i * j <= max_tiles}, key=lambda x: x[0] * x[1])
    aspect, best, best_diff = width / height, (1, 1), float("inf")
    for i, j in candidates:
        diff = abs(aspect - i / j)
        if diff < best_diff:
            best, best_diff = (i, j), diff
        elif diff == best_diff and width * height > 0.5 * size * size * i * j:
            best = (i, j)
    return best


def resize(image, width, height):
    """Pillow's default for RGB: bicubic, the horizontal pass first. In two calls, because since version 13 Pillow puts
    the vertical pass first if the height shrinks much more than the width, which rounds differently (up to 20 levels on
    noise); all versions that InternVL was trained and measured with go horizontally first."""
    return image.resize((width, image.height)).resize((width, height))


def tiles_of(rgb, max_tiles, size, thumbnail=True):
    """u8 [h, w, 3] -> u8 [tiles, size, size, 3]"""
    image = Image.fromarray(rgb)
    cols, rows = grid_of(image.width, image.height, max_tiles, size)
    resized = resize(image, size * cols, size * rows)
    tiles = [resized.crop((c * size, r * size, (c + 1) * size, (r + 1) * size))
             for r in range(rows) for c in range(cols)]
    if thumbnail and len(tiles) != 1:
        tiles.append(resize(image, size, size))
    return np.stack([np.asarray(t) for t in tiles])


def normalise(tiles):
    """u8 [t, s, s, 3] -> f32 [t, 3, s, s], in the order of torchvision's ToTensor and Normalize"""
    x = tiles.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((x - MEAN) / STD).transpose(0, 3, 1, 2))


def formula_picture(width, height):
    """A picture any language can make: integers only."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    return np.stack([(x * (3 + c) + y * (5 - c) + ((x * y) >> (4 + c)) + 37 * c) & 255 for c in range(3)],
                    -1).astype(np.uint8)


def scene(width, height, seed):
    """Smooth colours, a few hard-edged shapes, noise: edges overshoot in bicubic, flat parts don't."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    u, v = x / width, y / height
    img = np.stack([127 + 120 * np.sin(2 * math.pi * (rng.uniform(.3, 2) * u + rng.uniform(.3, 2) * v
                                                      + rng.uniform())) for _ in range(3)], -1)
    for _ in range(4):
        cx, cy, r = rng.uniform(size=3) * (1, 1, .25)
        inside = ((u - cx) ** 2 + (v - cy) ** 2 < r * r) if rng.uniform() < .5 else \
                 (abs(u - cx) < r) & (abs(v - cy) < r * .7)
        img[inside] = rng.integers(0, 2, 3) * 255
    img[: height // 8] += rng.normal(0, 40, (height // 8, width, 3))
    return np.clip(img, 0, 255).round().astype(np.uint8)


def pictures():
    """The pictures of tests/golden/pictures.safetensors."""
    p = {"square112": scene(112, 112, 1), "square84": scene(84, 84, 2), "odd37x53": scene(37, 53, 3),
         "wide200x150": scene(200, 150, 4), "strip301x64": scene(301, 64, 5), "dot1x1": scene(1, 1, 6),
         "tall40x260": scene(40, 260, 8)}
    for k in range(3):
        p[f"frame{k + 1}"] = np.roll(scene(64, 48, 7), 9 * k, axis=1)
    return p
