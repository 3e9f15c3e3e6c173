"""Class lists in use, by the hash of their names in id order: which one a set of annotations has."""

from __future__ import annotations

from ingest.annotations.rows import class_list_hash

KNOWN_LISTS = {
    "a8dafb93a1204d4e": "Kinetics-400, sorted",
    "5d9a560f98fcfed0": "Kinetics-600, sorted",
    "a34c9fed41f5f9ed": "Kinetics-700, sorted",
    "ad8b369e6296b0d5": "Kinetics-710, its own order",
    "69f9f8260b86e038": "Mini-Kinetics-200 of AR-Net, sorted",
    "99572d9801aeb998": "Moments in Time v1",
    "d74bcbc11e895f80": "Moments in Time v2",
    "3ec3894f84996395": "UCF101, order of classInd.txt",
    "154ef596b6037121": "HMDB51, sorted",
    "4f0abab23e5f7f25": "Diving48, order of the vocabulary",
    "28d842f1129a9320": "Something-Something V1, order of the labels file",
    "a31a2ad624a558d6": "Something-Something, sorted",
    "a5bed94c3d53b1ba": "ActivityNet 1.3, order of action_name.csv",
    "696d49925655f5ee": "ActivityNet 1.3 and HACS, sorted",
    "865cb01d642e8b21": "THUMOS14 with background and ambiguous",
    "8cd89bfa0d601ca9": "TVSeries with background",
    "cbfc761818f8a3fb": "HDD with background",
    "70ae6a8fd610af0a": "HACS with background, sorted",
    "66dbe36efd0cbcde": "ActivityNet 1.3 with background, order of action_name.csv",
}


def known_list(class_names: list[str]) -> str | None:
    """What this class list is, None when it is none that is known: a subset, another order, another version."""
    return KNOWN_LISTS.get(class_list_hash(class_names))
