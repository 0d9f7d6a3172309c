"""Where a model comes from: signatures of the OpenSSF model-signing format, and the bill of materials. No network."""
