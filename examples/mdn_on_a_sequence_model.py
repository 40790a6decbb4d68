"""A mixture density head on a sequence model of one's own, against the exact answer.

Numbers lie near +1 or -1 (deviation 0.3), and mostly (90 %) on the side of the number before the
last. One Gaussian can not say so: its mean, 0, is where numbers hardly ever are. Two can, and a GRU
that remembers knows which. What is left is the entropy, known in closed form.

python examples/mdn_on_a_sequence_model.py [STEPS]
"""

import math
import sys

import torch
from torch import Tensor, nn

from generative.mdn import MixtureDensityHead

STAY, STD = 0.9, 0.3
NOISE = 0.5 * math.log(2 * math.pi * math.e * STD**2)
EXACT = -STAY * math.log(STAY) - (1 - STAY) * math.log(1 - STAY) + NOISE
WITHOUT_MEMORY = math.log(2) + NOISE


def sequences(count: int, length: int, generator: torch.Generator) -> Tensor:
    """(count, length, 1)."""
    side = torch.randint(0, 2, (count, length), generator=generator) * 2.0 - 1
    stay = torch.rand(count, length, generator=generator) < STAY
    for t in range(2, length):
        side[:, t] = side[:, t - 2] * (stay[:, t] * 2.0 - 1)
    return (side + STD * torch.randn(count, length, generator=generator)).unsqueeze(-1)


class SomeonesModel(nn.Module):
    """A GRU; the last layer is the only thing that is ours."""

    def __init__(self, hidden_dim: int = 32):
        super().__init__()
        self.gru = nn.GRU(1, hidden_dim, batch_first=True)
        self.head = MixtureDensityHead(hidden_dim, out_dim=1, num_mixtures=2)

    def nll(self, x: Tensor) -> Tensor:
        """Mean -log p(x[t] | x[:t]) in nats, without the first two, which cannot be predicted."""
        h, _ = self.gru(x[:, :-1])
        return -self.head(h).log_prob(x[:, 1:])[:, 1:].mean()


def main(steps: int = 200) -> float:
    """Train; the negative log-likelihood on new sequences."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = SomeonesModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model.nll(sequences(64, 40, generator)).backward()
        optimizer.step()
    with torch.no_grad():
        nll = float(model.nll(sequences(1000, 40, generator)))
    print(f"{nll:.3f} nats; exact {EXACT:.3f}, without memory {WITHOUT_MEMORY:.3f} at best")
    return nll


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
