"""What every request passes, outermost first: request id → security headers → CORS → errors → rate limit
→ authentication → idempotency → validation → transaction → the kept answer.

One file each; `web.app` puts them in order.
"""
