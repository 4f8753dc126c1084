"""The page: search, attribute and compare uploaded images in a browser, with a JSON API."""
