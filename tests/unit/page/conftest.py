"""The browser, for the tests of the page's modules."""

from tests.support.browser import browser

__all__ = ("browser",)
