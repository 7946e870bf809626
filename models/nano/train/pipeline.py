#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks questions about clips through the real pipeline: filesrc ! decodebin ! internvl ! fakesink.

    pipeline.py MODEL CLIPS ASKED ANSWERED

ASKED has one JSON object a line: file, start and duration (seconds) of its last chunk, frames, questions. ANSWERED gets, a line each, file and answers, in
the same order; clips already there are not asked again. The first question is the element's prompt, the others come by its action `ask`.
Needs the distribution's Python with gi, the plugin in GST_PLUGIN_PATH, and nothing else.
"""
import json
import os
import sys

import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst      # noqa: E402


def ask(model, path, clip):
    p = Gst.parse_launch("filesrc name=f ! decodebin ! internvl name=v max-tokens=64 ! fakesink sync=false")
    p.get_by_name("f").set_property("location", path)
    v = p.get_by_name("v")
    for name, value in (("model-path", model), ("prompt", clip["questions"][0]), ("chunk-duration", int(clip["duration"] * 1e9)),
                        ("chunk-size", clip["frames"]), ("share", True)):
        v.set_property(name, value)
    p.set_state(Gst.State.PLAYING)
    bus, out = p.get_bus(), [None] * len(clip["questions"])
    asked = False
    while None in out:
        m = bus.timed_pop_filtered(600 * Gst.SECOND, Gst.MessageType.ERROR | Gst.MessageType.ELEMENT)
        if m is None or m.type == Gst.MessageType.ERROR:
            sys.exit(f"pipeline.py: {path}: {m.parse_error() if m else 'no answer'}")
        s = m.get_structure()
        if s.get_name() != "internvl":
            continue
        if s.has_field("error"):
            sys.exit(f"pipeline.py: {path}: {s.to_string()}")
        if s.has_field("id"):
            out[int(s.get_string("id"))] = s.get_string("text")
        elif not asked and s.get_uint64("timestamp")[1] >= clip["start"] * Gst.SECOND:
            out[0] = s.get_string("text")
            asked = True
            for i, q in enumerate(clip["questions"][1:], 1):
                if not v.emit("ask", q, str(i)):
                    sys.exit(f"pipeline.py: {path}: {q!r} was refused")
    p.set_state(Gst.State.NULL)
    return out


def main(model, clips, asked, answered):
    Gst.init(None)
    # One element that stays holds the shared model.
    keep = Gst.ElementFactory.make("internvl")
    keep.set_property("model-path", model)
    keep.set_property("share", True)
    keep.set_state(Gst.State.PAUSED)
    have = {json.loads(s)["file"] for s in open(answered)} if os.path.exists(answered) else set()
    with open(answered, "a") as log:
        for line in open(asked):
            clip = json.loads(line)
            if clip["file"] not in have:
                log.write(json.dumps({"file": clip["file"], "answers": ask(model, f"{clips}/{clip['file']}", clip)}) + "\n")
                log.flush()
    keep.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
