"""The HTTP client for OpenAI-compatible servers, which teachers and evaluations share.

    messages   requests, replies, rate limits and budgets; parsing of a response body
    exchange   one HTTP exchange with a total deadline and a size limit; removal of the API key from the server's texts
    endpoint   one attempt at one request; concurrent requests with retries

The package ``openai`` (extra ``api``) sends the requests. No reply is stored here.
"""

from __future__ import annotations

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__)
