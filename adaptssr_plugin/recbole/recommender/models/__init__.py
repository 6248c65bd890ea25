"""Models that RecBole lacks. While installed, this folder is searched by RecBole's own look-up of models by name."""
