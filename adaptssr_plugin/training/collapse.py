"""Whether the user vectors of a ranking have collapsed: all users point in one direction, and no order is learned."""

from collections.abc import Mapping

# Cosines. If the hardest negative of a batch is that near, and about as near as the same user under another dropout
# mask, the bracket of Eq. 6 is about 0 for every user, and the loss about log 2.
_NEAR, _ROOM = 0.98, 0.01


def collapse_note(numbers: Mapping[str, float]) -> str:
    """Say in one sentence that vectors have collapsed; "" if they have not, or if the numbers are missing.

    Args:
        numbers: of an epoch, as a stage logs them: ``sim_implicit`` and ``sim_hardest_negative``, means of cosines.
    """
    same, other = numbers.get("sim_implicit"), numbers.get("sim_hardest_negative")
    if same is None or other is None or not (other >= _NEAR and same - other <= _ROOM):
        return ""
    return (
        f"user vectors have collapsed: the nearest other user of a batch is at a cosine of {other:.3f}, and the same "
        f"user under another dropout mask at {same:.3f}; the hardest negatives alone (Eq. 6) can lead there; all of "
        "them keep users apart, by a soft negative (--negatives 0.1 --scale 10) or Eq. 5 (--negatives all --scale 10)"
    )
