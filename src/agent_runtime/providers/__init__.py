"""Track accounts at model providers: concurrency, rate, errors, bounded answers."""
