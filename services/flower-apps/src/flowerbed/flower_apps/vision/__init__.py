"""Ten classes of small grey images, learned by sites that hold very different shares of them."""
