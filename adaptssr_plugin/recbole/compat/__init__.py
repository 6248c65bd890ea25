"""RecBole 1.2.1 on current libraries: patches, configuration and reading of data, for recommenders and user models."""
