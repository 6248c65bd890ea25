"""RecBole's ways to start a run, with the ``ssl_`` options: ``install``, ``run_recbole`` and the classes themselves."""
