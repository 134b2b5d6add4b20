"""From a folder of face photographs to a face generator with sliders."""
