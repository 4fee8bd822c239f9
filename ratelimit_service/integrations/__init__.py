"""The cache and the limiter inside frameworks: ASGI applications (Starlette, FastAPI), Django.

Nothing here imports Starlette; Django is imported by its module alone.
"""
