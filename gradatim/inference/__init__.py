"""Inference: decoding, log-likelihoods and probes of a trained model."""
