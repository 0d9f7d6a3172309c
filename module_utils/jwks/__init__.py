"""Public keys of issuers of tokens (JWKS): judged, and fetched where an address is given."""
