"""Networks in Keras. They run on TensorFlow or JAX."""

from gaip3_pipeline.environment import check

check()  # before a module of this package imports Keras, whose own error names no variable
