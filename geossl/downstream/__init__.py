"""From labels to maps' models: land cover and change on a pretrained encoder, with the floors they must beat."""
