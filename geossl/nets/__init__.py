"""Networks: encoders for any set of bands, the encoder file with its card, and decoders on top."""
