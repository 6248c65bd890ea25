"""What a wrong call gets."""

import pytest

from adaptssr_plugin.errors import InputError


def refusal_of(call, *args, **options):
    """The one line in which a call is refused."""
    with pytest.raises(InputError) as refused:
        call(*args, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message
