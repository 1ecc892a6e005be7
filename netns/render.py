"""Tables as the text that ``nft -f`` reads. Pure: it must not run nft, nor decide what a rule says."""

from __future__ import annotations

from netns.rules import Chain, Match, Rule, Table

_QUOTED = frozenset({"iifname", "oifname"})


def replace_table(table: Table) -> str:
    """The table put in place of any older one, in one transaction.

    The empty declaration before ``delete`` makes the latter succeed when there is no older table.
    """
    body = "\n\n".join(_chain_block(chain) for chain in table.chains)
    return (
        f"table inet {table.name}\ndelete table inet {table.name}\ntable inet {table.name} {{\n{body}\n}}\n"
    )


def replace_chains(table: Table) -> str:
    """The table's chains put in place of older ones of the same names; the table's other chains stay."""
    lines = [f"add table inet {table.name}"]
    for chain in table.chains:
        lines.append(f"add chain inet {table.name} {chain.name} {{ {_hook(chain)} }}")
        lines.append(f"flush chain inet {table.name} {chain.name}")
        lines.extend(f"add rule inet {table.name} {chain.name} {_rule(rule)}" for rule in chain.rules)
    return "\n".join(lines) + "\n"


def _chain_block(chain: Chain) -> str:
    lines = [f"  chain {chain.name} {{", f"    {_hook(chain)}"]
    lines.extend(f"    {_rule(rule)}" for rule in chain.rules)
    lines.append("  }")
    return "\n".join(lines)


def _hook(chain: Chain) -> str:
    return f"type {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;"


def _rule(rule: Rule) -> str:
    words = [_match(match) for match in rule.matches]
    if rule.verdict.port is None:
        words.append(rule.verdict.kind)
    else:
        words.append(f"{rule.verdict.kind} to :{rule.verdict.port}")
    if rule.reason:
        words.append(f'comment "{rule.reason}"')
    return " ".join(words)


def _match(match: Match) -> str:
    values = [f'"{value}"' if match.key in _QUOTED else value for value in match.values]
    right = values[0] if len(values) == 1 else "{ " + ", ".join(values) + " }"
    return f"{match.key} {'!= ' if match.negate else ''}{right}"
