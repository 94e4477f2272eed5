"""Names of label images: what the name of a structure ends in where a network predicted it."""

MASK_SUFFIX = "_pred"
PROBABILITY_SUFFIX = "_prob"
DISAGREEMENT_SUFFIX = "_disagreement"


def names_prediction(name: str) -> bool:
    """Whether a label of this name is the mask of a prediction; annotations have other names."""
    return name.endswith(MASK_SUFFIX)


def structure_of(name: str) -> str:
    """The name of a label without what predictions add to it."""
    for suffix in (MASK_SUFFIX, PROBABILITY_SUFFIX, DISAGREEMENT_SUFFIX):
        name = name.removesuffix(suffix)
    return name
