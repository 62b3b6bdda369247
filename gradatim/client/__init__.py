"""The HTTP client for OpenAI-compatible servers, which teachers and evaluations share.

    messages   what is sent and what comes back
    allowance  rates and budgets
    secret     the key, removed from every text of a server
    exchange   one HTTP exchange, with a total deadline and a size limit
    reading    the body of a response as a reply
    parameters the optional parameters that a server accepts
    endpoint   one attempt at one request
    sending    many requests at a time, and retries

The package ``openai`` (extra ``api``) sends the requests. No reply is stored here.
"""
