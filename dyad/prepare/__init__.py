"""From a folder of recordings to the product's dataset: pairs found by name, checked, put on the 30 Hz grid."""
