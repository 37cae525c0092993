"""A random forest as plain arrays, so that it is stored and loaded without pickle."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree._tree import NODE_DTYPE, Tree
from torch import Tensor, nn

from geossl.downstream.networks import described
from geossl.nets.encoder import Encoder

LEAST = 1e-3
"""Least probability of a class that was taught: a forest says 0 where no tree saw the class, and is not that sure."""


class Forest(nn.Module):
    """Decision trees (Breiman 2001) that vote with their leaves' class shares.

    All trees' nodes stand one after the other; what is no leaf has two children, further down.

    Attributes
    ----------
    root:
        (T,) where each tree begins.
    feature, threshold, child:
        (N,), (N,) and (N, 2): a sample goes to the first child where its feature is at most the threshold.
        A leaf has feature −1.
    share:
        (N, K) share of each class, classes weighted equally, among the training samples of a node.
    """

    root: Tensor
    feature: Tensor
    threshold: Tensor
    child: Tensor
    share: Tensor

    def __init__(self, trees: int, nodes: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("root", torch.zeros(trees, dtype=torch.int32))
        self.register_buffer("feature", torch.full((nodes,), -1, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("child", torch.zeros(nodes, 2, dtype=torch.int32))
        self.register_buffer("share", torch.zeros(nodes, classes))

    @classmethod
    def of(cls, model: RandomForestClassifier, classes: int) -> Forest:
        """The arrays of a fitted forest of scikit-learn, whose class labels are positions 0 … ``classes`` − 1."""
        trees = [each.tree_ for each in model.estimators_]
        ends = np.cumsum([tree.node_count for tree in trees])
        forest = cls(len(trees), int(ends[-1]), classes)
        seen = np.asarray(model.classes_, np.int64)
        for number, (tree, end) in enumerate(zip(trees, ends, strict=True)):
            start = int(end) - tree.node_count
            at = slice(start, int(end))
            split = tree.children_left >= 0
            forest.root[number] = start
            forest.feature[at] = torch.from_numpy(np.where(split, tree.feature, -1).astype(np.int32))
            forest.threshold[at] = torch.from_numpy(_down(tree.threshold))
            children = np.stack([tree.children_left, tree.children_right], axis=1) + start
            forest.child[at] = torch.from_numpy(np.where(split[:, None], children, 0).astype(np.int32))
            # tree.value is weighted counts or shares, by version: the share is the same
            value = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True)
            forest.share[at, seen] = torch.from_numpy(value.astype(np.float32))
        return forest

    def forward(self, x: Tensor) -> Tensor:
        """Class probabilities (P, K) of samples by feature (F, P)."""
        total = torch.zeros(x.shape[1], self.share.shape[1], dtype=torch.float64, device=x.device)
        for node in self._leaves(x) if x.device.type == "cpu" else map(functools.partial(self._leaf, x), self.root):
            total += self.share[node]
        return (total / len(self.root)).float()

    def _leaf(self, x: Tensor, root: Tensor) -> Tensor:
        """(P,) where the samples come to in one tree."""
        going = torch.arange(x.shape[1], device=x.device)
        node = root.long().expand(len(going)).clone()
        while len(going):
            at = node[going]
            feature = self.feature[at].long()
            inside = feature >= 0
            going, at, feature = going[inside], at[inside], feature[inside]
            right = x[feature, going] > self.threshold[at]
            node[going] = self.child[at, right.long()].long()
        return node

    def _leaves(self, x: Tensor) -> Iterator[Tensor]:
        """:meth:`_leaf` of every tree, by scikit-learn's own descent, which is faster on a processor."""
        samples = np.ascontiguousarray(x.numpy().T)
        ends = [*self.root.tolist()[1:], len(self.feature)]
        trees = [self._tree(slice(start, end), len(x)) for start, end in zip(self.root.tolist(), ends, strict=True)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for root, leaves in zip(self.root.tolist(), pool.map(lambda tree: tree.apply(samples), trees), strict=True):
                yield torch.from_numpy(leaves) + root

    def _tree(self, at: slice, features: int) -> Tree:
        """One tree as scikit-learn has it."""
        child, feature = self.child[at].numpy(), self.feature[at].numpy()
        nodes = np.zeros(len(feature), NODE_DTYPE)
        leaf = feature < 0
        for side, name in enumerate(("left_child", "right_child")):
            nodes[name] = np.where(leaf, -1, child[:, side] - at.start)
        nodes["feature"] = feature
        nodes["threshold"] = self.threshold[at].numpy()
        nodes["missing_go_to_left"] = 1  # NaN is not greater
        tree = Tree(features, np.array([1], np.intp), 1)
        values = np.zeros((len(nodes), 1, 1))  # which are not asked
        tree.__setstate__({"max_depth": 0, "node_count": len(nodes), "nodes": nodes, "values": values})
        return tree


class ForestNetwork(nn.Module):
    """A forest on hypercolumns and multi-scale statistics of one date; its logits are logarithms of probabilities.

    Parameters
    ----------
    encoder:
        None: statistics alone.
    statistics:
        Whether multi-scale statistics of the bands are used.
    """

    def __init__(self, encoder: Encoder | None, forest: Forest, *, statistics: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.statistics = statistics
        self.forest = forest

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        features = described(self.encoder, image, valid, statistics=self.statistics)
        proba = torch.stack([self.forest(each.flatten(1)).T for each in features])
        return log_probabilities(proba, self.forest.share).unflatten(-1, image.shape[-2:])


def log_probabilities(proba: Tensor, share: Tensor) -> Tensor:
    """(B, K, P) → logarithms, at least that of :data:`LEAST` for a class that any leaf has, −inf for the others."""
    taught = (share > 0).any(dim=0)[:, None]
    return torch.where(taught, proba.clamp(min=LEAST).log(), -torch.inf)


def _down(threshold: NDArray[Any]) -> NDArray[np.float32]:
    """The greatest float32 that is not above: for float32 samples, ≤ then means the same."""
    rounded = threshold.astype(np.float32)
    above = rounded.astype(np.float64) > threshold
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)
