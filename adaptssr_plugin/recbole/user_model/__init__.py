"""The paper's user model pre-trained and fine-tuned by RecBole's trainer."""
