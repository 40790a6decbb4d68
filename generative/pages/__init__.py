"""Local web pages: the server that they share, and the checks of what a page sends.

`server` serves one page to this machine alone; `checks` has checks of single values. A page with
its own numbers is a `PageServer` with some requests: `generative.pages.pictures` draws what words
say, `agents.play` drives a car beside its dream.
"""
