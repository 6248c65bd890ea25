"""RecBole's own models with the ``ssl_`` options: settings, the joint loss, training and checkpoints."""
