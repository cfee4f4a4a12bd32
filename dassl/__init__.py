"""The engine: configuration, data, optimisation, the training loop, evaluation, results.

It answers to the public names of Dassl.pytorch and knows nothing of CLIP, prompts or any dataset.
"""
