# SPDX-License-Identifier: LGPL-2.1-or-later
"""Muon for the matrices inside the network, Adam for embeddings, heads, norms and biases.

Weights are f32 and shared between workers; each computes with a bf16 copy of its own, which `step` refreshes.
"""
import torch


# The first steps of the Polar Express (Amsel et al., 2025); three are enough here and take a tenth of the time of a step.
STEPS = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518))


@torch.no_grad()
def orthogonal(g):
    """Towards the nearest orthogonal matrix, in bf16."""
    x = g.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.t()
    x = x / (x.norm() * 1.01 + 1e-7)
    for a, b, c in STEPS:
        y = x @ x.t()
        x = a * x + (b * y + c * (y @ y)) @ x
    return (x.t() if tall else x).float()


class Mixed:
    """master: names to f32 parameters; copy: the same names to bf16 parameters, which hold the gradients."""
    def __init__(self, master, copy, muon=True, decay=0.05, clip=1.0, momentum=0.95):
        self.master, self.copy, self.decay, self.clip, self.momentum = master, copy, decay, clip, momentum
        inner = ("encoder.layers", "model.layers", "mlp1")
        self.matrices = {k for k, p in master.items() if muon and p.dim() == 2 and any(s in k for s in inner)}
        self.state = {}
        self.refresh()

    @torch.no_grad()
    def refresh(self):
        for k, p in self.copy.items():
            p.copy_(self.master[k])

    @torch.no_grad()
    def step(self, rate, vision=1.0):
        """rate: about the root mean square of a weight's change, over 0.3 for matrices; of the vision tower's weights, `vision` times that.
        What has no gradient stays."""
        grads = {k: p.grad.float() for k, p in self.copy.items() if p.grad is not None}
        norm = torch.stack([g.norm() for g in grads.values()]).norm().item()
        scale = min(1.0, self.clip / (norm + 1e-6))
        for k, g in grads.items():
            g.mul_(scale)
            p, lr = self.master[k], rate * vision if k.startswith("vision_model") else rate
            if k in self.matrices:
                s = self.state.setdefault(k, {"m": torch.zeros_like(g)})
                s["m"].mul_(self.momentum).add_(g)
                update = orthogonal(g.add(s["m"], alpha=self.momentum))
                p.mul_(1 - lr * self.decay).add_(update, alpha=-lr * 0.3 * max(p.shape) ** 0.5)
                continue
            s = self.state.setdefault(k, {"m": torch.zeros_like(g), "v": torch.zeros_like(g), "n": 0})
            s["n"] += 1
            s["m"].lerp_(g, 0.1)
            s["v"].lerp_(g * g, 0.02)
            if p.dim() >= 2 and "embed" not in k:
                p.mul_(1 - lr * self.decay)
            p.addcdiv_(s["m"], (s["v"] / (1 - 0.98 ** s["n"])).sqrt_().add_(1e-8), value=-lr / (1 - 0.9 ** s["n"]))
        for p in self.copy.values():
            p.grad = None
        self.refresh()
        return norm
