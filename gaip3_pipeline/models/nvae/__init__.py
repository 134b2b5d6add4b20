"""The generator: a conditional NVAE."""

from gaip3_pipeline.environment import check

check()  # before a module of this package imports Keras, whose own error names no variable
