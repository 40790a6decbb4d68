"""Learning from human feedback against sums over all answers, loops, and formulas written out."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch

from generative.known.requests import Requests, rms_difference
from generative.rlhf import (
    DPOLearner,
    GRPOLearner,
    PPOLearner,
    RewardModel,
    answer_log_probs,
    answer_loss,
    clipped_gain,
    gae,
    group_advantages,
    kl_estimate,
    ranking_losses,
    token_rewards,
)
from generative.rlhf.config import DPOConfig, GRPOConfig, TextPPOConfig
from generative.text.config import GPTConfig, gpt2_block
from generative.text.gpt import GPT

torch.set_num_threads(1)
REQUESTS = Requests(num_letters=2, length=3)


def wild(seed: int = 0, from_start: bool = False) -> GPT:
    """A GPT of the language with weights that are anything."""
    torch.manual_seed(seed)
    model = GPT(
        GPTConfig(
            REQUESTS.vocab_size, 1 + REQUESTS.length, 1, gpt2_block(16, 2, dropout=0.0),
            tied=True, init="normal", from_start=from_start,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def wild_reward() -> RewardModel:
    model = RewardModel.of(wild(3))
    torch.nn.init.normal_(model.read_out.weight)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_texts() -> torch.Tensor:
    return REQUESTS.texts.flatten(0, 1)


# ---------------------------------------------------------------------------------------------
# The language
# ---------------------------------------------------------------------------------------------


def test_answers_are_all_there_are():
    """Any model gives them probability one together."""
    assert len(REQUESTS.answers) == 1 + 3 + 9 + 27
    assert len({tuple(row) for row in REQUESTS.answers.tolist()}) == len(REQUESTS.answers)
    total = REQUESTS.log_probs(wild()).exp().sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def test_the_judge_as_told():
    def worth(prompt: int, answer: list[int]) -> float:
        tokens = [token for token in answer if token]
        letters = {token for token in tokens if token > 1}
        repeats = len(tokens) - len(set(tokens))
        ends = len(tokens) < len(answer)
        return (prompt in letters) + (len(letters) / 2 + ends - repeats - tokens.count(1)) / 2

    expected = [worth(row[0], row[1:]) for row in all_texts().tolist()]
    assert REQUESTS.rewards.flatten().tolist() == expected
    assert Requests(3, 5).judge(torch.tensor([[2, 2, 3, 4, 0, 0]])).item() == 2.25


def test_demonstrations_have_the_probabilities_that_are_told():
    log_p = REQUESTS.demonstration_log_probs()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2).double())
    texts = REQUESTS.demonstrations(40_000, generator())
    assert torch.equal(texts, REQUESTS.demonstrations(40_000, generator()))
    rows, counts = texts.unique(dim=0, return_counts=True)
    shares = {tuple(row): n / 40_000 for row, n in zip(rows.tolist(), counts.tolist(), strict=True)}
    for row, p in zip(all_texts().tolist(), (log_p.exp() / 2).flatten().tolist(), strict=True):
        assert abs(shares.get(tuple(row), 0.0) - p) < 5 * math.sqrt(p / 40_000) + 1e-12


def test_pairs_of_a_ranking_follow_bradley_and_terry():
    """All orders of three answers, by Plackett and Luce's product; and one pair of them."""
    texts = torch.tensor([[2, 2, 0, 0], [2, 3, 0, 0], [2, 2, 2, 0]])
    worth = REQUESTS.judge(texts).tolist()
    assert len(set(worth)) == 3
    n = 30_000
    ranked = REQUESTS.rank(texts.expand(n, -1, -1), generator())
    place = (ranked[:, :, None] == texts).all(3).int().argmax(2)  # which answer stands where
    for order in itertools.permutations(range(3)):
        p = 1.0
        for k in range(3):
            p *= math.exp(worth[order[k]]) / sum(math.exp(worth[j]) for j in order[k:])
        share = float((place == torch.tensor(order)).all(1).float().mean())
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)
    first = ((place == 0).int().argmax(1) < (place == 1).int().argmax(1)).double().mean()
    p = 1 / (1 + math.exp(worth[1] - worth[0]))
    assert abs(float(first) - p) < 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_no_policy_exceeds_the_optimum(beta):
    """What is missing is beta KL(policy || optimum); and gradient ascent comes to the same."""
    reference = REQUESTS.log_probs(wild())
    best = REQUESTS.optimum(reference, REQUESTS.rewards, beta)
    at_best = REQUESTS.outcome(best.log_prob, reference, REQUESTS.rewards, beta)
    assert at_best.objective == pytest.approx(best.objective, abs=1e-9)
    for seed in range(1, 4):
        policy = REQUESTS.log_probs(wild(seed))
        found = REQUESTS.outcome(policy, reference, REQUESTS.rewards, beta).objective
        away = (policy.exp() * (policy - best.log_prob)).sum(1).mean()
        assert best.objective - found == pytest.approx(beta * float(away), abs=1e-4)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

    def minus_objective() -> torch.Tensor:
        optimizer.zero_grad()
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        value = -(p * (REQUESTS.rewards - beta * (log_p - reference))).sum(1).mean()
        value.backward()
        return value

    optimizer.step(minus_objective)
    assert -float(minus_objective().detach()) == pytest.approx(best.objective, abs=1e-5)


def test_difference_of_rewards_ignores_a_constant_of_each_prompt():
    log_p = REQUESTS.log_probs(wild())
    shifted = REQUESTS.rewards + torch.tensor([[3.0], [-1.0]])
    assert rms_difference(shifted, REQUESTS.rewards, log_p) < 1e-6
    off = REQUESTS.rewards.clone()
    off[0, 5] += 2.0
    p = float(log_p[0, 5].exp())
    expected = math.sqrt(4 * p * (1 - p) / 2)  # Bernoulli, in one of two prompts
    assert rms_difference(off, REQUESTS.rewards, log_p) == pytest.approx(expected, rel=1e-4)


# ---------------------------------------------------------------------------------------------
# Demonstrations and rankings
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_start", [False, True])
def test_log_probs_of_answers_one_by_one(from_start):
    model, texts = wild(from_start=from_start), torch.tensor([[2, 3, 0, 0], [3, 1, 2, 3]])
    each, counted = answer_log_probs(model, texts)
    assert counted.tolist() == [[True, True, False], [True, True, True]]
    for row in range(2):
        for t in range(3):
            p = model.next_logits(texts[row : row + 1, : t + 1])[0].log_softmax(0)
            expected = float(p[texts[row, t + 1]].detach()) if counted[row, t] else 0.0
            assert float(each[row, t].detach()) == pytest.approx(expected, abs=1e-5)
    total = float(answer_loss(model, texts).loss.detach())
    assert total == pytest.approx(-float(each.sum().detach()) / 5, abs=1e-6)


def test_a_reward_is_read_at_the_first_end():
    model, texts = wild_reward(), torch.tensor([[2, 3, 0, 0], [3, 1, 2, 3], [2, 0, 0, 0]])
    rewards, scores = model(texts), model.scores(texts)
    torch.testing.assert_close(rewards, scores[[0, 1, 2], [2, 3, 1]])
    torch.testing.assert_close(model(texts[2:, :2]), rewards[2:])
    assert not torch.allclose(scores[0, 2], scores[0, 3], atol=1e-4)


def test_a_reward_model_begins_as_its_policy():
    policy = wild()
    for model in (RewardModel.of(policy), RewardModel.of(RewardModel.of(policy))):
        torch.testing.assert_close(model.body.features(all_texts()), policy.features(all_texts()))
        assert model(all_texts()).abs().max() == 0
        with torch.no_grad():
            model.body.embedding.weight.add_(1.0)
    assert policy.embedding.weight.abs().max() < 2


def test_ranking_losses_pair_by_pair():
    scores = torch.tensor([[1.0, 0.5, 2.0], [0.3, -0.2, -3.0]])
    losses, right = [], []
    for row in scores.tolist():
        for i, j in itertools.combinations(range(3), 2):
            losses.append(math.log(1 + math.exp(row[j] - row[i])))
            right.append(row[i] > row[j])
    found = ranking_losses(scores)
    assert float(found.loss) == pytest.approx(sum(losses) / 6, abs=1e-6)
    assert float(found.accuracy) == pytest.approx(sum(right) / 6)


def gradient(loss: torch.Tensor, model: GPT) -> torch.Tensor:
    parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def test_gradient_of_dpo_is_the_papers():
    """-beta sigmoid(r(worse) - r(better)) (grad log pi(better) - grad log pi(worse)), section 4."""
    policy, reference, beta = wild(1), wild(2), 0.3
    learner = DPOLearner(policy, reference, DPOConfig(beta=beta), 1)
    pair = torch.tensor([[[2, 2, 3, 0], [2, 1, 0, 0]]])
    (better, worse), (better_0, worse_0) = policy.log_prob(pair[0]), reference.log_prob(pair[0])
    margin = float((beta * ((worse - worse_0) - (better - better_0))).detach())
    weight = beta / (1 + math.exp(-margin))
    expected = -weight * (gradient(better, policy) - gradient(worse, policy))
    torch.testing.assert_close(
        gradient(learner.losses(pair).loss, policy), expected, atol=1e-6, rtol=1e-4
    )


def test_dpo_has_its_minimum_at_the_optimum():
    """Over all pairs by their exact probabilities, tables in place of networks."""
    beta, reference = 0.5, REQUESTS.log_probs(wild())[0]
    worth = REQUESTS.rewards[0]
    best = REQUESTS.optimum(reference[None], worth[None], beta).log_prob[0]
    log_p = best.clone().requires_grad_()
    implied = beta * (log_p - reference)
    pairs = torch.cartesian_prod(*[torch.arange(len(worth))] * 2)
    weight = (reference[pairs].sum(1) + torch.nn.functional.logsigmoid(
        worth[pairs[:, 0]] - worth[pairs[:, 1]]
    )).exp()  # fmt: skip
    losses = [ranking_losses(implied[pair][None]).loss for pair in pairs]
    (weight * torch.stack(losses)).sum().backward()
    assert log_p.grad.abs().max() < 1e-9


# ---------------------------------------------------------------------------------------------
# Drawn answers
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.0), (0.9, 1.0)])
def test_gae_is_its_definition(gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_(t + l), for answers of one to four tokens."""
    rewards, values = torch.randn(2, 4, 4, generator=generator())
    lengths = [1, 2, 3, 4]
    counted = torch.arange(4) < torch.tensor(lengths)[:, None]
    found = gae(rewards, values, counted, gamma, lam)
    for row, length in enumerate(lengths):
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(4):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert float(found[row, t]) == pytest.approx(expected, abs=1e-5)
        if lam == 1.0:  # what came, less what was expected
            came = sum(gamma**k * r[k] for k in range(length))
            assert float(found[row, 0]) == pytest.approx(came - v[0], abs=1e-5)


def test_token_rewards_add_up_to_the_objective():
    old, counted = answer_log_probs(wild(), all_texts())
    reference, _ = answer_log_probs(wild(1), all_texts())
    score = torch.randn(len(old), generator=generator())
    found = token_rewards(score, old, reference, counted, 0.3)
    total = score - 0.3 * (wild().log_prob(all_texts()) - wild(1).log_prob(all_texts()))
    torch.testing.assert_close(found.sum(1), total, atol=1e-5, rtol=1e-5)
    assert (found[~counted] == 0).all()


def test_policy_gradient_of_token_rewards_is_that_of_the_objective():
    """Over all answers by their probabilities, no value network; the objective by autograd."""
    policy, beta = wild(), 0.4
    scores = REQUESTS.rewards.flatten().float()
    new, counted = answer_log_probs(policy, all_texts())
    with torch.no_grad():
        reference, _ = answer_log_probs(wild(1), all_texts())
    p = new.sum(1).exp() / len(REQUESTS.prompts)
    objective = (p * (scores - beta * (new.sum(1) - reference.sum(1)))).sum()
    rewards = token_rewards(scores, new, reference, counted, beta).detach()
    advantages = gae(rewards, torch.zeros_like(rewards), counted, 1.0, 1.0)
    gain = clipped_gain(new, new.detach(), advantages, 0.2)
    found = gradient((p.detach()[:, None] * gain * counted).sum(), policy)
    torch.testing.assert_close(found, gradient(objective, policy), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("prompts", "length"), [(1, 1), (1, 3), (2, 1)])
def test_learning_from_as_little_as_one_prompt_of_one_token(prompts, length):
    """One answer of one token has one advantage, which has no deviation."""
    torch.manual_seed(0)
    config = GPTConfig(5, 1 + length, 1, gpt2_block(8, 2, 0.0), tied=True, from_start=False)
    asked, reward = torch.full((prompts, 1), 2), lambda texts: texts.float().sum(1)
    value = RewardModel(config)
    before = [p.detach().clone() for p in value.parameters()]
    policy = GPT(config)
    for learner in (
        PPOLearner(policy, policy, reward, value, TextPPOConfig(), 3),
        GRPOLearner(GPT(config), policy, reward, GRPOConfig(group_size=2, divide_by_std=True), 3),
    ):
        for _ in range(3):
            assert all(number.isfinite() for number in learner.update(asked).values())
        assert all(p.isfinite().all() for p in learner.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, value.parameters(), strict=True))
    assert not group_advantages(torch.ones(3, 1), divide_by_std=True).any()


def test_group_advantages_by_hand():
    scores = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert group_advantages(scores).tolist() == [[-1, 0, 1], [0, 0, 0]]
    divided = group_advantages(10 * scores, divide_by_std=True)
    torch.testing.assert_close(
        divided, torch.tensor([[-1.0, 0, 1], [0, 0, 0]]), atol=1e-4, rtol=0
    )  # deviation 10, by n - 1


def test_nothing_is_gained_by_a_ratio_far_off():
    old = torch.zeros(6)
    new = torch.tensor([1.1, 1.5, 0.5, 1.5, 0.5, 0.9]).log().requires_grad_()
    advantages = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    gain = clipped_gain(new, old, advantages, 0.2)
    torch.testing.assert_close(gain, torch.tensor([2.2, 2.4, 1.0, -3.0, -1.6, -1.8]))
    gain.sum().backward()
    assert (new.grad == 0).tolist() == [False, True, False, False, True, False]


def test_the_kl_estimate_has_the_right_mean_and_the_gradient_of_the_other_kl():
    """The reason why a price in GRPO's loss moves its optimum."""
    reference = torch.tensor([0.5, 0.3, 0.2]).log()
    logits = torch.tensor([0.3, -0.5, 1.0], requires_grad=True)
    new = logits.log_softmax(0)
    p = new.detach().exp()
    estimate = kl_estimate(new, reference)
    assert (estimate >= 0).all()
    there, back = (new.exp() * (new - reference)).sum(), (reference.exp() * (reference - new)).sum()
    assert float((p * estimate).sum().detach()) == pytest.approx(float(there.detach()), abs=1e-6)
    of_estimate, of_there, of_back = (
        torch.autograd.grad(value, logits, retain_graph=True)[0]
        for value in ((p * estimate).sum(), there, back)
    )
    torch.testing.assert_close(of_estimate, of_back)
    assert (of_estimate - of_there).abs().max() > 0.01


# ---------------------------------------------------------------------------------------------
# Learners
# ---------------------------------------------------------------------------------------------

RATES = {"beta": 0.5, "lr": 1e-2, "final_lr": 1e-4, "ema": 0.95}
MUON = {**RATES, "lr": 2e-2, "optimizer": "muon", "clip": 1.0}


def make_learner(kind: str, steps: int):
    """A learner of the judge's reward, and its batch at a step."""
    torch.manual_seed(0)
    reference = wild(4)
    policy = copy.deepcopy(reference)
    if kind == "dpo":
        prompts = REQUESTS.ask(5000, generator(1)).repeat_interleave(4, 0)
        texts = reference.generate(prompts, REQUESTS.length, generator=generator(2))
        ranked = REQUESTS.rank(texts.view(5000, 4, -1), generator(3))
        rows = torch.randint(len(ranked), (steps, 128), generator=generator(4))
        return DPOLearner(policy, reference, DPOConfig(**MUON), steps), lambda k: ranked[rows[k]]
    if kind == "ppo":
        config = TextPPOConfig(**RATES, value_lr=1e-2)
        value = RewardModel.of(reference)
        learner = PPOLearner(policy, reference, REQUESTS.judge, value, config, steps)
        return learner, lambda k: REQUESTS.prompts.repeat(64, 1)
    learner = GRPOLearner(policy, reference, REQUESTS.judge, GRPOConfig(**RATES), steps)
    return learner, lambda k: REQUESTS.prompts.repeat(8, 1)


KINDS = ["ppo", "grpo", "dpo"]


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.nightly if k == "ppo" else ()) for k in KINDS]
)
def test_learners_come_near_the_optimum(kind):
    steps = 120 if kind == "dpo" else 40
    learner, batch = make_learner(kind, steps)
    reference = REQUESTS.log_probs(learner.reference)
    best = REQUESTS.optimum(reference, REQUESTS.rewards, 0.5).objective
    first = REQUESTS.outcome(reference, reference, REQUESTS.rewards, 0.5).objective
    for step in range(steps):
        learner.update(batch(step))
    policy = REQUESTS.log_probs(learner.kept)
    found = REQUESTS.outcome(policy, reference, REQUESTS.rewards, 0.5)
    assert best - first > 0.2
    assert best - found.objective < 0.1
    assert found.objective <= best + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_learner_goes_on_from_its_state(kind):
    whole, batch = make_learner(kind, 6)
    for step in range(6):
        torch.manual_seed(step)
        whole.update(batch(step))
        if step == 2:
            halfway = copy.deepcopy(whole.state_dict())
    resumed, _ = make_learner(kind, 6)
    resumed.load_state_dict(halfway)
    for step in range(3, 6):
        torch.manual_seed(step)
        resumed.update(batch(step))
    for ours, theirs in zip(whole.kept.parameters(), resumed.kept.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_stays(kind):
    learner, batch = make_learner(kind, 2)
    before = REQUESTS.log_probs(learner.reference)
    learner.update(batch(0))
    assert torch.equal(REQUESTS.log_probs(learner.reference), before)
    assert not torch.equal(REQUESTS.log_probs(learner.model), before)


def test_what_was_published_as_grpo_has_another_optimum():
    """At the optimum, all answers drawn as often as is probable, ours stays and theirs moves."""
    beta = 0.5
    reference = REQUESTS.log_probs(wild(4))[0]
    worth = REQUESTS.rewards[0]
    best = REQUESTS.optimum(reference[None], worth[None], beta).log_prob[0]
    p = best.exp()
    logits = best.clone().requires_grad_()
    new = logits.log_softmax(0)
    total = worth - beta * (best - reference)
    ours = (p * clipped_gain(new, best, total - (p * total).sum(), 0.2)).sum()
    theirs = (p * clipped_gain(new, best, worth - (p * worth).sum(), 0.2)).sum()
    theirs = theirs - beta * (p * kl_estimate(new, reference)).sum()
    stays, moves = (torch.autograd.grad(g, logits, retain_graph=True)[0] for g in (ours, theirs))
    assert stays.abs().max() < 1e-9
    assert moves.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (DPOConfig, {"beta": 0.0}, "beta is 0.0"),
        (TextPPOConfig, {"final_lr": 1.0}, "final_lr 1.0"),
        (GRPOConfig, {"ema": 1.0}, "ema is 1.0"),
        (TextPPOConfig, {"clip": 1.5}, "clip is 1.5"),
        (TextPPOConfig, {"num_epochs": 0}, "num_epochs is 0"),
        (TextPPOConfig, {"gamma": 0.0}, "gamma is 0.0, and must be above 0"),
        (GRPOConfig, {"group_size": 1}, "group_size is 1"),
    ],
)
def test_bad_settings_are_refused(kind, changed, message):
    with pytest.raises(ValueError, match=message):
        replace(kind(), **changed)


def test_bad_languages_and_rankings_are_refused():
    with pytest.raises(ValueError, match="got 0 letters"):
        Requests(0)
    with pytest.raises(ValueError, match=r"\(3, 1, 4\).*\(B, K, T\)"):
        wild_reward().loss(torch.full((3, 1, 4), 2))
