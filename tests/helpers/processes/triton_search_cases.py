"""Inputs for the Triton search; run as a script, under Triton's interpreter, it searches all and prints JSON.

A separate process: TRITON_INTERPRET must be set before anything imports Triton, and holds for the whole process.
"""

import json
import sys

import torch

# name: (B, m, stride, d, columns of ids (None: no ids), how many different ids, dtype)
SHAPES = {
    "two-rows": (2, 4, 2, 64, None, 0, torch.float32),
    "one-dimension": (5, 4, 2, 1, None, 0, torch.float64),
    "odd": (37, 4, 2, 7, None, 0, torch.float64),
    "odd-float32": (37, 4, 2, 64, None, 0, torch.float32),
    "wide": (19, 4, 2, 100, None, 0, torch.float64),
    "wide-float32": (19, 4, 2, 100, None, 0, torch.float32),
    "one-column": (37, 4, 2, 7, 1, 9, torch.float64),
    "column-of-one": (21, 2, 1, 16, -1, 9, torch.float64),
    "two-columns": (37, 4, 2, 33, 2, 12, torch.float64),
    "three-columns": (21, 4, 2, 17, 3, 12, torch.float64),
    "all-one-user": (7, 4, 2, 5, 1, 1, torch.float32),
    "info-nce": (41, 2, 1, 24, None, 0, torch.float64),
    "one-encoding": (65, 1, 1, 32, None, 0, torch.float64),
    "one-anchor-of-three": (43, 3, 3, 20, 1, 20, torch.float64),
    "one-share": (165, 4, 2, 6, 1, 90, torch.float64),
    "float16": (23, 4, 2, 12, 1, 9, torch.float16),
    "bfloat16": (23, 4, 2, 12, None, 0, torch.bfloat16),
}
WINNERS_BY_PLACE = 150


def every_place():
    """(N, 1, N): the winner of i is i + 1, whose similarity grows with i, and of the last the one before it."""
    weights = torch.arange(1, WINNERS_BY_PLACE, dtype=torch.float64).sqrt()
    eye = torch.eye(WINNERS_BY_PLACE, dtype=torch.float64)
    vectors = torch.zeros_like(eye)
    vectors[:-1] += weights[:, None] * eye[:-1]
    vectors[1:] += weights[:, None] * eye[:-1]
    return vectors[:, None]


def random_case(n_rows, per_user, dim, columns, n_ids, dtype):
    generator = torch.Generator().manual_seed(1_000 * n_rows + dim)
    vectors = torch.randn(n_rows, per_user, dim, generator=generator, dtype=torch.float64)
    vectors *= 0.2 + 3 * torch.rand(n_rows, per_user, 1, generator=generator, dtype=torch.float64)
    if columns is None:
        return vectors.to(dtype), None
    ids = torch.randint(-(n_ids // 2), n_ids - n_ids // 2, (n_rows, abs(columns)), generator=generator)
    return vectors.to(dtype), ids[:, 0] if columns == 1 else ids


def make_cases():
    """name: (vectors, stride, user_ids)."""
    cases = {}
    for name, (n_rows, per_user, stride, dim, columns, n_ids, dtype) in SHAPES.items():
        vectors, ids = random_case(n_rows, per_user, dim, columns, n_ids, dtype)
        cases[name] = vectors, stride, ids
    cases["every-place"] = every_place(), 1, None
    # Row 0 shares its first id with one half of the rows and its second with the other.
    lonely = torch.tensor([[0, 0, 0, 0, 0, 5, 6, 7, 8], [-7, 1, 2, 3, 4, -7, -7, -7, -7]]).t()
    cases["one-without-negatives"] = random_case(9, 4, 5, None, 0, torch.float64)[0], 2, lonely
    vectors, stride, ids = cases["two-columns"]
    cases["small-ids"] = vectors, stride, ids.to(torch.int8)
    cases["strided"] = vectors.repeat_interleave(2, 2)[..., ::2], stride, ids.repeat_interleave(3, 1)[:, ::3]
    # A padded column would score 0, and win.
    cases["negative-only"] = vectors[:2].abs() * vectors.new_tensor([1, -1])[:, None, None], stride, None
    cases["ties"] = vectors.sign(), stride, ids
    many, _, many_ids = cases["one-share"]
    cases["zeros"] = torch.zeros_like(many), stride, many_ids  # ties over all the blocks of a share
    broken = vectors.clone()
    broken[11, 1, 3], broken[29, 2, 5] = torch.nan, torch.inf  # most anchors meet both
    cases["nan-and-infinity"] = broken, stride, ids
    return cases


CASES = make_cases()
LOSSES = ["odd", "odd-float32", "two-rows", "one-column", "two-columns", "one-without-negatives", "all-one-user"]


def ranking_and_gradient(name, implementation):
    """Eq. 6 of a case with four encodings: losses and the gradient of their weighted sum, one none like another."""
    from adaptssr_plugin.functional import hardest_pair_ranking, intra_user_similarities, unit_vectors

    vectors, _, ids = CASES[name]
    vectors = vectors.clone().requires_grad_()
    units = unit_vectors(vectors)
    loss = hardest_pair_ranking(
        units, intra_user_similarities(units), 0.3, user_ids=ids, implementation=implementation
    ).loss
    return loss.detach(), torch.autograd.grad((loss * weights_for(loss)).sum(), vectors)[0]


def hardest_and_gradient(name, implementation):
    """The hardest negatives of a case, where there are any, and the gradient of their weighted sum."""
    from adaptssr_plugin.functional import hardest_negative

    vectors, stride, ids = CASES[name]
    vectors = vectors.clone().requires_grad_()
    found = hardest_negative(vectors, stride, ids, implementation=implementation)
    # Not a product with 0: 0 * -inf is NaN.
    total = torch.where(found == -torch.inf, 0, found * weights_for(found)).sum()
    return found.detach(), torch.autograd.grad(total, vectors)[0]


def weights_for(output):
    return 1 + 0.3 * torch.arange(output.numel(), dtype=output.dtype).view_as(output)


def main():
    from adaptssr_plugin.functional import triton_search
    from adaptssr_plugin.functional.search import choose_search

    chosen = choose_search("triton", torch.device("cpu"))
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return chosen(*arguments)

    triton_search.search = counted
    results = {"searches": {}, "ranking": {}, "hardest": {}, "interpreted": triton_search.is_interpreted()}
    for name, case in CASES.items():
        values, winners = chosen(*case, 7)
        dtypes = [str(values.dtype), str(winners.dtype)]
        results["searches"][name] = {"values": values.tolist(), "winners": winners.tolist(), "dtypes": dtypes}
    for name in LOSSES:
        results["ranking"][name] = [x.tolist() for x in ranking_and_gradient(name, "triton")]
        results["hardest"][name] = [x.tolist() for x in hardest_and_gradient(name, "triton")]
    results["searches_under_the_losses"] = len(calls)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
