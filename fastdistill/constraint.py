"""What a text may be: grammars of text, and the protocol that a trie, an automaton or a class of one's own may follow."""

from fastdistill.decode.constraint import Constraint
from fastdistill.text.grammar import Choices, Gbnf, JsonSchema, Lark, Regex, Trie

__all__ = ["Choices", "Constraint", "Gbnf", "JsonSchema", "Lark", "Regex", "Trie"]
