"""Conversion: will a user come to one fixed target item (the paper's T6)?"""

import numpy as np
import numpy.typing as npt

from ...corpus import BehaviourCorpus
from ...errors import InputError, check_count, check_kind
from ...seeding import stream_seed
from .inputs import prefixes
from .profile import ProfileTask


def conversion_task(corpus: BehaviourCorpus, item: str, max_len: int, seed: int) -> ProfileTask:
    """Make the binary task "interacts with ``item`` later", with inputs that end before.

    Positive is a user with the item in the history; the input is what comes before its first occurrence (users with
    nothing before it are left out). Negative is a user without the item. Neither paper nor code describes the input of
    negatives, so it is our choice. With whole histories, long would mean negative. So negatives are matched to the
    positives in their number of behaviours, as far as the encoder sees it (``max_len``): as many negatives as possible
    with the positives' distribution of lengths, each cut at a length that its history reaches. The rest, mostly users
    of short histories, is left out.

    Args:
        corpus: whole histories.
        item: the target, by its token.
        max_len: the number of newest behaviours that the encoder sees.
        seed: of the choice of negatives and of lengths.

    Returns:
        A binary task ``convert:<item>`` with separate inputs, positives first; the classes are "no" and "yes".

    Raises:
        InputError: an unknown item, no positives, or no negatives of their lengths.
    """
    check_kind("corpus", corpus, BehaviourCorpus, "a BehaviourCorpus")
    check_kind("item", item, str, "the token of an item of the corpus")
    check_count("max_len", max_len)
    (found,) = np.nonzero(corpus.item_tokens[1:] == item)
    if len(found) != 1:
        raise InputError(f"item: expected the token of an item of the corpus, got {item!r}")
    place = np.flatnonzero(corpus.items == found[0] + 1)
    user = np.searchsorted(corpus.offsets, place, side="right") - 1
    takers, first = np.unique(user, return_index=True)
    before = place[first] - corpus.offsets[takers]
    positives, lengths = takers[before > 0], before[before > 0]
    others = np.setdiff1d(np.arange(len(corpus)), takers)
    if len(positives) == 0 or len(others) == 0:
        raise InputError(
            f"item: expected users with behaviours before {item!r} and users without it, "
            f"got {len(positives)} and {len(others)}"
        )
    random = np.random.default_rng(stream_seed(seed, "conversion"))
    negatives, cuts = _matched(np.minimum(lengths, max_len), others, corpus.lengths[others], max_len, random)
    if len(negatives) == 0:
        raise InputError(f"item: expected users without {item!r} with histories as long as those before it, got none")
    rows, ends = np.append(positives, negatives), np.append(lengths, cuts)
    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    inputs = prefixes(corpus, rows, ends)
    return ProfileTask(f"convert:{item}", "binary", np.arange(len(rows)), labels, ("no", "yes"), inputs)


def _matched(
    lengths: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    whole: npt.NDArray[np.int64],
    max_len: int,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Choose negatives among ``others`` (M,) whose visible lengths are distributed as those of the positives (P,).

    Returns the chosen users (K,), and after how many behaviours each is cut (K,); ``whole`` (M,) are the lengths of
    the others' histories.
    """
    levels, share = np.unique(lengths, return_counts=True)
    at_least = np.cumsum(share[::-1])[::-1]  # number of positives of this length or more
    reach = np.sort(whole)
    reached = len(reach) - np.searchsorted(reach, levels)  # number of others that reach it
    # The largest K for which every upper end of the distribution has enough others.
    wanted = int(np.min(reached * len(lengths) // at_least))
    # K lengths at equal steps through the sorted ones; the longest are assigned first, since fewest users reach them.
    steps = np.sort(lengths)[(np.arange(wanted) * 2 + 1) * len(lengths) // (2 * max(wanted, 1))]
    pool = np.empty(0, dtype=np.int64)
    order = np.argsort(-whole, kind="stable")
    taken, chosen, cuts = 0, [pool], [pool]
    for level in levels[::-1]:
        until = int(np.searchsorted(-whole[order], -level, side="right"))
        pool = random.permutation(np.append(pool, order[taken:until]))
        taken = until
        count = min(int(np.sum(steps == level)), len(pool))
        picked, pool = pool[:count], pool[count:]
        # Beyond max_len the encoder does not see the length: any later moment is equivalent.
        last = whole[picked] if level == max_len else np.full(count, level)
        chosen.append(others[picked])
        cuts.append(random.integers(level, last + 1) if count else picked)
    return np.concatenate(chosen), np.concatenate(cuts)
