"""The rules that a SUT has to keep, in plain words, and which of them a result breaks. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kintsugi.harness.records import TrialResult

__all__ = ["EFFECTS", "broken"]

EFFECTS: Mapping[str, str] = {
    "duplicate": "an effect happens at most once",
    "extra": "nothing happens that the workflow does not ask for, and a person's no stands",
    "wrong arguments": "an effect has the arguments that the records and the model gave",
    "out of order": "effects happen in the order of the plan",
    "too early": "nothing is done before its timer or its job is over, and what it rests on was read",
    "stale": "no effect rests on a record that has changed since it was read",
    "unauthorised": "nothing is written without the approval that it needs",
    "missing": "a run that says completed has every effect",
}
"""By what is wrong with an effect, as a reason of the checker begins."""
PAUSED = "nothing is done for a run while an operator has paused it"
UNFLAGGED = "a change that a person has to know of is told before the run says completed"
CORRUPTED: Mapping[str, str] = {
    **{f"{what} effect of": rule for what, rule in EFFECTS.items()},
    "while it was paused": PAUSED,
    "nobody was told": UNFLAGGED,
}
"""By words that a reason for corruption holds."""
ANY_EFFECT = "the effects of a run are those that its workflow asks for"
"""Where a reason has none of these words."""
VERDICTS: Mapping[str, str] = {
    "lost": "every submitted run ends with a report",
    "failed": "a run gets over a fault or stops for a person; it does not end as failed",
    "needless_halt": "nobody is asked for what a program can find out",
}
ASKED_AGAIN = "an approval that is good is not asked for again"
STORM = "a failing tool is called only as often as the suite allows"


def broken(result: TrialResult) -> list[str]:
    """Every rule that a result breaks; none for one that passes, that has no verdict, or that the harness broke."""
    rules = []
    if result.verdict == "corrupted":
        rules.append(next((rule for words, rule in CORRUPTED.items() if words in result.reason), ANY_EFFECT))
    elif result.verdict is not None and result.verdict in VERDICTS:
        rules.append(VERDICTS[result.verdict])
    if result.human.re_asked:
        rules.append(ASKED_AGAIN)
    if result.storm is not None and not result.storm.within_bounds:
        rules.append(STORM)
    return rules
