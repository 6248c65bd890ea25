"""RecBole 1.2.1 on today's libraries: what patches it, configures it and reads its data, for both roads."""
