"""A page on which a person types words and watches the picture being made.

`painter` draws a request step by step with a text-to-image model, and `asking` has a Flamingo
answer questions about a picture, both without a server. `requests` checks what the page sends,
`server` shows it (`page.html`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
