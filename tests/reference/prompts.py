"""Prompts as InternVL's chat() renders them: template internvl2_5, then image expansion. The -hf chat template is the
same but has no default system turn."""
from corpus import SYSTEM


def render(turns, system):
    """TURNS: [(question, answer or None)]; SYSTEM: text, or None for no system turn (-hf)."""
    out = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    for question, answer in turns:
        out += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        if answer is not None:
            out += f"{answer}<|im_end|>\n"
    return out


def expand(text, tiles_per_image, tokens_per_tile):
    for n in tiles_per_image:
        text = text.replace("<image>", "<img>" + "<IMG_CONTEXT>" * (tokens_per_tile * n) + "</img>", 1)
    assert "<image>" not in text
    return text


def default_system(model):
    if model["layout"] != "orig":
        return None
    return SYSTEM if model.get("system_message") is None else model["system_message"]
