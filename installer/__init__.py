"""What a bundle carries as install.pyz: it makes a control host of a bare machine, from the bundle alone."""
