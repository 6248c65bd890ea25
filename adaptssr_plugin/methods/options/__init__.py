"""The options of pre-training, fine-tuning and RecBole runs: how one is declared, and one file for each group."""
