"""What every request passes, outermost first: request id → security headers → CORS → errors → authentication
→ validation → transaction.

One file each; `web.app` puts them in order.
"""
