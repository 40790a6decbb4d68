"""Models of texts that use tools, against the answers of the tools."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def toolformer(settings: Settings) -> list[Line]:
    """Calls that the model keeps, and its answers to unseen questions."""
    import random

    from generative.known.tool_questions import Questions
    from generative.text.gpt import GPT
    from generative.text.tools import call_losses
    from generative.training.run import read_result
    from scripts import train_toolformer

    args = train_toolformer.PRESETS["smoke" if settings.smoke else "products-and-facts"]
    args = replace(args, out=settings.work, seed=settings.seed)
    train_toolformer.main(args)
    language = GPT.from_pretrained(settings.work / "language" / "model")
    questions, rng = Questions(), random.Random(settings.seed)
    num = 10 if settings.smoke else 500
    candidates = [
        questions.candidate(questions.draw(rng, seen=False), kind, rng)
        for kind in ("right", "wrong-operand", "wrong-tool", "early")
        for _ in range(num)
    ]
    gains = call_losses(language, questions.tokeniser, candidates, args.calls.falloff).gain
    kept = (gains >= args.calls.min_gain).tolist()
    right = [questions.is_right(candidate) for candidate in candidates]
    wrong = sum(k != r for k, r in zip(kept, right, strict=True)) / len(kept)
    found = read_result(settings.work)
    with_tools, without = (
        min(found[f"{kind}s_right_{way}_tools"] for kind in ("product", "fact"))
        if way == "with"
        else max(found[f"{kind}s_right_{way}_tools"] for kind in ("product", "fact"))
        for way in ("with", "without")
    )
    return [
        Line(
            "calls on unseen questions, right ones, with a wrong operand, of the wrong tool, too "
            "early: share on which the filter errs", wrong, 0.0, "right ones", wrong, 0.01,
        ),
        Line(
            "unseen products and facts with tools, the lower share of right answers, and what is "
            "missing", with_tools, 1.0, "the tools", 1 - with_tools, 0.005,
        ),
        Line(
            "the same without tools, the higher share", without, 1 / questions.num_codes,
            "a guess at a fact", without, 0.05,
        ),
    ]  # fmt: skip


CERTIFICATES = {"toolformer": Certificate("Toolformer", toolformer, 9)}
