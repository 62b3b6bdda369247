"""How much faster is the suite of outputs than asking one program at a time, without a cache?

Prints one JSON object. The student is the ``paper`` preset with random weights: nothing is trained, since only the
number of tokens read and written matters. Three students are imitated in both protocols:

- ``wrong`` is never right: the suite as it is, and the true answers. Greedy attempts leave the answer at once; sampled
  ones are random characters, so that some time passes until a wrong number is read: the worst case.
- ``right`` always is: its own first 8 tokens are taken to be the truth (TinyPy's answers have about as many).
- ``half`` is right about every other program.

The reference is the published way of asking (2407.10194): one program at a time in single precision, the whole text
read again for every new character, no keys and values kept, on all threads. Nothing else is left in its way: it is
the bare function of the weights without the layers of a library, it makes logits for the last place only, keeps no
gradients, and (for ``right`` and ``half``) it stops where the answer ends. ``unstopped`` is what it does when it
writes 20 characters (30 with a ``for``) whatever they are. Both roads draw the same random numbers, and their
verdicts are compared.

``module`` is the loop as published code is run: the model's own module is called for every character and makes logits
for every place, and nothing stops it before 20 or 30 characters.

``lexical`` asks the same programs of a student of the same architecture that reads words instead of characters, as
the recipes for accuracy do: half of its answers right or all of them, each as many tokens long as the true answer,
beside the published road with as many characters. There are no verdicts to compare.

On one thread processor time is counted, which neighbours on a busy machine disturb less; on several it is the time
that passes, and the machine must do nothing else:

    python benchmarks/evaluate.py [--programs N] [--reference N] [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import torch
from torch.nn import functional

from gradatim.evaluation import SUITES
from gradatim.evaluation.output import can_become, paper_limit, values_in
from gradatim.inference.decode import complete, uniforms
from gradatim.model.architecture import create
from gradatim.model.load import LoadedModel
from gradatim.model.tokenizer import character_tokenizer, encode_table, separate_texts, texts_of, word_level_tokenizer
from gradatim.programs import generate

ANSWER = 8
"""Tokens of the imitated right answer, its end included."""


def published(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The published network as a plain function: tokens (n,) to logits after the last of them."""
    body, heads = model.transformer, model.config.n_head
    blocks = []
    for block in body.h:
        products = [block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj]
        norms = (block.ln_1.weight.detach(), block.ln_2.weight.detach(), block.attn.c_proj.bias.detach())
        blocks.append((*norms, *(product.weight.detach().t().contiguous() for product in products)))
    head, bias = model.lm_head.weight.detach(), None if model.lm_head.bias is None else model.lm_head.bias.detach()
    tokens, positions, last = (part.weight.detach() for part in (body.wte, body.wpe, body.ln_f))
    width = tokens.shape[1]

    def logits(numbers: torch.Tensor) -> torch.Tensor:
        x = tokens[numbers] + positions[: len(numbers)]
        for norm_1, norm_2, shift, attend, mix, widen, narrow in blocks:
            three = functional.linear(functional.layer_norm(x, (width,), norm_1), attend)
            query, key, value = three.view(1, len(numbers), 3, heads, -1).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + functional.linear(seen.transpose(1, 2).reshape(len(numbers), width), mix, shift)
            wide = functional.gelu(functional.linear(functional.layer_norm(x, (width,), norm_2), widen))
            x = x + functional.linear(wide, narrow)
        return functional.linear(functional.layer_norm(x[-1], (width,), last), head, bias)

    return logits


def module(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as its library runs it, all logits made: tokens (n,) to logits after the last of them."""

    def logits(numbers: torch.Tensor) -> torch.Tensor:
        return model(input_ids=numbers[None], use_cache=False).logits[0, -1]

    return logits


def plain_formatter(
    student: LoadedModel,
    prompts: Sequence[str],
    limits: Sequence[int],
    greedy: bool,
    network: Callable[[Any], Callable[[torch.Tensor], torch.Tensor]] = published,
) -> list[str]:
    """The reference: one prompt at a time, no cache."""
    texts, model = [], network(student.model)
    for place, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        numbers = torch.tensor(student.tokenizer(prompt)["input_ids"])
        start = len(numbers)
        draws = torch.from_numpy(uniforms(0, place, limit))
        with torch.no_grad():
            for draw in draws:
                likely = model(numbers)
                if greedy:
                    token = likely.argmax()
                else:
                    climb = torch.softmax(likely.double(), -1).cumsum(-1)
                    token = torch.searchsorted(climb, draw * climb[-1], right=True)
                numbers = torch.cat([numbers, token[None]])
        texts.append(student.tokenizer.decode(numbers[start:]))
    return texts


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned; see the module for which seconds."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    result = work()
    return clock() - start, result


def compared(
    plain: Callable[[], list[bool]], ours: Callable[[], list[bool]], few: int, total: int, rounds: int
) -> dict[str, float]:
    """Programs per second by each road, in turn, so that neighbours on a busy machine count little."""
    slow, fast = [], []
    for _ in range(rounds):
        seconds, expected = timed(plain)
        slow.append(few / seconds)
        seconds, verdicts = timed(ours)
        fast.append(total / seconds)
        assert verdicts[:few] == expected, "the two roads come to different verdicts"
    ratio = statistics.median(ours / plain for ours, plain in zip(fast, slow, strict=True))
    return {"plain_per_s": round(max(slow), 2), "ours_per_s": round(max(fast), 1), "ratio": round(ratio, 1)}


def never_right(student: LoadedModel, samples: pa.Table, greedy: bool, few: int, rounds: int) -> dict[str, float]:
    """The suite as it is. A sampled text of a random student may hold the right numbers: then both roads say so."""
    prompts, answers = samples["prompt"].to_pylist(), samples["answer"].to_pylist()
    limits = published_limits(prompts)
    names = pa.array([f"{row:06}" for row in range(len(prompts))])
    table = pa.table({"prompt": samples["prompt"], "answer": samples["answer"], "level": names})
    suite = SUITES.get("output")(protocol="greedy" if greedy else "paper")

    def plain() -> list[bool]:
        texts = plain_formatter(student, prompts[:few], limits[:few], greedy)
        judged = zip(texts, answers, strict=False)
        return [(text == answer) if greedy else right_numbers(text, answer) for text, answer in judged]

    def ours() -> list[bool]:
        counts = suite(student, table, seed=0).counts["level"]
        return [bool(counts[name.as_py()].passed) for name in names]

    return compared(plain, ours, few, len(prompts), rounds)


def right_numbers(text: str, answer: str) -> bool:
    text = text.split("<eos>")[0].split("\n\n")[0]
    return values_in(text) == values_in(answer)


def imitated(
    student: LoadedModel, prompts: Sequence[str], limits: Sequence[int], greedy: bool, every: int
) -> tuple[list[str], Callable[[], list[bool]]]:
    """The truths of a student that is wrong about one of ``every`` programs (0: none), and our road to its verdicts.

    What is right is the student's own text, what is wrong some number.
    """
    write = partial(complete, student.model, student.tokenizer, prompts, limits=limits, greedy=greedy)
    wrong = {place for place in range(len(prompts)) if every and place % every == 0}
    truths = [f"# {place}\n" if place in wrong else text.text for place, text in enumerate(write())]

    def settled(place: int, text: str) -> bool:
        return not (truths[place].startswith(text) if greedy else can_become(text, values_in(truths[place])))

    def ours() -> list[bool]:
        found = write(drafts=truths, settled=settled)
        return [one.text == truth for one, truth in zip(found, truths, strict=True)]

    return truths, ours


def sometimes_right(
    student: LoadedModel, samples: pa.Table, greedy: bool, few: int, rounds: int, every: int
) -> dict[str, float]:
    """Decoding as of a student that is sometimes right. What ends a right answer is the number of its tokens."""
    prompts = samples["prompt"].to_pylist()
    limits, long = [ANSWER] * len(prompts), published_limits(prompts)
    truths, ours = imitated(student, prompts, limits, greedy, every)

    def plain() -> list[bool]:
        texts = plain_formatter(student, prompts[:few], limits[:few], greedy)
        return [text.split("<eos>")[0] == truth for text, truth in zip(texts, truths, strict=False)]

    found = compared(plain, ours, few, len(prompts), rounds)
    seconds, _ = timed(lambda: plain_formatter(student, prompts[:few], long[:few], greedy))
    return {
        **found,
        "unstopped_per_s": round(few / seconds, 2),
        "unstopped_ratio": round(found["ours_per_s"] * seconds / few, 1),
    }


def published_limits(prompts: Sequence[str]) -> list[int]:
    """How many characters the published way writes after each program."""
    return [paper_limit(prompt) for prompt in prompts]


def in_words(
    characters: LoadedModel, samples: pa.Table, greedy: bool, few: int, rounds: int, every: int
) -> dict[str, float]:
    """The same architecture over lexical tokens beside the published road over characters, as ``sometimes_right``.

    The two cannot come to the same texts, both being random; each is asked for answers as long as the true ones.
    """
    student = untrained(word_level_tokenizer(separate_texts(samples), 512))
    prompts, answers = samples["prompt"].to_pylist(), samples["answer"].to_pylist()
    limits = [len(student.tokenizer(answer)["input_ids"]) for answer in answers]
    _, ours = imitated(student, prompts, limits, greedy, every)
    asked, long = prompts[:few], published_limits(prompts[:few])
    roads = {
        "": partial(plain_formatter, characters, asked, list(map(len, answers[:few])), greedy),
        "unstopped_": partial(plain_formatter, characters, asked, long, greedy),
        "module_": partial(plain_formatter, characters, asked, long, greedy, module),
    }
    slow: dict[str, list[float]] = {name: [] for name in roads}
    fast = []
    for _ in range(rounds):
        for name, road in roads.items():
            slow[name].append(few / timed(road)[0])
        seconds, verdicts = timed(ours)
        assert all(right for place, right in enumerate(verdicts) if not every or place % every), (
            "a right one was missed"
        )
        fast.append(len(prompts) / seconds)
    return {
        "parameters": student.model.num_parameters(),
        "ours_per_s": round(max(fast), 1),
        **{
            f"{name}ratio": round(statistics.median(a / b for a, b in zip(fast, times, strict=True)), 1)
            for name, times in slow.items()
        },
        "module_per_s": round(max(slow["module_"]), 2),
    }


def untrained(tokenizer: Any) -> LoadedModel:
    """The published architecture with random weights over the tokens of ``tokenizer``; tied, where these are many."""
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    preset = "paper" if len(tokenizer) <= 120 else "gpt2-tied"
    return LoadedModel(
        create(preset, vocabulary=len(tokenizer), context=256, special=special, seed=0).eval(), tokenizer
    )


def measure(student: LoadedModel, samples: pa.Table, few: int, rounds: int) -> dict[str, Any]:
    """Both roads for the imitated students in both protocols, then what the other suites do in a second."""
    found: dict[str, Any] = {}
    for protocol in ("greedy", "paper"):
        greedy = protocol == "greedy"
        found[protocol] = {
            "wrong": never_right(student, samples, greedy, few, rounds),
            "half": sometimes_right(student, samples, greedy, few, rounds, 2),
            "right": sometimes_right(student, samples, greedy, few, rounds, 0),
        }
        for name in ("token", "line"):
            suite = SUITES.get(name)(protocol=protocol)
            part = samples.slice(0, 256 if name == "token" else 64)
            seconds, result = timed(lambda suite=suite, part=part: suite(student, part, seed=0))
            found[protocol][f"{name}_per_s"] = round(result.counts["all"]["all"].total / seconds, 1)
        found[protocol]["lexical"] = {
            name: in_words(student, samples, greedy, few, rounds, every) for name, every in (("half", 2), ("right", 0))
        }
    characters = sum(map(len, texts_of(samples)))
    seconds, _ = timed(lambda: encode_table(student.tokenizer, samples))
    found["encode_characters_per_s"] = round(characters / seconds)
    return found


def main() -> None:
    """Generate, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=512)
    parser.add_argument("--reference", type=int, default=8, help="programs for the slow road")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    samples = generate(given.programs, seed=1).table
    student = untrained(character_tokenizer(texts_of(samples)))
    about = {"threads": given.threads, "programs": samples.num_rows, "parameters": student.model.num_parameters()}
    print(json.dumps({**about, **measure(student, samples, given.reference, given.rounds)}, indent=1))


if __name__ == "__main__":
    main()
