"""User ids of every kind and tensors of every layout, and what autograd may be asked, for both losses."""

import pytest
import torch
from loss_cases import NEGATIVES, REDUCTIONS, assert_agrees, encodings, every_loss

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion

pytestmark = [pytest.mark.parametrize("negatives", NEGATIVES), every_loss]


class TestUserIds:
    @pytest.mark.parametrize("ids", [[5, 5, 5, 6], [0, 1, 1, 0], [-1, 4, -1, -1], [2**62, 1, 2**62 - 1, 1]])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
    def test_rows_of_the_same_user_are_no_negatives(self, module, count, literal, negatives, ids, dtype):
        if dtype == torch.int32 and max(ids) > 2**31:
            ids = [i % 2**31 for i in ids]
        ids = torch.tensor(ids, dtype=dtype)
        inputs = encodings(4, 3, count=count)
        criterion = module(negatives=negatives, chunk_size=3)
        assert_agrees(criterion(*inputs, ids), literal(*inputs, ids, negatives=negatives), inputs)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize("n_rows", [2, 5])
    def test_one_user_alone_gives_zero_and_keeps_the_graph(self, module, count, literal, negatives, n_rows, reduction):
        inputs = encodings(n_rows, 4, count=count, dtype=torch.float32)
        options = {"fusion": AugmentationAdaptiveFusion(detach=False)} if module is AdaptSSRLoss else {}
        criterion = module(**options, negatives=negatives, reduction=reduction, chunk_size=2)
        loss = criterion(*inputs, torch.full((n_rows,), 3))
        assert (loss == 0).all()
        assert loss.shape == ((n_rows,) if reduction == "none" else ())
        loss.sum().backward()
        for u in inputs:
            torch.testing.assert_close(u.grad, torch.zeros_like(u), rtol=0, atol=0)

    def test_distinct_users_change_nothing(self, module, count, literal, negatives):
        inputs = encodings(5, 3, count=count)
        criterion = module(negatives=negatives, chunk_size=2)
        assert_agrees(criterion(*inputs, torch.tensor([9, 1, 4, 2, 3])), criterion(*inputs), inputs)

    def test_ids_need_not_be_contiguous(self, module, count, literal, negatives):
        inputs = encodings(4, 3, count=count)
        ids = torch.tensor([[1, 0], [2, 0], [1, 0], [3, 0]])[:, 0]
        assert_agrees(module(negatives=negatives)(*inputs, ids), literal(*inputs, ids, negatives=negatives), inputs)


class TestLayouts:
    def check(self, module, literal, negatives, inputs, leaves):
        criterion = module(negatives=negatives, chunk_size=2)
        assert_agrees(criterion(*inputs), literal(*inputs, negatives=negatives), leaves)

    def test_transposed_storage(self, module, count, literal, negatives):
        leaves = [u.detach().T.contiguous().requires_grad_() for u in encodings(5, 3, count=count)]  # each (d, B)
        assert not leaves[0].T.is_contiguous()
        self.check(module, literal, negatives, [leaf.T for leaf in leaves], leaves)

    def test_one_stacked_tensor_of_all_rows(self, module, count, literal, negatives):
        stack = torch.cat(encodings(5, 3, count=count)).detach().requires_grad_()
        self.check(module, literal, negatives, stack.chunk(count), [stack])

    def test_interleaved_rows_of_one_tensor(self, module, count, literal, negatives):
        stack = torch.stack(encodings(5, 3, count=count), dim=1).detach().requires_grad_()  # (B, m, d)
        self.check(module, literal, negatives, stack.unbind(1), [stack])

    def test_expanded_row(self, module, count, literal, negatives):
        """It makes many negatives equal; their sum, which is what reaches the leaf, does not say which of them wins."""
        *others, row = *encodings(5, 3, count=count - 1), *encodings(1, 3, count=1)
        self.check(module, literal, negatives, [*others, row.expand(5, 3)], [*others, row])

    @pytest.mark.parametrize("wanted", range(4))
    def test_one_input_with_gradient(self, module, count, literal, negatives, wanted):
        inputs = [u if i == wanted % count else u.detach() for i, u in enumerate(encodings(4, 3, count=count))]
        self.check(module, literal, negatives, inputs, [inputs[wanted % count]])

    def test_same_tensor_twice(self, module, count, literal, negatives):
        """The leaves receive the sum over the places that are tied."""
        leaves = encodings(5, 3, count=count // 2)
        self.check(module, literal, negatives, [u for leaf in leaves for u in (leaf, leaf)], leaves)


class TestGraphs:
    def test_no_gradient_at_all(self, module, count, literal, negatives):
        inputs = encodings(5, 3, count=count)
        with torch.no_grad():
            loss = module(negatives=negatives)(*inputs)
        assert not loss.requires_grad
        torch.testing.assert_close(loss, literal(*inputs, negatives=negatives).detach())
        assert not module(negatives=negatives)(*(u.detach() for u in inputs)).requires_grad

    def test_two_forwards_accumulate(self, module, count, literal, negatives):
        inputs = encodings(5, 3, count=count)
        criterion = module(negatives=negatives, chunk_size=2)
        first, second = criterion(*inputs), criterion(*(2 - u for u in inputs))
        (first + 3 * second).backward()
        right = literal(*inputs, negatives=negatives) + 3 * literal(*(2 - u for u in inputs), negatives=negatives)
        for u, gradient in zip(inputs, torch.autograd.grad(right, inputs), strict=True):
            torch.testing.assert_close(u.grad, gradient, rtol=1e-10, atol=1e-13)

    def test_backward_twice_over_a_kept_graph(self, module, count, literal, negatives):
        inputs = encodings(5, 3, count=count)
        loss = module(negatives=negatives, chunk_size=2)(*inputs)
        once = torch.autograd.grad(loss, inputs, retain_graph=True)
        for a, b in zip(once, torch.autograd.grad(loss, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
