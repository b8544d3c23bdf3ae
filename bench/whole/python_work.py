"""The script of the row "python": python_work.py ROUNDS SEED."""

import sys


class Node:
    """An object with a dictionary of its own."""

    def __init__(self, key, left, right):
        self.key = key
        self.left = left
        self.right = right


def tree(depth, key):
    """A complete binary tree of objects."""
    if depth == 0:
        return Node(key, None, None)
    return Node(key, tree(depth - 1, 2 * key), tree(depth - 1, 2 * key + 1))


def count(node):
    """The number of nodes of a tree."""
    return 0 if node is None else 1 + count(node.left) + count(node.right)


def words(seed, n):
    """n words of different lengths, the same for the same seed."""
    state = seed
    result = []
    for _ in range(n):
        state = (state * 1103515245 + 12345) % 2**31
        result.append("w%d" % state * (1 + state // 65536 % 8))
    return result


def work(seed):
    """One round: count words, join and split text, grow a tree, sort tuples."""
    found = {}
    for word in words(seed, 3000):
        found.setdefault(word[:3], []).append(word)
    text = " ".join(" ".join(group) for group in found.values())
    assert len(text.split()) == 3000
    assert count(tree(10, seed)) == 2047
    pairs = sorted((len(word), word.upper(), [word]) for word in text.split())
    return len(pairs) + len({"%s-%d" % (word, i): float(i) for i, (_, word, _) in enumerate(pairs)})


if __name__ == "__main__":
    kept = [work(int(sys.argv[2]) + i) for i in range(int(sys.argv[1]))]
    assert set(kept) == {6000}
