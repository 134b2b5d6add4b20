"""Which figures of an asset matter most, and which only say what it was made of."""

import re

from gaip3_pipeline.attributes import ATTRIBUTES

# The main figures of each asset; keys are names of assets or prefixes of them.
HEADLINES = {
    "labels_": ("rows",),
    "input_model_": ("r2", "mae"),
    "input_values_": ("mean",),
    "evaluator_": ("r2",),
    "gender_model": ("accuracy", "roc_auc"),
    "final_dataset": ("files",),
    "curation_report": ("female_recall", "male_accepted", "suspected"),
    "nvae_weights": ("bits_per_dim",),
    "detail_weights": ("power_1", "power_2", "power_3", "diversity"),
    "generator_evaluation": (
        *(f"r2_{a}" for a in ATTRIBUTES),
        "leakage",
        "fd_random_samples",
        "power_1",
        "judge_network_half",
        "judge_regression_half",
    ),
    "critic_weights": ("auc",),
    "judge_weights": ("auc",),
    "reconstruction_judge_weights": ("auc",),
    "aggregate_posterior": ("nats",),
    "retouched_samples": ("judge_logit_after", "reconstruction_judge_auc_after"),
}
# numbers of examples, epochs, steps; ranges and settings
_BOOKKEEPING = re.compile(
    r"n|n_.+|.+_n|epochs?|best_epoch|steps|labels_changed|labelled_sets|learned_from|from_.+|to_.+"
    r"|fd_dimensions|faces|features|grid|images_.+|pairs_.+|threshold|most_evaluations"
    r"|evaluations_per_image"
)


def main_figures(asset: str) -> tuple[str, ...]:
    """The names of an asset's main figures; empty if it has none."""
    return next((figures for key, figures in HEADLINES.items() if asset.startswith(key)), ())


def is_bookkeeping(figure: str) -> bool:
    """Whether ``figure`` says what something was made or measured with, and not how good it is."""
    return bool(_BOOKKEEPING.fullmatch(figure))
