"""The downstream tasks: profile, cold recommendation and conversion."""
