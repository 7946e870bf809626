"""Pictures and preprocessing goldens: tests/golden/pictures.safetensors, preprocess.safetensors, preprocess.json."""
import hashlib
import json
import os

import numpy as np
import PIL
from safetensors.numpy import save_file

import pictures as p
from make_models import GOLDEN, compact

STORED = [("wide200x150", 6, 84), ("odd37x53", 1, 84), ("odd37x53", 1, 112), ("frame1", 1, 84), ("tall40x260", 1, 84)]
SIZES = [(448, 448), (600, 600), (1000, 1000), (640, 480), (800, 400), (1280, 640), (1920, 1080), (1080, 1920),
         (1280, 1024), (800, 1333), (3000, 500), (5000, 100), (100, 5000), (1, 1), (1, 10000), (37, 53), (301, 64),
         (447, 449), (895, 448), (896, 448), (897, 448), (634, 634), (633, 633), (1344, 896), (720, 480), (352, 288),
         (4096, 2160), (2, 3), (17, 12), (1366, 768)]
FORMULA = [(640, 360, 1), (1920, 1080, 1), (449, 447, 1), (448, 300, 1), (200, 448, 1), (1280, 720, 12), (333, 777, 6),
           (31, 17, 12), (3, 2, 1), (1, 1, 1)]


def main():
    save_file(p.pictures(), os.path.join(GOLDEN, "pictures.safetensors"))
    tensors, digests = {}, []
    for name, rgb in p.pictures().items():
        for size in (84, 112, 448):
            for n in (1, 2, 6, 12):
                tiles = p.tiles_of(rgb, n, size)
                digests.append(dict(picture=name, max_tiles=n, tile_size=size, tiles=len(tiles),
                                    sha256=hashlib.sha256(tiles.tobytes()).hexdigest()))
                if (name, n, size) in STORED:
                    tensors[f"{name}.{n}.{size}.tiles"] = tiles
                    if (name, size) == ("odd37x53", 84):
                        tensors[f"{name}.{n}.{size}.pixel_values"] = p.normalise(tiles)
    formula = []
    for w, h, n in FORMULA:
        tiles = p.tiles_of(p.formula_picture(w, h), n, 448)
        formula.append(dict(width=w, height=h, max_tiles=n, tile_size=448, tiles=len(tiles),
                            sha256=hashlib.sha256(tiles.tobytes()).hexdigest()))
    grids = []
    rng = np.random.default_rng(0)
    sizes = SIZES + [tuple(int(v) for v in np.exp(rng.uniform(0, 8.5, 2)).round()) for _ in range(150)]
    for w, h in sizes:
        for n in (1, 2, 6, 12, 24, 40):
            grids.append([w, h, n, *p.grid_of(w, h, n, 448)])
    # The engine's own table, so that its u8 -> f32 step can be checked apart from any picture.
    levels = p.normalise(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1).reshape(1, 16, 16, 3))
    tensors["levels"] = np.ascontiguousarray(levels[0].reshape(3, 256))
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, os.path.join(GOLDEN, "preprocess.safetensors"))
    with open(os.path.join(GOLDEN, "preprocess.json"), "w") as f:
        f.write(compact(dict(pillow=PIL.__version__, digests=digests, formula=formula, grids_448=grids)) + "\n")


if __name__ == "__main__":
    main()
