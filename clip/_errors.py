"""Errors about backbones and texts that a user can correct."""

from dassl.utils.errors import UserError, did_you_mean

__all__ = ["CLIPError", "TextError", "did_you_mean"]


class CLIPError(UserError):
    """A backbone or a text cannot be used; the message says why and what to do."""


class TextError(CLIPError):
    """A text or prompt is too long for the text tower."""
