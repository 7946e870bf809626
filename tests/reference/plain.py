"""InternVL 2.5 written out in plain torch from the original layout's tensors, sharing no code with transformers.

A second opinion: make_models.py asserts that it equals transformers' model. No KV cache, one sequence, fp32.
"""
import math

import torch
import torch.nn.functional as F


def rms_norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def attention(q, k, v, scale, causal):
    """q [nh, n, d], k, v [nkv, n, d]"""
    group = q.shape[0] // k.shape[0]
    out = []
    for h in range(q.shape[0]):
        s = (q[h] * scale) @ k[h // group].T
        if causal:
            s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -math.inf)
        out.append(s.softmax(-1) @ v[h // group])
    return torch.cat(out, -1)  # [n, nh * d]


class Plain:
    def __init__(self, tensors, config):
        self.w = {k: v.float() for k, v in tensors.items()}
        self.c = config

    # ---- vision: [3, S, S] -> [n, C] per block ----

    def norm(self, x, name):
        eps = self.c["vision_config"]["layer_norm_eps"]
        if self.c["vision_config"]["norm_type"] == "rms_norm":
            return rms_norm(x, self.w[name + ".weight"], eps)
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], eps)

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def vision(self, pixels):
        """-> [embeddings, after block 0, ...]"""
        c, p = self.c["vision_config"], "vision_model."
        g, hidden = c["image_size"] // 14, c["hidden_size"]
        # [3, g, 14, g, 14] -> one row per patch, (channel, y, x) inside
        patches = pixels.view(3, g, 14, g, 14).permute(1, 3, 0, 2, 4).reshape(g * g, 588)
        w = self.w[p + "embeddings.patch_embedding.weight"].view(hidden, 588)
        x = patches @ w.T + self.w[p + "embeddings.patch_embedding.bias"]
        x = torch.cat([self.w[p + "embeddings.class_embedding"][0], x])
        x = x + self.w[p + "embeddings.position_embedding"][0]
        states = [x]
        nh = c["num_attention_heads"]
        d = hidden // nh
        for i in range(c["num_hidden_layers"]):
            l = f"{p}encoder.layers.{i}."
            q, k, v = self.linear(self.norm(x, l + "norm1"), l + "attn.qkv").chunk(3, -1)
            if c["qk_normalization"]:
                q = rms_norm(q, self.w[l + "attn.q_norm.weight"], c["layer_norm_eps"])
                k = rms_norm(k, self.w[l + "attn.k_norm.weight"], c["layer_norm_eps"])
            q, k, v = (t.view(-1, nh, d).transpose(0, 1) for t in (q, k, v))
            a = self.linear(attention(q, k, v, d ** -0.5, False), l + "attn.proj")
            x = x + self.w[l + "ls1"] * a
            h = self.linear(self.norm(x, l + "norm2"), l + "mlp.fc1")
            h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
            x = x + self.w[l + "ls2"] * self.linear(h, l + "mlp.fc2")
            states.append(x)
        return states

    def pixel_shuffle(self, x):
        """[1 + g*g, C] -> [g/2 * g/2, 4C], class token dropped"""
        g = math.isqrt(x.shape[0] - 1)
        x = x[1:].view(g // 2, 2, g // 2, 2, -1)  # Y, dy, X, dx, c
        return x.permute(0, 2, 1, 3, 4).reshape(g * g // 4, -1)

    def project(self, x):
        x = F.layer_norm(x, x.shape[-1:], self.w["mlp1.0.weight"], self.w["mlp1.0.bias"], 1e-5)
        return self.linear(F.gelu(self.linear(x, "mlp1.1")), "mlp1.3")

    # ---- text ----

    def rope(self, x):
        """x [heads, n, d]; within max_position_embeddings, where dynamic scaling does nothing"""
        c = self.c["llm_config"]
        d, scaling = x.shape[-1], c["rope_scaling"] or {}
        angle = torch.arange(x.shape[1]).float()[:, None] * c["rope_theta"] ** (-torch.arange(0, d, 2).float() / d)
        if scaling.get("type") == "linear":
            angle = angle / scaling["factor"]
        cos, sin = angle.cos(), angle.sin()
        a, b = x[..., :d // 2], x[..., d // 2:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def text(self, ids, image_rows=None, image_token=None):
        """-> (states [embeddings, after layer 0, ...], logits of the last position)"""
        c, p = self.c["llm_config"], "language_model."
        internlm2 = c["architectures"][0] == "InternLM2ForCausalLM"
        nh, nkv, eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
        d = c["hidden_size"] // nh
        embed = self.w[p + ("model.tok_embeddings.weight" if internlm2 else "model.embed_tokens.weight")]
        x = embed[ids].clone()
        if image_rows is not None:
            x[torch.tensor(ids) == image_token] = image_rows
        states = [x]
        for i in range(c["num_hidden_layers"]):
            l = f"{p}model.layers.{i}."
            if internlm2:
                h = rms_norm(x, self.w[l + "attention_norm.weight"], eps)
                qkv = self.linear(h, l + "attention.wqkv").view(len(ids), nkv, nh // nkv + 2, d)
                q = qkv[:, :, :-2].reshape(len(ids), nh, d).transpose(0, 1)
                k, v = qkv[:, :, -2].transpose(0, 1), qkv[:, :, -1].transpose(0, 1)
                o, norm2, gate, up, down = "attention.wo", "ffn_norm", *(f"feed_forward.w{j}" for j in (1, 3, 2))
            else:
                h = rms_norm(x, self.w[l + "input_layernorm.weight"], eps)
                q, k, v = (self.linear(h, l + f"self_attn.{s}_proj").view(len(ids), -1, d).transpose(0, 1)
                           for s in "qkv")
                o, norm2 = "self_attn.o_proj", "post_attention_layernorm"
                gate, up, down = (f"mlp.{s}_proj" for s in ("gate", "up", "down"))
            x = x + self.linear(attention(self.rope(q), self.rope(k), v, d ** -0.5, True), l + o)
            h = rms_norm(x, self.w[l + norm2 + ".weight"], eps)
            x = x + self.linear(F.silu(self.linear(h, l + gate)) * self.linear(h, l + up), l + down)
            states.append(x)
        head = self.w.get(p + ("output.weight" if internlm2 else "lm_head.weight"), embed)
        return states, head @ rms_norm(x[-1], self.w[p + "model.norm.weight"], eps)
