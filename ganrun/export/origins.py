"""What is known of the data sets: where they are from, under which licence, and what follows for their use."""

from typing import NamedTuple

from ganrun.config import Config


class Origin(NamedTuple):
    """about: a sentence. licence: as its authors or its distributor state it. people: whether it shows people."""

    about: str
    licence: str
    people: bool = False


SYNTHETIC = "None is needed: the data are random numbers that ganrun draws."
MNIST = "CC BY-SA 3.0, as Keras states it (keras.datasets.mnist)."
UCI = "Stated on the page of these data in the UCI Machine Learning Repository (archive.ics.uci.edu)."
NOT_KNOWN = "Not known to ganrun. Ask whoever made the data, before you pass this file on."

ORIGINS = {
    "ganrun.data.published.mnist": Origin("MNIST: handwritten digits, LeCun, Cortes and Burges 1998.", MNIST),
    "ganrun.data.published.stacked_mnist": Origin(
        "Stacked MNIST: three handwritten digits of MNIST (LeCun, Cortes and Burges 1998) in the color channels.", MNIST
    ),
    "ganrun.data.published.cifar10": Origin(
        "CIFAR-10: photographs of ten kinds of objects and animals, Krizhevsky 2009.",
        "Its author states none; he asks that his technical report of 2009 is cited.",
    ),
    "ganrun.data.digits.digits": Origin(
        "Optical recognition of handwritten digits, Alpaydin and Kaynak 1998, as scikit-learn has them.",
        UCI,
    ),
    "ganrun.data.faces.fer2013": Origin(
        "FER2013: faces that were found by an image search, labeled with expressions; Goodfellow et al. 2013.",
        "No open licence is stated; the data were published for a competition on Kaggle.",
        people=True,
    ),
    "ganrun.data.olivetti.olivetti": Origin(
        "The Olivetti faces: portraits of 40 people, Samaria and Harter 1994, AT&T Laboratories Cambridge.",
        "None is stated. Give credit to AT&T Laboratories Cambridge, as scikit-learn asks.",
        people=True,
    ),
    "ganrun.data.tfd.tfd": Origin(
        "The Toronto Face Database, Susskind, Anderson and Hinton 2010.",
        "Not public: its authors give it to researchers on request.",
        people=True,
    ),
    "ganrun.data.table.breast_cancer": Origin(
        "Breast Cancer Wisconsin (Diagnostic): measurements of tumors, Street, Wolberg and Mangasarian 1993, as "
        "scikit-learn has them.",
        UCI,
    ),
    "ganrun.data.folder.folder": Origin("A folder of images.", NOT_KNOWN),
    "ganrun.data.table.table": Origin("A table.", NOT_KNOWN),
}


def origin_of(config: Config) -> Origin:
    """What is known of the data of a run. Data sets of the user's own are not known."""
    target = str(config["data"].get("_target_"))
    if target in ORIGINS:
        return ORIGINS[target]
    if target.startswith(("ganrun.data.toy.", "ganrun.data.mixture.")):
        return Origin(f"Samples of a known distribution (`{target}`).", SYNTHETIC)
    return Origin(f"Read by `{target}`.", NOT_KNOWN)
