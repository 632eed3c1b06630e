"""From a file that landed to an object that was admitted or set aside with its reason."""
