"""The ways to start a RecBole run with the ``ssl_`` options: ``install``, ``run_recbole`` and RecBole's classes."""
