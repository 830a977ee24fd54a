"""A recurrent policy, trained by proximal policy optimisation and towards the best results so far.

The controller of NASNet and MnasNet: an LSTM writes down one decision after the other, each seeing those before it
(Zoph and Le, arXiv 1611.01578; Zoph et al., arXiv 1707.07012; Tan et al., arXiv 1807.11626), and learns from rewards
by PPO's clipped objective (Schulman et al., arXiv 1707.06347, equation 7) against a moving-average baseline. That alone
forgets each result after one update and needs thousands, so each update also raises the likelihood of the best results
told (priority queue training: Abolafia et al., arXiv 1801.03526). The evidence: docs/adr/0007-rl-settings.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from nas.controller import Problem, Result, novel, outwards
from phinas.files.checks import check_number, check_whole
from search_spaces.space import Picks

MOST_UNITS = 4096  # of a layer: hundreds are plenty
SAMPLES = 32  # drawn at once by each ask, for little more than the price of one; the first new network is proposed
MOST_LOG_RATIO = (
    20.0  # a result that the policy held for impossible may become likely in one update: exp(89) is infinite
)
MUTANTS = 1000  # where a settled policy draws nothing new, mutants of its last sample


class Policy(nn.Module):
    """p(picks) = product over t of p(pick_t | picks before t): embedding, LSTM, one linear decoder per decision."""

    def __init__(self, choices: Sequence[int], hidden: int, embedding: int, seed: int) -> None:
        super().__init__()
        counts = torch.tensor(choices)
        self.first_token = 1 + counts.cumsum(0) - counts  # of each decision; token 0 starts the sequence
        self.absent = torch.arange(max(choices)) >= counts[:, None]  # [decision, choice]: not one of its choices
        self.embed = nn.Embedding(1 + sum(choices), embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.decode = nn.Parameter(torch.empty(len(choices), hidden, max(choices)))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)

    def forward(self, picks: Tensor) -> Tensor:
        """Log-probability of every choice, given the picks before it: [n, decisions] -> [n, decisions, choices]."""
        before = torch.cat([torch.zeros_like(picks[:, :1]), (self.first_token + picks)[:, :-1]], dim=1)
        states, _ = self.lstm(self.embed(before))
        logits = torch.einsum("nth,thc->ntc", states, self.decode)
        return logits.masked_fill(self.absent, -torch.inf).log_softmax(dim=-1)

    @torch.inference_mode()
    def sample(self, n: int, generator: torch.Generator) -> list[Picks]:
        """n independent draws."""
        token = torch.zeros(n, dtype=torch.long)
        state = (torch.zeros(n, self.lstm.hidden_size), torch.zeros(n, self.lstm.hidden_size))
        columns = []
        for decode, absent, first_token in zip(self.decode, self.absent, self.first_token, strict=True):
            state = torch.lstm_cell(self.embed(token), state, *self.lstm.all_weights[0])
            p = (state[0] @ decode).masked_fill(absent, -torch.inf).softmax(dim=-1)
            columns.append(torch.multinomial(p, 1, generator=generator)[:, 0])
            token = first_token + columns[-1]
        return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]


class RL:
    """Learns from every `batch` results, in the order told. Its state is a function of that order alone."""

    def __init__(
        self,
        problem: Problem,
        seed: int,
        batch: int = 5,
        epochs: int = 5,
        queue: int = 5,
        policy_gradient: float = 0.3,
        learning_rate: float = 3.5e-3,
        clip: float = 0.2,
        entropy: float = 0.2,
        baseline_decay: float = 0.95,
        hidden: int = 100,
        embedding: int = 32,
    ) -> None:
        """The settings are explained in conf/controller/rl.yaml."""
        for name, whole in (("batch", batch), ("epochs", epochs)):
            check_whole(f"controller.{name}", whole)
        for name, whole in (("hidden", hidden), ("embedding", embedding)):
            check_whole(f"controller.{name}", whole, most=MOST_UNITS)
        check_whole("controller.queue", queue, least=0)
        check_number("controller.policy_gradient", policy_gradient, least=0)
        check_number("controller.learning_rate", learning_rate, above=0)
        check_number("controller.clip", clip, above=0, below=1)
        check_number("controller.entropy", entropy, least=0)
        check_number("controller.baseline_decay", baseline_decay, least=0, below=1)
        self.problem = problem
        self.seed = seed
        self.batch = batch
        self.epochs = epochs
        self.size = queue
        self.policy_gradient = policy_gradient
        self.clip = clip
        self.entropy = entropy
        self.decay = baseline_decay
        with one_thread(), torch.random.fork_rng(devices=[]):  # modules draw weights from the global generator
            self.policy = Policy([len(d.choices) for d in problem.decisions], hidden, embedding, seed)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=learning_rate)
        self.baseline: float | None = None
        self.worst: float | None = None
        self.told: set[str | None] = set()
        self.queue: list[tuple[float, Picks]] = []  # the best results told, the best first
        self.pending: list[tuple[Picks, float | None]] = []

    def ask(self, number: int, in_flight: Collection[Picks]) -> Picks | None:
        """The first of a handful of draws from the policy that is new; failing that, a mutant of the last."""
        with one_thread():
            return novel(self.problem, self._proposals(number), self.told, in_flight)

    def _proposals(self, number: int) -> Iterator[Picks]:
        rng = np.random.default_rng((self.seed, number))
        draws = self.policy.sample(SAMPLES, torch.Generator().manual_seed(int(rng.integers(2**63))))
        yield from draws
        yield from outwards(self.problem.decisions, draws[-1], rng, MUTANTS)

    def tell(self, result: Result) -> None:
        """Learn once a batch is full. Failures in it count as the worst reward told so far.

        A batch of failures before any reward teaches nothing: there is nothing they are worse than.
        """
        self.told.add(self.problem.key(result.picks))
        if result.reward is not None:
            self.worst = result.reward if self.worst is None else min(self.worst, result.reward)
            ranked = sorted([(result.reward, result.picks), *self.queue], key=lambda member: -member[0])
            self.queue = ranked[: self.size]  # of equals the latest, as sorting is stable: a plateau is wandered over
        self.pending.append((result.picks, result.reward))
        if len(self.pending) == self.batch:
            if self.worst is not None:
                rewards = [self.worst if reward is None else reward for _, reward in self.pending]
                with one_thread():
                    self._learn(torch.tensor([picks for picks, _ in self.pending]), torch.tensor(rewards))
            self.pending = []

    def _learn(self, picks: Tensor, rewards: Tensor) -> None:
        """Several epochs over one batch and the queue.

        The batch is for PPO's clipped objective; each decision is an action, sharing the reward. The old policy is the
        one at the start of the update, not those that proposed: they are not in the journal. The queue adds the mean
        log-likelihood of its members.
        """
        if self.baseline is None:
            self.baseline = float(rewards.mean())
        advantage = (rewards - self.baseline)[:, None]
        advantage /= advantage.square().mean().sqrt() + 1e-6  # so that settings fit whatever the scale of rewards
        for reward in rewards.tolist():
            self.baseline = self.decay * self.baseline + (1 - self.decay) * reward
        if self.queue:
            picks = torch.cat([picks, torch.tensor([best for _, best in self.queue])])
        old = None
        for _ in range(self.epochs):
            log_p = self.policy(picks)
            chosen, queued = log_p.gather(2, picks[:, :, None])[:, :, 0].tensor_split([len(rewards)])
            old = chosen.detach() if old is None else old
            ratio = (chosen - old).clamp(max=MOST_LOG_RATIO).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            entropy = -(log_p.exp() * log_p.clamp(min=-1e3)).sum(dim=2)  # -inf * 0 would be NaN for absent choices
            loss = -self.policy_gradient * gain.sum(dim=1).mean() - self.entropy * entropy.sum(dim=1).mean()
            if self.queue:
                loss = loss - queued.sum(dim=1).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on many threads, and their sums could then depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
