"""Has the imagery moved away from what the encoder has seen, and is that the land or the instrument?"""
