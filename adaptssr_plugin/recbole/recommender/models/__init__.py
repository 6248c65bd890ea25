"""Models that RecBole lacks. While installed, RecBole's own look-up of models by name also searches this folder."""
