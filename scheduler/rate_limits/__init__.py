"""Rate limits: how often somebody may ask, counted in Redis for all web processes together."""
