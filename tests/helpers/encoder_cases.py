"""What the tests of the encoder share: batches, encoders with no parameter at a special value, and the literal oracle.

The oracle is the paper's Eq. 2-4, with what they leave to the authors' code, written out for one user, one head and
one position at a time.
"""

import math

import torch

from adaptssr_plugin import UserEncoder

N_ITEMS = 50


def batch(lengths, width=None, n_items=N_ITEMS, seed=0, device="cpu"):
    """Random sequences of these lengths, some of their items [MASK] (the id n_items), padded to ``width``."""
    lengths = torch.tensor(lengths)
    width = int(lengths.max()) if width is None else width
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(1, n_items + 1, (len(lengths), width), generator=generator)
    item_seq = items.masked_fill(torch.arange(width) >= lengths[:, None], 0)
    return item_seq.to(device), lengths.to(device)


def random_lengths(n_rows, longest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, longest + 1, (n_rows,), generator=generator).tolist()


def encoder(seed=0, dtype=torch.float64, spread=0.4, **options):
    """An encoder in evaluation mode whose every parameter is random, biases and norms too."""
    options = {"n_items": N_ITEMS, "dim": 6, "n_layers": 2, "n_heads": 2, "max_len": 16} | options
    made = UserEncoder(**options).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return made.to(dtype)


def gradients_of(loss, module):
    """Gradients of a module's parameters by name, zeros where the loss does not depend on one; the graph is kept."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def literal_norm(vector, weight, bias):
    mean = sum(vector) / len(vector)
    variance = sum((x - mean) ** 2 for x in vector) / len(vector)
    return torch.stack([(x - mean) / torch.sqrt(variance + 1e-12) for x in vector]) * weight + bias


def literal_softmax(scores):
    exponentials = [torch.exp(score) for score in scores]
    return [exponential / sum(exponentials) for exponential in exponentials]


def literal_gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def literal_attention(hidden, state, prefix, n_heads):
    """Multi-head self-attention over the positions of one user, list of (d,) to list of (d,)."""
    dim = len(hidden[0])
    size = dim // n_heads
    weight, bias = state[prefix + "query_key_value.weight"], state[prefix + "query_key_value.bias"]
    query, key, value = (
        [weight[part * dim : (part + 1) * dim] @ h + bias[part * dim : (part + 1) * dim] for h in hidden]
        for part in range(3)
    )
    attended = []
    for t in range(len(hidden)):
        heads = []
        for head in range(n_heads):
            own = slice(head * size, (head + 1) * size)
            shares = literal_softmax([query[t][own] @ key[s][own] / math.sqrt(size) for s in range(len(hidden))])
            heads.append(sum(share * value[s][own] for s, share in enumerate(shares)))
        attended.append(
            state[prefix + "attention_out.weight"] @ torch.cat(heads) + state[prefix + "attention_out.bias"]
        )
    return attended


def literal_hidden(items, state, n_items, n_heads, n_layers, embed_norm):
    """Hidden states of one user, a list of n vectors; ``items`` is a list of n ids."""
    hidden = []
    for t, item in enumerate(items):
        h = (state["items.mask"] if item == n_items else state["items.weight"][item]) + state["positions"][t]
        if embed_norm:
            h = literal_norm(h, state["embed_norm.weight"], state["embed_norm.bias"])
        hidden.append(h)
    for layer in range(n_layers):
        prefix = f"layers.{layer}."
        attended = literal_attention(hidden, state, prefix, n_heads)
        norm = state[prefix + "attention_norm.weight"], state[prefix + "attention_norm.bias"]
        hidden = [literal_norm(h + a, *norm) for h, a in zip(hidden, attended, strict=True)]
        norm = state[prefix + "feed_norm.weight"], state[prefix + "feed_norm.bias"]
        for t, h in enumerate(hidden):
            wide = literal_gelu(state[prefix + "feed_in.weight"] @ h + state[prefix + "feed_in.bias"])
            fed = state[prefix + "feed_out.weight"] @ wide + state[prefix + "feed_out.bias"]
            hidden[t] = literal_norm(h + fed, *norm)
    return hidden


def literal_pooling(hidden, query):
    """Eq. 3-4: u = Σ α_t h_t, α = softmax of q · h_t."""
    return sum(share * h for share, h in zip(literal_softmax([query @ h for h in hidden]), hidden, strict=True))


def literal_encodings(made, item_seq, item_seq_len):
    """User vectors (B, d) and hidden states (B, L, d), 0 at padding, by the oracle with the weights of ``made``."""
    state = dict(made.named_parameters())
    n_heads, n_layers = made.layers[0].n_heads, len(made.layers)
    users, states = [], []
    for row, length in zip(item_seq.tolist(), item_seq_len.tolist(), strict=True):
        hidden = literal_hidden(row[:length], state, made.n_items, n_heads, n_layers, "embed_norm.weight" in state)
        users.append(literal_pooling(hidden, state["pooling.query"]))
        states.append(torch.stack([*hidden, *[torch.zeros_like(hidden[0])] * (item_seq.shape[1] - length)]))
    return torch.stack(users), torch.stack(states)
