"""From a folder of face photographs to a face generator with sliders."""

from gaip3_pipeline.environment import prepare

prepare()
