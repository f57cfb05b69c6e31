"""What one sign-in by a provider is known by, from the way there to the way back."""

import base64
import hashlib
import secrets

import attrs


@attrs.frozen
class Attempt:
    """Secrets of one sign-in, and where its answer goes."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str

    @classmethod
    def begin(cls, redirect_uri: str) -> "Attempt":
        """A new one, that nobody can guess."""
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        return cls(state, nonce, verifier, redirect_uri)

    @property
    def challenge(self) -> str:
        """https://www.rfc-editor.org/rfc/rfc7636#section-4.2"""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
